//! What this node keeps beside the objects of a routing table: counters, prepared header values, the health and load
//! of backends.
//!
//! [`NodeLive`] makes it when an object appears and hands on, when the object changes, what must outlive a change:
//! counts of a tenant, everything known of a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use schoolgate_config::model::{Pool, Tenant};
use schoolgate_config::settings::SecurityHeaders;
use schoolgate_config::table::Live;
use schoolgate_config::time::{Clock, SystemClock};

use crate::balance::LivePool;
use crate::forward::context::Contexts;
use crate::forward::security::Prepared;
use crate::observe::{BackendView, Counted, Observe, PoolCounters, TenantCounters};

/// Makes the live parts of a proxy's tables; one for all tables of a node.
#[derive(Debug, Default)]
pub struct NodeLive {
    /// The last number given to a tenant or pool.
    numbers: AtomicU64,
    /// Security headers, where a tenant wants no others.
    security: SecurityHeaders,
}

impl NodeLive {
    /// For a node whose settings these are.
    pub fn new(security: SecurityHeaders) -> Self {
        Self { security, ..Self::default() }
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
            Some(before) => TenantLive::new(tenant, before.number, before.counters.clone(), &self.security),
            None => TenantLive::new(tenant, self.number(), Arc::default(), &self.security),
        })
    }

    fn pool(&self, pool: &Arc<Pool>, before: Option<&Arc<LivePool>>) -> Arc<LivePool> {
        Arc::new(match before {
            Some(before) => LivePool::next(pool, before),
            None => LivePool::new(pool, self.number()),
        })
    }
}

/// Beside one version of a tenant.
#[derive(Debug)]
pub struct TenantLive {
    /// A number of this process, never used twice: two tenants never share what is kept under it.
    pub(crate) number: u64,
    /// What it did here; handed on from version to version.
    pub counters: Arc<TenantCounters>,
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

impl TenantLive {
    fn new(tenant: &Tenant, number: u64, counters: Arc<TenantCounters>, platform: &SecurityHeaders) -> Self {
        Self {
            number,
            counters,
            id: header_value(&tenant.id.to_string()),
            slug: header_value(tenant.slug.as_str()),
            plan: header_value(tenant.plan.as_str()),
            security: Prepared::new(platform, tenant.security),
            contexts: ArcSwapOption::empty(),
        }
    }
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

    fn backends(_: &Pool, pool: &LivePool) -> Vec<BackendView> {
        pool.views(SystemClock.unix_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_given_back_when_it_is_dropped() {
        let (observe, counters) = (Arc::new(Observe::off()), Arc::new(TenantCounters::default()));
        let permit = TenantPermit::take(&observe, &counters);
        assert_eq!((counters.in_flight(), observe.in_flight()), (1, 1));
        drop(permit);
        assert_eq!((counters.in_flight(), observe.in_flight()), (0, 0));
    }
}
