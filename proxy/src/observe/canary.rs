//! What became of a tenant's requests while a share of them went to another pool: what decides whether more may follow.
//!
//! Counted beside the tenant, and only while it has a canary.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schoolgate_config::feed::ShareReport;
use schoolgate_config::model::PoolId;

/// Counts of both sides of one tenant's canary, as long as it leads to the same pool.
#[derive(Debug)]
pub(crate) struct CanaryCounters {
    /// Where the share goes.
    pub(crate) pool: PoolId,
    moved: Side,
    rest: Side,
}

#[derive(Debug, Default)]
struct Side {
    in_flight: AtomicU64,
    errors: AtomicU64,
    /// Answers by the time to their first byte.
    latency: [AtomicU64; ShareReport::BOUNDS_US.len() + 1],
}

/// Which side a request is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShareSide {
    /// It went to the canary's pool.
    Moved,
    /// It stayed.
    Rest,
}

impl CanaryCounters {
    pub(crate) fn new(pool: PoolId) -> Self {
        Self { pool, moved: Side::default(), rest: Side::default() }
    }

    fn side(&self, side: ShareSide) -> &Side {
        match side {
            ShareSide::Moved => &self.moved,
            ShareSide::Rest => &self.rest,
        }
    }

    /// The share that went, as it is reported.
    pub(crate) fn moved(&self) -> ShareReport {
        self.moved.report()
    }

    /// The rest, as it is reported. `in_flight` is what the tenant has in flight in all: connections that were there
    /// before the canary are none of its counts.
    pub(crate) fn rest(&self, in_flight: u64) -> ShareReport {
        let moved = self.moved.in_flight.load(Ordering::Relaxed);
        ShareReport { in_flight: in_flight.saturating_sub(moved), ..self.rest.report() }
    }
}

impl Side {
    fn report(&self) -> ShareReport {
        ShareReport {
            errors: self.errors.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            latency: self.latency.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
        }
    }
}

/// A request on one side of a canary; in flight until it is dropped.
#[derive(Debug)]
pub(crate) struct InShare {
    counters: Arc<CanaryCounters>,
    side: ShareSide,
}

impl InShare {
    pub(crate) fn begin(counters: &Arc<CanaryCounters>, side: ShareSide) -> Self {
        counters.side(side).in_flight.fetch_add(1, Ordering::Relaxed);
        Self { counters: Arc::clone(counters), side }
    }

    /// It ended: with an answer of this status after this time, from this pool. A client that went away is no fault of
    /// either side; a request that the canary's pool could not take is one of the canary's.
    pub(crate) fn ended(&self, status: u16, first_byte: Duration, pool: &PoolId) {
        let side = self.counters.side(self.side);
        let came_back = self.side == ShareSide::Moved && *pool != self.counters.pool;
        if status >= 500 || came_back {
            side.errors.fetch_add(1, Ordering::Relaxed);
        }
        if status != 0 {
            let micros = u64::try_from(first_byte.as_micros()).unwrap_or(u64::MAX);
            side.latency[ShareReport::bucket(micros)].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for InShare {
    fn drop(&mut self) {
        self.counters.side(self.side).in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_counted_apart() {
        let pool: PoolId = "next".parse().expect("a name");
        let rest_pool: PoolId = "web".parse().expect("a name");
        let counters = Arc::new(CanaryCounters::new(pool.clone()));
        let moved = InShare::begin(&counters, ShareSide::Moved);
        let rest = InShare::begin(&counters, ShareSide::Rest);
        assert_eq!(
            (counters.moved().in_flight, counters.rest(5).in_flight),
            (1, 4),
            "a socket from before is the rest's"
        );
        moved.ended(200, Duration::from_millis(3), &pool);
        moved.ended(500, Duration::from_millis(3), &pool);
        moved.ended(200, Duration::from_millis(3), &rest_pool);
        moved.ended(0, Duration::from_secs(60), &pool);
        rest.ended(200, Duration::from_millis(30), &rest_pool);
        drop((moved, rest));
        assert_eq!((counters.moved().requests(), counters.moved().errors), (3, 2));
        assert_eq!((counters.rest(0).requests(), counters.rest(0).errors), (1, 0));
        assert_eq!((counters.moved().in_flight, counters.rest(0).in_flight), (0, 0));
    }
}
