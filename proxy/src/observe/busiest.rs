//! Which tenants (and pools) are shown by name: the busiest, and those pinned; the rest are summed as `_other`.
//!
//! Prometheus takes a counter that falls for a restart, so `_other` must never fall. What was ever shown by name is
//! therefore never in `_other`: of a newcomer only what it counts from then on is its own, and of one that leaves, what
//! it had shown stays out. `_other` is the node's total less all that.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Time between two rankings: one minute. Each halves what was counted before, so a place is lost after some minutes.
const RANKING: Duration = Duration::from_secs(60);

/// How busy something was lately. Read and written under the lock of [`Busiest`] only.
#[derive(Debug, Default)]
pub(super) struct Rank {
    /// Requests when last looked at.
    seen: AtomicU64,
    /// Requests lately, halved at each ranking.
    lately: AtomicU64,
}

impl Rank {
    fn renew(&self, requests: u64) -> u64 {
        let seen = self.seen.swap(requests, Ordering::Relaxed);
        let lately = self.lately.load(Ordering::Relaxed) / 2 + requests.saturating_sub(seen);
        self.lately.store(lately, Ordering::Relaxed);
        lately
    }
}

/// Something that could be shown by name.
pub(super) struct Candidate<'a, K> {
    pub(super) key: K,
    pub(super) rank: &'a Rank,
    /// Requests counted so far; what has none needs no name.
    pub(super) requests: u64,
    /// Shown whatever happens.
    pub(super) pinned: bool,
}

/// One that is shown.
#[derive(Debug)]
struct Shown<const W: usize> {
    /// What it had when it was given its place, and is in `_other` for good.
    base: [u64; W],
    /// What it had when last read.
    last: [u64; W],
}

/// Who is shown by name, and what of them is their own.
#[derive(Debug)]
pub(super) struct Busiest<K, const W: usize> {
    most: usize,
    shown: HashMap<K, Shown<W>>,
    /// What those had shown who lost their place.
    departed: [u64; W],
    /// What `_other` was last; it does not fall, though total and parts are not read at one instant.
    other: [u64; W],
    ranked: Option<Instant>,
    /// Whether anyone was ever left out: until then a newcomer's whole count is its own.
    crowded: bool,
}

impl<K: Clone + Eq + Hash, const W: usize> Busiest<K, W> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, shown: HashMap::new(), departed: [0; W], other: [0; W], ranked: None, crowded: false }
    }

    /// Gives free places to newcomers, and ranks all anew when it is time. `read` tells what a key has counted now;
    /// `None` when it is gone from the table.
    pub(super) fn rank(
        &mut self,
        candidates: &[Candidate<'_, K>],
        now: Instant,
        read: impl Fn(&K) -> Option<[u64; W]>,
    ) {
        let gone: Vec<K> = self.shown.keys().filter(|key| read(key).is_none()).cloned().collect();
        for key in &gone {
            self.hide(key);
        }
        let active = || candidates.iter().filter(|c| c.requests > 0 || c.pinned);
        let mut newcomers: Vec<K> = Vec::new();
        if self.ranked.is_none_or(|at| now - at >= RANKING) {
            self.ranked = Some(now);
            let chosen = self.choose(active());
            let leaving: Vec<K> = self.shown.keys().filter(|key| !chosen.contains(key)).cloned().collect();
            for key in &leaving {
                if let (Some(shown), Some(now)) = (self.shown.get_mut(key), read(key)) {
                    shown.last = now;
                }
                self.hide(key);
            }
            newcomers.extend(chosen.into_iter().filter(|key| !self.shown.contains_key(key)));
        } else {
            let mut room = self.most.saturating_sub(self.shown.len());
            for candidate in active().filter(|c| !self.shown.contains_key(&c.key)) {
                if room > 0 || candidate.pinned {
                    room = room.saturating_sub(1);
                    newcomers.push(candidate.key.clone());
                }
            }
        }
        for key in newcomers {
            if let Some(now) = read(&key) {
                let base = if self.crowded { now } else { [0; W] };
                self.shown.insert(key, Shown { base, last: base });
            }
        }
        self.crowded |= active().count() > self.shown.len();
    }

    fn choose<'a>(&self, active: impl Iterator<Item = &'a Candidate<'a, K>>) -> HashSet<K>
    where
        K: 'a,
    {
        let mut order: Vec<(bool, u64, u64, K)> = active
            .map(|c| {
                let lately = c.rank.renew(c.requests);
                // Who has a place keeps it until another is twice as busy: places that flap tell nothing.
                let weight = if self.shown.contains_key(&c.key) { lately.saturating_mul(2) + 1 } else { lately };
                (c.pinned, weight, c.requests, c.key.clone())
            })
            .collect();
        let places = self.most.max(order.iter().filter(|(pinned, ..)| *pinned).count());
        if order.len() > places {
            order.select_nth_unstable_by_key(places, |(pinned, weight, requests, _)| {
                std::cmp::Reverse((*pinned, *weight, *requests))
            });
            order.truncate(places);
        }
        order.into_iter().map(|(.., key)| key).collect()
    }

    fn hide(&mut self, key: &K) {
        if let Some(Shown { base, last }) = self.shown.remove(key) {
            for at in 0..W {
                self.departed[at] += last[at].saturating_sub(base[at]);
            }
        }
    }

    /// Who is shown by name, in no order.
    pub(super) fn keys(&self) -> Vec<K> {
        self.shown.keys().cloned().collect()
    }

    /// What is the own of one that is shown; `now` reads what it has counted.
    pub(super) fn own(&mut self, key: &K, now: impl FnOnce() -> [u64; W]) -> Option<[u64; W]> {
        let shown = self.shown.get_mut(key)?;
        let now = now();
        shown.last = now;
        Some(std::array::from_fn(|at| now[at].saturating_sub(shown.base[at])))
    }

    /// What is left of `total` for `_other`, after `owned` was shown by name. `None` while everyone is.
    pub(super) fn other(&mut self, total: [u64; W], owned: [u64; W]) -> Option<[u64; W]> {
        if !self.crowded {
            return None;
        }
        for at in 0..W {
            let left = total[at].saturating_sub(owned[at]).saturating_sub(self.departed[at]);
            self.other[at] = self.other[at].max(left);
        }
        Some(self.other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        counts: Vec<Option<u64>>,
        ranks: Vec<Rank>,
        busiest: Busiest<usize, 1>,
        now: Instant,
    }

    impl World {
        fn new(most: usize, tenants: usize) -> Self {
            Self {
                counts: vec![Some(0); tenants],
                ranks: std::iter::repeat_with(Rank::default).take(tenants).collect(),
                busiest: Busiest::new(most),
                now: Instant::now(),
            }
        }

        fn count(&mut self, tenant: usize, requests: u64) {
            *self.counts[tenant].as_mut().expect("still there") += requests;
        }

        /// Own counts by tenant, and `_other`. `departed` is what those had that are gone from the table.
        fn scrape(&mut self, departed: u64) -> (HashMap<usize, u64>, u64) {
            self.now += RANKING;
            let candidates: Vec<Candidate<'_, usize>> = (0..self.counts.len())
                .filter_map(|key| {
                    let requests = self.counts[key]?;
                    Some(Candidate { key, rank: &self.ranks[key], requests, pinned: false })
                })
                .collect();
            self.busiest.rank(&candidates, self.now, |key| self.counts[*key].map(|n| [n]));
            let mut own = HashMap::new();
            for (key, count) in self.counts.iter().enumerate() {
                if let Some([n]) = count.and_then(|n| self.busiest.own(&key, || [n])) {
                    own.insert(key, n);
                }
            }
            let total = self.counts.iter().flatten().sum::<u64>() + departed;
            let other = self.busiest.other([total], [own.values().sum()]).map_or(0, |[n]| n);
            (own, other)
        }
    }

    #[test]
    fn the_busiest_have_names_and_all_add_up() {
        let mut world = World::new(2, 4);
        for (tenant, requests) in [(0, 5), (1, 50), (2, 40), (3, 1)] {
            world.count(tenant, requests);
        }
        let (own, other) = world.scrape(0);
        assert_eq!(own, HashMap::from([(1, 50), (2, 40)]));
        assert_eq!(other, 6);
    }

    #[test]
    fn other_never_falls_when_places_change_or_tenants_go() {
        let mut world = World::new(2, 6);
        let (mut last, mut departed) = (0, 0);
        for round in 0..60_u64 {
            let busy = (round / 7) as usize % 6;
            for tenant in 0..6 {
                if world.counts[tenant].is_some() {
                    world.count(tenant, if tenant == busy { 1_000 } else { 3 });
                }
            }
            if round == 30 {
                departed += world.counts[busy].take().expect("still there");
            }
            let (own, other) = world.scrape(departed);
            assert!(own.len() <= 2);
            assert!(other >= last, "fell from {last} to {other} in round {round}");
            // Nothing shown by name joins it later: six tenants at 3 each, and one newcomer's first round.
            assert!(other - last <= 1_015 + 1_000, "jumped from {last} to {other} in round {round}");
            last = other;
        }
    }

    #[test]
    fn while_there_is_room_everyone_has_a_name_and_there_is_no_other() {
        let mut world = World::new(8, 4);
        world.count(0, 1);
        assert_eq!(world.scrape(0), (HashMap::from([(0, 1)]), 0));
        world.count(3, 9);
        assert_eq!(world.scrape(0), (HashMap::from([(0, 1), (3, 9)]), 0));
    }
}
