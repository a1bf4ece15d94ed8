//! Rendezvous hashing: every tenant has an order of preference over the backends of a pool, by the two identities alone.
//!
//! Every node and every restart finds the same order, nothing has to be kept, and a backend more or less changes only
//! what leads to it: adding one of `n` moves about `1/n` of the tenants, all of them to the new one.

/// What a tenant's or backend's identity is in scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Point(u64);

impl Point {
    /// Of the bits of an identifier.
    pub(crate) const fn of(bits: u128) -> Self {
        // Both halves count: the upper is time, the lower chance.
        Self(mix((bits >> 64) as u64) ^ mix(!(bits as u64)))
    }
}

/// How much a tenant prefers a backend of a weight; the highest wins.
///
/// The first arrival of a Poisson process whose rate is the weight, so the share of tenants that prefer a backend is its
/// share of the weights (an "exponential race"), and a weight that grows draws tenants in and drives none away.
pub(crate) fn score(tenant: Point, backend: Point, weight: u64) -> f64 {
    // 53 bits: what an f64 holds exactly. Never 0, whose logarithm is none.
    let chance = ((even_score(tenant, backend) >> 11) | 1) as f64 / (1_u64 << 53) as f64;
    weight as f64 / -chance.ln()
}

/// The same order among backends of equal weight, without a logarithm: at 200 backends a seventh of the time.
pub(crate) const fn even_score(tenant: Point, backend: Point) -> u64 {
    mix(tenant.0 ^ backend.0.rotate_left(32))
}

/// [`even_score`] as [`Best`] takes it.
pub(crate) const fn even_score_of_best(tenant: Point, backend: Point) -> f64 {
    (even_score(tenant, backend) >> 11) as f64
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input changes each bit of the output with a
/// chance of a half.
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Keeps the `size` best of what it is shown.
#[derive(Debug)]
pub(crate) struct Best<const MOST: usize> {
    /// Best first.
    kept: [(f64, u16); MOST],
    length: usize,
    size: usize,
}

impl<const MOST: usize> Best<MOST> {
    /// Keeps `size`, at most `MOST`.
    pub(crate) fn new(size: usize) -> Self {
        Self { kept: [(0.0, 0); MOST], length: 0, size: size.min(MOST) }
    }

    /// Shows it one more.
    pub(crate) fn see(&mut self, score: f64, index: u16) {
        // Most of many are none of the best.
        if self.length == self.size && self.kept[..self.length].last().is_none_or(|(least, _)| *least >= score) {
            return;
        }
        let at = self.kept[..self.length].partition_point(|(kept, _)| *kept >= score);
        self.length = (self.length + 1).min(self.size);
        self.kept.copy_within(at..self.length - 1, at + 1);
        self.kept[at] = (score, index);
    }

    /// What it kept, best first.
    pub(crate) fn indices(&self) -> impl Iterator<Item = usize> + Clone {
        self.kept[..self.length].iter().map(|(_, index)| usize::from(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(tenant: u128, weights: &[u64]) -> usize {
        let scores = weights.iter().zip(1..).map(|(w, n)| score(Point::of(tenant), Point::of(n << 70 | n), *w));
        scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).expect("a backend").0
    }

    #[test]
    fn weights_are_respected_within_two_percent_of_all_tenants() {
        let weights = [1, 2, 5, 2];
        let mut counts = [0_u32; 4];
        for tenant in 0..50_000_u128 {
            counts[preferred(tenant << 64 | tenant, &weights)] += 1;
        }
        for (count, weight) in counts.iter().zip(weights) {
            let share = f64::from(*count) / 50_000.0;
            assert!((share - weight as f64 / 10.0).abs() < 0.02, "{counts:?}");
        }
    }

    #[test]
    fn one_more_backend_takes_its_share_and_moves_nobody_else() {
        for n in [1, 3, 10, 40] {
            let before = vec![1; n];
            let after = vec![1; n + 1];
            let mut moved = 0;
            for tenant in 0..20_000 {
                let (was, is) = (preferred(tenant, &before), preferred(tenant, &after));
                assert!(is == was || is == n, "a tenant moved between two backends that were there before");
                moved += usize::from(is != was);
            }
            let share = moved as f64 / 20_000.0;
            let due = 1.0 / (n as f64 + 1.0);
            assert!((share - due).abs() < 0.015, "{n} and one more: {share} moved, {due} was due");
        }
    }

    #[test]
    fn a_weight_that_grows_drives_nobody_away() {
        for tenant in 0..20_000 {
            if preferred(tenant, &[1, 1, 1]) == 2 {
                assert_eq!(preferred(tenant, &[1, 1, 3]), 2);
            }
        }
    }

    #[test]
    fn without_weights_the_order_is_the_same() {
        let at = |n: u128| Point::of(n << 64 | n);
        for tenant in 0..1_000 {
            let by = |f: &dyn Fn(u128) -> bool| (0..20).filter(|n| f(*n)).count();
            for pivot in 0..20 {
                let even = by(&|n| even_score(at(tenant), at(n)) > even_score(at(tenant), at(pivot)));
                let weighted = by(&|n| score(at(tenant), at(n), 7) > score(at(tenant), at(pivot), 7));
                assert_eq!(even, weighted);
            }
        }
    }

    #[test]
    fn the_best_are_kept_in_their_order() {
        let mut best = Best::<4>::new(3);
        assert_eq!(best.indices().count(), 0);
        for (score, index) in [(1.0, 1), (5.0, 5), (3.0, 3), (4.0, 4), (2.0, 2), (6.0, 6)] {
            best.see(score, index);
        }
        assert_eq!(best.indices().collect::<Vec<_>>(), [6, 5, 4]);
        let mut none = Best::<4>::new(0);
        none.see(1.0, 1);
        assert_eq!(none.indices().count(), 0);
    }
}
