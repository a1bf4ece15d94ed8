//! A token bucket: what is left of one of a CA's limits.

use schoolgate_config::model::CaId;

/// A token bucket. Full when nothing was taken for as long as it takes to fill.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// Which CA's limit.
    pub ca: CaId,
    /// Which limit.
    pub name: String,
    /// Of whom: an account, a registered domain, a name; empty when there is only one.
    pub subject: String,
    /// What was left at `at_ms`.
    pub tokens: f64,
    /// The most it holds.
    pub capacity: f64,
    /// Time in which it fills from empty, milliseconds.
    pub per_ms: i64,
    /// When it was last written, milliseconds since 1970.
    pub at_ms: i64,
}

impl Bucket {
    /// What is left at `now_ms`.
    pub fn remaining(&self, now_ms: i64) -> f64 {
        (self.tokens + self.refill() * whole(now_ms - self.at_ms).max(0.0)).min(self.capacity)
    }

    /// When one token is there, milliseconds since 1970; `now_ms` when it is already.
    pub fn ready_at(&self, now_ms: i64) -> i64 {
        let missing = 1.0 - self.remaining(now_ms);
        if missing <= 0.0 {
            return now_ms;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a time within weeks, rounded up to a millisecond")]
        let wait = (missing / self.refill()).ceil() as i64;
        // A wait that rounding made a hair too short would be seen as no token again.
        now_ms.saturating_add(wait).saturating_add(1)
    }

    /// Takes one token at `now_ms`, if one is there.
    #[must_use]
    pub fn take(&mut self, now_ms: i64) -> bool {
        let left = self.remaining(now_ms);
        if left < 1.0 {
            return false;
        }
        (self.tokens, self.at_ms) = (left - 1.0, now_ms);
        true
    }

    /// Leaves nothing until `until_ms`: the CA said so, whatever we had counted.
    pub fn drain_until(&mut self, now_ms: i64, until_ms: i64) {
        self.at_ms = now_ms;
        self.tokens = 1.0 - self.refill() * whole(until_ms - now_ms).max(0.0);
    }

    /// Tokens that come back in a millisecond.
    fn refill(&self) -> f64 {
        self.capacity / whole(self.per_ms.max(1))
    }
}

/// Times here are weeks at most: far below where a float loses a millisecond.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn whole(ms: i64) -> f64 {
    ms as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> Bucket {
        Bucket {
            ca: "acme".parse().unwrap(),
            name: "orders".into(),
            subject: String::new(),
            tokens: 3.0,
            capacity: 3.0,
            per_ms: 3_000,
            at_ms: 0,
        }
    }

    #[test]
    fn it_gives_its_capacity_at_once_and_then_one_at_a_time() {
        let mut bucket = bucket();
        assert!(bucket.take(0) && bucket.take(0) && bucket.take(0));
        assert!(!bucket.take(0));
        let next = bucket.ready_at(0);
        assert!((1_000..=1_002).contains(&next), "{next}");
        assert!(!bucket.take(998) && bucket.take(next) && !bucket.take(next));
        assert!((bucket.remaining(1_000_000) - 3.0).abs() < f64::EPSILON, "never more than it holds");
    }

    #[test]
    fn it_can_be_emptied_until_a_moment() {
        let mut bucket = bucket();
        bucket.drain_until(0, 3_600_000);
        assert!(!bucket.take(3_599_000));
        let next = bucket.ready_at(0);
        assert!((3_600_000..=3_600_002).contains(&next), "{next}");
        assert!(bucket.take(next));
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let mut bucket = bucket();
        assert!(bucket.take(10_000) && bucket.take(10_000) && bucket.take(10_000));
        assert!(!bucket.take(0));
        assert!(!bucket.take(10_000));
    }
}
