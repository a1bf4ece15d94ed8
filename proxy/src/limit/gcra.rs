//! Rates: the generic cell rate algorithm (ITU-T I.371) on one atomic.
//!
//! All that is kept is the *theoretical arrival time*: when the next request would be due if they came evenly. A request
//! may be early by a burst's worth, and each moves it on by one interval. So a meter at rest is a number in the past, and
//! nobody has to refill anything. Times are nanoseconds of a clock that never goes back, so a step of the wall clock
//! neither gives nor takes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds of a minute.
const MINUTE: u64 = 60_000_000_000;

/// The whole of a limit, in parts per million.
pub(crate) const WHOLE: u32 = 1_000_000;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval_ns: u64,
    burst: u64,
}

impl Rate {
    /// `limit` a minute, `burst` of them at once. Without a burst it is half of the limit, as in most of the catalogue:
    /// a page of a school platform is a few dozen requests. Nothing passes a limit of 0.
    pub fn per_minute(limit: u64, burst: Option<u64>) -> Self {
        let burst = if limit == 0 { 0 } else { burst.unwrap_or(limit.div_ceil(2)) };
        // Rounded up, so that what is let through is never above the limit.
        Self { interval_ns: MINUTE.div_ceil(limit.max(1)), burst }
    }

    /// A part of it, in parts per million: what one node of several may let through.
    pub fn part(self, share: u32) -> Self {
        if share >= WHOLE || self.burst == 0 {
            return self;
        }
        let share = u64::from(share.max(1));
        let whole = u64::from(WHOLE);
        Self {
            interval_ns: self.interval_ns.saturating_mul(whole).div_ceil(share),
            burst: (self.burst / whole * share + self.burst % whole * share / whole).max(1),
        }
    }

    /// Microseconds from one request to the next, rounded up.
    pub fn interval_us(self) -> u64 {
        self.interval_ns.div_ceil(1_000)
    }

    /// Requests that may come at once.
    pub fn most_at_once(self) -> u32 {
        u32::try_from(self.burst).unwrap_or(u32::MAX).min(super::Lease::MOST)
    }

    /// Requests of a second.
    pub fn per_second(self) -> f64 {
        1e9 / self.interval_ns as f64
    }

    /// How early a request may be.
    const fn horizon(self) -> u64 {
        self.burst.saturating_mul(self.interval_ns)
    }
}

/// What a meter has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Requests that would pass at once.
    pub left: u64,
    /// Nanoseconds until one more would; 0 when a whole burst would now.
    pub more_in_ns: u64,
}

/// Nanoseconds after which the same request passes, if nothing else comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub u64);

/// Lets requests through at a rate. The rate is given with each, so it may change at any time.
#[derive(Debug, Default)]
pub struct Meter(AtomicU64);

impl Meter {
    /// Whether a request would pass at `now` (nanoseconds).
    ///
    /// # Errors
    /// [`Wait`] until it would.
    pub fn peek(&self, rate: Rate, now: u64) -> Result<Room, Wait> {
        pass(self.0.load(Relaxed), rate, now).map(|due| room(due, rate, now))
    }

    /// Lets a request through at `now`, or not. Lock-free: of several at the same time, as many pass as there is room for.
    ///
    /// # Errors
    /// [`Wait`] until it would pass.
    pub fn take(&self, rate: Rate, now: u64) -> Result<Room, Wait> {
        let mut due = self.0.load(Relaxed);
        loop {
            let next = pass(due, rate, now)?;
            match self.0.compare_exchange_weak(due, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(room(next, rate, now)),
                Err(other) => due = other,
            }
        }
    }

    /// A request passed that another permitted: it is remembered as far as the burst reaches, so that this meter, asked
    /// again, does not let the same through twice.
    pub fn passed(&self, rate: Rate, now: u64) -> Room {
        let next = |due: u64| due.max(now).saturating_add(rate.interval_ns).min(now.saturating_add(rate.horizon()));
        let due = self.0.fetch_update(Relaxed, Relaxed, |due| Some(next(due)));
        room(next(due.unwrap_or_else(|due| due)), rate, now)
    }

    /// A request that was let through did not happen after all.
    pub fn undo(&self, rate: Rate) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |due| Some(due.saturating_sub(rate.interval_ns)));
    }

    /// When the next request is due, as it is kept.
    pub(super) fn due(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// A meter at rest until `due`.
    pub(super) fn set(&self, due: u64) {
        self.0.store(due, Relaxed);
    }
}

/// When the request after this one is due.
fn pass(due: u64, rate: Rate, now: u64) -> Result<u64, Wait> {
    if rate.burst == 0 {
        // A limit of 0 is not over in any time we know; asking again each minute is soon enough.
        return Err(Wait(MINUTE));
    }
    let next = due.max(now).saturating_add(rate.interval_ns);
    match (next - now).saturating_sub(rate.horizon()) {
        0 => Ok(next),
        early => Err(Wait(early)),
    }
}

fn room(due: u64, rate: Rate, now: u64) -> Room {
    let full_in_ns = due.saturating_sub(now);
    let left = rate.horizon().saturating_sub(full_in_ns) / rate.interval_ns;
    let one_more = left.saturating_add(1).saturating_mul(rate.interval_ns);
    let more_in_ns = full_in_ns.min(full_in_ns.saturating_add(one_more).saturating_sub(rate.horizon()));
    Room { left, more_in_ns }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plain reference: a bucket of nanoseconds that fills with time.
    struct Bucket {
        rate: Rate,
        credit: u64,
        at: u64,
    }

    impl Bucket {
        fn take(&mut self, now: u64) -> bool {
            self.credit = (self.credit + (now - self.at)).min(self.rate.horizon());
            self.at = now;
            let passes = self.credit >= self.rate.interval_ns;
            self.credit -= if passes { self.rate.interval_ns } else { 0 };
            passes
        }
    }

    proptest! {
        #[test]
        fn a_meter_lets_through_what_a_bucket_would(
            limit in 1_u64..5_000,
            burst in 1_u64..50,
            steps in prop::collection::vec(0_u64..3_000_000_000, 1..300),
        ) {
            let rate = Rate::per_minute(limit, Some(burst));
            let mut bucket = Bucket { rate, credit: rate.horizon(), at: 0 };
            let (meter, mut now, mut passed) = (Meter::default(), 0, Vec::new());
            for step in steps {
                now += step;
                let peeked = meter.peek(rate, now).is_ok();
                let taken = meter.take(rate, now);
                prop_assert_eq!((taken.is_ok(), peeked), (bucket.take(now), taken.is_ok()));
                match taken {
                    Ok(room) => {
                        prop_assert_eq!(room.left, bucket.credit / rate.interval_ns);
                        let available = |now| meter.peek(rate, now).map_or(0, |room| room.left + 1);
                        prop_assert_eq!(available(now + room.more_in_ns), room.left + 1, "one more, and no sooner");
                        prop_assert_eq!(available(now + room.more_in_ns - 1), room.left);
                        passed.push(now);
                    }
                    Err(Wait(wait)) => {
                        prop_assert!(meter.peek(rate, now + wait).is_ok(), "waiting that long lets it through");
                        prop_assert!(meter.peek(rate, now + wait - 1).is_err(), "and less does not");
                    }
                }
            }
            for (i, from) in passed.iter().enumerate() {
                for (n, to) in passed[i..].iter().enumerate() {
                    prop_assert!((n as u64) < burst + (to - from) / rate.interval_ns);
                }
            }
        }

        #[test]
        fn parts_of_a_rate_are_together_no_more_than_the_whole(limit in 1_u64..10_000, burst in 64_u64..500, nodes in 1_u32..16) {
            let whole = Rate::per_minute(limit, Some(burst));
            let part = whole.part(WHOLE / nodes);
            prop_assert!(part.interval_ns >= whole.interval_ns * u64::from(nodes));
            prop_assert!(part.burst * u64::from(nodes) <= burst);
        }

        #[test]
        fn what_is_undone_can_be_taken_again(limit in 1_u64..5_000, burst in 1_u64..50) {
            let (rate, meter) = (Rate::per_minute(limit, Some(burst)), Meter::default());
            for _ in 0..burst {
                prop_assert!(meter.take(rate, 7).is_ok());
            }
            meter.undo(rate);
            prop_assert!(meter.take(rate, 7).is_ok());
            prop_assert!(meter.take(rate, 7).is_err());
        }
    }

    #[test]
    fn of_many_at_once_as_many_pass_as_there_is_room_for() {
        let (rate, meter) = (Rate::per_minute(60, Some(1_000)), Meter::default());
        let passed: usize = std::thread::scope(|scope| {
            let ask = || (0..1_000).filter(|_| meter.take(rate, 5).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(passed, 1_000);
    }

    #[test]
    fn nothing_passes_a_limit_of_nothing() {
        let rate = Rate::per_minute(0, Some(10));
        assert_eq!(Meter::default().take(rate, 0), Err(Wait(MINUTE)));
        assert_eq!(Meter::default().take(rate.part(10), 0), Err(Wait(MINUTE)));
    }

    #[test]
    fn what_another_permitted_is_remembered_but_no_further_than_a_burst() {
        let (rate, meter) = (Rate::per_minute(60, Some(3)), Meter::default());
        for _ in 0..100 {
            meter.passed(rate, 0);
        }
        assert_eq!(meter.take(rate, 0), Err(Wait(1_000_000_000)));
        assert!(meter.take(rate, 1_000_000_000).is_ok());
    }

    #[test]
    fn no_rate_or_time_overflows() {
        for rate in [Rate::per_minute(u64::MAX, Some(u64::MAX)), Rate::per_minute(1, Some(u64::MAX)).part(1)] {
            for now in [0, u64::MAX / 2, u64::MAX] {
                let _ = (Meter::default().take(rate, now), Meter::default().passed(rate, now));
            }
        }
    }
}
