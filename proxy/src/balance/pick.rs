//! The choice: a pure function of what this node knows of a pool, of the time and of a seed, so that any choice can be
//! replayed. Who is a candidate is decided elsewhere: [`super::health`] and [`super::outlier`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use schoolgate_config::model::{BackendId, BackendState, Balance};

use super::pool::{LiveBackend, LivePool, Member};

/// No backend takes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoBackend;

impl LivePool {
    /// Chooses a backend that is not among `tried`, at `now_ms`, with `seed` as chance.
    ///
    /// A pool whose candidates all rest after failed requests is asked nevertheless: an ejection is a guess, and a
    /// guess that leaves nobody is worth less than an attempt. One whose checks all fail is not.
    ///
    /// # Errors
    /// [`NoBackend`] when no active backend passes its checks, or all that do were tried.
    pub(crate) fn pick(
        &self,
        balance: Balance,
        tried: &[BackendId],
        now_ms: i64,
        seed: u64,
    ) -> Result<&Arc<LiveBackend>, NoBackend> {
        let usable =
            |m: &Member| m.state == BackendState::Active && !m.backend.is_unhealthy() && !tried.contains(&m.backend.id);
        let rested = |m: &Member| usable(m) && !m.backend.is_ejected(now_ms);
        let turn = || match balance {
            Balance::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed),
            Balance::LeastRequest => 0,
        };
        let chosen = choose(self.members(), rested, balance, seed, turn())
            .or_else(|| choose(self.members(), usable, balance, seed, turn()));
        chosen.map(|m| &m.backend).ok_or(NoBackend)
    }
}

fn choose<F: Fn(&Member) -> bool>(
    members: &[Member],
    candidate: F,
    balance: Balance,
    seed: u64,
    turn: usize,
) -> Option<&Member> {
    let total: u64 = members.iter().filter(|m| candidate(m)).map(|m| u64::from(m.weight)).sum();
    if total == 0 {
        return None;
    }
    match balance {
        Balance::LeastRequest => least_request(members, &candidate, total, seed),
        Balance::RoundRobin => {
            // Weights 3 and 3 are 1 and 1: a shorter line mixes better.
            let unit = members.iter().filter(|m| candidate(m)).fold(0, |unit, m| gcd(unit, u64::from(m.weight)));
            at_weight(members, &candidate, spread(turn as u64, total / unit) * unit, None)
        }
    }
}

/// The less loaded of two candidates drawn at random ("power of two choices"), draws and loads both by weight.
fn least_request<'m, F: Fn(&Member) -> bool>(
    members: &'m [Member],
    candidate: &F,
    total: u64,
    seed: u64,
) -> Option<&'m Member> {
    // Two independent halves of the seed, each scaled to its range (Lemire: a multiplication instead of a division).
    let first = at_weight(members, candidate, ((seed & 0xffff_ffff) * total) >> 32, None)?;
    let rest = total - u64::from(first.weight);
    if rest == 0 {
        return Some(first);
    }
    let second = at_weight(members, candidate, ((seed >> 32) * rest) >> 32, Some(first.backend.id))?;
    let load = |a: &Member, b: &Member| a.backend.in_flight() * u64::from(b.weight);
    Some(if load(second, first) < load(first, second) { second } else { first })
}

/// The candidate that owns a point on the line of all candidates' weights.
fn at_weight<'m, F: Fn(&Member) -> bool>(
    members: &'m [Member],
    candidate: &F,
    mut point: u64,
    without: Option<BackendId>,
) -> Option<&'m Member> {
    members.iter().filter(|m| candidate(m) && Some(m.backend.id) != without).find(|m| {
        let weight = u64::from(m.weight);
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
    use std::collections::HashMap;

    use super::super::pool::InFlight;
    use super::super::pool::tests::pool;
    use super::*;

    fn counts(live: &LivePool, balance: Balance, rounds: u64) -> HashMap<BackendId, u64> {
        let mut counts = HashMap::new();
        let mut chance = fastrand::Rng::with_seed(7);
        for _ in 0..rounds {
            let backend = live.pick(balance, &[], 0, chance.u64(..)).expect("a backend");
            *counts.entry(backend.id).or_default() += 1;
        }
        counts
    }

    #[test]
    fn the_less_loaded_of_two_is_chosen() {
        let live = LivePool::new(&pool(&[1, 1]), 1);
        let _busy: Vec<_> = (0..3).map(|_| InFlight::take(&live.members()[0].backend)).collect();
        for seed in 0..1_000u64 {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let chosen = live.pick(Balance::LeastRequest, &[], 0, seed).expect("a backend");
            assert_eq!(chosen.id, live.members()[1].backend.id);
        }
    }

    #[test]
    fn idle_backends_share_by_weight() {
        let live = LivePool::new(&pool(&[1, 2, 5]), 1);
        let counts = counts(&live, Balance::LeastRequest, 8_000);
        let of = |n: usize| counts[&live.members()[n].backend.id];
        assert!((800..1_200).contains(&of(0)), "{counts:?}");
        assert!(of(2) > of(1) && of(1) > of(0), "{counts:?}");
    }

    #[test]
    fn round_robin_gives_each_its_weight_in_every_round_and_not_in_a_row() {
        let live = LivePool::new(&pool(&[1, 2, 5]), 1);
        let counts = counts(&live, Balance::RoundRobin, 8);
        let of = |n: usize| counts[&live.members()[n].backend.id];
        assert_eq!((of(0), of(1), of(2)), (1, 2, 5));
        let live = LivePool::new(&pool(&[3, 3]), 1);
        let row: Vec<_> = (0..6).map(|_| live.pick(Balance::RoundRobin, &[], 0, 0).expect("a backend").id).collect();
        assert!(!row.windows(3).any(|w| w[0] == w[1] && w[1] == w[2]), "{row:?}");
    }

    #[test]
    fn only_active_backends_that_pass_their_checks_and_were_not_tried_are_candidates() {
        let mut pool = pool(&[1, 1, 1, 1]);
        pool.backends[0].state = BackendState::Draining;
        pool.backends[1].state = BackendState::Disabled;
        let live = LivePool::new(&pool, 1);
        let (third, fourth) = (&live.members()[2].backend, &live.members()[3].backend);
        third.checked(&Err("no".into()), 1, 1);
        assert_eq!(live.pick(Balance::LeastRequest, &[], 0, 1).map(|b| b.id), Ok(fourth.id));
        assert_eq!(live.pick(Balance::LeastRequest, &[fourth.id], 0, 1).map(|b| b.id), Err(NoBackend));
    }

    #[test]
    fn a_pool_that_rests_as_a_whole_is_asked_nevertheless() {
        let live = LivePool::new(&pool(&[1, 1]), 1);
        for member in live.members() {
            member.backend.ejected_until_ms.store(1_000, Ordering::Relaxed);
        }
        assert!(live.pick(Balance::LeastRequest, &[], 10, 3).is_ok());
        for member in live.members() {
            member.backend.checked(&Err("no".into()), 1, 1);
        }
        assert!(live.pick(Balance::LeastRequest, &[], 10, 3).is_err());
    }

    #[test]
    fn a_pool_without_backends_has_none() {
        let live = LivePool::new(&pool(&[]), 1);
        assert_eq!(live.pick(Balance::RoundRobin, &[], 0, 0).map(|b| b.id), Err(NoBackend));
    }
}
