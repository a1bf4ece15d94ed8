//! What this node keeps beside the objects of a routing table: counters, prepared header values, the health and load
//! of backends.
//!
//! [`NodeLive`] makes it when an object appears and hands on, when the object changes, what must outlive a change:
//! counts of a tenant, everything known of a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use http::HeaderValue;
use ring::hmac;
use ring::rand::SystemRandom;
use schoolgate_config::feed::CanaryReport;
use schoolgate_config::model::{Balance, Pool, Tenant};
use schoolgate_config::seal::Keeper;
use schoolgate_config::settings::SecurityHeaders;
use schoolgate_config::table::{Live, TenantEntry};
use schoolgate_config::time::{Clock, SystemClock};
use tracing::error;

use crate::balance::drain::Drains;
use crate::balance::sticky::Sticky;
use crate::balance::{Circuits, Equipment, LivePool, Point};
use crate::feed::chain;
use crate::forward::context::Contexts;
use crate::forward::security::Prepared;
use crate::forward::upstream_tls::UpstreamTlsReady;
use crate::limit::{Enforced, Kind, Limiter, TenantLimits, Today};
use crate::observe::{BackendView, CanaryCounters, Counted, Observe, PoolCounters, TenantCounters};

/// Makes the live parts of a proxy's tables; one for all tables of a node.
#[derive(Debug, Default)]
pub struct NodeLive {
    /// The last number given to a tenant or pool.
    numbers: AtomicU64,
    /// Security headers, where a tenant wants no others.
    security: SecurityHeaders,
    limiter: Arc<Limiter>,
    /// Opens client certificates, and signs cookies.
    keeper: Option<Arc<Keeper>>,
    /// Backends that go.
    drains: Arc<Drains>,
}

impl NodeLive {
    /// For a node whose settings these are, and whose limits are asked of `limiter`.
    pub fn new(security: SecurityHeaders, limiter: Arc<Limiter>) -> Self {
        Self { security, limiter, ..Self::default() }
    }

    /// With what opens client certificates and signs cookies.
    #[must_use]
    pub fn with_keeper(self, keeper: Arc<Keeper>) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// Backends that go, for who ends their time.
    pub(crate) fn drains(&self) -> Arc<Drains> {
        Arc::clone(&self.drains)
    }

    fn equipment(&self, pool: &Pool) -> Equipment {
        let tls = UpstreamTlsReady::prepare(pool, self.keeper.as_deref());
        if let Some(Err(error)) = &tls {
            error!(pool.id = %pool.id, "the backends of {} cannot be reached over TLS: {}", pool.id, chain(error));
        }
        let sticky = (pool.balance == Balance::Sticky).then(|| {
            // A node without a keeper, which only tests have, signs for itself.
            let key = self.keeper.as_ref().map_or_else(random_key, |k| k.derive("sticky-cookie", pool.id.as_str()));
            Sticky::new(&pool.sticky, key)
        });
        Equipment { tls, sticky }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Live for NodeLive {
    type Tenant = TenantLive;
    type Pool = LivePool;

    fn tenant(&self, tenant: &Arc<Tenant>, before: Option<&Arc<TenantLive>>) -> Arc<TenantLive> {
        Arc::new(match before {
            Some(before) => {
                let kept = Kept {
                    number: before.number,
                    counters: before.counters.clone(),
                    limits: before.limits.clone(),
                    circuits: before.circuits.clone(),
                };
                TenantLive { canary: canary(tenant, before.canary.as_ref()), ..self.tenant_live(tenant, kept) }
            }
            None => {
                let (counters, limits, circuits) = Default::default();
                self.tenant_live(tenant, Kept { number: self.number(), counters, limits, circuits })
            }
        })
    }

    fn pool(&self, pool: &Arc<Pool>, before: Option<&Arc<LivePool>>) -> Arc<LivePool> {
        let equipment = self.equipment(pool);
        Arc::new(match before {
            Some(before) => {
                let number = if before.has_identity_of(pool) { before.number } else { self.number() };
                let next = LivePool::next(pool, before, number, equipment);
                self.drains.follow(before, &next, Duration::from_secs(pool.drain_s.into()));
                next
            }
            None => LivePool::new(pool, self.number(), equipment),
        })
    }
}

fn random_key() -> hmac::Key {
    hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).expect("the system's random numbers are there")
}

/// What of a tenant outlives its versions.
struct Kept {
    number: u64,
    counters: Arc<TenantCounters>,
    limits: Arc<TenantLimits>,
    circuits: Arc<Circuits>,
}

/// Beside one version of a tenant.
#[derive(Debug)]
pub struct TenantLive {
    /// A number of this process, never used twice: two tenants never share what is kept under it.
    pub(crate) number: u64,
    /// What it did here; handed on from version to version.
    pub counters: Arc<TenantCounters>,
    /// What it used of its limits here; handed on from version to version.
    pub limits: Arc<TenantLimits>,
    /// What holds for it, as it was last worked out.
    enforced: ArcSwapOption<Enforced>,
    /// Its calendar.
    pub today: Arc<Today>,
    /// Backends that fail it; handed on from version to version.
    pub(crate) circuits: Arc<Circuits>,
    /// What it is to rendezvous hashing.
    pub(crate) point: Point,
    /// What became of its requests while it has a canary; handed on while that leads to the same pool.
    pub(crate) canary: Option<Arc<CanaryCounters>>,
    /// `X-Tenant-ID`.
    pub(crate) id: HeaderValue,
    /// `X-Tenant-Slug`, `X-Subdomain`.
    pub(crate) slug: HeaderValue,
    /// `X-Tenant-Plan`.
    pub(crate) plan: HeaderValue,
    /// What browsers are told about its pages.
    pub(crate) security: Prepared,
    /// Signed contexts of the last half minute, one per pool in use.
    pub(crate) contexts: ArcSwapOption<Contexts>,
}

impl NodeLive {
    fn tenant_live(&self, tenant: &Tenant, kept: Kept) -> TenantLive {
        TenantLive {
            number: kept.number,
            counters: kept.counters,
            limits: kept.limits,
            enforced: ArcSwapOption::empty(),
            today: self.limiter.today(tenant),
            circuits: kept.circuits,
            point: Point::of(tenant.id.bits()),
            canary: canary(tenant, None),
            id: header_value(&tenant.id.to_string()),
            slug: header_value(tenant.slug.as_str()),
            plan: header_value(tenant.plan.as_str()),
            security: Prepared::new(&self.security, tenant.security),
            contexts: ArcSwapOption::empty(),
        }
    }
}

impl TenantLive {
    /// What holds for the tenant at `now_ms` (milliseconds since 1970). Worked out when its plan has changed or an
    /// override begins or ends, else as it was.
    pub fn enforced(&self, limiter: &Limiter, entry: &TenantEntry<NodeLive>, now_ms: i64) -> Held {
        let kept = self.enforced.load();
        if kept.as_ref().is_some_and(|enforced| enforced.fits(&entry.plan, now_ms)) {
            return Held(kept);
        }
        let made = limiter.enforced(&entry.tenant, &entry.plan, now_ms);
        // Two workers may both have made it; either is good.
        self.enforced.store(Some(made.clone()));
        Held(Guard::from_inner(Some(made)))
    }
}

/// What holds for a tenant, as long as one looks at it: without a count that all workers would write to.
pub struct Held(Guard<Option<Arc<Enforced>>>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}
impl std::ops::Deref for Held {
    type Target = Enforced;

    fn deref(&self) -> &Enforced {
        self.0.as_ref().expect("held with a value only")
    }
}

/// The counters of a tenant's canary: those of before, when that led to the same pool.
fn canary(tenant: &Tenant, before: Option<&Arc<CanaryCounters>>) -> Option<Arc<CanaryCounters>> {
    let pool = &tenant.canary.as_ref()?.pool;
    let known = before.filter(|before| before.pool == *pool).cloned();
    Some(known.unwrap_or_else(|| Arc::new(CanaryCounters::new(pool.clone()))))
}

/// Identifiers are labels and ULIDs, which every header may carry.
fn header_value(identifier: &str) -> HeaderValue {
    HeaderValue::from_str(identifier).expect("an identifier is visible ASCII")
}

/// One request of a tenant in flight; counted until it is dropped, also when its client goes away in the middle.
#[derive(Debug)]
pub(crate) struct TenantPermit {
    observe: Arc<Observe>,
    counters: Arc<TenantCounters>,
}

impl TenantPermit {
    pub(crate) fn take(observe: &Arc<Observe>, counters: &Arc<TenantCounters>) -> Self {
        observe.begin(counters);
        Self { observe: observe.clone(), counters: counters.clone() }
    }
}
impl Drop for TenantPermit {
    fn drop(&mut self) {
        self.observe.end(&self.counters);
    }
}

impl Counted for NodeLive {
    fn tenant_counters(tenant: &TenantLive) -> &TenantCounters {
        &tenant.counters
    }

    fn pool_counters(pool: &LivePool) -> &PoolCounters {
        &pool.counters
    }

    fn quotas_used(tenant: &TenantLive, now_ms: i64) -> Vec<(&'static str, f64)> {
        let kept = tenant.enforced.load();
        let quotas = kept.iter().flat_map(|enforced| enforced.quotas());
        let calendar = tenant.today.at(now_ms);
        quotas.map(|(quota, value)| (quota.as_str(), tenant.limits.used_ratio(quota, &calendar, value))).collect()
    }

    fn websockets(tenant: &TenantLive) -> u32 {
        tenant.limits.in_progress(Kind::WebSocket)
    }

    fn waiting(pool: &LivePool) -> u32 {
        pool.queue.depth()
    }

    fn canary(tenant: &Tenant, live: &TenantLive) -> Option<CanaryReport> {
        let counters = live.canary.as_ref()?;
        let (moved, rest) = (counters.moved(), counters.rest(live.counters.in_flight()));
        Some(CanaryReport { tenant: tenant.id, pool: counters.pool.clone(), moved, rest })
    }

    fn backends(_: &Pool, pool: &LivePool) -> Vec<BackendView> {
        pool.views(SystemClock.unix_ms())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An active school on the plan `basic`.
    pub(crate) fn tenant() -> Tenant {
        let id = schoolgate_config::model::TenantId::from_parts(1, 2);
        let tenant = serde_json::json!({
            "id": id, "slug": "greenhill", "name": "Greenhill", "state": "active", "plan": "basic", "pool": "shared",
        });
        serde_json::from_value(tenant).expect("a tenant")
    }

    #[test]
    fn a_permit_is_given_back_when_it_is_dropped() {
        let (observe, counters) = (Arc::new(Observe::off()), Arc::new(TenantCounters::default()));
        let permit = TenantPermit::take(&observe, &counters);
        assert_eq!((counters.in_flight(), observe.in_flight()), (1, 1));
        drop(permit);
        assert_eq!((counters.in_flight(), observe.in_flight()), (0, 0));
    }
}
