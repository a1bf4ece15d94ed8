//! Asks CAs when certificates are to be renewed (RFC 9773).

use futures_util::future::join_all;
use ring::rand::{SecureRandom, SystemRandom};
use schoolgate_config::model::Certificate;
use schoolgate_store::acme::QueueEntry;
use schoolgate_store::{Lease, StoreError};
use tracing::{debug, warn};

use super::{Orders, Stop};
use crate::directory::{Suggestion, certificate_id};
use crate::renewal::{Life, ask_at, choose, renew_at};

/// Certificates asked about at a time: 16. A hundred thousand, four times a day, are five a second.
const ASKED: u32 = 16;

/// A CA that does not answer is asked again after this: 1 h.
const AGAIN_MS: i64 = 3_600_000;

impl Orders {
    /// Asks about what is due. Says how many it asked about.
    pub(super) async fn ask_about_renewals(&self, lease: &Lease) -> Result<usize, StoreError> {
        let due = self.store().acme_renewals_to_ask(self.now_ms(), ASKED).await?;
        for result in join_all(due.iter().map(|entry| self.ask_about(lease, entry))).await {
            result?;
        }
        Ok(due.len())
    }

    async fn ask_about(&self, lease: &Lease, entry: &QueueEntry) -> Result<(), StoreError> {
        let name = entry.want.name.as_str();
        let now_ms = self.now_ms();
        let certificate = match &entry.want.fingerprint {
            Some(fingerprint) => self.store().get::<Certificate>(fingerprint).await?,
            None => None,
        };
        let authority = entry.ca.as_ref().and_then(|ca| self.authority(ca));
        let (Some(certificate), Some(authority)) = (certificate, authority) else {
            // Another CA's, or one that is no longer asked: renewed by its age alone.
            return self.keep_asking(lease, entry, None, now_ms + 24 * AGAIN_MS, entry.want.next_attempt_ms).await;
        };
        let about = &certificate.value.about;
        let life = Life { from_ms: about.not_before * 1_000, to_ms: about.not_after * 1_000 };
        let id = certificate.value.chain.first().and_then(|leaf| certificate_id(leaf));
        let asked = match (&id, self.account(lease, authority).await) {
            (Some(id), Ok(account)) => account.renewal(id).await,
            (None, _) => Ok(None),
            (_, Err(Stop::Store(error))) => return Err(error),
            (_, Err(Stop::Ca(error, _))) => Err(error),
        };
        let suggestion = match asked {
            Ok(suggestion) => suggestion,
            Err(error) => {
                debug!(certificate.name = %name, "{} does not say when to renew {name}: {error}", authority.id);
                let renew = renew_at(name, life, entry.renewal.as_ref());
                return self.keep_asking(lease, entry, None, now_ms + AGAIN_MS, renew).await;
            }
        };
        let window = suggestion.as_ref().map(|s| choose(entry.renewal.as_ref(), s, chance()));
        if let Some(window) = window.as_ref().filter(|window| window.end_ms < now_ms) {
            let page = window.explanation.as_deref().unwrap_or("no reason given");
            warn!(certificate.name = %name, "{} wants the certificate of {name} replaced now: {page}", authority.id);
        }
        let renew = renew_at(name, life, window.as_ref());
        let ask = ask_at(now_ms, name, suggestion.as_ref());
        self.keep_asking(lease, entry, suggestion.as_ref().zip(window.as_ref()), ask, renew).await
    }

    async fn keep_asking(
        &self,
        lease: &Lease,
        entry: &QueueEntry,
        said: Option<(&Suggestion, &schoolgate_store::acme::RenewalWindow)>,
        ask_ms: i64,
        renew_ms: i64,
    ) -> Result<(), StoreError> {
        let window = said.map(|(_, window)| window).or(entry.renewal.as_ref());
        let mut transaction = self.begin_under(lease).await?;
        transaction.save_renewal(&entry.want.name, window, ask_ms, renew_ms).await?;
        transaction.finish().await
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).expect("the system's random numbers are there");
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
