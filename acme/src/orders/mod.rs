//! The reconciler of certificates from an ACME CA: resumes open orders, begins new ones as budgets allow, asks when to
//! renew. Runs in one process at a time, under a lease; everything it knows is in the store, so another can go on.

mod account;
mod begin;
mod drive;
mod outcome;
mod renewals;
mod revocations;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use futures_util::future::join_all;
use schoolgate_config::model::{CaId, DomainName, TenantId};
use schoolgate_config::seal::Keeper;
use schoolgate_config::settings::AcmeLimits;
use schoolgate_config::time::Clock;
use schoolgate_store::{Actor, Lease, Store, StoreError, Transaction};
use tokio::sync::{Mutex, Notify};
use tracing::error;

use crate::directory::{Account, Binding, CaError, Directory};
use crate::failure::During;
use crate::fleet::Fleet;
use crate::readiness::Preflight;

/// Orders at work at the same time: 8. Each is a few requests over some seconds; CAs take 20 new nonces a second.
const AT_ONCE: usize = 8;

/// It looks at least this often, should the clock be set or a wake be lost.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Shortest wait when what is due cannot be done.
const PAUSE: Duration = Duration::from_secs(1);

/// A CA that is asked for certificates.
#[derive(Debug, Clone)]
pub struct Authority {
    /// What it is called.
    pub id: CaId,
    /// Where it is.
    pub directory: Directory,
    /// `mailto:` addresses given to it.
    pub contact: Vec<String>,
    /// What binds our account to one that the operator has there.
    pub binding: Option<Binding>,
    /// The profile that is asked for.
    pub profile: Option<String>,
    /// Its limits.
    pub limits: AcmeLimits,
}

/// What it needs of the world.
pub struct World {
    /// The store.
    pub store: Store,
    /// Opens and seals keys.
    pub keeper: Arc<Keeper>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The proxies.
    pub fleet: Arc<dyn Fleet>,
    /// Looks at a name before it is ordered.
    pub preflight: Arc<dyn Preflight>,
}

/// Orders certificates. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Orders {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    /// The first is asked; the second when the first has been away for long.
    authorities: Vec<Authority>,
    accounts: Mutex<HashMap<CaId, Account>>,
    /// Told when names were left to us; that is no commit that wakes by itself.
    assigned: Arc<Notify>,
    /// When a revocation that could not be told is tried again.
    revoke_again_ms: AtomicI64,
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders").field("authorities", &self.inner.authorities.len()).finish_non_exhaustive()
    }
}

/// What one look did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Orders that went on.
    pub driven: usize,
    /// Orders that were begun.
    pub begun: usize,
    /// Names that were put off.
    pub put_off: usize,
    /// Certificates whose renewal was asked about, or that a CA was told to revoke.
    pub asked: usize,
    /// What is due cannot be done before this, milliseconds since 1970: a limit of the whole account, or a CA that is
    /// left alone.
    pub rest_until_ms: Option<i64>,
}

impl Outcome {
    fn rest(&mut self, until_ms: i64) {
        self.rest_until_ms = Some(self.rest_until_ms.map_or(until_ms, |rest| rest.min(until_ms)));
    }

    /// Whether anything was done, so that there may be more to do.
    pub const fn is_idle(&self) -> bool {
        self.driven + self.begun + self.put_off + self.asked == 0
    }
}

/// Why an order did not go on.
enum Stop {
    /// The store, or the lease: nothing more may be done.
    Store(StoreError),
    /// The CA.
    Ca(CaError, During),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Orders {
    /// Orders at these CAs, the first before the second.
    pub fn new(world: World, authorities: Vec<Authority>) -> Self {
        let inner = Inner {
            world,
            authorities,
            accounts: Mutex::default(),
            assigned: Arc::default(),
            revoke_again_ms: AtomicI64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What to tell when names were left to this worker.
    pub fn assigned(&self) -> Arc<Notify> {
        Arc::clone(&self.inner.assigned)
    }

    /// Works under a lease until dropped.
    pub async fn run(self, lease: Lease) {
        let mut committed = self.store().committed();
        // Now, and not during the first outage.
        self.prepare(&lease).await;
        loop {
            // Seen before the look: a commit during it causes another one.
            committed.mark_unchanged();
            let wait = match self.step(&lease).await {
                Ok(outcome) if !outcome.is_idle() => continue,
                Ok(outcome) => self.until_next(outcome).await,
                Err(StoreError::LeaseLost { .. }) => return,
                Err(error) => {
                    error!(%error, "certificates cannot be ordered without the store: {error}");
                    PAUSE
                }
            };
            tokio::select! {
                changed = committed.changed() => if changed.is_err() {
                    // The store is closed: there is nothing to work on.
                    return;
                },
                () = self.inner.assigned.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Does what is due now, as much of it as may be done at once.
    ///
    /// # Errors
    /// What the store said; [`StoreError::LeaseLost`] when another process has taken over. Nothing is lost: open orders
    /// go on where they were.
    pub async fn step(&self, lease: &Lease) -> Result<Outcome, StoreError> {
        let due = self.store().acme_orders_due(self.now_ms(), u32::try_from(AT_ONCE).unwrap_or(u32::MAX)).await?;
        let mut outcome = Outcome { driven: due.len(), ..Outcome::default() };
        for result in join_all(due.into_iter().map(|order| self.drive(lease, order))).await {
            result?;
        }
        self.begin(lease, &mut outcome).await?;
        outcome.asked = self.ask_about_renewals(lease).await?;
        outcome.asked += self.tell_revocations(lease).await?;
        Ok(outcome)
    }

    async fn until_next(&self, outcome: Outcome) -> Duration {
        let next = self.store().next_acme_due().await.ok().flatten();
        let now = self.now_ms();
        let next = match (next, outcome.rest_until_ms) {
            (Some(next), Some(rest)) if next <= now => Some(rest),
            (next, _) => next,
        };
        let wait = next.map_or(LOOK_EVERY, |at| Duration::from_millis(u64::try_from(at - now).unwrap_or(0)));
        let least = if next.is_some_and(|at| at <= now) { PAUSE } else { Duration::from_millis(10) };
        wait.clamp(least, LOOK_EVERY)
    }

    fn store(&self) -> &Store {
        &self.inner.world.store
    }

    fn now_ms(&self) -> i64 {
        self.inner.world.clock.unix_ms()
    }

    fn authority(&self, ca: &CaId) -> Option<&Authority> {
        self.inner.authorities.iter().find(|authority| authority.id == *ca)
    }

    async fn begin_under(&self, lease: &Lease) -> Result<Transaction, StoreError> {
        self.store().begin_under(lease, Actor::system("certificates")).await
    }

    /// Whose a name is.
    fn tenant_of(&self, name: &str) -> Option<TenantId> {
        let head = self.store().head();
        if let Some(domain) = head.table.domain(name) {
            return Some(domain.tenant);
        }
        let (slug, zone) = name.split_once('.')?;
        head.table.zone(zone)?;
        head.table.tenant_by_slug(slug).map(|entry| entry.tenant.id)
    }
}

/// Who makes the certificate of a name, by the settings.
#[derive(Debug, Clone)]
pub struct Issuers {
    /// Names under these come from the internal CA; `None`: all do.
    internal: Option<Vec<DomainName>>,
}

impl Issuers {
    /// The internal CA makes all.
    pub const fn internal() -> Self {
        Self { internal: None }
    }

    /// An ACME CA makes all but names under these suffixes.
    pub const fn acme_but(internal: Vec<DomainName>) -> Self {
        Self { internal: Some(internal) }
    }

    /// Who makes the certificate of `name`: `internal` or `acme`.
    pub fn of(&self, name: &str) -> &'static str {
        let Some(suffixes) = &self.internal else { return "internal" };
        let under = |suffix: &DomainName| {
            name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if suffixes.iter().any(under) { "internal" } else { "acme" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_whole_labels() {
        let issuers = Issuers::acme_but(vec![DomainName::parse("localhost").unwrap()]);
        for (name, issuer) in [
            ("greenhill.localhost", "internal"),
            ("localhost", "internal"),
            ("*.schools.localhost", "internal"),
            ("notlocalhost", "acme"),
            ("erp.greenhill.example", "acme"),
            ("localhost.example", "acme"),
        ] {
            assert_eq!(issuers.of(name), issuer, "{name}");
            assert_eq!(Issuers::internal().of(name), "internal");
        }
    }
}
