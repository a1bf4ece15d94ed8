//! How long requests took, as a histogram that merges without loss.
//!
//! Buckets are logarithmic with eight linear steps in each doubling, from 128 µs to 67 s, so what is read from it is at
//! most 1/16 (6.25 %) off; see [`Latency::ERROR_PERCENT`]. Merging adds buckets: percentiles of a month over ten
//! proxies are as exact as those of a minute at one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Below 2^7 µs there is one bucket: nobody acts on what is faster than 128 µs.
const FIRST_POWER: u32 = 7;
/// From 2^26 µs (67 s) on there is one bucket: the longest time-outs are shorter.
const END_POWER: u32 = 26;
/// Steps of a doubling, as a power of two.
const STEP_BITS: u32 = 3;
const STEPS: u32 = 1 << STEP_BITS;

/// How many buckets there are.
pub const BUCKETS: usize = ((END_POWER - FIRST_POWER) * STEPS + 2) as usize;

/// In which bucket a duration falls.
pub fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if micros < 1 << FIRST_POWER {
        return 0;
    }
    let power = micros.ilog2();
    if power >= END_POWER {
        return BUCKETS - 1;
    }
    let step = (micros >> (power - STEP_BITS)) as u32 & (STEPS - 1);
    ((power - FIRST_POWER) * STEPS + step + 1) as usize
}

/// The lowest duration of a bucket, microseconds.
fn lower(bucket: usize) -> u64 {
    match u32::try_from(bucket).unwrap_or(u32::MAX).saturating_sub(1) {
        _ if bucket == 0 => 0,
        at if bucket >= BUCKETS - 1 => 1 << (FIRST_POWER + at / STEPS).min(END_POWER),
        at => u64::from(STEPS + at % STEPS) << (FIRST_POWER + at / STEPS - STEP_BITS),
    }
}

/// How long requests took.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Latency(BTreeMap<u16, u64>);

impl Latency {
    /// How far a percentile may be from the true one, in percent of it, between 128 µs and 67 s.
    pub const ERROR_PERCENT: f64 = 6.25;

    /// Adds `count` requests of a bucket. A bucket that does not exist counts as the last.
    pub fn add(&mut self, bucket: usize, count: u64) {
        if count > 0 {
            let bucket = u16::try_from(bucket.min(BUCKETS - 1)).expect("there are 154 buckets");
            let cell = self.0.entry(bucket).or_default();
            *cell = cell.saturating_add(count);
        }
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(bucket, count)| self.add(usize::from(*bucket), *count));
    }

    /// How many requests it holds.
    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The duration that a share `q` (0 to 1) of the requests did not exceed, in the middle of its bucket; `None` when
    /// there were no requests.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank that is off by one in 2^53 is no other percentile"
        )]
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0_u64;
        for (bucket, count) in &self.0 {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                let bucket = usize::from(*bucket);
                let low = lower(bucket);
                let high = if bucket == BUCKETS - 1 { low } else { lower(bucket + 1) };
                return Some(Duration::from_micros(u64::midpoint(low, high)));
            }
        }
        None
    }
}

impl From<Vec<(u16, u64)>> for Latency {
    fn from(pairs: Vec<(u16, u64)>) -> Self {
        let mut latency = Self::default();
        pairs.into_iter().for_each(|(bucket, count)| latency.add(usize::from(bucket), count));
        latency
    }
}

impl From<Latency> for Vec<(u16, u64)> {
    fn from(latency: Latency) -> Self {
        latency.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        let mut last = 0;
        for micros in 0..(1_u64 << 20) {
            let at = bucket(Duration::from_micros(micros));
            assert!(at == last || at == last + 1, "{micros} µs: bucket {at} after {last}");
            assert!(lower(at) <= micros, "{micros} µs is below its bucket {at}");
            last = at;
        }
        assert_eq!(bucket(Duration::from_secs(66)), BUCKETS - 2);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert_eq!(lower(BUCKETS - 1), 1 << END_POWER);
    }

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(Latency::default().quantile(0.5), None);
    }

    fn latency(micros: &[u64]) -> Latency {
        let mut latency = Latency::default();
        micros.iter().for_each(|m| latency.add(bucket(Duration::from_micros(*m)), 1));
        latency
    }

    proptest! {
        #[test]
        fn a_percentile_is_as_near_as_stated(mut micros in prop::collection::vec(128_u64..67_000_000, 1..300), q in 0.0_f64..1.0) {
            let found = latency(&micros).quantile(q).expect("not empty").as_micros() as f64;
            micros.sort_unstable();
            let rank = ((q * micros.len() as f64).ceil() as usize).clamp(1, micros.len());
            let exact = micros[rank - 1] as f64;
            let off = (found - exact).abs() / exact * 100.0;
            prop_assert!(off <= Latency::ERROR_PERCENT, "{found} for {exact}: {off} % off");
        }

        #[test]
        fn merging_parts_is_the_same_as_counting_all_at_once(
            a in prop::collection::vec(0_u64..100_000_000, 0..50), b in prop::collection::vec(0_u64..100_000_000, 0..50),
        ) {
            let mut merged = latency(&a);
            merged.merge(&latency(&b));
            prop_assert_eq!(&merged, &latency(&[a, b].concat()));
            let wire = serde_json::to_string(&merged).expect("serialises");
            prop_assert_eq!(serde_json::from_str::<Latency>(&wire).expect("reads back"), merged);
        }
    }
}
