//! How long to wait before asking again.

use std::time::Duration;

/// The first pause: 200 ms. A control process that restarts is back in about that.
const FIRST: Duration = Duration::from_millis(200);

/// Doubles from [`FIRST`] to a bound; each pause is cut by up to half, so that nodes do not come in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    longest: Duration,
}

impl Backoff {
    pub(crate) const fn new(longest: Duration) -> Self {
        Self { failures: 0, longest }
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next pause; `chance` is 0 to 1.
    pub(crate) fn next(&mut self, chance: f64) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_begin_again() {
        let longest = Duration::from_secs(10);
        let mut backoff = Backoff::new(longest);
        assert_eq!(backoff.next(1.0), FIRST);
        assert_eq!(backoff.next(1.0), FIRST * 2);
        assert_eq!(backoff.next(0.0), FIRST * 2);
        for _ in 0..100 {
            assert!(backoff.next(1.0) <= longest);
        }
        backoff.reset();
        assert_eq!(backoff.next(1.0), FIRST);
    }
}
