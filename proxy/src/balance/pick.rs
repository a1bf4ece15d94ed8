//! The choice: a pure function of what this node knows of a pool, of who asks, of the time and of a seed, so that any
//! choice can be replayed. Who is well is decided elsewhere: [`super::health`], [`super::outlier`], [`super::circuit`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use schoolgate_config::model::{BackendId, BackendState, Balance, ShardSize};

use super::circuit::Avoided;
use super::pool::{LiveBackend, LivePool, Member};
use super::rendezvous::{Best, Point, even_score, even_score_of_best, score};

/// No backend takes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoBackend;

/// What a choice depends on beside the pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// Who asks.
    pub(crate) tenant: Point,
    /// The backend that a cookie of ours names.
    pub(crate) sticky: Option<BackendId>,
    /// Backends that failed this request.
    pub(crate) tried: &'a [BackendId],
    /// Backends that failed this tenant.
    pub(crate) avoided: &'a Avoided,
    /// Milliseconds since 1970.
    pub(crate) now_ms: i64,
    /// Chance.
    pub(crate) seed: u64,
}

/// More than its share that `tenant_hash` lets a backend have in flight, in quarters: 5, that is 1.25 times ("bounded
/// load", Mirrokni, Thorup, Zadimoghaddam 2018).
const BOUND_QUARTERS: u64 = 5;

/// Where to look.
#[derive(Clone, Copy)]
enum Among<'a> {
    /// The whole pool.
    All,
    /// The tenant's shard.
    Shard(&'a Best<{ ShardSize::MOST as usize }>),
}

impl LivePool {
    /// Chooses a backend.
    ///
    /// Asked are, in this order: those that are well; those that are new and not yet checked; and, since an ejection is a
    /// guess and a guess that leaves nobody is worth less than an attempt, those that rest after failed requests. One whose
    /// checks fail is not asked, nor one that gives this tenant no answer at all, unless the pool is in panic.
    ///
    /// # Errors
    /// [`NoBackend`] when none is left.
    pub(crate) fn pick(&self, choice: &Choice<'_>) -> Result<&Arc<LiveBackend>, NoBackend> {
        let now = choice.now_ms;
        let usable = |m: &Member| {
            m.state == BackendState::Active
                && !choice.tried.contains(&m.backend.id)
                && !choice.avoided.refuses(m.backend.id)
        };
        let well = |m: &Member| usable(m) && m.is_well(now) && !choice.avoided.contains(m.backend.id);
        let proven = |m: &Member| well(m) && !(self.rule.checked && m.backend.is_unproven());
        let last = |m: &Member| usable(m) && !m.backend.is_unhealthy();
        if let Some(id) = choice.sticky
            && let Some(member) = self.members().iter().find(|m| m.backend.id == id && well(m))
        {
            return Ok(&member.backend);
        }
        let shard = self.shard(choice.tenant);
        let mine = shard.as_ref().map_or(Among::All, Among::Shard);
        let chosen = if self.panics(now) {
            self.choose(mine, usable, choice).or_else(|| self.choose(Among::All, usable, choice))
        } else {
            let of = |among| self.choose(among, proven, choice).or_else(|| self.choose(among, well, choice));
            of(mine).or_else(|| {
                if self.is_alive(mine, choice) {
                    // A busy shard is no reason to leave it, nor is one that fails this tenant only: what is wrong with
                    // the tenant would go round the pool.
                    return self.choose(mine, last, choice);
                }
                of(Among::All)
                    .or_else(|| self.choose(mine, last, choice))
                    .or_else(|| self.choose(Among::All, last, choice))
            })
        };
        chosen.map(|m| &m.backend).ok_or(NoBackend)
    }

    /// The backends that a tenant uses, if that is not all of them.
    fn shard(&self, tenant: Point) -> Option<Best<{ ShardSize::MOST as usize }>> {
        let size = self.rule.shard?;
        let active = || self.members().iter().zip(0..).filter(|(m, _)| m.state == BackendState::Active);
        if active().count() <= size {
            return None;
        }
        let mut best = Best::new(size);
        // Health does not count: a tenant keeps its shard while a backend of it is away.
        let even = self.rule.even;
        active().for_each(|(m, index)| {
            let score =
                if even { even_score_of_best(tenant, m.point) } else { score(tenant, m.point, u64::from(m.weight)) };
            best.see(score, index);
        });
        Some(best)
    }

    /// Whether a backend there is well as far as others than this request and this tenant can say.
    fn is_alive(&self, among: Among<'_>, choice: &Choice<'_>) -> bool {
        let alive = |m: &Member| {
            m.state == BackendState::Active && m.is_well(choice.now_ms) && !choice.tried.contains(&m.backend.id)
        };
        match among {
            Among::All => true,
            Among::Shard(best) => best.indices().any(|index| alive(&self.members()[index])),
        }
    }

    /// Whether so few are well that all are asked.
    fn panics(&self, now_ms: i64) -> bool {
        if self.rule.panic_percent == 0 {
            return false;
        }
        let active = || self.members().iter().filter(|m| m.state == BackendState::Active);
        let (all, well) = (active().count() as u64, active().filter(|m| m.is_well(now_ms)).count() as u64);
        well * 100 < all * self.rule.panic_percent
    }

    fn choose<F: Fn(&Member) -> bool>(&self, among: Among<'_>, fits: F, choice: &Choice<'_>) -> Option<&Member> {
        let members = self.members();
        match among {
            Among::All => self.choose_of(members.iter().filter(|m| fits(m)), choice),
            Among::Shard(best) => {
                self.choose_of(best.indices().map(|index| &members[index]).filter(|m| fits(m)), choice)
            }
        }
    }

    fn choose_of<'m, I>(&self, candidates: I, choice: &Choice<'_>) -> Option<&'m Member>
    where
        I: Iterator<Item = &'m Member> + Clone,
    {
        let weight = |m: &Member| self.weight(m, choice.now_ms);
        let total: u64 = candidates.clone().map(weight).sum();
        if total == 0 {
            return None;
        }
        match self.rule.balance {
            Balance::LeastRequest | Balance::Sticky => least_request(candidates, weight, total, choice.seed),
            Balance::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) as u64;
                // Weights 3 and 3 are 1 and 1: a shorter line mixes better.
                let unit = candidates.clone().fold(0, |unit, m| gcd(unit, weight(m)));
                at_weight(candidates, weight, spread(turn, total / unit) * unit)
            }
            Balance::TenantHash => preferred(candidates, weight, total, choice.tenant),
        }
    }

    /// A member's weight now, times [`Self::WEIGHT_UNIT`]: less while it starts.
    fn weight(&self, member: &Member, now_ms: i64) -> u64 {
        let full = u64::from(member.weight) * Self::WEIGHT_UNIT;
        match member.backend.warmth(self.rule.slow_start_ms, now_ms) {
            None => full,
            Some(permille) => (full * permille / 1_000).max(1),
        }
    }

    /// A weight of 1, in parts that a slow start can count.
    const WEIGHT_UNIT: u64 = 128;
}

/// The less loaded of two candidates drawn at random ("power of two choices"), draws and loads both by weight.
fn least_request<'m, I: Iterator<Item = &'m Member> + Clone>(
    candidates: I,
    weight: impl Fn(&Member) -> u64,
    total: u64,
    seed: u64,
) -> Option<&'m Member> {
    // Two independent halves of the seed, each scaled to its range (Lemire: a multiplication instead of a division).
    let scaled = |half: u64, range: u64| ((u128::from(half) * u128::from(range)) >> 32) as u64;
    let first = at_weight(candidates.clone(), &weight, scaled(seed & 0xffff_ffff, total))?;
    let rest = total - weight(first).min(total);
    if rest == 0 {
        return Some(first);
    }
    let others = candidates.filter(|m| m.backend.id != first.backend.id);
    let Some(second) = at_weight(others, &weight, scaled(seed >> 32, rest)) else { return Some(first) };
    // The request itself counts, so that of two idle ones the heavier is the less loaded.
    let load = |a: &Member, b: &Member| a.backend.in_flight() * weight(b);
    Some(if load(second, first) < load(first, second) { second } else { first })
}

/// The candidate that the tenant prefers among those that do not have far more than their share in flight.
fn preferred<'m, I: Iterator<Item = &'m Member> + Clone>(
    candidates: I,
    weight: impl Fn(&Member) -> u64,
    total: u64,
    tenant: Point,
) -> Option<&'m Member> {
    let in_flight: u64 = candidates.clone().map(|m| m.backend.in_flight()).sum();
    // At least one has room: if none had, more would be in flight than is.
    let has_room = |m: &&Member| m.backend.in_flight() * total * 4 < (in_flight + 1) * weight(m) * BOUND_QUARTERS;
    let mut with_room = candidates.filter(has_room).map(|m| (m, weight(m)));
    let first = with_room.clone().next()?;
    let even = with_room.clone().all(|(_, weight)| weight == first.1);
    if even {
        return with_room.max_by_key(|(m, _)| even_score(tenant, m.point)).map(|(m, _)| m);
    }
    let mut best = (first.0, f64::MIN);
    with_room.by_ref().for_each(|(m, weight)| {
        let score = score(tenant, m.point, weight);
        if score > best.1 {
            best = (m, score);
        }
    });
    Some(best.0)
}

/// The candidate that owns a point on the line of all candidates' weights.
fn at_weight<'m>(
    mut candidates: impl Iterator<Item = &'m Member>,
    weight: impl Fn(&Member) -> u64,
    mut point: u64,
) -> Option<&'m Member> {
    candidates.find(|m| {
        let weight = weight(m);
        let owns = point < weight;
        point = point.wrapping_sub(weight);
        owns
    })
}

/// The point of a turn. Steps of about 0.618 of the line, coprime with its length, visit every point once in `total`
/// turns and neighbours far apart, so that a heavy backend's turns are not all in a row.
fn spread(turn: u64, total: u64) -> u64 {
    let mut step = (total * 618 / 1_000).max(1);
    while gcd(step, total) != 1 {
        step += 1;
    }
    (turn % total) * step % total
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use schoolgate_config::model::{Ejection, Pool};

    use super::super::pool::InFlight;
    use super::super::pool::tests::{live, next as next_of, pool};
    use super::*;

    fn choice(seed: u64) -> Choice<'static> {
        Choice { tenant: Point::of(1), sticky: None, tried: &[], avoided: &Avoided::NONE, now_ms: 0, seed }
    }

    fn of_tenant(tenant: u128) -> Choice<'static> {
        Choice { tenant: Point::of(tenant << 64 | tenant), ..choice(7) }
    }

    fn balanced(weights: &[u16], balance: Balance) -> Pool {
        Pool { balance, ..pool(weights) }
    }

    fn sharded(backends: usize, size: u8) -> Pool {
        Pool { shard_size: ShardSize::new(size), ..pool(&vec![1; backends]) }
    }

    fn picked(live: &LivePool, choice: &Choice<'_>) -> usize {
        let id = live.pick(choice).expect("a backend").id;
        live.members().iter().position(|m| m.backend.id == id).expect("a member")
    }

    /// Everything a tenant is given over many chances.
    fn reached(live: &LivePool, tenant: u128) -> HashSet<usize> {
        let mut chance = fastrand::Rng::with_seed(3);
        (0..200).map(|_| picked(live, &Choice { seed: chance.u64(..), ..of_tenant(tenant) })).collect()
    }

    fn counts(live: &LivePool, rounds: u64) -> Vec<u64> {
        let mut counts = vec![0; live.members().len()];
        let mut chance = fastrand::Rng::with_seed(7);
        for _ in 0..rounds {
            counts[picked(live, &choice(chance.u64(..)))] += 1;
        }
        counts
    }

    fn eject(live: &LivePool, n: usize, until_ms: i64) {
        live.members()[n].backend.ejected_until_ms.store(until_ms, Ordering::Relaxed);
    }

    fn fail_checks(live: &LivePool, n: usize) {
        live.members()[n].backend.checked(&Err("no".into()), 1, 1);
    }

    #[test]
    fn the_less_loaded_of_two_is_chosen() {
        let live = live(&pool(&[1, 1]));
        let _busy: Vec<_> = (0..3).map(|_| InFlight::take(&live.members()[0].backend)).collect();
        for seed in 0..1_000u64 {
            assert_eq!(picked(&live, &choice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))), 1);
        }
    }

    #[test]
    fn idle_backends_share_by_weight() {
        let counts = counts(&live(&pool(&[1, 2, 5])), 8_000);
        assert!((800..1_200).contains(&counts[0]), "{counts:?}");
        assert!(counts[2] > counts[1] && counts[1] > counts[0], "{counts:?}");
    }

    #[test]
    fn round_robin_gives_each_its_weight_in_every_round_and_not_in_a_row() {
        let uneven = live(&balanced(&[1, 2, 5], Balance::RoundRobin));
        assert_eq!(counts(&uneven, 8), [1, 2, 5]);
        let even = live(&balanced(&[3, 3], Balance::RoundRobin));
        let row: Vec<_> = (0..6).map(|_| picked(&even, &choice(0))).collect();
        assert!(!row.windows(3).any(|w| w[0] == w[1] && w[1] == w[2]), "{row:?}");
    }

    #[test]
    fn only_active_backends_that_pass_their_checks_and_were_not_tried_are_candidates() {
        let mut pool = pool(&[1, 1, 1, 1]);
        pool.backends[0].state = BackendState::Draining;
        pool.backends[1].state = BackendState::Disabled;
        let live = live(&pool);
        fail_checks(&live, 2);
        assert_eq!(picked(&live, &choice(1)), 3);
        let tried = [live.members()[3].backend.id];
        assert!(live.pick(&Choice { tried: &tried, ..choice(1) }).is_err());
    }

    #[test]
    fn a_pool_that_rests_as_a_whole_is_asked_nevertheless() {
        let live = live(&pool(&[1, 1]));
        (0..2).for_each(|n| eject(&live, n, 1_000));
        assert!(live.pick(&Choice { now_ms: 10, ..choice(3) }).is_ok());
        (0..2).for_each(|n| fail_checks(&live, n));
        assert!(live.pick(&Choice { now_ms: 10, ..choice(3) }).is_err());
    }

    #[test]
    fn a_pool_without_backends_has_none() {
        for balance in [Balance::RoundRobin, Balance::TenantHash, Balance::Sticky, Balance::LeastRequest] {
            assert!(live(&balanced(&[], balance)).pick(&choice(0)).is_err());
        }
    }

    #[test]
    fn below_the_panic_threshold_all_are_asked() {
        let ejection = Ejection { panic_percent: 50, ..Ejection::default() };
        let live = live(&Pool { ejection, ..pool(&[1, 1, 1, 1]) });
        (0..2).for_each(|n| fail_checks(&live, n));
        assert_eq!(counts(&live, 200)[..2], [0, 0], "half of them are well");
        fail_checks(&live, 2);
        assert!(counts(&live, 400).iter().all(|count| *count > 50), "a quarter is well");
    }

    #[test]
    fn a_tenant_keeps_its_backend_while_that_is_well_and_not_overloaded() {
        let live = live(&balanced(&[1; 5], Balance::TenantHash));
        for tenant in 0..100 {
            let own = picked(&live, &of_tenant(tenant));
            assert!((0..20).all(|seed| picked(&live, &Choice { seed, ..of_tenant(tenant) }) == own));
            eject(&live, own, 1_000);
            let next = picked(&live, &of_tenant(tenant));
            assert_ne!(next, own);
            eject(&live, own, 0);
            assert_eq!(picked(&live, &of_tenant(tenant)), own, "it comes back to where its caches are");
        }
    }

    #[test]
    fn no_backend_has_more_than_a_quarter_above_its_share_however_heavy_a_tenant_is() {
        for weights in [vec![1; 8], vec![1, 2, 5, 1]] {
            let live = live(&balanced(&weights, Balance::TenantHash));
            let all: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            let mut in_flight = Vec::new();
            let mut chance = fastrand::Rng::with_seed(11);
            for _ in 0..3_000 {
                // One tenant asks for half of everything.
                let tenant = if chance.bool() { 1 } else { u128::from(chance.u16(..)) };
                let backend = live.pick(&of_tenant(tenant)).expect("a backend");
                in_flight.push(InFlight::take(backend));
                if chance.u8(..) < 100 {
                    in_flight.swap_remove(chance.usize(..in_flight.len()));
                }
            }
            // What ended may have left a backend above; what was given since did not put it there.
            let newest = live.pick(&of_tenant(1)).expect("a backend");
            let total = in_flight.len() as u64 + 1;
            let weight =
                live.members().iter().find(|m| m.backend.id == newest.id).map(|m| u64::from(m.weight)).unwrap();
            assert!(newest.in_flight() * all * 4 < total * weight * 5);
        }
    }

    #[test]
    fn one_of_n_backends_more_moves_one_of_n_tenants() {
        let of = |n: usize| live(&balanced(&vec![1; n], Balance::TenantHash));
        let (before, after) = (of(9), of(10));
        let moved = (0..5_000).filter(|t| picked(&before, &of_tenant(*t)) != picked(&after, &of_tenant(*t))).count();
        assert!((400..600).contains(&moved), "{moved} of 5,000");
    }

    #[test]
    fn a_shard_is_of_its_size_and_shards_differ() {
        let live = live(&sharded(12, 3));
        let shards: Vec<_> = (0..40).map(|tenant| reached(&live, tenant)).collect();
        assert!(shards.iter().all(|shard| shard.len() == 3), "{shards:?}");
        let distinct: HashSet<Vec<usize>> = shards
            .iter()
            .map(|shard| {
                let mut sorted: Vec<_> = shard.iter().copied().collect();
                sorted.sort_unstable();
                sorted
            })
            .collect();
        assert!(distinct.len() > 30, "{} of 40 differ", distinct.len());
        assert_eq!(
            reached(&super::tests::live(&sharded(3, 5)), 1).len(),
            3,
            "a pool smaller than a shard is used whole"
        );
    }

    #[test]
    fn one_more_backend_changes_at_most_one_place_of_a_shard() {
        let (before, after) = (live(&sharded(9, 3)), live(&sharded(10, 3)));
        let mut changed = 0;
        for tenant in 0..300 {
            let (was, is) = (reached(&before, tenant), reached(&after, tenant));
            let new: Vec<_> = is.difference(&was).collect();
            assert!(new.is_empty() || new == [&9], "{was:?} became {is:?}");
            changed += new.len();
        }
        assert!((50..130).contains(&changed), "{changed} of 300; 3 of 10 were due");
    }

    #[test]
    fn a_shard_is_left_when_none_of_it_is_well_and_never_for_load() {
        let live = live(&sharded(8, 2));
        let shard: Vec<_> = reached(&live, 1).into_iter().collect();
        let busy: Vec<_> =
            shard.iter().flat_map(|n| (0..50).map(|_| InFlight::take(&live.members()[*n].backend))).collect();
        assert!(reached(&live, 1).iter().all(|n| shard.contains(n)), "busy is no reason");
        drop(busy);
        fail_checks(&live, shard[0]);
        assert_eq!(reached(&live, 1), HashSet::from([shard[1]]), "the other one of the shard takes all");
        eject(&live, shard[1], 1_000);
        let outside = reached(&live, 1);
        assert!(!outside.is_empty() && outside.iter().all(|n| !shard.contains(n)), "{outside:?}");
    }

    #[test]
    fn what_fails_one_tenant_only_is_no_reason_to_leave_its_shard() {
        let live = live(&sharded(8, 2));
        let shard = reached(&live, 1);
        let mut avoided = Avoided::NONE;
        shard.iter().for_each(|n| avoided.add(live.members()[*n].backend.id, false));
        let mut seeds = fastrand::Rng::with_seed(5);
        for _ in 0..50 {
            let choice = Choice { avoided: &avoided, seed: seeds.u64(..), ..of_tenant(1) };
            assert!(shard.contains(&picked(&live, &choice)));
        }
        let mut silent = Avoided::NONE;
        shard.iter().for_each(|n| silent.add(live.members()[*n].backend.id, true));
        assert!(live.pick(&Choice { avoided: &silent, ..of_tenant(1) }).is_err(), "its circuit is open");
        assert!(live.pick(&of_tenant(1)).is_ok(), "and nobody else's");
    }

    #[test]
    fn a_backend_that_fails_a_tenant_is_avoided_by_that_tenant() {
        let live = live(&pool(&[1, 1, 1]));
        let mut avoided = Avoided::NONE;
        avoided.add(live.members()[1].backend.id, false);
        let mut seeds = fastrand::Rng::with_seed(5);
        assert!((0..100).all(|_| picked(&live, &Choice { avoided: &avoided, ..choice(seeds.u64(..)) }) != 1));
        assert!((0..100).any(|_| picked(&live, &choice(seeds.u64(..))) == 1));
    }

    #[test]
    fn a_cookie_leads_back_to_its_backend_while_that_is_well() {
        let live = live(&balanced(&[1, 1, 1], Balance::Sticky));
        let id = live.members()[2].backend.id;
        let mut seeds = fastrand::Rng::with_seed(5);
        let mut with_cookie = || {
            let choice = Choice { sticky: Some(id), ..choice(seeds.u64(..)) };
            live.pick(&choice).expect("a backend").id
        };
        assert!((0..50).all(|_| with_cookie() == id));
        eject(&live, 2, 1_000);
        assert!((0..50).all(|_| with_cookie() != id));
    }

    #[test]
    fn a_backend_that_comes_to_a_pool_starts_slowly_and_after_its_first_check() {
        let starting = |n: usize| Pool { slow_start_s: 10, health_check: None, ..pool(&vec![1; n]) };
        let next = next_of(&starting(2), &live(&starting(1)));
        let share = |now_ms: i64| {
            let mut chance = fastrand::Rng::with_seed(1);
            let of = (0..2_000).filter(|_| picked(&next, &Choice { now_ms, ..choice(chance.u64(..)) }) == 1).count();
            of as f64 / 2_000.0
        };
        assert!(share(1_000) < 0.25, "a tenth of a weight beside a whole one");
        assert!((0.2..0.45).contains(&share(6_000)));
        assert!((0.45..0.55).contains(&share(11_001)));

        let checked = |n: usize| pool(&vec![1; n]);
        let next = next_of(&checked(2), &live(&checked(1)));
        assert_eq!(counts(&next, 100), [100, 0], "it was not checked yet");
        next.members()[1].backend.checked(&Ok(()), 1, 1);
        assert!(counts(&next, 100)[1] > 20);
    }

    #[test]
    fn every_balance_is_spread_over_tenants() {
        let live = live(&balanced(&[1; 4], Balance::TenantHash));
        let mut counts = HashMap::new();
        (0..2_000).for_each(|tenant| *counts.entry(picked(&live, &of_tenant(tenant))).or_insert(0) += 1);
        assert!(counts.len() == 4 && counts.values().all(|count| (400..600).contains(count)), "{counts:?}");
    }
}
