//! LivePool: what this node knows of a pool.
//!
//! The list of members is immutable and made anew with every version of the pool; what is known of a backend hangs on
//! its identity and address, and is handed on, so a change of weight or of a timeout forgets nothing.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use schoolgate_config::model::{Backend, BackendAddress, BackendId, BackendState, Pool, PoolId};

use super::queue::FairQueue;
use super::retry::Budget;
use crate::observe::{BackendCondition, BackendCounters, BackendView, PoolCounters};

/// What this node knows of one version of a pool.
#[derive(Debug)]
pub struct LivePool {
    /// A number of this process, never used twice.
    pub(crate) number: u64,
    members: Box<[Member]>,
    /// Every request of round robin takes the next number.
    pub(super) turn: AtomicUsize,
    pub(crate) budget: Arc<Budget>,
    pub(crate) queue: Arc<FairQueue>,
    /// Counts, handed on from version to version.
    pub counters: Arc<PoolCounters>,
}

/// One backend in one version of a pool.
#[derive(Debug)]
pub struct Member {
    /// What this node knows of it.
    pub backend: Arc<LiveBackend>,
    /// Its share.
    pub weight: u16,
    /// Whether it takes new requests.
    pub state: BackendState,
}

impl LivePool {
    /// What is known of a pool that is new here: nothing.
    pub(crate) fn new(pool: &Pool, number: u64) -> Self {
        Self {
            number,
            members: Self::members_of(pool, &[]),
            turn: AtomicUsize::new(0),
            budget: Arc::default(),
            queue: Arc::default(),
            counters: Arc::default(),
        }
    }

    /// What is known of the next version of a pool.
    pub(crate) fn next(pool: &Pool, before: &Self) -> Self {
        Self {
            number: before.number,
            members: Self::members_of(pool, &before.members),
            turn: AtomicUsize::new(before.turn.load(Ordering::Relaxed)),
            budget: before.budget.clone(),
            queue: before.queue.clone(),
            counters: before.counters.clone(),
        }
    }

    fn members_of(pool: &Pool, before: &[Member]) -> Box<[Member]> {
        let known = |wanted: &Backend| {
            let same = |m: &&Member| m.backend.id == wanted.id && m.backend.address == wanted.address;
            before.iter().find(same).map(|m| m.backend.clone())
        };
        pool.backends
            .iter()
            .map(|b| {
                let backend = known(b).unwrap_or_else(|| Arc::new(LiveBackend::new(&pool.id, b)));
                if pool.health_check.is_none() {
                    // What failed under a check that is gone would stay out for ever.
                    backend.forget_checks();
                }
                Member { backend, weight: b.weight.get(), state: b.state }
            })
            .collect()
    }

    /// The backends of this version, in the operator's order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How this node finds each backend, at `now_ms` (milliseconds since 1970).
    pub fn views(&self, now_ms: i64) -> Vec<BackendView> {
        let view = |member: &Member| BackendView {
            id: member.backend.id,
            address: member.backend.address.clone(),
            state: member.condition(now_ms),
            reason: member.backend.reason(),
            in_flight: member.backend.in_flight(),
            counters: member.backend.counters.clone(),
        };
        self.members.iter().map(view).collect()
    }
}

impl Member {
    /// How the backend stands at `now_ms` (milliseconds since 1970).
    pub fn condition(&self, now_ms: i64) -> BackendCondition {
        match self.state {
            BackendState::Draining => BackendCondition::Draining,
            BackendState::Disabled => BackendCondition::Disabled,
            BackendState::Active if self.backend.is_unhealthy() => BackendCondition::Unhealthy,
            BackendState::Active if self.backend.is_ejected(now_ms) => BackendCondition::Ejected,
            BackendState::Active => BackendCondition::Up,
        }
    }
}

/// What active checks say.
const UNCHECKED: u8 = 0;
const HEALTHY: u8 = 1;
const UNHEALTHY: u8 = 2;

/// What this node knows of one backend, as long as its identity and address stay.
#[derive(Debug)]
pub struct LiveBackend {
    /// Its pool.
    pub pool: PoolId,
    /// Its identity.
    pub id: BackendId,
    /// Where it listens.
    pub address: BackendAddress,
    in_flight: AtomicU64,
    /// What it answered.
    pub counters: Arc<BackendCounters>,
    health: AtomicU8,
    /// Checks in a row that say the opposite of `health`.
    against: AtomicU32,
    /// Failed requests in a row.
    pub(super) failures: AtomicU32,
    /// Milliseconds since 1970 until which it rests; 0: it does not.
    pub(super) ejected_until_ms: AtomicI64,
    /// Ejections in a row.
    pub(super) ejections: AtomicU32,
    /// Why it is not up. Written when that changes, never on the way of a request that succeeds.
    reason: Mutex<Option<String>>,
}

impl LiveBackend {
    pub(crate) fn new(pool: &PoolId, backend: &Backend) -> Self {
        Self {
            pool: pool.clone(),
            id: backend.id,
            address: backend.address.clone(),
            in_flight: AtomicU64::new(0),
            counters: Arc::default(),
            health: AtomicU8::new(UNCHECKED),
            against: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejected_until_ms: AtomicI64::new(0),
            ejections: AtomicU32::new(0),
            reason: Mutex::new(None),
        }
    }

    /// Requests in flight to it.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether its active checks fail. One that was never checked is taken for healthy: the first check is on its way.
    pub fn is_unhealthy(&self) -> bool {
        self.health.load(Ordering::Relaxed) == UNHEALTHY
    }

    /// Whether it rests after failed requests.
    pub fn is_ejected(&self, now_ms: i64) -> bool {
        let until = self.ejected_until_ms.load(Ordering::Relaxed);
        until != 0 && now_ms < until
    }

    /// Why it is not up.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_reason(&self, reason: Option<String>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn forget_checks(&self) {
        if self.health.swap(UNCHECKED, Ordering::Relaxed) == UNHEALTHY {
            self.set_reason(None);
        }
        self.against.store(0, Ordering::Relaxed);
    }

    /// Takes one active check into account; says whether it changed what is thought of the backend. Called by one
    /// task at a time.
    pub(super) fn checked(&self, outcome: &Result<(), String>, healthy_after: u32, unhealthy_after: u32) -> bool {
        let (says, needed) = match outcome {
            Ok(()) => (HEALTHY, healthy_after),
            Err(_) => (UNHEALTHY, unhealthy_after),
        };
        let now = self.health.load(Ordering::Relaxed);
        if now == says {
            self.against.store(0, Ordering::Relaxed);
            return false;
        }
        let against = self.against.fetch_add(1, Ordering::Relaxed) + 1;
        // The first check of a new backend decides by itself: there is nothing it could outweigh.
        if now != UNCHECKED && against < needed {
            return false;
        }
        self.against.store(0, Ordering::Relaxed);
        self.health.store(says, Ordering::Relaxed);
        self.set_reason(outcome.as_ref().err().cloned());
        now != UNCHECKED || says == UNHEALTHY
    }
}

/// One request in flight to a backend; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<LiveBackend>);

impl InFlight {
    pub(crate) fn take(backend: &Arc<LiveBackend>) -> Self {
        backend.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(backend.clone())
    }

    pub(crate) fn backend(&self) -> &Arc<LiveBackend> {
        &self.0
    }
}
impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use schoolgate_config::model::{BackendState, Weight};

    use super::*;

    pub(crate) fn pool(weights: &[u16]) -> Pool {
        let backends: Vec<_> = weights
            .iter()
            .zip(1u128..)
            .map(|(weight, n)| Backend {
                id: BackendId::from_parts(1, n),
                address: format!("http://127.0.0.1:{}", 9_000 + n).parse().expect("an address"),
                weight: Weight::new(*weight).expect("a weight"),
                state: BackendState::Active,
            })
            .collect();
        Pool {
            id: "shared".parse().expect("a name"),
            kind: Default::default(),
            backends,
            balance: Default::default(),
            health_check: Some(Default::default()),
            ejection: Default::default(),
            timeouts: Default::default(),
            retry: Default::default(),
            max_in_flight: None,
            queue: Default::default(),
        }
    }

    #[test]
    fn what_is_known_of_a_backend_survives_a_new_weight_but_not_a_new_address() {
        let mut pool = pool(&[1, 1]);
        let first = LivePool::new(&pool, 1);
        let permit = InFlight::take(&first.members()[0].backend);
        pool.backends[0].weight = Weight::new(7).expect("a weight");
        pool.backends[1].address = "http://127.0.0.1:9999".parse().expect("an address");
        let second = LivePool::next(&pool, &first);
        assert!(Arc::ptr_eq(permit.backend(), &second.members()[0].backend));
        assert_eq!((second.members()[0].weight, second.members()[0].backend.in_flight()), (7, 1));
        assert!(!Arc::ptr_eq(&first.members()[1].backend, &second.members()[1].backend));
    }

    #[test]
    fn the_first_check_decides_and_later_ones_need_company() {
        let live = LivePool::new(&pool(&[1]), 1);
        let backend = &live.members()[0].backend;
        assert!(!backend.is_unhealthy());
        assert!(backend.checked(&Err("refused".into()), 2, 2));
        assert!(backend.is_unhealthy());
        assert_eq!(backend.reason().as_deref(), Some("refused"));
        assert!(!backend.checked(&Ok(()), 2, 2));
        assert!(backend.is_unhealthy());
        assert!(backend.checked(&Ok(()), 2, 2));
        assert!(!backend.is_unhealthy());
        assert_eq!(backend.reason(), None);
        assert!(!backend.checked(&Err("slow".into()), 2, 2));
        assert!(!backend.checked(&Ok(()), 2, 2));
        assert!(!backend.checked(&Err("slow".into()), 2, 2));
        assert!(!backend.is_unhealthy(), "one bad check after a good one is not two in a row");
    }

    #[test]
    fn a_pool_without_checks_has_no_unhealthy_backends() {
        let mut pool = pool(&[1]);
        let first = LivePool::new(&pool, 1);
        first.members()[0].backend.checked(&Err("refused".into()), 2, 2);
        pool.health_check = None;
        let second = LivePool::next(&pool, &first);
        assert!(!second.members()[0].backend.is_unhealthy());
    }
}
