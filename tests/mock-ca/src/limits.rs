//! The rate limits of Let's Encrypt, as token buckets (its documentation, 2026-08). Written apart from the client's own:
//! two that share an error would agree.

use std::collections::HashMap;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// A limit: its name in messages, how much at once, and the time in which one comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Limit {
    NewOrders,
    RegisteredDomain,
    ExactSet,
    FailedAuthorizations,
}

impl Limit {
    const fn shape(self) -> (i64, i64) {
        match self {
            Self::NewOrders => (300, 36_000),
            Self::RegisteredDomain => (50, 7 * DAY / 50),
            Self::ExactSet => (5, 7 * DAY / 5),
            Self::FailedAuthorizations => (5, HOUR / 5),
        }
    }

    fn words(self, subject: &str) -> String {
        match self {
            Self::NewOrders => "too many new orders (300) from this account in the last 3h0m0s".to_owned(),
            Self::RegisteredDomain => {
                format!("too many certificates (50) already issued for \"{subject}\" in the last 168h0m0s")
            }
            Self::ExactSet => {
                format!(
                    "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s: {subject}"
                )
            }
            Self::FailedAuthorizations => {
                format!("too many failed authorizations (5) for \"{subject}\" in the last 1h0m0s")
            }
        }
    }
}

/// A limit that is used up: its words and the wait in milliseconds.
pub(crate) type Exceeded = (String, i64);

/// All buckets, by theoretical arrival time (GCRA): one number each.
#[derive(Debug, Default)]
pub(crate) struct Limits(HashMap<(Limit, String), i64>);

impl Limits {
    /// Whether one more would be allowed.
    pub(crate) fn check(&self, limit: Limit, subject: &str, now: i64) -> Result<(), Exceeded> {
        let (burst, each) = limit.shape();
        let arrival = self.0.get(&(limit, subject.to_owned())).copied().unwrap_or(now).max(now);
        let wait = arrival - (burst - 1) * each - now;
        if wait > 0 { Err((limit.words(subject), wait)) } else { Ok(()) }
    }

    /// Counts one.
    pub(crate) fn count(&mut self, limit: Limit, subject: &str, now: i64) {
        let (_, each) = limit.shape();
        let arrival = self.0.entry((limit, subject.to_owned())).or_insert(now);
        *arrival = (*arrival).max(now) + each;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_gives_its_burst_then_one_at_a_time() {
        let mut limits = Limits::default();
        for _ in 0..5 {
            assert!(limits.check(Limit::FailedAuthorizations, "a", 0).is_ok());
            limits.count(Limit::FailedAuthorizations, "a", 0);
        }
        let (words, wait) = limits.check(Limit::FailedAuthorizations, "a", 0).unwrap_err();
        assert_eq!(wait, 720_000);
        assert!(words.contains("failed authorizations"));
        assert!(limits.check(Limit::FailedAuthorizations, "b", 0).is_ok());
        assert!(limits.check(Limit::FailedAuthorizations, "a", 719_999).is_err());
        assert!(limits.check(Limit::FailedAuthorizations, "a", 720_000).is_ok());
    }
}
