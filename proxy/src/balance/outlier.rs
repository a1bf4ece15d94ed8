//! Passive ejection: a backend that fails real requests rests for a while.
//!
//! That nobody can connect to it is its own doing. That it fails requests may be a tenant's: it counts against the backend
//! when it happens to several tenants ([`super::circuit`] has what happens to one).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use schoolgate_config::model::{BackendState, Ejection};
use tracing::{debug, warn};

use super::circuit::{Circuits, Counted, Trouble};
use super::pool::{LiveBackend, LivePool};

/// The longest rest, in milliseconds: 5 minutes. A backend that comes back must not wait for longer than an operator
/// would look at it.
const LONGEST_MS: u64 = 300_000;

/// Tenants of a shared pool that must find a backend failing before it rests: 2. One may be wrong by itself.
const WITNESSES: usize = 2;

/// How long a tenant's finding counts, in milliseconds: a minute, so that two schools with trouble of their own on one
/// day eject nobody.
const TESTIMONY_MS: i64 = 60_000;

/// Whose request it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose<'a> {
    /// The tenant's number of this process.
    pub(crate) tenant: u64,
    /// Its circuits.
    pub(crate) circuits: &'a Circuits,
}

/// Why there was no connection to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoConnection {
    /// Nobody listens there.
    Refused,
    /// Anything else: it may have too much to do, or the way there may be broken.
    Other,
}

/// Whether the pool's share of backends that rest holds for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    /// What it would have done is left to the others.
    Holds,
    /// It does nothing as it is.
    Open,
}

impl LivePool {
    /// Takes note that a backend answered. Any answer but a gateway's own failure counts.
    pub(crate) fn succeeded(&self, backend: &LiveBackend, whose: Whose<'_>, now_ms: impl FnOnce() -> i64) {
        whose.circuits.succeeded(self.number, backend.id);
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

    /// Takes note that nobody could connect to a backend, and ejects it when that was one time too many in a row.
    pub(crate) fn not_connected(&self, backend: &Arc<LiveBackend>, why: NoConnection, rules: &Ejection, now_ms: i64) {
        let share = match why {
            NoConnection::Refused => Share::Open,
            NoConnection::Other => Share::Holds,
        };
        let failures = backend.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if rules.consecutive_failures != 0 && failures >= rules.consecutive_failures {
            self.eject(backend, share, rules, now_ms, || format!("{failures} failed connections in a row"));
        }
    }

    /// Takes note that a backend failed a request of a tenant, and ejects it when it fails several tenants.
    pub(crate) fn failed(
        &self,
        backend: &Arc<LiveBackend>,
        whose: Whose<'_>,
        trouble: Trouble,
        rules: &Ejection,
        now_ms: i64,
    ) {
        if whose.circuits.failed(self.number, backend.id, trouble, rules, now_ms) == Counted::Noted {
            return;
        }
        debug!(
            pool.id = %backend.pool, backend.addr = %backend.address, tenant.number = whose.tenant,
            "{} fails a tenant, which avoids it", backend.address
        );
        let witnesses = backend.testify(whose.tenant, now_ms, TESTIMONY_MS);
        if witnesses >= WITNESSES || !self.rule.shared {
            self.eject(backend, Share::Holds, rules, now_ms, || match witnesses {
                1 => "failed requests in a row".to_owned(),
                many => format!("failed requests of {many} tenants in a row"),
            });
        }
    }

    fn eject(
        &self,
        backend: &Arc<LiveBackend>,
        share: Share,
        rules: &Ejection,
        now_ms: i64,
        why: impl FnOnce() -> String,
    ) {
        if backend.is_ejected(now_ms) || !self.may_eject(backend, share, rules, now_ms) {
            return;
        }
        backend.failures.store(0, Ordering::Relaxed);
        let before = backend.ejections.fetch_add(1, Ordering::Relaxed);
        let rest_ms = rest(rules.base_ms, before);
        let until = now_ms.saturating_add(i64::try_from(rest_ms).unwrap_or(i64::MAX));
        backend.ejected_until_ms.store(until, Ordering::Relaxed);
        backend.starts_at(until);
        let reason = why();
        warn!(
            pool.id = %backend.pool, backend.addr = %backend.address, cooldown_ms = rest_ms,
            "ejected {}: {reason}", backend.address
        );
        backend.set_reason(Some(reason));
    }

    /// Whether one more may rest: no more than the pool's share where that holds, never the last that takes requests. Two that
    /// fail at the same moment may both pass; then the pool rests as a whole and is asked nevertheless.
    fn may_eject(&self, backend: &LiveBackend, share: Share, rules: &Ejection, now_ms: i64) -> bool {
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
        others > 0 && (share == Share::Open || (out + 1) * 100 <= all * u64::from(rules.max_percent))
    }
}

/// How long the `before + 1`-th ejection in a row lasts.
fn rest(base_ms: u64, before: u32) -> u64 {
    base_ms.saturating_mul(1 << before.min(20)).min(LONGEST_MS)
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::{live as live_of, pool};
    use super::*;

    fn fail(live: &LivePool, n: usize, times: u32, now_ms: i64) {
        for _ in 0..times {
            live.not_connected(&live.members()[n].backend, NoConnection::Other, &Ejection::default(), now_ms);
        }
    }

    fn succeed(live: &LivePool, n: usize, now_ms: i64) {
        let whose = Whose { tenant: 1, circuits: &Circuits::default() };
        live.succeeded(&live.members()[n].backend, whose, || now_ms);
    }

    fn fail_tenant(live: &LivePool, whose: Whose<'_>, n: usize, now_ms: i64) {
        for _ in 0..3 {
            live.failed(&live.members()[n].backend, whose, Trouble::Said, &Ejection::default(), now_ms);
        }
    }

    #[test]
    fn one_tenants_failures_eject_nobody_from_a_shared_pool_and_two_tenants_do() {
        let live = live_of(&pool(&[1, 1]));
        let backend = &live.members()[0].backend;
        let (one, two) = (Circuits::default(), Circuits::default());
        let (one, two) = (Whose { tenant: 1, circuits: &one }, Whose { tenant: 2, circuits: &two });
        for _ in 0..20 {
            fail_tenant(&live, one, 0, 0);
        }
        assert!(!backend.is_ejected(1));
        assert!(one.circuits.avoided(live.number, &Ejection::default(), 1).contains(backend.id));
        assert!(!two.circuits.avoided(live.number, &Ejection::default(), 1).contains(backend.id));
        fail_tenant(&live, two, 0, 61_000);
        assert!(!backend.is_ejected(61_001), "the other one's trouble was too long ago");
        let three = Circuits::default();
        fail_tenant(&live, Whose { tenant: 3, circuits: &three }, 0, 62_000);
        assert!(backend.is_ejected(62_001));
        assert_eq!(backend.reason().as_deref(), Some("failed requests of 2 tenants in a row"));
    }

    #[test]
    fn in_a_dedicated_pool_one_tenant_is_all_there_is() {
        use schoolgate_config::model::{Pool, PoolKind};
        let live = live_of(&Pool { kind: PoolKind::Dedicated, ..pool(&[1, 1]) });
        fail_tenant(&live, Whose { tenant: 1, circuits: &Circuits::default() }, 0, 0);
        assert!(live.members()[0].backend.is_ejected(1));
    }

    #[test]
    fn failures_in_a_row_eject_and_each_further_ejection_lasts_twice_as_long() {
        let live = live_of(&pool(&[1, 1]));
        let backend = &live.members()[0].backend;
        fail(&live, 0, 2, 0);
        succeed(&live, 0, 0);
        fail(&live, 0, 2, 0);
        assert!(!backend.is_ejected(1), "a success in between starts the count anew");
        fail(&live, 0, 1, 0);
        assert!(backend.is_ejected(4_999) && !backend.is_ejected(5_000));
        fail(&live, 0, 3, 5_000);
        assert!(backend.is_ejected(14_999) && !backend.is_ejected(15_000));
        succeed(&live, 0, 15_000);
        fail(&live, 0, 3, 20_000);
        assert!(!backend.is_ejected(25_000), "after a success the first rest is short again");
    }

    #[test]
    fn a_late_success_of_a_resting_backend_does_not_end_its_rest() {
        let live = live_of(&pool(&[1, 1]));
        fail(&live, 0, 3, 0);
        succeed(&live, 0, 100);
        assert!(live.members()[0].backend.is_ejected(101));
    }

    #[test]
    fn at_most_the_pools_share_rests_and_one_always_stays() {
        let live = live_of(&pool(&[1, 1, 1, 1]));
        for n in 0..4 {
            fail(&live, n, 10, 0);
        }
        let resting = live.members().iter().filter(|m| m.backend.is_ejected(1)).count();
        assert_eq!(resting, 2);
        let alone = live_of(&pool(&[1]));
        fail(&alone, 0, 10, 0);
        assert!(!alone.members()[0].backend.is_ejected(1));
        let pair = live_of(&pool(&[1, 1]));
        pair.members()[1].backend.checked(&Err("down".into()), 1, 1);
        fail(&pair, 0, 10, 0);
        assert!(!pair.members()[0].backend.is_ejected(1), "the other one fails its checks");
    }

    #[test]
    fn who_refuses_connections_rests_beyond_the_share_and_one_stays_all_the_same() {
        let live = live_of(&pool(&[1, 1, 1, 1]));
        for n in 0..4 {
            for _ in 0..10 {
                let backend = &live.members()[n].backend;
                live.not_connected(backend, NoConnection::Refused, &Ejection::default(), 0);
            }
        }
        let resting: Vec<_> = live.members().iter().map(|m| m.backend.is_ejected(1)).collect();
        assert_eq!(resting, [true, true, true, false]);
        let counted = live_of(&pool(&[1, 1, 1]));
        for _ in 0..3 {
            let backend = &counted.members()[0].backend;
            counted.not_connected(backend, NoConnection::Refused, &Ejection::default(), 0);
        }
        fail(&counted, 1, 10, 0);
        assert!(!counted.members()[1].backend.is_ejected(1), "half of three is one, and that rests");
    }

    #[test]
    fn a_rest_has_a_longest_length() {
        assert_eq!(rest(5_000, 0), 5_000);
        assert_eq!(rest(5_000, 63), LONGEST_MS);
    }
}
