//! What may be tried again, and how much of it: a retry must not turn one backend's trouble into a pool's.

use std::sync::atomic::{AtomicI64, Ordering};

use schoolgate_config::model::Retry;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody listens there, so nothing was sent.
    Refused,
    /// There was no connection for another reason, such as in time; nothing was sent either.
    NotConnected,
    /// A kept connection turned out closed before anything was answered: the backend most likely closed it while it
    /// was idle, and never saw the request.
    Stale,
    /// The connection broke before anything was answered; the backend may have begun to work.
    Broken,
    /// The backend was too slow: it hangs, or has too much to do. The budget keeps the second from growing.
    TimedOut,
    /// Anything else that another attempt would not mend: an answer that is not HTTP, a client that is gone.
    Final,
}

/// What is known of the request when an attempt failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) failure: Failure,
    /// The method may be repeated without harm (RFC 9110 section 9.2.2).
    pub(crate) idempotent: bool,
    /// What was read of the body is still held, up to the pool's `buffer_bytes`.
    pub(crate) replayable: bool,
    /// A part of an answer has gone to the client.
    pub(crate) answered: bool,
    /// Retries before this one that count against the pool's rule.
    pub(crate) retries: u8,
    /// Retries before this one after a stale connection.
    pub(crate) stale: u8,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again; the pool's budget must agree.
    Retry,
    /// Try again: the attempt did not reach the backend, so it costs nobody anything.
    RetryStale,
    /// Answer with the failure.
    GiveUp,
}

/// Stale connections that one request may meet: 2. A backend that restarts leaves one behind for every request it
/// served at once, and the next pick may find another; a third is no coincidence.
const MOST_STALE: u8 = 2;

/// Decides whether an attempt may be repeated.
pub(crate) fn verdict(rule: &Retry, attempt: Attempt) -> Verdict {
    if attempt.answered || !attempt.replayable {
        return Verdict::GiveUp;
    }
    let may_count = attempt.retries < rule.attempts;
    match attempt.failure {
        Failure::Refused | Failure::NotConnected if may_count => Verdict::Retry,
        Failure::Stale if attempt.idempotent && attempt.stale < MOST_STALE => Verdict::RetryStale,
        Failure::Stale | Failure::Broken | Failure::TimedOut if attempt.idempotent && may_count => Verdict::Retry,
        _ => Verdict::GiveUp,
    }
}

/// How many retries a pool may make: a token bucket filled by its requests and by time.
///
/// All counts are thousandths of a retry. It holds at most [`Budget::MOST`], so that a backend that dies with that many
/// requests in flight fails none of them, while a pool that is down as a whole soon sees no more than its share.
#[derive(Debug)]
pub(crate) struct Budget {
    tokens: AtomicI64,
    filled_ms: AtomicI64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { tokens: AtomicI64::new(Self::MOST), filled_ms: AtomicI64::new(0) }
    }
}

impl Budget {
    /// What is held at most: 250 retries.
    const MOST: i64 = 250_000;
    /// What each second adds, whatever the load: 10 retries.
    const PER_SECOND: i64 = 10_000;

    /// A request was made: `percent` hundredths of a retry more.
    pub(crate) fn earn(&self, percent: u8) {
        // Nearly always full: a read instead of a write that all workers would share.
        if self.tokens.load(Ordering::Relaxed) < Self::MOST {
            self.tokens.fetch_add(i64::from(percent) * 10, Ordering::Relaxed);
        }
    }

    /// Takes one retry out, if one is left at `now_ms`.
    pub(crate) fn spend(&self, now_ms: i64) -> bool {
        let last = self.filled_ms.load(Ordering::Relaxed);
        let passed = now_ms.saturating_sub(last).clamp(0, 60_000);
        if passed > 0 && self.filled_ms.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let gain = passed * Self::PER_SECOND / 1_000;
            let _ =
                self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |t| Some((t + gain).min(Self::MOST)));
        }
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |t| (t >= 1_000).then(|| t - 1_000)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(failure: Failure) -> Attempt {
        Attempt { failure, idempotent: true, replayable: true, answered: false, retries: 0, stale: 0 }
    }

    #[test]
    fn what_was_never_sent_may_be_tried_again_whatever_the_method() {
        let rule = Retry::default();
        for failure in [Failure::Refused, Failure::NotConnected] {
            let post = Attempt { idempotent: false, ..attempt(failure) };
            assert_eq!(verdict(&rule, post), Verdict::Retry);
            assert_eq!(verdict(&rule, Attempt { retries: rule.attempts, ..post }), Verdict::GiveUp);
            assert_eq!(verdict(&Retry { attempts: 0, ..rule }, post), Verdict::GiveUp);
        }
    }

    #[test]
    fn what_may_have_been_seen_is_tried_again_only_if_idempotent() {
        let rule = Retry::default();
        assert_eq!(verdict(&rule, attempt(Failure::Broken)), Verdict::Retry);
        assert_eq!(verdict(&rule, attempt(Failure::Stale)), Verdict::RetryStale);
        assert_eq!(verdict(&rule, attempt(Failure::TimedOut)), Verdict::Retry);
        for failure in [Failure::Broken, Failure::Stale, Failure::TimedOut] {
            assert_eq!(verdict(&rule, Attempt { idempotent: false, ..attempt(failure) }), Verdict::GiveUp);
        }
    }

    #[test]
    fn nothing_is_repeated_after_a_part_of_the_answer_or_with_a_part_of_the_body() {
        let rule = Retry::default();
        for failure in [Failure::NotConnected, Failure::Stale, Failure::Broken] {
            assert_eq!(verdict(&rule, Attempt { answered: true, ..attempt(failure) }), Verdict::GiveUp);
            assert_eq!(verdict(&rule, Attempt { replayable: false, ..attempt(failure) }), Verdict::GiveUp);
        }
        assert_eq!(verdict(&rule, attempt(Failure::Final)), Verdict::GiveUp);
    }

    #[test]
    fn stale_connections_are_met_a_few_times_and_then_count() {
        let rule = Retry::default();
        assert_eq!(verdict(&rule, Attempt { stale: MOST_STALE, ..attempt(Failure::Stale) }), Verdict::Retry);
        assert_eq!(
            verdict(&rule, Attempt { stale: MOST_STALE, retries: rule.attempts, ..attempt(Failure::Stale) }),
            Verdict::GiveUp
        );
    }

    #[test]
    fn a_budget_holds_what_it_holds_and_fills_by_requests_and_time() {
        let budget = Budget::default();
        let spent = (0..1_000).filter(|_| budget.spend(1)).count();
        assert_eq!(spent, 250);
        for _ in 0..100 {
            budget.earn(10);
        }
        assert_eq!((0..1_000).filter(|_| budget.spend(1)).count(), 10, "a tenth of a hundred requests");
        assert_eq!((0..1_000).filter(|_| budget.spend(1_001)).count(), 10, "ten in a second");
    }
}
