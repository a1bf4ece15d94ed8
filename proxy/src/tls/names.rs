//! What answers for which name: the certificate of the keyring, and what stands in where there is none.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use schoolgate_config::identity;
use schoolgate_config::model::ChallengeAnswer;
use schoolgate_config::table::{Live, RoutingTable};
use schoolgate_config::time::Clock;
use tracing::error;

use super::stand_in::{Purpose, StandInError, StandIns};
use super::{Certificates, Keyring};

/// Finds what answers for a name: in the keyring; where it has none, as the table says.
pub struct Names<L: Live> {
    keyring: Arc<Keyring>,
    table: Arc<ArcSwap<RoutingTable<L>>>,
    stand_ins: StandIns,
    clock: Arc<dyn Clock>,
}

impl<L: Live> std::fmt::Debug for Names<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Names({:?})", self.keyring)
    }
}

/// There are no random numbers for a key.
#[derive(Debug, thiserror::Error)]
#[error("no key can be made for names that wait for a certificate")]
pub struct NamesError(#[source] StandInError);

impl<L: Live> Names<L> {
    /// Of this keyring, and the names of this table.
    ///
    /// # Errors
    /// [`NamesError`] when the system has no random numbers.
    pub fn new(
        keyring: Arc<Keyring>,
        table: Arc<ArcSwap<RoutingTable<L>>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NamesError> {
        Ok(Self { keyring, table, stand_ins: StandIns::new().map_err(NamesError)?, clock })
    }

    fn made(&self, name: &str, purpose: Purpose, now: i64) -> Option<Arc<CertifiedKey>> {
        self.stand_ins
            .of(name, purpose, now)
            .inspect_err(|error| error!("no certificate can stand in for {name}: {error}"))
            .ok()
    }
}

impl<L: Live> Certificates for Names<L> {
    fn resolve(&self, sni: &str) -> Option<Arc<CertifiedKey>> {
        self.keyring.resolve(sni)
    }

    fn holder(&self, sni: &str) -> u128 {
        identity::tenant_of(&self.table.load(), sni).map_or(0, |(entry, _)| entry.tenant.id.bits())
    }

    fn stand_in(&self, sni: &str) -> Option<Arc<CertifiedKey>> {
        let known = {
            let table = self.table.load();
            identity::is_known(&table, sni) || table.challenge(sni).is_some()
        };
        if known { self.made(sni, Purpose::Waiting, self.clock.unix_s()) } else { None }
    }

    fn challenge(&self, sni: &str) -> Option<Arc<CertifiedKey>> {
        let now = self.clock.unix_s();
        let challenge = self.table.load().challenge(sni).cloned()?;
        match challenge.answer {
            ChallengeAnswer::TlsAlpn01 { digest } if now < challenge.expires_at => {
                self.made(sni, Purpose::Challenge(digest), now)
            }
            ChallengeAnswer::TlsAlpn01 { .. } | ChallengeAnswer::Http01 { .. } => None,
        }
    }
}
