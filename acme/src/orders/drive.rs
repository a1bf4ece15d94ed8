//! One order, from where it is as far as it goes without waiting.

use std::time::Duration;

use schoolgate_config::model::{
    AcmeAccount, CaId, Certificate, CertificateRef, Challenge, ChallengeAnswer, Der, Domain, DomainName, Fingerprint,
    Zone,
};
use schoolgate_store::acme::{AcmeOrder, OrderStep, Proof};
use schoolgate_store::{Lease, StoreError, Transaction};
use serde_json::json;
use tracing::debug;

use super::{Authority, Orders, Stop};
use crate::chain;
use crate::directory::{Account, CaError, Method01, Offer, PlacedOrder};
use crate::failure::{During, Remedy, classify};
use crate::fleet::Adopted;
use crate::key::LeafKey;
use crate::order::{Next, needs_authorization, next};
use crate::readiness::Readiness;

/// An order that is not done after this is given up, and begun anew: 6 h.
const ORDER_WITHIN_MS: i64 = 6 * 3_600_000;

/// Steps in one go: more than any order has, so that a CA that goes in circles does not hold us.
const STEPS: usize = 12;

/// A look at the proxies, or at a CA at work.
const SOON_MS: i64 = 1_000;

/// What is published for a CA is taken away after this even if nobody does: 24 h.
const PUBLISHED_FOR_MS: i64 = 24 * 3_600_000;

impl Orders {
    /// Goes on with an order. What the CA refuses is settled here; what the store refuses is the caller's.
    pub(super) async fn drive(&self, lease: &Lease, mut order: AcmeOrder) -> Result<(), StoreError> {
        let stop = match self.advance(lease, &mut order).await {
            Ok(()) => return Ok(()),
            Err(stop) => stop,
        };
        match stop {
            Stop::Store(error) => Err(error),
            Stop::Ca(error, during) => {
                debug!(certificate.name = %order.name, "{}: {error} while {during:?}", order.name);
                self.settle(lease, order, &error, during).await
            }
        }
    }

    async fn advance(&self, lease: &Lease, order: &mut AcmeOrder) -> Result<(), Stop> {
        let Some(authority) = self.authority(&order.ca) else {
            return self.abandon(lease, order, "its CA is no longer in the settings").await;
        };
        if self.store().certificate_want(&order.name).await?.is_none() {
            return self.abandon(lease, order, "the name is no longer wanted").await;
        }
        if self.now_ms() - order.begun_at_ms > ORDER_WITHIN_MS {
            return self.abandon(lease, order, "it took too long").await;
        }
        let Readiness::Ready(method, txt) = self.inner.world.preflight.check(&order.name, &order.ca).await else {
            return self.abandon(lease, order, "the name is no longer ready").await;
        };
        let account = self.account(lease, authority).await?;
        let mut placed = match &order.url {
            Some(url) => account.order(url).await.map_err(|e| Stop::Ca(e, During::Finishing))?,
            None => self.place(lease, order, &account).await?,
        };
        for _ in 0..STEPS {
            let proving = |error| Stop::Ca(error, During::Proving);
            let state = placed.state();
            let authorization = match needs_authorization(state.0) {
                true => Some(placed.authorization().await.map_err(proving)?),
                false => None,
            };
            match next(order, method, state, authorization.as_ref()) {
                Next::Publish(offer) => self.publish(lease, order, authority, (&offer, txt.as_deref())).await?,
                Next::Tell(method) => {
                    if let Some(waits) = self.not_adopted(order).await? {
                        return self.park(lease, order, SOON_MS, Some(waits)).await;
                    }
                    // Before the CA hears: it looks at once, and whoever goes on must know that it may have.
                    order.step = OrderStep::Validating;
                    self.save(lease, order).await?;
                    placed.tell(method).await.map_err(proving)?;
                    placed.refresh().await.map_err(proving)?;
                    if self.is_still_looking(&mut placed, method).await.map_err(proving)? {
                        return self.park(lease, order, SOON_MS, None).await;
                    }
                }
                Next::Look => {
                    let wait = placed.refresh().await.map_err(|e| Stop::Ca(e, During::Finishing))?;
                    if next_is_look(order, method, &mut placed).await.map_err(proving)? {
                        return self.park(lease, order, self.patience(order, wait), None).await;
                    }
                }
                Next::Finalize => {
                    order.step = OrderStep::Finalizing;
                    self.save(lease, order).await?;
                    placed.finalize(&order.csr).await.map_err(|e| Stop::Ca(e, During::Finishing))?;
                }
                Next::Download => {
                    let chain = placed.certificate().await.map_err(|e| Stop::Ca(e, During::Finishing))?;
                    return self.take(lease, order, &chain).await;
                }
                Next::Fail(error) => return Err(proving(error)),
            }
        }
        self.park(lease, order, SOON_MS, Some("it goes in circles".to_owned())).await
    }

    /// Places the order; what a CA does not like beside the name is left out and told of.
    async fn place(&self, lease: &Lease, order: &mut AcmeOrder, account: &Account) -> Result<PlacedOrder, Stop> {
        loop {
            let placed = account.place(&order.name, order.profile.as_deref(), order.replaces.as_deref()).await;
            let error = match placed {
                Ok(placed) => {
                    // Kept before anything else: without it a crash leaves an order at the CA that nobody finishes.
                    order.url = Some(placed.url().to_owned());
                    order.step = OrderStep::Placed;
                    self.save(lease, order).await?;
                    return Ok(placed);
                }
                Err(error) => error,
            };
            match classify(&error, During::Placing, self.now_ms()).remedy {
                Remedy::Replacement if order.replaces.take().is_some() => {
                    tracing::info!(
                        certificate.name = %order.name,
                        "{} does not take the order for {} as a replacement: {error}; ordered without", order.ca, order.name
                    );
                }
                Remedy::Profile if order.profile.take().is_some() => {
                    tracing::warn!(
                        acme.ca = %order.ca,
                        "{} does not have the profile of the settings: {error}; ordered without", order.ca
                    );
                }
                _ => return Err(Stop::Ca(error, During::Placing)),
            }
            self.save(lease, order).await?;
        }
    }

    /// Lets proxies or DNS show what the CA wants to see.
    async fn publish(
        &self,
        lease: &Lease,
        order: &mut AcmeOrder,
        authority: &Authority,
        (offer, txt): (&Offer, Option<&str>),
    ) -> Result<(), Stop> {
        order.step = OrderStep::Published;
        order.next_ms = self.now_ms();
        let is_first = self.inner.authorities.first().is_some_and(|first| first.id == authority.id);
        if offer.method == Method01::Http && is_first {
            // Proxies answer for the first CA's account by themselves; they must know the name, and the account. Kept with
            // the next step: whoever goes on without it comes here again.
            order.proof = Some(Proof::Http01);
            order.change = Some(self.known_since(&order.name, &authority.id).await?);
            return Ok(());
        }
        let until_ms = self.now_ms() + PUBLISHED_FOR_MS;
        let mut transaction = self.begin_under(lease).await?;
        let answer = match offer.method {
            Method01::Http => {
                order.proof = Some(Proof::Http01);
                Some(ChallengeAnswer::Http01 { ca: authority.id.clone() })
            }
            Method01::TlsAlpn => {
                order.proof = Some(Proof::TlsAlpn01);
                Some(ChallengeAnswer::TlsAlpn01 { digest: offer.digest })
            }
            Method01::Dns => {
                let name = txt.map_or_else(|| format!("_acme-challenge.{}", order.name), str::to_owned);
                transaction.publish_txt(&name, &offer.dns_value, until_ms).await?;
                order.proof = Some(Proof::Dns01 { name, value: offer.dns_value.clone() });
                order.change = None;
                None
            }
        };
        let Some(answer) = answer else {
            transaction.save_acme_order(order).await?;
            return Ok(transaction.finish().await?);
        };
        let unfit =
            |e: schoolgate_config::model::DomainNameError| Stop::Ca(CaError::Protocol(e.to_string()), During::Proving);
        let name = DomainName::parse(&order.name).map_err(unfit)?;
        let challenge = Challenge { name: name.clone(), answer, expires_at: until_ms / 1_000 };
        match transaction.get::<Challenge>(&name).await? {
            Some(_) => transaction.update(challenge, None).await?,
            None => transaction.insert(challenge).await?,
        };
        order.change = Some(transaction.number());
        transaction.save_acme_order(order).await?;
        let object = format!("challenge {name}");
        transaction.commit("certificate.challenge", &object, json!({ "ca": authority.id })).await?;
        Ok(())
    }

    /// The change after which proxies know a name and our account. Not the last change of all: one that concerns no
    /// proxy is never published.
    async fn known_since(&self, name: &str, ca: &CaId) -> Result<u64, StoreError> {
        let account = self.store().get::<AcmeAccount>(ca).await?.map_or(0, |account| account.version);
        let (Ok(exact), Some((_, zone))) = (DomainName::parse(name), name.split_once('.')) else { return Ok(account) };
        let domain = self.store().get::<Domain>(&exact).await?.map_or(0, |domain| domain.version);
        let zone = match DomainName::parse(zone) {
            Ok(zone) => self.store().get::<Zone>(&zone).await?.map_or(0, |zone| zone.version),
            Err(_) => 0,
        };
        Ok(account.max(domain).max(zone))
    }

    /// Who cannot answer the CA yet.
    async fn not_adopted(&self, order: &AcmeOrder) -> Result<Option<String>, StoreError> {
        let Some(change) = order.change else { return Ok(None) };
        Ok(match self.inner.world.fleet.serves(change).await? {
            Adopted::Everywhere => None,
            Adopted::NotYet(why) => Some(why),
        })
    }

    async fn is_still_looking(&self, placed: &mut PlacedOrder, method: Method01) -> Result<bool, CaError> {
        use crate::directory::{OrderState, ProofState};
        if placed.state().0 != OrderState::Pending {
            return Ok(false);
        }
        let authorization = placed.authorization().await?;
        let offer = authorization.offers.iter().find(|offer| offer.method == method);
        Ok(authorization.state == ProofState::Pending && offer.is_none_or(|offer| offer.state != ProofState::Invalid))
    }

    /// The certificate is there: checks it, and takes it into service.
    async fn take(&self, lease: &Lease, order: &AcmeOrder, pem: &str) -> Result<(), Stop> {
        let wrong = |why: String| Stop::Ca(CaError::Protocol(why), During::Finishing);
        let keeper = &self.inner.world.keeper;
        // As it is kept: a rotation may have wrapped it anew while the CA was at work.
        let kept = self.store().acme_order(&order.name).await?.filter(|kept| kept.id == order.id);
        let sealed = kept.map_or_else(|| order.key.clone(), |kept| kept.key);
        let pkcs8 = keeper.open_key(AcmeOrder::KEY_PURPOSE, &order.id, &sealed).map_err(|e| wrong(e.to_string()))?;
        let key = LeafKey::from_pkcs8(&pkcs8).ok_or_else(|| wrong("the key of the order is damaged".to_owned()))?;
        let now_s = self.inner.world.clock.unix_s();
        let issued = chain::verify(pem, &order.name, &key, now_s).map_err(|e| wrong(e.to_string()))?;
        let fingerprint = Fingerprint::of(&issued.chain[0]);
        let certificate = Certificate {
            about: CertificateRef {
                fingerprint,
                names: vec![order.name.clone()],
                not_before: issued.not_before,
                not_after: issued.not_after,
                issuer: "acme".to_owned(),
            },
            chain: issued.chain.into_iter().map(Der::from).collect(),
            key: keeper.seal(Certificate::KEY_PURPOSE, &fingerprint.to_string(), &pkcs8),
        };
        self.activate(lease, order, certificate).await?;
        Ok(())
    }

    pub(super) async fn save(&self, lease: &Lease, order: &AcmeOrder) -> Result<(), StoreError> {
        let mut transaction = self.begin_under(lease).await?;
        transaction.save_acme_order(order).await?;
        transaction.finish().await
    }

    async fn park(&self, lease: &Lease, order: &mut AcmeOrder, wait_ms: i64, note: Option<String>) -> Result<(), Stop> {
        order.next_ms = self.now_ms() + wait_ms;
        order.note = note;
        Ok(self.save(lease, order).await?)
    }

    /// How long to leave a CA at work alone: what it says, else longer the longer it takes.
    fn patience(&self, order: &AcmeOrder, said: Option<Duration>) -> i64 {
        let said = said.and_then(|wait| i64::try_from(wait.as_millis()).ok());
        let age = self.now_ms() - order.begun_at_ms;
        said.unwrap_or(age / 10).clamp(SOON_MS, 300_000)
    }
}

async fn next_is_look(order: &AcmeOrder, method: Method01, placed: &mut PlacedOrder) -> Result<bool, CaError> {
    let state = placed.state();
    let authorization = if needs_authorization(state.0) { Some(placed.authorization().await?) } else { None };
    Ok(next(order, method, state, authorization.as_ref()) == Next::Look)
}

/// Takes away what was published for the CA. Says whether an object was removed, so that the transaction is a change.
pub(super) async fn withdraw(transaction: &mut Transaction, order: &AcmeOrder) -> Result<bool, StoreError> {
    if let Some(Proof::Dns01 { name, value }) = &order.proof {
        transaction.withdraw_txt(name, value).await?;
    }
    let Ok(name) = DomainName::parse(&order.name) else { return Ok(false) };
    if transaction.get::<Challenge>(&name).await?.is_none() {
        return Ok(false);
    }
    transaction.delete::<Challenge>(&name, None).await?;
    Ok(true)
}
