//! LivePool: what this node knows of a pool.
//!
//! The list of members is immutable and made anew with every version of the pool; what is known of a backend hangs on
//! its identity and address, and is handed on, so a change of weight or of a timeout forgets nothing.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use schoolgate_config::model::{
    Backend, BackendAddress, BackendId, BackendState, Balance, ClientCertificate, Pool, PoolId, PoolKind, UpstreamTls,
};

use super::drain::Leaving;
use super::queue::FairQueue;
use super::rendezvous::Point;
use super::retry::Budget;
use super::sticky::Sticky;
use crate::forward::upstream_tls::{UpstreamTlsError, UpstreamTlsReady};
use crate::observe::{BackendCondition, BackendCounters, BackendView, PoolCounters};

/// What this node knows of one version of a pool.
#[derive(Debug)]
pub struct LivePool {
    /// A number of this process, never used twice.
    pub(crate) number: u64,
    members: Box<[Member]>,
    pub(super) rule: Rule,
    /// For `https://` backends, if there are any.
    pub(crate) tls: Option<Result<UpstreamTlsReady, UpstreamTlsError>>,
    /// For `sticky`.
    pub(crate) sticky: Option<Sticky>,
    /// Every request of round robin takes the next number.
    pub(super) turn: AtomicUsize,
    pub(crate) budget: Arc<Budget>,
    pub(crate) queue: Arc<FairQueue>,
    /// Counts, handed on from version to version.
    pub counters: Arc<PoolCounters>,
}

/// What is made for a version of a pool with the node's keys.
#[derive(Debug, Default)]
pub(crate) struct Equipment {
    /// For `https://` backends, if there are any.
    pub(crate) tls: Option<Result<UpstreamTlsReady, UpstreamTlsError>>,
    /// For `sticky`.
    pub(crate) sticky: Option<Sticky>,
}

/// What of a pool's definition every choice reads.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) balance: Balance,
    pub(super) shard: Option<usize>,
    pub(super) slow_start_ms: i64,
    pub(super) panic_percent: u64,
    /// It has active checks.
    pub(super) checked: bool,
    /// Many tenants live on it.
    pub(super) shared: bool,
    /// All backends have one weight.
    pub(super) even: bool,
    /// Whom we trust, and who we are.
    identity: (UpstreamTls, Option<ClientCertificate>),
}

impl Rule {
    fn of(pool: &Pool) -> Self {
        Self {
            balance: pool.balance,
            shard: pool.shard_size.map(|size| usize::from(size.get())),
            slow_start_ms: i64::from(pool.slow_start_s) * 1_000,
            panic_percent: pool.ejection.panic_percent.into(),
            checked: pool.health_check.is_some(),
            shared: pool.kind == PoolKind::Shared,
            even: pool.backends.windows(2).all(|pair| pair[0].weight == pair[1].weight),
            identity: (pool.upstream_tls.clone(), pool.client_certificate.clone()),
        }
    }
}

/// One backend in one version of a pool.
#[derive(Debug)]
pub struct Member {
    /// What this node knows of it.
    pub backend: Arc<LiveBackend>,
    /// What it is to rendezvous hashing.
    pub(super) point: Point,
    /// Its share.
    pub weight: u16,
    /// Whether it takes new requests.
    pub state: BackendState,
}

impl LivePool {
    /// What is known of a pool that is new here: nothing.
    pub(crate) fn new(pool: &Pool, number: u64, equipment: Equipment) -> Self {
        Self {
            number,
            members: Self::members_of(pool, None),
            rule: Rule::of(pool),
            tls: equipment.tls,
            sticky: equipment.sticky,
            turn: AtomicUsize::new(0),
            budget: Arc::default(),
            queue: Arc::default(),
            counters: Arc::default(),
        }
    }

    /// What is known of the next version of a pool. It has another number when no kept connection may be used again.
    pub(crate) fn next(pool: &Pool, before: &Self, number: u64, equipment: Equipment) -> Self {
        Self {
            number,
            members: Self::members_of(pool, Some(&before.members)),
            rule: Rule::of(pool),
            tls: equipment.tls,
            sticky: equipment.sticky,
            turn: AtomicUsize::new(before.turn.load(Ordering::Relaxed)),
            budget: before.budget.clone(),
            queue: before.queue.clone(),
            counters: before.counters.clone(),
        }
    }

    fn members_of(pool: &Pool, before: Option<&[Member]>) -> Box<[Member]> {
        let known = |wanted: &Backend| {
            let same = |m: &&Member| m.backend.id == wanted.id && m.backend.address == wanted.address;
            before.unwrap_or_default().iter().find(same).map(|m| m.backend.clone())
        };
        // Beside others that serve already, a new one may take its time.
        let arrival = if before.is_some_and(|members| !members.is_empty()) { Arrival::Joins } else { Arrival::First };
        pool.backends
            .iter()
            .map(|b| {
                let backend = known(b).unwrap_or_else(|| Arc::new(LiveBackend::new(&pool.id, b, arrival)));
                if pool.health_check.is_none() {
                    // What failed under a check that is gone would stay out for ever.
                    backend.forget_checks();
                }
                let point = Point::of(b.id.bits());
                Member { backend, point, weight: b.weight.get(), state: b.state }
            })
            .collect()
    }

    /// Whether we are to backends who we will be in a version of the pool, and trust whom it trusts: connections that are
    /// kept may be used again.
    pub(crate) fn has_identity_of(&self, pool: &Pool) -> bool {
        let (tls, certificate) = &self.rule.identity;
        *tls == pool.upstream_tls && *certificate == pool.client_certificate
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
            checked: member.backend.is_checked(),
            reason: member.backend.reason(),
            in_flight: member.backend.in_flight(),
            counters: member.backend.counters.clone(),
        };
        self.members.iter().map(view).collect()
    }
}

/// Whether a backend came with its pool or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// With it.
    First,
    /// To others that serve.
    Joins,
}

impl Member {
    /// Whether nothing is known against it at `now_ms`.
    pub(super) fn is_well(&self, now_ms: i64) -> bool {
        !self.backend.is_unhealthy() && !self.backend.is_ejected(now_ms)
    }

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
    /// When it began, or begins, to take requests (again), milliseconds since 1970; [`LONG_AGO`], [`NOT_YET`].
    started_ms: AtomicI64,
    arrival: Arrival,
    /// Whether it goes.
    pub(super) leaving: Leaving,
    /// The condition that was told last; [`UNTOLD`].
    told: AtomicU8,
    /// Tenants that it failed lately, and when. Written when a tenant begins to avoid it.
    witnesses: Mutex<Vec<(u64, i64)>>,
    /// Why it is not up. Written when that changes, never on the way of a request that succeeds.
    reason: Mutex<Option<String>>,
}

/// Nobody was told anything of it.
const UNTOLD: u8 = u8::MAX;
/// It starts no more.
const LONG_AGO: i64 = 0;
/// It starts when it is looked at.
const NOT_YET: i64 = -1;
/// The least share of its weight that a starting backend has, in thousandths: a tenth, so that it is asked at all.
const LEAST_WARMTH: i64 = 100;
/// Tenants remembered as witnesses: 8; two are enough.
const WITNESSES: usize = 8;

impl LiveBackend {
    pub(crate) fn new(pool: &PoolId, backend: &Backend, arrival: Arrival) -> Self {
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
            started_ms: AtomicI64::new(if arrival == Arrival::Joins { NOT_YET } else { LONG_AGO }),
            arrival,
            leaving: Leaving::default(),
            told: AtomicU8::new(UNTOLD),
            witnesses: Mutex::default(),
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

    /// Whether an active check has said anything of it.
    pub fn is_checked(&self) -> bool {
        self.health.load(Ordering::Relaxed) != UNCHECKED
    }

    /// Whether it rests after failed requests.
    pub fn is_ejected(&self, now_ms: i64) -> bool {
        let until = self.ejected_until_ms.load(Ordering::Relaxed);
        until != 0 && now_ms < until
    }

    /// Whether it came to others that serve, and was not checked yet.
    pub(super) fn is_unproven(&self) -> bool {
        self.arrival == Arrival::Joins && self.health.load(Ordering::Relaxed) == UNCHECKED
    }

    /// Its condition is told. Gives what was told before, if that was another; a backend that begins well is no news.
    pub(super) fn told(&self, condition: BackendCondition) -> Option<BackendCondition> {
        let place = BackendCondition::ALL.iter().position(|c| *c == condition).unwrap_or_default();
        let now = u8::try_from(place).unwrap_or(UNTOLD);
        let before = self.told.swap(now, Ordering::Relaxed);
        let before = BackendCondition::ALL.get(usize::from(before)).copied().unwrap_or(BackendCondition::Up);
        (before != condition).then_some(before)
    }

    /// Its slow start begins then.
    pub(super) fn starts_at(&self, at_ms: i64) {
        self.started_ms.store(at_ms, Ordering::Relaxed);
    }

    /// How much of its weight it has at `now_ms`, in thousandths, while it starts within `slow_start_ms`.
    pub(super) fn warmth(&self, slow_start_ms: i64, now_ms: i64) -> Option<u64> {
        if slow_start_ms == 0 {
            return None;
        }
        let started = match self.started_ms.load(Ordering::Relaxed) {
            LONG_AGO => return None,
            NOT_YET => {
                self.started_ms.store(now_ms.max(1), Ordering::Relaxed);
                now_ms
            }
            at => at,
        };
        let since = now_ms.saturating_sub(started);
        if since >= slow_start_ms {
            self.started_ms.store(LONG_AGO, Ordering::Relaxed);
            return None;
        }
        Some((since * 1_000 / slow_start_ms).max(LEAST_WARMTH).unsigned_abs())
    }

    /// It failed a tenant at `now_ms`. Gives how many it failed within the last `memory_ms`.
    pub(super) fn testify(&self, tenant: u64, now_ms: i64, memory_ms: i64) -> usize {
        let mut witnesses = self.witnesses.lock().unwrap_or_else(PoisonError::into_inner);
        witnesses.retain(|(who, at_ms)| *who != tenant && now_ms.saturating_sub(*at_ms) <= memory_ms);
        witnesses.truncate(WITNESSES - 1);
        witnesses.push((tenant, now_ms));
        witnesses.len()
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
        if now == UNHEALTHY {
            self.starts_at(NOT_YET);
        }
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
        Pool { backends, health_check: Some(Default::default()), ..Pool::new("shared".parse().expect("a name")) }
    }

    pub(crate) fn live(pool: &Pool) -> LivePool {
        LivePool::new(pool, 1, Equipment::default())
    }

    pub(crate) fn next(pool: &Pool, before: &LivePool) -> LivePool {
        LivePool::next(pool, before, 1, Equipment::default())
    }

    #[test]
    fn what_is_known_of_a_backend_survives_a_new_weight_but_not_a_new_address() {
        let mut pool = pool(&[1, 1]);
        let first = live(&pool);
        let permit = InFlight::take(&first.members()[0].backend);
        pool.backends[0].weight = Weight::new(7).expect("a weight");
        pool.backends[1].address = "http://127.0.0.1:9999".parse().expect("an address");
        let second = next(&pool, &first);
        assert!(Arc::ptr_eq(permit.backend(), &second.members()[0].backend));
        assert_eq!((second.members()[0].weight, second.members()[0].backend.in_flight()), (7, 1));
        assert!(!Arc::ptr_eq(&first.members()[1].backend, &second.members()[1].backend));
    }

    #[test]
    fn the_first_check_decides_and_later_ones_need_company() {
        let live = live(&pool(&[1]));
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
        let first = live(&pool);
        first.members()[0].backend.checked(&Err("refused".into()), 2, 2);
        pool.health_check = None;
        let second = next(&pool, &first);
        assert!(!second.members()[0].backend.is_unhealthy());
    }
}
