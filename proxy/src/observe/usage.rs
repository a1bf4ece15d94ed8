//! What tenants use, gathered for the control plane: cells beside a tenant, emptied every few seconds.
//!
//! They hang on [`TenantCounters`] and are counted in the same place as the metrics. A tenant without traffic has none:
//! they are made with its first request, so that 100,000 idle tenants cost a pointer each.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use schoolgate_config::model::TenantId;
use schoolgate_config::table::RoutingTable;
use schoolgate_config::usage::{CodeClass, RequestClass, Usage, latency};

use super::counters::tenant_row;
use super::{Counted, TenantCounters};
use crate::limit::Layer;

/// What a tenant did since it was last gathered.
#[derive(Debug)]
pub(super) struct UsageCells {
    requests: [[AtomicU64; CodeClass::ALL.len()]; RequestClass::ALL.len()],
    latency: [AtomicU32; latency::BUCKETS],
    /// The most in flight at one time.
    peak: AtomicU64,
    /// What of the tenant's row was gathered: bytes in, bytes out, requests limited. Written by who gathers only.
    gathered: [AtomicU64; 3],
}

impl Default for UsageCells {
    fn default() -> Self {
        Self {
            requests: [const { [const { AtomicU64::new(0) }; CodeClass::ALL.len()] }; RequestClass::ALL.len()],
            latency: [const { AtomicU32::new(0) }; latency::BUCKETS],
            peak: AtomicU64::new(0),
            gathered: [const { AtomicU64::new(0) }; 3],
        }
    }
}

/// Layers that refuse with 429.
const LIMITING: [Layer; 3] = [Layer::Rate, Layer::Quota, Layer::Concurrency];

impl UsageCells {
    pub(super) fn request(&self, class: RequestClass, status: u16, total: Duration) {
        self.requests[class as usize][CodeClass::of(status) as usize].fetch_add(1, Ordering::Relaxed);
        self.latency[latency::bucket(total)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self, now: u64) {
        // Read first: a tenant is at its peak rarely, and a write takes the line from the other workers.
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Takes out what was counted. One caller at a time.
    fn take(&self, counters: &TenantCounters) -> Usage {
        let mut usage = Usage::default();
        for class in RequestClass::ALL {
            for code in CodeClass::ALL {
                let cell = &self.requests[class as usize][code as usize];
                usage.requests.add(class, code, take(cell));
            }
        }
        if usage.requests.total() > 0 {
            for (bucket, cell) in self.latency.iter().enumerate() {
                if cell.load(Ordering::Relaxed) > 0 {
                    usage.latency.add(bucket, u64::from(cell.swap(0, Ordering::Relaxed)));
                }
            }
        }
        let limited = LIMITING.map(|layer| counters.row.at(tenant_row::LIMITED + layer as usize)).iter().sum();
        let row = [counters.row.at(tenant_row::BYTES_IN), counters.row.at(tenant_row::BYTES_OUT), limited];
        let [bytes_in, bytes_out, limited] =
            [0, 1, 2].map(|at| row[at].saturating_sub(self.gathered[at].swap(row[at], Ordering::Relaxed)));
        usage = Usage { bytes_in, bytes_out, limited, ..usage };
        if !usage.is_empty() {
            // What is in flight now is in flight in the time that begins too.
            let in_flight = counters.in_flight();
            usage.in_flight_peak = self.peak.swap(in_flight, Ordering::Relaxed).max(in_flight);
        }
        usage
    }
}

fn take(cell: &AtomicU64) -> u64 {
    if cell.load(Ordering::Relaxed) == 0 { 0 } else { cell.swap(0, Ordering::Relaxed) }
}

/// Takes out what every tenant of a table used since this was called last, those that used something. What a tenant did
/// in its last moments in a table before is gone with it.
pub(crate) fn gather<L: Counted>(table: &RoutingTable<L>) -> Vec<(TenantId, Usage)> {
    let used = table.tenants().filter_map(|entry| {
        let usage = L::tenant_counters(&entry.live).take_usage()?;
        Some((entry.tenant.id, usage))
    });
    used.collect()
}

impl TenantCounters {
    /// What the tenant used since this was called last, if anything.
    fn take_usage(&self) -> Option<Usage> {
        let usage = self.usage.get()?.take(self);
        (!usage.is_empty()).then_some(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Layers;

    #[test]
    fn what_is_gathered_is_gathered_once() {
        let counters = TenantCounters::default();
        assert_eq!(counters.take_usage(), None, "nothing was counted");
        counters.begin();
        counters.begin();
        counters.request(200, 5, 100, Duration::from_millis(3));
        counters.used(RequestClass::Api, 200, Duration::from_millis(3));
        counters.end();
        let usage = counters.take_usage().expect("a request");
        assert_eq!((usage.requests.get(RequestClass::Api, CodeClass::Success), usage.limited), (1, 0));
        assert_eq!((usage.bytes_in, usage.bytes_out, usage.in_flight_peak), (5, 100, 2));
        assert_eq!(usage.latency.count(), 1);
        assert_eq!(counters.take_usage(), None, "nothing since");
        counters.request(429, 0, 7, Duration::ZERO);
        counters.used(RequestClass::Page, 429, Duration::ZERO);
        counters.limited(Some(Layer::Rate), Layers::default());
        let usage = counters.take_usage().expect("another");
        assert_eq!((usage.limited, usage.bytes_out, usage.in_flight_peak), (1, 7, 1));
    }

    #[test]
    fn a_tenant_without_traffic_costs_a_pointer() {
        assert!(size_of::<std::sync::OnceLock<Box<UsageCells>>>() <= 16);
    }
}
