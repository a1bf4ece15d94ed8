//! What a tenant may use: rate, quota and concurrency, three layers that are never merged.
//!
//! All of it is local and lock-free; nothing here waits. What is kept of a tenant ([`TenantLimits`]) outlives a change of
//! the table, what holds for it ([`Enforced`]) is worked out anew when its plan changes or an override begins or ends.
//!
//! * `gcra`: rates, on one atomic. `lease`: requests that the fleet granted. `crowd`: rates of many clients.
//! * `quota`: what is used of a day or a month. `today`: when these begin and end.
//! * `concurrency`: what is in progress.
//! * `enforced`: the limits of a plan, compiled. `admission`: what they say to a request. `fields`: what the client is
//!   told.
//!
//! What a fleet shares comes in beside the request path and through these doors only: [`Limiter::set_share`] (this node's
//! part of every rate), [`TenantLimits::lease`] (granted requests stand in the place of that part),
//! [`TenantLimits::demand`], [`TenantLimits::readings`] and [`TenantLimits::restore`].

mod admission;
mod concurrency;
mod crowd;
mod enforced;
mod fields;
mod gcra;
mod lease;
mod quota;
pub mod shared;
mod today;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use schoolgate_config::calendar::Calendar;
use schoolgate_config::limits;
use schoolgate_config::model::{Limits, Plan, PlanId, Tenant};

pub use concurrency::{Kind, Permit};
pub use gcra::{Meter, Rate, Room, Wait};
pub use lease::{Lease, Leased};
pub use quota::{Counter, Level, Reading};
pub use today::Today;

pub(crate) use admission::Reached;
pub use admission::{Ask, Counts, Layer, Layers, Limited, Passed};
pub use enforced::Enforced;
pub(crate) use enforced::Rule;
pub use fields::Told;

use concurrency::Gauge;
use crowd::Crowd;
use gcra::WHOLE;
use quota::Turning;
use today::Zones;

/// Client addresses whose rate is known at the same time: 65,536, which is 1 MiB once the first plan asks for it.
const CLIENTS: usize = 1 << 16;
/// Classes of requests, of all tenants, whose rate is known at the same time: 16,384, which is 256 KiB.
const CLASSES: usize = 1 << 14;

/// A quota of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaKind {
    /// Requests of a day.
    Requests,
    /// Bytes of a month.
    Bytes,
}

impl QuotaKind {
    /// The limit by its name in a plan.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_day",
            Self::Bytes => "bytes_per_month",
        }
    }
}

/// How often a tenant's rate was asked since this process began; both wrap around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Requests let through.
    pub passed: u32,
    /// Requests that were too many.
    pub refused: u32,
}

/// What is kept of one tenant's limits, from version to version.
#[derive(Debug, Default)]
pub struct TenantLimits {
    rate: Meter,
    lease: Lease,
    passed: AtomicU32,
    refused: AtomicU32,
    requests: Counter,
    bytes: Counter,
    turning: Turning,
    in_flight: Gauge,
    websockets: Gauge,
}

impl TenantLimits {
    /// Requests that the fleet granted to this node.
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How often its rate was asked.
    pub fn demand(&self) -> Demand {
        Demand { passed: self.passed.load(Relaxed), refused: self.refused.load(Relaxed) }
    }

    /// What this node itself has counted of a quota since its start: the period before, and the current one. The counts
    /// only grow within a period, so a report of them may be repeated or lost without harm.
    pub fn readings(&self, quota: QuotaKind) -> [Reading; 2] {
        self.counter(quota).readings(&self.turning)
    }

    /// Sets what was counted of a quota by others, and by this node before its last start.
    pub fn restore(&self, quota: QuotaKind, elsewhere: Reading) {
        self.counter(quota).restore(elsewhere);
    }

    /// How much of a quota is used in a period, here and elsewhere.
    pub fn used(&self, quota: QuotaKind, period: u16) -> u64 {
        self.counter(quota).used(&self.turning, period)
    }

    /// How much of a quota of `value` is used in its current period; 1 is all of it.
    #[expect(clippy::cast_precision_loss, reason = "a ratio to look at")]
    pub(crate) fn used_ratio(&self, quota: QuotaKind, calendar: &Calendar, value: u64) -> f64 {
        let period = match quota {
            QuotaKind::Requests => calendar.day,
            QuotaKind::Bytes => calendar.month,
        };
        self.used(quota, period.number) as f64 / value.max(1) as f64
    }

    /// How much of the burst of this node's share is used up.
    fn spent_of_share(&self, share: Rate, now_ns: u64) -> u32 {
        let burst = share.most_at_once();
        let left = self.rate.peek(share, now_ns).map_or(0, |room| room.left + 1);
        burst.saturating_sub(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// How many are in progress.
    pub fn in_progress(&self, kind: Kind) -> u32 {
        self.gauge(kind).get()
    }

    const fn counter(&self, quota: QuotaKind) -> &Counter {
        match quota {
            QuotaKind::Requests => &self.requests,
            QuotaKind::Bytes => &self.bytes,
        }
    }

    const fn gauge(&self, kind: Kind) -> &Gauge {
        match kind {
            Kind::Request => &self.in_flight,
            Kind::WebSocket => &self.websockets,
        }
    }
}

/// What a node's limits have in common; one per node.
#[derive(Debug)]
pub struct Limiter {
    /// Where its clock begins. It never goes back.
    epoch: Instant,
    /// This node's part of every tenant's rate, in parts per million.
    share: AtomicU32,
    caps: Limits,
    zones: Zones,
    /// The compiled limits of plans: most tenants have no others.
    plans: Mutex<HashMap<PlanId, Arc<Enforced>>>,
    clients: OnceLock<Crowd>,
    classes: OnceLock<Crowd>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Limiter {
    /// For a platform with these caps.
    pub fn new(caps: Limits) -> Self {
        Self {
            epoch: Instant::now(),
            share: AtomicU32::new(WHOLE),
            caps,
            zones: Zones::default(),
            plans: Mutex::default(),
            clients: OnceLock::new(),
            classes: OnceLock::new(),
        }
    }

    /// Sets this node's part of every tenant's rate, in parts per million: 250,000 when four nodes serve. At once, for
    /// requests that no lease covers.
    pub fn set_share(&self, share: u32) {
        self.share.store(share.clamp(1, WHOLE), Relaxed);
    }

    /// This node's part of every tenant's rate, in parts per million.
    pub fn share(&self) -> u32 {
        self.share.load(Relaxed)
    }

    /// Nanoseconds since this limiter began: the clock of rates.
    pub fn now_ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since this limiter began: the clock of leases.
    pub fn now_ms(&self, now: Instant) -> u64 {
        self.now_ns(now) / 1_000_000
    }

    /// The calendar of a tenant.
    pub(crate) fn today(&self, tenant: &Tenant) -> Arc<Today> {
        self.zones.today(tenant.time_zone.as_ref())
    }

    /// What holds for a tenant at `now_ms` (milliseconds since 1970). Not for every request: see [`Enforced::fits`].
    pub(crate) fn enforced(&self, tenant: &Tenant, plan: &Arc<Plan>, now_ms: i64) -> Arc<Enforced> {
        if !tenant.overrides.is_empty() {
            let effective = limits::effective(tenant, plan, &self.caps, now_ms);
            return Arc::new(Enforced::new(plan, &effective, limits::next_turn(tenant, now_ms)));
        }
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = plans.get(&plan.id).filter(|known| known.is_of(plan)) {
            return known.clone();
        }
        let effective = limits::effective(tenant, plan, &self.caps, now_ms);
        let made = Arc::new(Enforced::new(plan, &effective, None));
        plans.insert(plan.id.clone(), made.clone());
        made
    }

    fn clients(&self) -> &Crowd {
        self.clients.get_or_init(|| Crowd::new(CLIENTS))
    }

    fn classes(&self) -> &Crowd {
        self.classes.get_or_init(|| Crowd::new(CLASSES))
    }
}

#[cfg(test)]
mod admission_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_tenant_costs_less_than_200_bytes() {
        // In its counters: a cell for each layer, and for each that has a shadow. In its live part: three pointers.
        let counters = 8 * (Layer::ALL.len() + Layer::SHADOWED.len());
        let counted_by_arc = 16;
        let bytes = size_of::<TenantLimits>() + counted_by_arc + counters + 3 * size_of::<usize>();
        assert!(bytes <= 200, "{bytes} bytes");
    }

    #[test]
    fn tenants_of_one_plan_share_what_holds_until_it_changes() {
        let limiter = Limiter::default();
        let tenant = crate::live::tests::tenant();
        let plan = Arc::new(Plan::catalogue().remove(0));
        let first = limiter.enforced(&tenant, &plan, 0);
        assert!(Arc::ptr_eq(&first, &limiter.enforced(&tenant, &plan, 1)));
        let changed = Arc::new(Plan::clone(&plan));
        assert!(!Arc::ptr_eq(&first, &limiter.enforced(&tenant, &changed, 1)));
    }
}
