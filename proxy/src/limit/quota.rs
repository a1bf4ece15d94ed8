//! Quotas: how much was used in a day or a month.
//!
//! The period and its count are one atomic, so that a count never lands in the wrong day. The period before is kept
//! too: a clock that steps back over midnight finds the day it left as it was (nothing is granted twice), and one that
//! was far ahead and comes back is not stuck with the future's count (nobody is locked out).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Bits of the count: 70 million million, in bytes 70 TB a month. It stays at its largest rather than begin anew.
const COUNT_BITS: u32 = 46;
const MOST: u64 = (1 << COUNT_BITS) - 1;
/// Bits of the level that was told.
const LEVEL_BITS: u32 = 2;

/// How far a quota is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below 80 %.
    Fine,
    /// From 80 %.
    Warning,
    /// All of it.
    Exceeded,
}

impl Level {
    /// The level of `used` of `value`.
    pub const fn of(used: u64, value: u64) -> Self {
        if used >= value {
            Self::Exceeded
        } else if used as u128 * 5 >= value as u128 * 4 {
            Self::Warning
        } else {
            Self::Fine
        }
    }
}

/// What one node counted in one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The period, numbered as in [`schoolgate_config::calendar::Period`].
    pub period: u16,
    /// How much.
    pub count: u64,
}

/// A period, the level that was told in it, and its count, in one number.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Packed(u64);

impl Packed {
    const fn new(period: u16) -> Self {
        Self((period as u64) << (COUNT_BITS + LEVEL_BITS))
    }

    const fn period(self) -> u16 {
        (self.0 >> (COUNT_BITS + LEVEL_BITS)) as u16
    }

    const fn count(self) -> u64 {
        self.0 & MOST
    }

    fn plus(self, more: u64) -> Self {
        Self(self.0 + more.min(MOST - self.count()))
    }

    const fn level(self) -> u64 {
        self.0 >> COUNT_BITS & 3
    }

    const fn with_level(self, level: u64) -> Self {
        Self(self.0 & !(3 << COUNT_BITS) | level << COUNT_BITS)
    }

    const fn reading(self) -> Reading {
        Reading { period: self.period(), count: self.count() }
    }
}

/// Counts what is used of one quota.
#[derive(Debug, Default)]
pub struct Counter {
    /// This node's, in the current period.
    now: AtomicU64,
    /// This node's, in the period before. Touched under the lock only.
    before: AtomicU64,
    /// What other nodes counted, and this one before its last start.
    elsewhere: AtomicU64,
}

/// Guards the change of period, once a day; counting never takes it. One for all counters of a tenant.
pub(super) type Turning = Mutex<()>;

impl Counter {
    /// Counts `more` in a period and says how much of the quota is used then.
    pub(super) fn add(&self, turning: &Turning, period: u16, more: u64) -> u64 {
        self.change(turning, period, |now| Some(now.plus(more))).unwrap_or_default()
    }

    /// Counts `more` in a period if no more than `most` is used then.
    ///
    /// # Errors
    /// How much is used when that would be too much.
    pub(super) fn add_up_to(&self, turning: &Turning, period: u16, more: u64, most: u64) -> Result<u64, u64> {
        let elsewhere = self.elsewhere(period);
        let fits = |now: Packed| now.count() + elsewhere + more <= most;
        let added = self.change(turning, period, |now| fits(now).then(|| now.plus(more)));
        added.ok_or_else(|| self.used(turning, period))
    }

    /// One that was counted did not happen after all.
    pub(super) fn undo(&self, turning: &Turning, period: u16) {
        let less = |now: Packed| (now.count() > 0).then(|| Packed(now.0 - 1));
        let _ = self.change(turning, period, less);
    }

    /// How much of a period's quota is used.
    pub(super) fn used(&self, turning: &Turning, period: u16) -> u64 {
        self.turn(turning, period).count() + self.elsewhere(period)
    }

    /// Whether this level is reached for the first time in a period here.
    pub(super) fn rises_to(&self, turning: &Turning, period: u16, level: Level) -> bool {
        let level = level as u64;
        if self.turn(turning, period).level() >= level {
            return false;
        }
        self.change(turning, period, |now| (now.level() < level).then(|| now.with_level(level))).is_some()
    }

    /// What this node itself has counted since its start, in the period before and in the current one. Both only grow
    /// while they last, so whoever adds them up needs the latest of each and can ask as often as he likes.
    pub(super) fn readings(&self, turning: &Turning) -> [Reading; 2] {
        let _guard = turning.lock().unwrap_or_else(PoisonError::into_inner);
        [&self.before, &self.now].map(|cell| Packed(cell.load(Relaxed)).reading())
    }

    /// What was counted in a period by others, and by this node before its last start: restored at a start, and renewed
    /// as often as others are heard of. It stands beside this node's own count, so nothing is counted twice.
    pub(super) fn restore(&self, reading: Reading) {
        self.elsewhere.store(Packed::new(reading.period).plus(reading.count).0, Relaxed);
    }

    fn elsewhere(&self, period: u16) -> u64 {
        let elsewhere = Packed(self.elsewhere.load(Relaxed));
        if elsewhere.period() == period { elsewhere.count() } else { 0 }
    }

    /// Changes the count of a period; says how much is used then, or nothing if `change` did not want to.
    fn change(&self, turning: &Turning, period: u16, change: impl Fn(Packed) -> Option<Packed>) -> Option<u64> {
        let mut now = self.turn(turning, period);
        loop {
            let next = change(now)?;
            match self.now.compare_exchange_weak(now.0, next.0, Relaxed, Relaxed) {
                Ok(_) => return Some(next.count() + self.elsewhere(period)),
                Err(other) if Packed(other).period() == period => now = Packed(other),
                Err(_) => now = self.turn(turning, period),
            }
        }
    }

    /// The count of a period, which is made the current one if it is not.
    fn turn(&self, turning: &Turning, period: u16) -> Packed {
        let now = Packed(self.now.load(Relaxed));
        if now.period() == period {
            return now;
        }
        let _guard = turning.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Packed(self.now.load(Relaxed));
        if now.period() == period {
            return now;
        }
        let before = Packed(self.before.load(Relaxed));
        let next = if before.period() == period { before } else { Packed::new(period) };
        // Swapped, so that what was counted until this very moment is in what is kept.
        self.before.store(self.now.swap(next.0, Relaxed), Relaxed);
        next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use schoolgate_config::calendar::Calendar;

    use super::*;

    const DAY: u16 = 20_000;

    #[test]
    fn a_clock_that_steps_back_over_midnight_grants_nothing_twice() {
        let (counter, turning) = (Counter::default(), Turning::default());
        for _ in 0..10 {
            assert!(counter.add_up_to(&turning, DAY, 1, 10).is_ok());
        }
        assert_eq!(counter.add_up_to(&turning, DAY, 1, 10), Err(10));
        assert_eq!(counter.add_up_to(&turning, DAY + 1, 1, 10), Ok(1));
        assert_eq!(counter.add_up_to(&turning, DAY, 1, 10), Err(10), "the day it left is as it was");
        assert_eq!(counter.add_up_to(&turning, DAY + 1, 1, 10), Ok(2));
    }

    #[test]
    fn a_clock_that_was_two_years_ahead_locks_nobody_out() {
        let (counter, turning) = (Counter::default(), Turning::default());
        counter.add(&turning, DAY, 4);
        counter.add(&turning, DAY + 730, 10);
        assert_eq!(counter.add_up_to(&turning, DAY, 1, 10), Ok(5));
        assert_eq!(counter.add_up_to(&turning, DAY + 1, 1, 10), Ok(1));
    }

    #[test]
    fn what_is_restored_counts_beside_its_own_and_only_in_its_period() {
        let (counter, turning) = (Counter::default(), Turning::default());
        counter.restore(Reading { period: DAY, count: 8 });
        assert_eq!(counter.add_up_to(&turning, DAY, 1, 10), Ok(9));
        counter.restore(Reading { period: DAY, count: 9 });
        assert_eq!(counter.add_up_to(&turning, DAY, 1, 10), Err(10));
        let own: Vec<_> = counter.readings(&turning).into_iter().filter(|r| r.count > 0).collect();
        assert_eq!(own, [Reading { period: DAY, count: 1 }], "what others counted is not told as its own");
        assert_eq!(counter.used(&turning, DAY + 1), 0);
    }

    #[test]
    fn a_level_is_reached_once_in_a_period() {
        let (counter, turning) = (Counter::default(), Turning::default());
        assert_eq!(
            [7, 8, 9, 10].map(|used| Level::of(used, 10)),
            [Level::Fine, Level::Warning, Level::Warning, Level::Exceeded]
        );
        counter.add(&turning, DAY, 9);
        assert!(counter.rises_to(&turning, DAY, Level::Warning));
        assert!(!counter.rises_to(&turning, DAY, Level::Warning));
        assert!(counter.rises_to(&turning, DAY, Level::Exceeded));
        assert!(!counter.rises_to(&turning, DAY, Level::Warning));
        assert!(counter.rises_to(&turning, DAY + 1, Level::Warning));
        assert!(!counter.rises_to(&turning, DAY, Level::Exceeded), "not again when the clock steps back");
        assert_eq!(counter.used(&turning, DAY), 9);
    }

    #[test]
    fn a_count_stays_at_its_largest() {
        let (counter, turning) = (Counter::default(), Turning::default());
        counter.add(&turning, u16::MAX, u64::MAX);
        assert_eq!(counter.add(&turning, u16::MAX, u64::MAX), MOST);
    }

    #[test]
    fn of_many_at_once_as_many_are_counted_as_the_quota_has() {
        let (counter, turning) = (Counter::default(), Turning::default());
        let counted: usize = std::thread::scope(|scope| {
            // Two days at once: threads whose clocks disagree about midnight.
            let ask = |day: u16| (0..1_000).filter(|_| counter.add_up_to(&turning, day, 1, 700).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || ask(DAY + n % 2))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(counted, 1_400, "700 of each day");
    }

    proptest! {
        /// Against a plain map of day to count: while the clock moves between neighbouring days, whichever way, the two
        /// agree; a far step and back loses nothing of the day it left.
        #[test]
        fn a_counter_counts_as_a_map_of_days_does(
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Africa/Cairo"]),
            start in 1_577_836_800_000_i64..1_900_000_000_000,
            steps in prop::collection::vec((prop::bool::weighted(0.2), 0_i64..20), 1..200),
            quota in 1_u64..20,
        ) {
            let zone = zone.parse().expect("a zone");
            let (counter, turning) = (Counter::default(), Turning::default());
            let mut plain: HashMap<u16, u64> = HashMap::new();
            let (mut now, mut latest, hour) = (start, start, 3_600_000);
            for (back, hours) in steps {
                // Back by less than a day from the latest moment seen: an hour's drift, a wrong summer time.
                now = if back { (now - hours * hour).max(latest - 20 * hour) } else { now + hours * hour };
                latest = latest.max(now);
                let day = Calendar::at(&zone, now).day.number;
                let count = plain.entry(day).or_default();
                let expected = *count < quota;
                *count += u64::from(expected);
                prop_assert_eq!(counter.add_up_to(&turning, day, 1, quota).is_ok(), expected);
            }
        }
    }
}
