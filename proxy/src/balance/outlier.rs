//! Passive ejection: a backend that fails real requests rests for a while.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use schoolgate_config::model::{BackendState, Ejection};
use tracing::warn;

use super::pool::{LiveBackend, LivePool};

/// The longest rest, in milliseconds: 5 minutes. A backend that comes back must not wait for longer than an operator
/// would look at it.
const LONGEST_MS: u64 = 300_000;

impl LivePool {
    /// Takes note that a backend answered. Any answer but a gateway's own failure counts.
    pub(crate) fn succeeded(&self, backend: &LiveBackend, now_ms: impl FnOnce() -> i64) {
        // Read before write: on the way of every request, and nearly always there is nothing to forget.
        if backend.failures.load(Ordering::Relaxed) != 0 {
            backend.failures.store(0, Ordering::Relaxed);
        }
        if backend.ejections.load(Ordering::Relaxed) != 0 && !backend.is_ejected(now_ms()) {
            backend.ejections.store(0, Ordering::Relaxed);
            backend.ejected_until_ms.store(0, Ordering::Relaxed);
            backend.set_reason(None);
        }
    }

    /// Takes note that a backend failed a request, and ejects it when that was one too many in a row.
    pub(crate) fn failed(&self, backend: &Arc<LiveBackend>, rules: &Ejection, now_ms: i64) {
        let failures = backend.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if rules.consecutive_failures == 0
            || failures < rules.consecutive_failures
            || backend.is_ejected(now_ms)
            || !self.may_eject(backend, rules, now_ms)
        {
            return;
        }
        backend.failures.store(0, Ordering::Relaxed);
        let before = backend.ejections.fetch_add(1, Ordering::Relaxed);
        let rest_ms = rest(rules.base_ms, before);
        let until = now_ms.saturating_add(i64::try_from(rest_ms).unwrap_or(i64::MAX));
        backend.ejected_until_ms.store(until, Ordering::Relaxed);
        let reason = format!("{failures} failed requests in a row");
        warn!(
            pool.id = %backend.pool, backend.addr = %backend.address, cooldown_ms = rest_ms,
            "ejected {}: {reason}", backend.address
        );
        backend.set_reason(Some(reason));
    }

    /// Whether one more may rest: never more than the pool's share, never the last one that takes requests. Two that
    /// fail at the same moment may both pass; then the pool rests as a whole and is asked nevertheless.
    fn may_eject(&self, backend: &LiveBackend, rules: &Ejection, now_ms: i64) -> bool {
        let active = self.members().iter().filter(|m| m.state == BackendState::Active);
        let (mut all, mut out, mut others) = (0u64, 0u64, 0u64);
        for member in active {
            all += 1;
            if member.backend.is_ejected(now_ms) {
                out += 1;
            } else if member.backend.id != backend.id && !member.backend.is_unhealthy() {
                others += 1;
            }
        }
        others > 0 && (out + 1) * 100 <= all * u64::from(rules.max_percent)
    }
}

/// How long the `before + 1`-th ejection in a row lasts.
fn rest(base_ms: u64, before: u32) -> u64 {
    base_ms.saturating_mul(1 << before.min(20)).min(LONGEST_MS)
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::pool;
    use super::*;

    fn fail(live: &LivePool, n: usize, times: u32, now_ms: i64) {
        for _ in 0..times {
            live.failed(&live.members()[n].backend, &Ejection::default(), now_ms);
        }
    }

    #[test]
    fn failures_in_a_row_eject_and_each_further_ejection_lasts_twice_as_long() {
        let live = LivePool::new(&pool(&[1, 1]), 1);
        let backend = &live.members()[0].backend;
        fail(&live, 0, 2, 0);
        live.succeeded(backend, || 0);
        fail(&live, 0, 2, 0);
        assert!(!backend.is_ejected(1), "a success in between starts the count anew");
        fail(&live, 0, 1, 0);
        assert!(backend.is_ejected(4_999) && !backend.is_ejected(5_000));
        fail(&live, 0, 3, 5_000);
        assert!(backend.is_ejected(14_999) && !backend.is_ejected(15_000));
        live.succeeded(backend, || 15_000);
        fail(&live, 0, 3, 20_000);
        assert!(!backend.is_ejected(25_000), "after a success the first rest is short again");
    }

    #[test]
    fn a_late_success_of_a_resting_backend_does_not_end_its_rest() {
        let live = LivePool::new(&pool(&[1, 1]), 1);
        fail(&live, 0, 3, 0);
        live.succeeded(&live.members()[0].backend, || 100);
        assert!(live.members()[0].backend.is_ejected(101));
    }

    #[test]
    fn at_most_the_pools_share_rests_and_one_always_stays() {
        let live = LivePool::new(&pool(&[1, 1, 1, 1]), 1);
        for n in 0..4 {
            fail(&live, n, 10, 0);
        }
        let resting = live.members().iter().filter(|m| m.backend.is_ejected(1)).count();
        assert_eq!(resting, 2);
        let alone = LivePool::new(&pool(&[1]), 1);
        fail(&alone, 0, 10, 0);
        assert!(!alone.members()[0].backend.is_ejected(1));
        let pair = LivePool::new(&pool(&[1, 1]), 1);
        pair.members()[1].backend.checked(&Err("down".into()), 1, 1);
        fail(&pair, 0, 10, 0);
        assert!(!pair.members()[0].backend.is_ejected(1), "the other one fails its checks");
    }

    #[test]
    fn a_rest_has_a_longest_length() {
        assert_eq!(rest(5_000, 0), 5_000);
        assert_eq!(rest(5_000, 63), LONGEST_MS);
    }
}
