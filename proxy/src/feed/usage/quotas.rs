//! What of quotas was used, here and on the whole fleet.
//!
//! A node's counters begin at zero when it starts and only grow within a period. What they grew by is handed over with
//! usage, each piece once; the answer says what the fleet has used. The difference is what others used, and this node
//! before its start: that is what a counter is told. It is as old as the last flush, so a hard quota can be exceeded by
//! what the other nodes let through in the time of one flush, and never by more.

use std::collections::HashMap;

use schoolgate_config::model::TenantId;
use schoolgate_config::usage::{QuotaKind, QuotaUse};

/// A period's number, and a count in it.
pub(super) type Counted = (u16, u64);

/// What a counter is told: so much of this quota was used elsewhere in this period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elsewhere {
    pub(super) tenant: TenantId,
    pub(super) quota: QuotaKind,
    pub(super) period: u16,
    pub(super) used: u64,
}

/// What this node has handed over, and what the fleet has used.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    /// What of this node's own counts was gathered, by period: the last two.
    gathered: HashMap<(TenantId, QuotaKind), Vec<Counted>>,
    /// What of it is acknowledged.
    acknowledged: HashMap<(TenantId, QuotaKind, u16), u64>,
    /// What the fleet has used, in the latest period that was heard of.
    totals: HashMap<(TenantId, QuotaKind), Counted>,
}

impl Quotas {
    /// What a tenant's counts have grown by since they were gathered last.
    pub(super) fn gather(&mut self, tenant: TenantId, quota: QuotaKind, counts: [Counted; 2]) -> Vec<QuotaUse> {
        let counts: Vec<Counted> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        let before = self.gathered.get(&(tenant, quota)).map_or(&[][..], Vec::as_slice);
        let grown = |(period, count): &Counted| {
            let known = before.iter().find(|(of, _)| of == period).map_or(0, |(_, count)| *count);
            let used = count.saturating_sub(known);
            (used > 0).then_some(QuotaUse { tenant, quota, period: *period, used })
        };
        let uses: Vec<QuotaUse> = counts.iter().filter_map(grown).collect();
        if !uses.is_empty() {
            let mut counts = counts;
            for (period, count) in before {
                if let Some((_, new)) = counts.iter_mut().find(|(of, _)| of == period) {
                    // One that was taken back counts again when it comes again, not twice.
                    *new = (*new).max(*count);
                }
            }
            self.gathered.insert((tenant, quota), counts);
        }
        uses
    }

    /// A flush of this start was counted, and the fleet has used these totals then.
    pub(super) fn acknowledged(&mut self, handed_over: &[QuotaUse], totals: &[QuotaUse]) -> Vec<Elsewhere> {
        for QuotaUse { tenant, quota, period, used } in handed_over {
            *self.acknowledged.entry((*tenant, *quota, *period)).or_default() += used;
        }
        // Only the latest two periods of each are ever asked about again.
        if let Some(latest) = handed_over.iter().map(|used| (used.quota, used.period)).max_by_key(|(_, period)| *period)
        {
            self.acknowledged.retain(|(_, quota, period), _| *quota != latest.0 || period + 2 >= latest.1);
        }
        self.heard(totals)
    }

    /// The fleet has used these totals.
    pub(super) fn heard(&mut self, totals: &[QuotaUse]) -> Vec<Elsewhere> {
        let mut told: HashMap<(TenantId, QuotaKind), Elsewhere> = HashMap::new();
        for QuotaUse { tenant, quota, period, used } in totals {
            let key = (*tenant, *quota);
            let known = self.totals.entry(key).or_insert((*period, *used));
            if known.0 > *period {
                continue;
            }
            *known = (*period, *used);
            let own = self.acknowledged.get(&(*tenant, *quota, *period)).copied().unwrap_or_default();
            let elsewhere =
                Elsewhere { tenant: *tenant, quota: *quota, period: *period, used: used.saturating_sub(own) };
            told.insert(key, elsewhere);
        }
        told.into_values().collect()
    }

    /// What the fleet has used as far as it is known: to be found again when the control plane is away.
    pub(super) fn totals(&self) -> Vec<QuotaUse> {
        let use_of = |(&(tenant, quota), &(period, used)): (&(TenantId, QuotaKind), &Counted)| QuotaUse {
            tenant,
            quota,
            period,
            used,
        };
        self.totals.iter().map(use_of).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIND: QuotaKind = QuotaKind::RequestsPerDay;

    fn tenant() -> TenantId {
        TenantId::from_parts(1, 1)
    }

    fn used(period: u16, used: u64) -> QuotaUse {
        QuotaUse { tenant: tenant(), quota: KIND, period, used }
    }

    fn elsewhere(told: &[Elsewhere]) -> Vec<Counted> {
        told.iter().map(|told| (told.period, told.used)).collect()
    }

    #[test]
    fn what_is_gathered_is_what_grew_also_over_midnight() {
        let mut quotas = Quotas::default();
        assert_eq!(quotas.gather(tenant(), KIND, [(0, 0), (7, 5)]), [used(7, 5)]);
        assert_eq!(quotas.gather(tenant(), KIND, [(0, 0), (7, 5)]), []);
        assert_eq!(quotas.gather(tenant(), KIND, [(7, 8), (8, 1)]), [used(7, 3), used(8, 1)]);
        assert_eq!(quotas.gather(tenant(), KIND, [(7, 8), (8, 0)]), [], "one was taken back");
        assert_eq!(quotas.gather(tenant(), KIND, [(7, 8), (8, 1)]), [], "and came again");
        assert_eq!(quotas.gather(tenant(), KIND, [(7, 8), (8, 2)]), [used(8, 1)]);
    }

    #[test]
    fn what_others_used_is_the_total_without_what_is_ours() {
        let mut quotas = Quotas::default();
        // Before anything is handed over all of the total is others', and ours from before the start.
        assert_eq!(elsewhere(&quotas.heard(&[used(7, 40)])), [(7, 40)]);
        assert_eq!(elsewhere(&quotas.acknowledged(&[used(7, 5)], &[used(7, 47)])), [(7, 42)]);
        assert_eq!(elsewhere(&quotas.acknowledged(&[used(7, 3)], &[used(7, 50)])), [(7, 42)]);
        assert_eq!(elsewhere(&quotas.acknowledged(&[used(8, 1), used(7, 1)], &[used(7, 60), used(8, 1)])), [(8, 0)]);
        assert_eq!(elsewhere(&quotas.heard(&[used(7, 90)])), [], "of a day that is over nobody asks");
        assert_eq!(quotas.totals(), [used(8, 1)]);
    }

    proptest! {
        /// Nodes that count, flush and start anew: what a node takes for used is never less than what it knows was handed
        /// over, and when all have flushed it is the sum of all.
        #[test]
        fn the_sum_of_what_nodes_count_is_what_each_takes_for_used(
            steps in prop::collection::vec((0_usize..3, 0_u64..9, prop::bool::weighted(0.1)), 1..80),
        ) {
            let mut nodes: [(Quotas, u64, u64); 3] = Default::default();
            let (mut total, mut sum) = (0, 0);
            let flush = |node: &mut (Quotas, u64, u64), total: &mut u64| {
                let handed: Vec<_> = node.0.gather(tenant(), KIND, [(0, 0), (7, node.1)]);
                *total += handed.iter().map(|used| used.used).sum::<u64>();
                if *total > 0 {
                    for told in node.0.acknowledged(&handed, &[used(7, *total)]) {
                        node.2 = told.used;
                    }
                }
            };
            for (at, more, restart) in steps {
                nodes[at].1 += more;
                sum += more;
                flush(&mut nodes[at], &mut total);
                prop_assert_eq!(nodes[at].1 + nodes[at].2, total);
                if restart {
                    nodes[at] = Default::default();
                }
            }
            for node in &mut nodes {
                flush(node, &mut total);
                prop_assert!(total == 0 || node.1 + node.2 == sum);
            }
        }
    }
}
