//! The latest requests, kept to be explained: errors always, successes sampled.
//!
//! A ring per tenant, so that one tenant's errors do not push out another's; a bound on the tenants, so that the whole
//! has one. Rings of errors and of successes are apart: a busy node keeps its errors.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use schoolgate_config::identity::RecordedRequest;
use schoolgate_config::model::TenantId;

/// Parts, each behind a lock of its own: 16, so that two workers seldom want one at once.
const SHARDS: usize = 16;
/// Tenants with a ring in one part: 32, so 512 of each kind in all. The one that was longest without a new request goes.
const TENANTS: usize = 32;
/// Requests in a ring: 16. Of errors and successes together 16,384 at most, about 1 kB each: 16 MB.
const RING: usize = 16;

/// Of the successes that come faster than [`EVERY_MS`], one in so many is kept.
const ONE_IN: u8 = 64;
/// Time in which a tenant may have one success more kept: 100 ms. What an operator tries by hand is always there.
const EVERY_MS: i64 = 100;
/// Successes that are kept one after another before [`EVERY_MS`] counts: 8, a page and what it needs.
const BURST: i64 = 8;

/// Which successes of one tenant are kept: a bucket that fills with time.
#[derive(Debug, Default)]
pub(super) struct Sampler(AtomicI64);

impl Sampler {
    /// Whether this one is kept. Two workers at the same moment may both say so; nothing depends on it.
    pub(super) fn takes(&self, now_ms: i64) -> bool {
        let next = self.0.load(Ordering::Relaxed).max(now_ms - BURST * EVERY_MS) + EVERY_MS;
        if next <= now_ms {
            self.0.store(next, Ordering::Relaxed);
            return true;
        }
        fastrand::u8(..ONE_IN) == 0
    }
}

/// The requests kept.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    errors: Rings,
    successes: Rings,
    /// For requests of no tenant.
    pub(super) nobody: Sampler,
}

impl Recorder {
    /// Keeps a request.
    pub(super) fn keep(&self, tenant: Option<TenantId>, request: RecordedRequest) {
        let rings = if is_error(request.happened.status) { &self.errors } else { &self.successes };
        rings.keep(tenant, request);
    }

    /// The request with this identifier, if it is kept.
    pub(super) fn find(&self, request_id: &str) -> Option<RecordedRequest> {
        self.errors.find(request_id).or_else(|| self.successes.find(request_id))
    }
}

/// Whether a status is that of an error; 0 stands for a client that went away.
pub(super) const fn is_error(status: u16) -> bool {
    status == 0 || status >= 400
}

#[derive(Debug, Default)]
struct Ring {
    requests: VecDeque<RecordedRequest>,
    latest_ms: i64,
}

#[derive(Debug, Default)]
struct Rings {
    hasher: RandomState,
    shards: [Mutex<HashMap<Option<TenantId>, Ring, RandomState>>; SHARDS],
}

impl Rings {
    fn keep(&self, tenant: Option<TenantId>, request: RecordedRequest) {
        let shard = usize::try_from(self.hasher.hash_one(tenant) % SHARDS as u64).unwrap_or(0);
        let mut rings = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if rings.len() >= TENANTS && !rings.contains_key(&tenant) {
            let oldest = rings.iter().min_by_key(|(_, ring)| ring.latest_ms).map(|(tenant, _)| *tenant);
            oldest.and_then(|tenant| rings.remove(&tenant));
        }
        let ring = rings.entry(tenant).or_default();
        if ring.requests.len() >= RING {
            ring.requests.pop_front();
        }
        ring.latest_ms = request.at_ms;
        ring.requests.push_back(request);
    }

    fn find(&self, request_id: &str) -> Option<RecordedRequest> {
        self.shards.iter().find_map(|shard| {
            let rings = shard.lock().unwrap_or_else(PoisonError::into_inner);
            rings.values().flat_map(|ring| &ring.requests).find(|request| request.request_id == request_id).cloned()
        })
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::identity::{Happened, RecordedToken};
    use schoolgate_config::model::Revision;

    use super::*;

    fn request(id: &str, at_ms: i64, status: u16) -> RecordedRequest {
        RecordedRequest {
            request_id: id.to_owned(),
            at_ms,
            revision: Revision(1),
            client_ip: [127, 0, 0, 1].into(),
            tls: true,
            sni: None,
            host: None,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            tenant_query: None,
            tenant_ids: Vec::new(),
            tenant_slugs: Vec::new(),
            fields: Vec::new(),
            cookies: Vec::new(),
            chance: 0,
            conditions: Vec::new(),
            token: RecordedToken::Absent,
            happened: Happened { status, ..Happened::default() },
        }
    }

    #[test]
    fn the_latest_of_each_tenant_are_kept_and_errors_survive_successes() {
        let recorder = Recorder::default();
        let (ash, birch) = (TenantId::from_parts(1, 1), TenantId::from_parts(1, 2));
        recorder.keep(Some(ash), request("error", 0, 502));
        recorder.keep(Some(birch), request("of birch", 0, 200));
        recorder.keep(None, request("of nobody", 0, 404));
        for n in 0..100 {
            recorder.keep(Some(ash), request(&n.to_string(), n, 200));
        }
        for kept in ["error", "of birch", "of nobody", "99", "84"] {
            assert_eq!(recorder.find(kept).map(|r| r.request_id).as_deref(), Some(kept));
        }
        assert_eq!(recorder.find("83"), None);
    }

    #[test]
    fn a_million_tenants_take_the_room_of_some_hundred() {
        let recorder = Recorder::default();
        for n in 0..10_000 {
            let id = TenantId::from_parts(1, n);
            recorder.keep(Some(id), request(&n.to_string(), i64::try_from(n).expect("small"), 500));
        }
        let kept: usize = recorder.errors.shards.iter().map(|shard| shard.lock().expect("whole").len()).sum();
        assert_eq!(kept, SHARDS * TENANTS);
        assert!(recorder.find("9999").is_some() && recorder.find("0").is_none());
    }

    #[test]
    fn what_comes_slowly_is_all_kept_and_of_a_flood_a_part() {
        let (sampler, now) = (Sampler::default(), 1_800_000_000_000);
        assert!((0..BURST).all(|_| sampler.takes(now)));
        assert!((1..100).all(|n| sampler.takes(now + n * EVERY_MS)));
        let flood = (0..10_000).filter(|_| sampler.takes(now + 100 * EVERY_MS)).count();
        assert!((50..500).contains(&flood), "{flood} of 10,000");
    }
}
