//! Our account at each CA: made once, its credentials sealed in the store, its thumbprint known to every proxy.

use schoolgate_config::model::{AcmeAccount, CaId};
use schoolgate_store::acme::AcmeCredentials;
use schoolgate_store::{Lease, ListQuery, StoreError, Transaction};
use serde_json::json;
use tracing::{info, warn};

use super::{Authority, Orders, Stop};
use crate::directory::{Account, CaError, Registered};
use crate::failure::During;

impl Orders {
    /// Makes the accounts that are missing. One that cannot be made is told of; it is tried again with the first order.
    pub(super) async fn prepare(&self, lease: &Lease) {
        for authority in &self.inner.authorities {
            match self.account(lease, authority).await {
                Ok(_) | Err(Stop::Store(StoreError::LeaseLost { .. })) => {}
                Err(Stop::Store(error)) => warn!(%error, "the account at {} is not prepared: {error}", authority.id),
                Err(Stop::Ca(error, _)) => {
                    warn!(acme.ca = %authority.id, %error, "there is no account at {} yet: {error}", authority.id);
                }
            }
        }
    }

    /// Our account at a CA, made if there is none.
    pub(super) async fn account(&self, lease: &Lease, authority: &Authority) -> Result<Account, Stop> {
        // Held while it is made: two orders at once make one account.
        let mut accounts = self.inner.accounts.lock().await;
        if let Some(account) = accounts.get(&authority.id) {
            return Ok(account.clone());
        }
        let refused = |error: CaError| Stop::Ca(error, During::Registering);
        let account = match self.kept(authority).await? {
            Some(secret) => authority.directory.restore(&secret).await.map_err(refused)?,
            None => {
                let made = authority.directory.register(&authority.contact, authority.binding.as_ref());
                let made = made.await.map_err(refused)?;
                info!(acme.ca = %authority.id, "made the account {} at {}", made.url, authority.id);
                self.keep(lease, authority, &made).await?;
                made.account
            }
        };
        self.tell_proxies(lease, authority, account.thumbprint()).await?;
        accounts.insert(authority.id.clone(), account.clone());
        Ok(account)
    }

    /// Makes the account anew with its old key, for a CA that says it does not know it.
    pub(super) async fn account_again(&self, lease: &Lease, authority: &Authority) -> Result<(), Stop> {
        let mut accounts = self.inner.accounts.lock().await;
        accounts.remove(&authority.id);
        let refused = |error: CaError| Stop::Ca(error, During::Registering);
        let made = match self.kept(authority).await? {
            // A CA that wants an external binding takes it with a fresh key only, as far as our library goes.
            Some(secret) if authority.binding.is_none() => authority.directory.register_again(&secret).await,
            _ => authority.directory.register(&authority.contact, authority.binding.as_ref()).await,
        };
        let made = made.map_err(refused)?;
        warn!(acme.ca = %authority.id, "{} had forgotten our account; it is {} now", authority.id, made.url);
        self.keep(lease, authority, &made).await?;
        self.tell_proxies(lease, authority, made.account.thumbprint()).await?;
        accounts.insert(authority.id.clone(), made.account);
        Ok(())
    }

    /// What was kept of the account at this very directory.
    async fn kept(&self, authority: &Authority) -> Result<Option<zeroize::Zeroizing<String>>, Stop> {
        let all = self.store().acme_credentials().await?;
        let of_it = |kept: &AcmeCredentials| kept.ca == authority.id && kept.directory == authority.directory.url();
        let Some(kept) = all.into_iter().find(of_it) else { return Ok(None) };
        let keeper = &self.inner.world.keeper;
        let opened = keeper.open_key(AcmeCredentials::KEY_PURPOSE, kept.ca.as_str(), &kept.sealed);
        let opened = opened.map_err(|e| Stop::Ca(CaError::Protocol(e.to_string()), During::Registering))?;
        let text = String::from_utf8(opened.to_vec()).map_err(|_| {
            Stop::Ca(CaError::Protocol("our own account's credentials are damaged".to_owned()), During::Registering)
        })?;
        Ok(Some(zeroize::Zeroizing::new(text)))
    }

    async fn keep(&self, lease: &Lease, authority: &Authority, made: &Registered) -> Result<(), StoreError> {
        let ca = authority.id.clone();
        let sealed = self.inner.world.keeper.seal(AcmeCredentials::KEY_PURPOSE, ca.as_str(), made.secret.as_bytes());
        let credentials = AcmeCredentials {
            ca,
            directory: authority.directory.url().to_owned(),
            url: made.url.clone(),
            thumbprint: made.account.thumbprint().to_owned(),
            sealed,
            created_at_ms: self.now_ms(),
        };
        let mut transaction = self.begin_under(lease).await?;
        transaction.save_acme_credentials(&credentials).await?;
        transaction.finish().await
    }

    /// Sees to it that proxies answer for this account; the first CA's is the one that answers by default.
    async fn tell_proxies(&self, lease: &Lease, authority: &Authority, thumbprint: &str) -> Result<(), Stop> {
        let primary = self.inner.authorities.first().is_some_and(|first| first.id == authority.id);
        let damaged = |_| Stop::Ca(CaError::Protocol("its thumbprint is none".to_owned()), During::Registering);
        let thumbprint = thumbprint.parse().map_err(damaged)?;
        let wanted = AcmeAccount { ca: authority.id.clone(), thumbprint, primary };
        if self.store().head().table.acme_account(&wanted.ca).is_some_and(|known| **known == wanted) {
            return Ok(());
        }
        let mut transaction = self.begin_under(lease).await?;
        if primary {
            step_down_others(&mut transaction, &wanted.ca).await?;
        }
        match transaction.get::<AcmeAccount>(&wanted.ca).await? {
            Some(_) => transaction.update(wanted, None).await?,
            None => transaction.insert(wanted).await?,
        };
        let object = format!("acme account {}", authority.id);
        transaction.commit("acme.account", &object, json!({ "primary": primary })).await?;
        Ok(())
    }
}

/// The account that answered by default before the settings named another CA.
async fn step_down_others(transaction: &mut Transaction, ca: &CaId) -> Result<(), StoreError> {
    let all = transaction.list::<AcmeAccount>(&ListQuery::default()).await?;
    for other in all.items.into_iter().filter(|other| other.value.primary && other.value.ca != *ca) {
        transaction.update(AcmeAccount { primary: false, ..other.value }, None).await?;
    }
    Ok(())
}
