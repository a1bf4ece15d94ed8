//! Circuits: which backends fail one tenant, so that one school's trouble stays its own.
//!
//! A backend may fail a tenant for the tenant's own reasons: its database is down, one of its pages never ends. Such
//! failures are counted per tenant and backend. A backend that fails a tenant several times in a row is avoided *by that
//! tenant*; if it goes on giving no answer at all, the circuit is open and it is not asked any more; after a rest one
//! request tries again (half-open). Only what fails several tenants of a shared pool is the backend's own doing, and
//! [`super::outlier`] ejects it for all.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use schoolgate_config::model::{BackendId, Ejection};

/// Backends that one tenant keeps in mind: 16. Beyond that the one that failed longest ago is forgotten; memory is
/// bounded, and a tenant with more than 16 failing backends has other worries.
const MOST: usize = 16;

/// Failures in a row, as a multiple of what ejects, that open a circuit: 3. Before that a failing backend is only the last
/// to be asked, because a school with one slow page must not lose all others.
const OPENS_AFTER: u32 = 3;

/// The longest rest of a circuit, in milliseconds: 30 s. A school that is well again should not wait for longer.
const LONGEST_MS: u64 = 30_000;

/// How a backend failed a request that had reached it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No answer: the connection broke, or it took too long.
    Silent,
    /// It answered 502, 503 or 504.
    Said,
}

/// Backends that fail a tenant now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avoided {
    backends: [Option<(BackendId, bool)>; MOST],
    length: usize,
}

impl Avoided {
    /// None.
    pub(crate) const NONE: Self = Self { backends: [None; MOST], length: 0 };

    /// One more; `refused`: it is not asked at all.
    pub(super) fn add(&mut self, backend: BackendId, refused: bool) {
        if let Some(place) = self.backends.get_mut(self.length) {
            *place = Some((backend, refused));
            self.length += 1;
        }
    }

    /// Whether others are asked first.
    pub(crate) fn contains(&self, backend: BackendId) -> bool {
        self.backends[..self.length].iter().flatten().any(|(id, _)| *id == backend)
    }

    /// Whether it is not asked at all.
    pub(crate) fn refuses(&self, backend: BackendId) -> bool {
        self.backends[..self.length].iter().flatten().any(|(id, refused)| *refused && *id == backend)
    }
}

/// The circuits of one tenant; handed on from version to version.
#[derive(Debug, Default)]
pub(crate) struct Circuits {
    /// How many entries there are: what a request of a tenant without trouble reads, and all of it.
    troubled: AtomicU32,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// The pool's number of this process.
    pool: u64,
    backend: BackendId,
    /// In a row.
    failures: u32,
    /// All of them without an answer.
    silent: bool,
    last_ms: i64,
    /// Until when it is avoided; 0: not yet.
    until_ms: i64,
}

/// What a failure led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Nothing yet.
    Noted,
    /// The tenant avoids the backend from now on.
    Avoids,
}

impl Circuits {
    /// Backends of a pool (by its number) that this tenant avoids at `now_ms`. Of those whose rest is over, the caller
    /// makes the attempt: until that is known, or `rules.base_ms` have passed, others go on avoiding them.
    pub(crate) fn avoided(&self, pool: u64, rules: &Ejection, now_ms: i64) -> Avoided {
        let mut avoided = Avoided::NONE;
        if self.troubled.load(Ordering::Relaxed) == 0 {
            return avoided;
        }
        for entry in self.lock().iter_mut().filter(|entry| entry.pool == pool && entry.until_ms != 0) {
            if entry.until_ms <= now_ms {
                entry.until_ms = after(now_ms, rules.base_ms);
            } else {
                let opens = rules.consecutive_failures.saturating_mul(OPENS_AFTER);
                avoided.add(entry.backend, entry.silent && entry.failures >= opens);
            }
        }
        avoided
    }

    /// A backend failed a request of this tenant.
    pub(crate) fn failed(
        &self,
        pool: u64,
        backend: BackendId,
        trouble: Trouble,
        rules: &Ejection,
        now_ms: i64,
    ) -> Counted {
        if rules.consecutive_failures == 0 {
            return Counted::Noted;
        }
        let mut entries = self.lock();
        let at = entries.iter().position(|entry| entry.pool == pool && entry.backend == backend).unwrap_or_else(|| {
            if entries.len() == MOST {
                let oldest = (0..MOST).min_by_key(|n| entries[*n].last_ms).unwrap_or(0);
                entries.swap_remove(oldest);
            }
            entries.push(Entry { pool, backend, failures: 0, silent: true, last_ms: now_ms, until_ms: 0 });
            entries.len() - 1
        });
        self.troubled.store(u32::try_from(entries.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        let entry = &mut entries[at];
        entry.failures = entry.failures.saturating_add(1);
        entry.silent &= trouble == Trouble::Silent;
        entry.last_ms = now_ms;
        let Some(beyond) = entry.failures.checked_sub(rules.consecutive_failures) else { return Counted::Noted };
        let rest = rules.base_ms.saturating_mul(1 << (beyond / rules.consecutive_failures).min(10)).min(LONGEST_MS);
        let begins = entry.until_ms == 0;
        entry.until_ms = after(now_ms, rest);
        if begins { Counted::Avoids } else { Counted::Noted }
    }

    /// A backend answered a request of this tenant.
    pub(crate) fn succeeded(&self, pool: u64, backend: BackendId) {
        if self.troubled.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut entries = self.lock();
        entries.retain(|entry| entry.pool != pool || entry.backend != backend);
        self.troubled.store(u32::try_from(entries.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        if entries.is_empty() {
            *entries = Vec::new();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn after(now_ms: i64, ms: u64) -> i64 {
    now_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: u64 = 1;

    fn backend(n: u128) -> BackendId {
        BackendId::from_parts(1, n)
    }

    fn fail(circuits: &Circuits, n: u128, times: u32, trouble: Trouble, now_ms: i64) -> Vec<Counted> {
        let rules = Ejection::default();
        (0..times).map(|_| circuits.failed(POOL, backend(n), trouble, &rules, now_ms)).collect()
    }

    fn avoided(circuits: &Circuits, now_ms: i64) -> Avoided {
        circuits.avoided(POOL, &Ejection::default(), now_ms)
    }

    #[test]
    fn failures_in_a_row_make_a_backend_the_last_to_be_asked() {
        let circuits = Circuits::default();
        assert_eq!(fail(&circuits, 1, 2, Trouble::Said, 0), [Counted::Noted; 2]);
        circuits.succeeded(POOL, backend(1));
        assert_eq!(fail(&circuits, 1, 3, Trouble::Said, 0), [Counted::Noted, Counted::Noted, Counted::Avoids]);
        let now = avoided(&circuits, 1);
        assert!(now.contains(backend(1)) && !now.contains(backend(2)) && !now.refuses(backend(1)));
        assert!(!circuits.avoided(POOL + 1, &Ejection::default(), 1).contains(backend(1)), "another pool is not meant");
    }

    #[test]
    fn a_circuit_opens_when_no_answer_comes_for_long_and_never_for_answers() {
        let circuits = Circuits::default();
        fail(&circuits, 1, 8, Trouble::Silent, 0);
        assert!(!avoided(&circuits, 1).refuses(backend(1)));
        fail(&circuits, 1, 1, Trouble::Silent, 0);
        assert!(avoided(&circuits, 1).refuses(backend(1)));
        fail(&circuits, 2, 50, Trouble::Said, 0);
        assert!(!avoided(&circuits, 1).refuses(backend(2)), "an application may say 503 for as long as it likes");
    }

    #[test]
    fn after_its_rest_one_request_tries_and_its_success_closes_the_circuit() {
        let circuits = Circuits::default();
        fail(&circuits, 1, 9, Trouble::Silent, 0);
        assert!(avoided(&circuits, 19_999).refuses(backend(1)));
        assert!(!avoided(&circuits, 20_000).contains(backend(1)), "one tries");
        assert!(avoided(&circuits, 20_001).contains(backend(1)), "the others wait for what it finds");
        fail(&circuits, 1, 1, Trouble::Silent, 20_500);
        assert!(avoided(&circuits, 40_000).contains(backend(1)), "it failed: the rest begins anew");
        assert!(!avoided(&circuits, 40_500).contains(backend(1)));
        circuits.succeeded(POOL, backend(1));
        assert!(!avoided(&circuits, 40_501).contains(backend(1)));
        assert_eq!(circuits.lock().capacity(), 0, "nothing is kept of what is over");
    }

    #[test]
    fn what_is_kept_of_a_tenant_is_bounded() {
        let circuits = Circuits::default();
        for n in 0..1_000 {
            fail(&circuits, n, 3, Trouble::Silent, i64::try_from(n).expect("small"));
        }
        assert_eq!(circuits.lock().len(), MOST);
        let now = avoided(&circuits, 1_000);
        assert!(now.contains(backend(999)) && !now.contains(backend(0)));
    }

    #[test]
    fn without_ejection_there_are_no_circuits() {
        let rules = Ejection { consecutive_failures: 0, ..Ejection::default() };
        let circuits = Circuits::default();
        for _ in 0..100 {
            assert_eq!(circuits.failed(POOL, backend(1), Trouble::Silent, &rules, 0), Counted::Noted);
        }
        assert!(!circuits.avoided(POOL, &rules, 1).contains(backend(1)));
    }
}
