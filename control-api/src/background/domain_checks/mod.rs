//! Checks of domains: on their schedule under a lease, and when somebody asks.
//!
//! The servers of other people are asked before a transaction is opened; what was seen is written in one, and only if
//! the domain is still the one that was looked at.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::Instant;

use schoolgate_config::model::{Domain, DomainName, Limits};
use schoolgate_config::time::Clock;
use schoolgate_dns::life::DAY_MS;
use schoolgate_dns::{CaIdentity, Checker, Life, OtherClaim, Proxies, classify};
use schoolgate_store::{Actor, DomainCheck, Lease, Store, StoreError};

use crate::operation::domains::fate::{Became, Looked, apply, conclude};
use crate::operation::domains::{assumed_owned, expected, issuers_of, order_facts};
use crate::operation::{NameServer, Platform, Refusal, json};

/// The lease that the schedule runs under.
const LEASE: &str = "domain-checks";

/// Time between two looks at what is due, for domains that another process made: 30 s.
const LOOK: Duration = Duration::from_secs(30);

/// Wait after a failure of the store: 5 s.
const BACK_OFF: Duration = Duration::from_secs(5);

/// Domains taken in one go.
const BATCH: u32 = 256;

/// Domains looked at at once.
const AT_ONCE: usize = 16;

/// The least time between two checks of a domain because somebody asks: 10 s.
const ASKED_EVERY: Duration = Duration::from_secs(10);

/// What the settings say of the platform.
#[derive(Debug, Clone, Default)]
pub struct PlatformFacts {
    /// Names within these count as owned and pointing here.
    pub assume_owned: Vec<DomainName>,
    /// What apex domains point at.
    pub addresses: Vec<std::net::IpAddr>,
    /// The certificate authorities that CAA records must let issue, the preferred one first; none: CAA does not matter.
    pub issuers: Vec<CaIdentity>,
    /// Whether our own name server answers for what schools delegate to it.
    pub name_server: NameServer,
    /// Networks of proxies that stand in front of schools' names.
    pub proxies: Arc<Proxies>,
    /// The most that any tenant may have, whatever its plan or an override says.
    pub caps: Limits,
    /// A pool that is not there can be made, with instances.
    pub makes_pools: bool,
    /// Instances that register themselves.
    pub instances: schoolgate_config::settings::Instances,
}

/// Checks domains. A clone is another handle to the same one.
#[derive(Clone)]
pub struct DomainChecks {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    checker: Checker,
    platform: Arc<Platform>,
    clock: Arc<dyn Clock>,
    /// When somebody last asked; of domains that exist, and forgotten after seconds.
    asked: Mutex<HashMap<DomainName, Instant>>,
}

impl std::fmt::Debug for DomainChecks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DomainChecks")
    }
}

/// Why a domain was not checked for somebody who asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckRefusal {
    /// It was, a moment ago.
    #[error("{name} was checked a moment ago: ask again in {after_s} s")]
    TooSoon {
        /// Which domain.
        name: DomainName,
        /// Seconds to wait.
        after_s: u32,
    },
    /// The operation behind it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl From<StoreError> for CheckRefusal {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl DomainChecks {
    /// Checks of the domains in a store.
    pub fn new(store: Store, checker: Checker, facts: PlatformFacts, clock: Arc<dyn Clock>) -> Self {
        let PlatformFacts { assume_owned, addresses, issuers, name_server, proxies, caps, makes_pools, instances } =
            facts;
        let platform =
            Platform { assume_owned, addresses, issuers, name_server, proxies, caps, makes_pools, instances };
        let platform = Arc::new(platform);
        Self { shared: Arc::new(Shared { store, checker, platform, clock, asked: Mutex::default() }) }
    }

    pub(crate) fn platform(&self) -> Arc<Platform> {
        Arc::clone(&self.shared.platform)
    }

    /// Checks what is due, until `stop` is ready, while this process holds the lease. `holder` is this process's own name.
    pub async fn run(self, holder: String, stop: impl Future<Output = ()>) {
        let store = self.shared.store.clone();
        store.while_leased(LEASE, &holder, stop, |lease| self.clone().keep_checking(lease)).await;
    }

    async fn keep_checking(self, lease: Lease) {
        let mut committed = self.shared.store.committed();
        loop {
            committed.mark_unchanged();
            match self.check_due(Some(&lease)).await {
                Ok(0) => {}
                Ok(_) => continue,
                Err(CheckRefusal::Refused(Refusal::Store(StoreError::LeaseLost { .. }))) => return,
                Err(error) => {
                    tracing::warn!("domains cannot be checked, and it is tried again: {error}");
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                }
            }
            let next = self.shared.store.next_domain_check().await.unwrap_or_default();
            let left = next.map_or(LOOK, |next| {
                let left = u64::try_from(next - self.shared.clock.unix_ms()).unwrap_or(0);
                Duration::from_millis(left).min(LOOK)
            });
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                told = committed.changed() => if told.is_err() { return },
            }
        }
    }

    /// Checks what is due now; says how many domains that were.
    pub(crate) async fn check_due(&self, lease: Option<&Lease>) -> Result<usize, CheckRefusal> {
        let due = self.shared.store.domain_checks_due(self.shared.clock.unix_ms(), BATCH).await?;
        let count = due.len();
        let is_reserved = |check: &DomainCheck| assumed_owned(&check.name, &self.shared.platform);
        let (reserved, due): (Vec<_>, Vec<_>) = due.into_iter().partition(is_reserved);
        self.put_off(reserved).await?;
        let mut checks = stream::iter(due).map(|check| self.check(check, lease)).buffer_unordered(AT_ONCE);
        while let Some(done) = checks.next().await {
            done?;
        }
        Ok(count)
    }

    /// Nobody looks at reserved names, unless the settings say otherwise the next day. All in one transaction: an import
    /// has thousands.
    async fn put_off(&self, reserved: Vec<DomainCheck>) -> Result<(), StoreError> {
        if reserved.is_empty() {
            return Ok(());
        }
        let mut transaction = self.shared.store.begin(Actor::system(LEASE)).await?;
        let next = Some(transaction.now_ms() + DAY_MS);
        for check in reserved {
            transaction.save_domain_check(&DomainCheck { next_check_ms: next, ..check }).await?;
        }
        transaction.commit_records().await
    }

    /// Checks a domain for somebody who asks.
    ///
    /// # Errors
    /// [`CheckRefusal::TooSoon`]; [`Refusal::NotFound`].
    pub(crate) async fn check_now(&self, name: &DomainName) -> Result<(), CheckRefusal> {
        if assumed_owned(name, &self.shared.platform) {
            return Ok(());
        }
        self.may_ask(name)?;
        let found = self.shared.store.domain_check(name).await?;
        let check = found.ok_or_else(|| Refusal::not_found(&format!("domain {name}")))?;
        let life: Life = serde_json::from_value(check.life.clone()).unwrap_or_default();
        self.check(DomainCheck { life: json(&life.asked()), ..check }, None).await?;
        Ok(())
    }

    fn may_ask(&self, name: &DomainName) -> Result<(), CheckRefusal> {
        let now = Instant::now();
        let mut asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| now.duration_since(*at) < ASKED_EVERY);
        let Some(at) = asked.get(name) else {
            asked.insert(name.clone(), now);
            return Ok(());
        };
        let left = ASKED_EVERY.saturating_sub(now.duration_since(*at)).as_millis().div_ceil(1_000);
        let after_s = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        Err(CheckRefusal::TooSoon { name: name.clone(), after_s })
    }

    async fn check(&self, check: DomainCheck, lease: Option<&Lease>) -> Result<(), CheckRefusal> {
        let Shared { store, checker, platform, .. } = &*self.shared;
        let Some(found) = store.get::<Domain>(&check.name).await? else { return Ok(()) };
        let domain = found.value;
        let transfer = store.domain_transfer(&domain.name).await?;
        let other = transfer.as_ref().map(|t| OtherClaim { tenant: t.tenant, token: t.token.clone() });
        let issuers = issuers_of(store, platform).await?;
        let expected = expected(&domain, other, issuers, (&store.head().table, platform));
        let assessment = classify(&checker.look(&expected).await, &expected);
        let order_facts = order_facts(&assessment, &expected, platform);
        let looked = Looked { domain, check, transfer, assessment, order_facts };
        let mut transaction = store.begin(Actor::system(LEASE)).await?;
        if let Some(lease) = lease {
            transaction.require(lease).await?;
        }
        let became = apply(&mut transaction, &looked).await?;
        let name = &looked.domain.name;
        let orders_differ = looked.order_facts != looked.check.order_facts;
        match became {
            Became::Moved | Became::Released => tracing::info!(domain = %name, "the domain {name} became {became:?}"),
            Became::Kept | Became::Superseded => tracing::debug!(domain = %name, "checked {name}: {became:?}"),
        }
        conclude(transaction, &looked, &became).await?;
        if orders_differ {
            // No object was changed, and whoever orders certificates should look all the same.
            store.look_again();
        }
        Ok(())
    }
}
