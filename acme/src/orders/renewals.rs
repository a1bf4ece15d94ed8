//! Asks CAs when certificates are to be renewed (RFC 9773).

use futures_util::future::join_all;
use ring::rand::{SecureRandom, SystemRandom};
use schoolgate_config::model::Certificate;
use schoolgate_store::acme::{QueueEntry, RenewalWindow};
use schoolgate_store::{Lease, StoreError};
use tracing::{debug, warn};

use super::{Orders, Stop};
use crate::directory::{Renewal, certificate_id};
use crate::renewal::{Life, ask_at, choose, renew_at};

/// Certificates asked about at a time: 16. A hundred thousand, four times a day, are five a second.
const ASKED: u32 = 16;

/// A CA that does not answer is asked again after this: 1 h.
const AGAIN_MS: i64 = 3_600_000;

/// What is to be kept of what a CA said.
struct Kept<'a> {
    name: &'a str,
    window: Option<RenewalWindow>,
    ask_ms: i64,
    renew_ms: i64,
}

impl Orders {
    /// Asks about what is due. Says how many it asked about.
    pub(super) async fn ask_about_renewals(&self, lease: &Lease) -> Result<usize, StoreError> {
        let due = self.store().acme_renewals_to_ask(self.now_ms(), ASKED).await?;
        if due.is_empty() {
            return Ok(0);
        }
        let asked = join_all(due.iter().map(|entry| self.ask_about(lease, entry))).await;
        let asked: Vec<Kept<'_>> = asked.into_iter().collect::<Result<_, _>>()?;
        // In one transaction: a hundred thousand certificates are asked about four times a day.
        let mut transaction = self.begin_under(lease).await?;
        for Kept { name, window, ask_ms, renew_ms } in &asked {
            transaction.save_renewal(name, window.as_ref(), *ask_ms, *renew_ms).await?;
        }
        transaction.finish().await?;
        Ok(due.len())
    }

    async fn ask_about<'a>(&self, lease: &Lease, entry: &'a QueueEntry) -> Result<Kept<'a>, StoreError> {
        let name = entry.want.name.as_str();
        let now_ms = self.now_ms();
        let known = entry.renewal.clone();
        let certificate = match &entry.want.fingerprint {
            Some(fingerprint) => self.store().get::<Certificate>(fingerprint).await?,
            None => None,
        };
        let authority = entry.ca.as_ref().and_then(|ca| self.authority(ca));
        let (Some(certificate), Some(authority)) = (certificate, authority) else {
            // Another CA's, or one that is no longer asked: renewed by its age alone.
            let ask_ms = now_ms + 24 * AGAIN_MS;
            return Ok(Kept { name, window: known, ask_ms, renew_ms: entry.want.next_attempt_ms });
        };
        let about = &certificate.value.about;
        let life = Life { from_ms: about.not_before * 1_000, to_ms: about.not_after * 1_000 };
        let id = certificate.value.chain.first().and_then(|leaf| certificate_id(leaf));
        let asked = match (&id, self.account(lease, authority).await) {
            (Some(id), Ok(account)) => account.renewal(id).await,
            (None, _) => Ok(Renewal::Nothing),
            (_, Err(Stop::Store(error))) => return Err(error),
            (_, Err(Stop::Ca(error, _))) => Err(error),
        };
        let said = match asked {
            Ok(said) => said,
            Err(error) => {
                debug!(certificate.name = %name, "{} does not say when to renew {name}: {error}", authority.id);
                let renew_ms = renew_at(name, life, known.as_ref());
                return Ok(Kept { name, window: known, ask_ms: now_ms + AGAIN_MS, renew_ms });
            }
        };
        let window = said.suggestion().map(|s| choose(known.as_ref(), s, chance()));
        if let Some(window) = window.as_ref().filter(|window| window.end_ms < now_ms) {
            let page = window.explanation.as_deref().unwrap_or("no reason given");
            warn!(certificate.name = %name, "{} wants the certificate of {name} replaced now: {page}", authority.id);
        }
        let renew_ms = renew_at(name, life, window.as_ref());
        Ok(Kept { name, window: window.or(known), ask_ms: ask_at(now_ms, name, &said), renew_ms })
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).expect("the system's random numbers are there");
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
