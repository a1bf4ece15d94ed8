//! What was gathered and is not acknowledged: numbered flushes, and what is not in one yet.
//!
//! Each flush is counted by its number, so what has been sent under a number must not be sent under another. A flush that
//! may have been sent is *fixed*. One that was not is taken apart again when more is gathered, so that what waits while
//! nobody answers is summed and not queued.

use std::collections::{BTreeMap, VecDeque};

use schoolgate_config::model::{NodeId, TenantId};
use schoolgate_config::usage::{QuotaKind, QuotaUse, Step, Usage, UsageFlush, UsagePart};
use ulid::Ulid;

/// Parts that wait at most: 100,000, some 60 MB. Above that minutes are summed to hours, and then the oldest given up.
const MOST_WAITING: usize = 100_000;

/// What was gathered and is not acknowledged.
#[derive(Debug)]
pub(super) struct Unsent {
    node: NodeId,
    boot: Ulid,
    /// The number of the next flush.
    next: u64,
    /// In the order of their numbers, those of a process before first.
    queue: VecDeque<UsageFlush>,
    /// How many at the front may have been sent.
    fixed: usize,
    /// In no flush, by step, beginning and tenant.
    waiting: BTreeMap<(Step, i64, TenantId), Usage>,
    quotas: BTreeMap<(TenantId, QuotaKind, u16), u64>,
    /// Parts that wait at most.
    most: usize,
    /// Requests given up.
    lost: u64,
}

/// What a tenant used since it was gathered last.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) usage: Vec<(TenantId, Usage)>,
    pub(super) quotas: Vec<QuotaUse>,
}

impl Unsent {
    /// Nothing but what a process before left.
    pub(super) fn new(node: NodeId, boot: Ulid, left: Vec<UsageFlush>) -> Self {
        let fixed = left.len();
        Self {
            node,
            boot,
            next: 1,
            queue: left.into(),
            fixed,
            waiting: BTreeMap::new(),
            quotas: BTreeMap::new(),
            most: MOST_WAITING,
            lost: 0,
        }
    }

    /// Adds what was gathered at `now_s`, and puts all there is into flushes.
    pub(super) fn add(&mut self, gathered: Gathered, now_s: i64) {
        self.take_apart();
        let this_minute = Step::Minute.floor(now_s);
        for (tenant, usage) in gathered.usage {
            self.waiting.entry((Step::Minute, this_minute, tenant)).or_default().merge(&usage);
        }
        for QuotaUse { tenant, quota, period, used } in gathered.quotas {
            *self.quotas.entry((tenant, quota, period)).or_default() += used;
        }
        self.bound(this_minute);
        self.fill();
    }

    /// The flush to send. From here on it is fixed.
    pub(super) fn front(&mut self) -> Option<&UsageFlush> {
        self.fixed = self.fixed.max(self.queue.len().min(1));
        self.queue.front()
    }

    /// The flush in front is counted.
    pub(super) fn acknowledged(&mut self) {
        self.queue.pop_front();
        self.fixed = self.fixed.saturating_sub(1);
    }

    /// Whether the flush in front is of this start.
    pub(super) fn is_own(&self) -> bool {
        self.queue.front().is_some_and(|flush| flush.boot == self.boot)
    }

    /// What of quotas is in the flush in front.
    pub(super) fn quotas_in_front(&self) -> Vec<QuotaUse> {
        self.queue.front().map_or_else(Vec::new, |flush| flush.quotas.clone())
    }

    /// All that is not acknowledged.
    pub(super) fn flushes(&self) -> &VecDeque<UsageFlush> {
        &self.queue
    }

    /// Requests given up since this was asked last.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Takes apart the flushes that were never sent; their numbers are free again.
    fn take_apart(&mut self) {
        for flush in self.queue.drain(self.fixed..) {
            self.next -= 1;
            for UsagePart { tenant, at_s, step, usage } in flush.parts {
                self.waiting.entry((step, at_s, tenant)).or_default().merge(&usage);
            }
            for QuotaUse { tenant, quota, period, used } in flush.quotas {
                *self.quotas.entry((tenant, quota, period)).or_default() += used;
            }
        }
    }

    /// Puts what waits into flushes.
    fn fill(&mut self) {
        while !(self.waiting.is_empty() && self.quotas.is_empty()) {
            let mut flush = UsageFlush {
                node: self.node.clone(),
                boot: self.boot,
                number: self.next,
                parts: Vec::new(),
                quotas: Vec::new(),
            };
            while flush.parts.len() < UsageFlush::MOST_PARTS
                && let Some(((step, at_s, tenant), usage)) = self.waiting.pop_first()
            {
                flush.parts.push(UsagePart { tenant, at_s, step, usage });
            }
            while flush.quotas.len() < UsageFlush::MOST_QUOTAS
                && let Some(((tenant, quota, period), used)) = self.quotas.pop_first()
            {
                flush.quotas.push(QuotaUse { tenant, quota, period, used });
            }
            self.next += 1;
            self.queue.push_back(flush);
        }
    }

    /// Keeps what waits within its bound. Quotas need none: they are two periods of each tenant.
    fn bound(&mut self, this_minute: i64) {
        let none = TenantId::from_parts(0, 0);
        let queued: usize = self.queue.iter().map(|flush| flush.parts.len()).sum();
        let most = self.most.saturating_sub(queued);
        if self.waiting.len() <= most {
            return;
        }
        let past: Vec<_> = self.waiting.range(..(Step::Minute, this_minute, none)).map(|(key, _)| *key).collect();
        for key @ (_, at_s, tenant) in past {
            if let Some(usage) = self.waiting.remove(&key) {
                self.waiting.entry((Step::Hour, Step::Hour.floor(at_s), tenant)).or_default().merge(&usage);
            }
        }
        while self.waiting.len() > most {
            // Hours come after minutes, and are older.
            let oldest = self.waiting.range((Step::Hour, i64::MIN, none)..).next();
            let oldest = oldest.or_else(|| self.waiting.iter().next()).map(|(key, _)| *key);
            let given_up = oldest.and_then(|key| self.waiting.remove(&key));
            self.lost += given_up.map_or(0, |usage| usage.requests.total());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use schoolgate_config::usage::{CodeClass, RequestClass};

    use super::*;

    fn node() -> NodeId {
        "n1".parse().expect("a name")
    }

    fn unsent(boot: u128) -> Unsent {
        Unsent::new(node(), Ulid::from_parts(0, boot), Vec::new())
    }

    fn tenant(n: u128) -> TenantId {
        TenantId::from_parts(0, n)
    }

    /// Each of these tenants made a request.
    fn requests(tenants: impl IntoIterator<Item = u128>) -> Gathered {
        let mut usage = Usage::default();
        usage.requests.add(RequestClass::Page, CodeClass::Success, 1);
        Gathered { usage: tenants.into_iter().map(|n| (tenant(n), usage.clone())).collect(), quotas: Vec::new() }
    }

    fn total<'a>(flushes: impl IntoIterator<Item = &'a UsageFlush>) -> u64 {
        flushes.into_iter().flat_map(|flush| &flush.parts).map(|part| part.usage.requests.total()).sum()
    }

    /// A control plane that counts each number once.
    #[derive(Default)]
    struct Counter {
        last: BTreeMap<Ulid, u64>,
        counted: BTreeMap<TenantId, u64>,
    }

    impl Counter {
        fn take(&mut self, flush: &UsageFlush) {
            let last = self.last.entry(flush.boot).or_default();
            if flush.number > *last {
                *last = flush.number;
                for part in &flush.parts {
                    *self.counted.entry(part.tenant).or_default() += part.usage.requests.total();
                }
            }
        }
    }

    #[derive(Debug, Clone, Copy)]
    struct Round {
        /// Tenants that make a request.
        tenants: u128,
        /// Flushes that arrive and are acknowledged before something happens.
        arrive: usize,
        then: Then,
    }

    #[derive(Debug, Clone, Copy)]
    enum Then {
        /// A flush is lost on its way.
        Lost,
        /// A flush is counted, and its answer lost.
        AnswerLost,
        /// The proxy is killed.
        Killed,
    }

    fn round() -> impl Strategy<Value = Round> {
        let then = prop_oneof![Just(Then::Lost), Just(Then::AnswerLost), Just(Then::Killed)];
        (0_u128..400, 0_usize..4, then).prop_map(|(tenants, arrive, then)| Round { tenants, arrive, then })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn whatever_is_lost_on_the_way_each_request_is_counted_once(rounds in prop::collection::vec(round(), 0..16)) {
            let mut boot = 1;
            let mut unsent = unsent(boot);
            let mut counter = Counter::default();
            // What is in the file; written before anything is sent, once something was not acknowledged.
            let mut file: Option<Vec<UsageFlush>> = None;
            let mut made = 0;
            let mut may_be_lost = BTreeSet::new();
            for (at, Round { tenants, arrive, then }) in rounds.into_iter().enumerate() {
                unsent.add(requests(made..made + tenants), at as i64 * 7);
                let new = made..made + tenants;
                made += tenants;
                if file.is_some() {
                    file = Some(unsent.flushes().iter().cloned().collect());
                }
                for _ in 0..arrive {
                    if let Some(flush) = unsent.front() {
                        counter.take(flush);
                        unsent.acknowledged();
                    }
                }
                match then {
                    Then::Killed => {
                        if file.is_none() {
                            may_be_lost.extend(new.map(tenant));
                        }
                        boot += 1;
                        unsent = Unsent::new(node(), Ulid::from_parts(0, boot), file.clone().unwrap_or_default());
                    }
                    Then::Lost | Then::AnswerLost => {
                        let front = unsent.front().cloned();
                        if let (Some(flush), Then::AnswerLost) = (&front, then) {
                            counter.take(flush);
                        }
                        file = match front {
                            Some(_) => file.or_else(|| Some(unsent.flushes().iter().cloned().collect())),
                            None => None,
                        };
                    }
                }
            }
            while let Some(flush) = unsent.front() {
                counter.take(flush);
                unsent.acknowledged();
            }
            for n in 0..made {
                let counted = counter.counted.get(&tenant(n)).copied().unwrap_or_default();
                prop_assert!(counted <= 1, "tenant {n} was counted {counted} times");
                prop_assert!(counted == 1 || may_be_lost.contains(&tenant(n)), "tenant {n} was not counted");
            }
        }
    }

    #[test]
    fn a_flush_is_sent_as_it_is_until_it_is_acknowledged() {
        let mut unsent = unsent(1);
        assert_eq!(unsent.front(), None);
        unsent.add(requests([1]), 61);
        let first = unsent.front().expect("something").clone();
        assert_eq!((first.number, first.parts[0].at_s), (1, 60));
        unsent.add(requests([1]), 62);
        unsent.add(requests([1]), 63);
        assert_eq!(unsent.front(), Some(&first), "what came meanwhile waits");
        unsent.acknowledged();
        let second = unsent.front().expect("the rest").clone();
        assert_eq!((second.number, second.parts.len(), total([&second])), (2, 1, 2), "and is summed");
    }

    #[test]
    fn a_large_gathering_is_sent_in_pieces() {
        let mut unsent = unsent(1);
        unsent.add(requests(0..700), 0);
        let sizes: Vec<_> = unsent.flushes().iter().map(|flush| (flush.number, flush.parts.len())).collect();
        assert_eq!(sizes, [(1, 300), (2, 300), (3, 100)]);
    }

    #[test]
    fn what_waits_for_days_is_bounded_first_by_summing_and_then_by_giving_up_the_oldest() {
        let mut unsent = Unsent { most: 1_000, ..unsent(1) };
        let waiting = |unsent: &Unsent| unsent.flushes().iter().map(|flush| flush.parts.len()).sum::<usize>();
        let mut added = 0;
        for minute in 0..25 {
            unsent.add(requests(0..50), minute * 60);
            added += 50;
        }
        assert!(waiting(&unsent) <= 1_000);
        assert_eq!((total(unsent.flushes()), unsent.take_lost()), (added, 0), "summed to hours it fits");
        for hour in 2..40 {
            unsent.add(requests(0..50), hour * 3_600);
            added += 50;
        }
        assert!(waiting(&unsent) <= 1_000);
        let lost = unsent.take_lost();
        assert!(lost > 0);
        assert_eq!(total(unsent.flushes()) + lost, added, "what is given up is counted");
    }

    #[test]
    fn quotas_travel_with_usage_and_are_summed_while_they_wait() {
        let mut unsent = unsent(1);
        let used = |used| QuotaUse { tenant: tenant(1), quota: QuotaKind::RequestsPerDay, period: 20_778, used };
        for n in [2, 3] {
            unsent.add(Gathered { usage: Vec::new(), quotas: vec![used(n)] }, 0);
        }
        assert_eq!(unsent.front().map(|flush| flush.quotas.clone()), Some(vec![used(5)]));
    }
}
