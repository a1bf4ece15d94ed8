//! How many places of a pool each tenant holds, and how many it must leave for the others.
//!
//! With every place taken by one tenant, another's request waits until one is free, be its turn the very next. So a tenant
//! leaves places free in proportion to what it holds: the dynamic threshold of shared buffers (Choudhury and Hahne,
//! "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998). Who holds little may take the last place,
//! who holds much stops before. Where nobody else has been seen for a while, all places are one tenant's.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use schoolgate_config::model::Weight;

/// Places that a tenant of weight 1 may hold for each that is free. In a pool of 64 that one tenant presses on, while
/// others hold 30, it leaves 7 free.
const HELD_PER_FREE: u32 = 4;
/// Milliseconds for which a pool remembers that it served more than one tenant.
const COMPANY_MS: i64 = 10_000;
/// Counters per row; a power of two.
const COLUMNS: usize = 256;
/// 2^64 divided by the golden ratio (Knuth, TAOCP 6.4): numbers given in turn spread over a row.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Whose a place is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    /// The tenant's number in this process.
    pub(crate) tenant: u64,
    /// Its plan's weight.
    pub(crate) weight: Weight,
}

/// Places by tenant: a count-min sketch (Cormode and Muthukrishnan, 2005) of two rows, so that its size does not depend
/// on how many tenants there are. It never says too few. It says too many for a tenant that meets a heavy one in both
/// rows, one in 65,536; that one leaves places as the heavy one does.
#[derive(Debug)]
pub(super) struct Held {
    rows: [[AtomicU32; COLUMNS]; 2],
    /// Who came last, and when it was last another.
    latest: AtomicU64,
    latest_ms: AtomicI64,
    company_until_ms: AtomicI64,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            rows: [const { [const { AtomicU32::new(0) }; COLUMNS] }; 2],
            latest: AtomicU64::new(u64::MAX),
            latest_ms: AtomicI64::new(0),
            company_until_ms: AtomicI64::new(0),
        }
    }
}

impl Held {
    /// A request of a tenant came.
    pub(super) fn seen(&self, tenant: u64, now_ms: i64) {
        self.latest_ms.store(now_ms, Relaxed);
        if self.latest.load(Relaxed) != tenant {
            let is_first = self.latest.swap(tenant, Relaxed) == u64::MAX;
            if !is_first {
                self.company_until_ms.store(now_ms + COMPANY_MS, Relaxed);
            }
        }
    }

    pub(super) fn add(&self, tenant: u64) {
        for cell in self.cells(tenant) {
            cell.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn sub(&self, tenant: u64) {
        for cell in self.cells(tenant) {
            cell.fetch_sub(1, Relaxed);
        }
    }

    /// Whether a tenant may take one of `free` places out of `most`.
    pub(super) fn may_take(&self, claim: Claim, free: u32, most: u32) -> bool {
        // Twice the deviation of how many places a crowd of small tenants holds, were it to fill the pool.
        let enough = 2 * most.isqrt();
        if free == 0 || free > enough {
            return free > 0;
        }
        let may_hold = HELD_PER_FREE.saturating_mul(free).saturating_mul(u32::from(claim.weight.get()));
        self.of(claim.tenant) < may_hold || self.is_alone()
    }

    /// What a tenant holds.
    pub(super) fn of(&self, tenant: u64) -> u32 {
        self.cells(tenant).into_iter().map(|cell| cell.load(Relaxed)).min().unwrap_or(0)
    }

    fn is_alone(&self) -> bool {
        self.latest_ms.load(Relaxed) >= self.company_until_ms.load(Relaxed)
    }

    fn cells(&self, tenant: u64) -> [&AtomicU32; 2] {
        #[expect(clippy::cast_possible_truncation, reason = "below the columns")]
        let columns = [tenant % COLUMNS as u64, tenant.wrapping_mul(GOLDEN) >> 56].map(|column| column as usize);
        [&self.rows[0][columns[0]], &self.rows[1][columns[1]]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(tenant: u64, weight: u16) -> Claim {
        Claim { tenant, weight: Weight::new(weight).expect("a weight") }
    }

    /// Takes as many of `most` places as it may.
    fn fill(held: &Held, claim: Claim, taken: &mut u32, most: u32) -> u32 {
        let before = *taken;
        while held.may_take(claim, most - *taken, most) {
            held.add(claim.tenant);
            *taken += 1;
        }
        *taken - before
    }

    #[test]
    fn who_holds_much_leaves_places_and_who_holds_little_finds_them() {
        let held = Held::default();
        held.seen(1, 0);
        held.seen(2, 0);
        let mut taken = 0;
        assert_eq!(fill(&held, claim(1, 1), &mut taken, 64), 52);
        assert_eq!(fill(&held, claim(2, 1), &mut taken, 64), 10);
        assert!(held.may_take(claim(3, 1), 2, 64), "a third finds one too");
        held.sub(1);
        assert_eq!(held.of(1), 51);
    }

    #[test]
    fn a_plan_with_weight_leaves_less_and_a_large_pool_no_more_than_its_crowd_may_need() {
        let (held, mut taken) = (Held::default(), 0);
        held.seen(1, 0);
        held.seen(2, 0);
        assert_eq!(fill(&held, claim(1, 4), &mut taken, 64), 61);
        let mut taken = 0;
        assert_eq!(fill(&held, claim(2, 1), &mut taken, 10_000), 9_800);
    }

    #[test]
    fn where_nobody_else_was_seen_for_a_while_all_places_are_one_tenants() {
        let (held, mut taken) = (Held::default(), 0);
        held.seen(1, 0);
        assert_eq!(fill(&held, claim(1, 1), &mut taken, 64), 64, "the first that ever came is alone");
        held.seen(2, 1);
        taken = 63;
        assert!(!held.may_take(claim(1, 1), 1, 64) && held.may_take(claim(2, 1), 1, 64));
        held.seen(1, COMPANY_MS);
        held.seen(1, 2 * COMPANY_MS);
        assert!(held.may_take(claim(1, 1), 64 - taken, 64));
        held.seen(1, 3);
        assert!(!held.may_take(claim(1, 1), 1, 64), "a clock that steps back finds company again");
    }

    #[test]
    fn a_small_pool_is_used_whole() {
        for most in 1..=4 {
            let (held, mut taken) = (Held::default(), 0);
            held.seen(1, 0);
            held.seen(2, 0);
            assert_eq!(fill(&held, claim(1, 1), &mut taken, most), most);
        }
    }
}
