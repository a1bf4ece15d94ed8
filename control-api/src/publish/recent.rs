//! Deltas of the last revisions, in memory, as they are handed to proxies.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use schoolgate_config::model::Revision;
use schoolgate_config::snapshot::Delta;

/// Bytes of deltas kept: 32 MiB, some 15,000 certificates. A proxy that is further behind takes a snapshot.
const KEPT_BYTES: usize = 32 << 20;

/// Deltas kept: 4096, forty seconds of the fastest publishing.
const KEPT: usize = 4_096;

/// Bytes in one answer to a proxy: 8 MiB, so that it adopts and acknowledges the first of many deltas before it has
/// read the last.
const ANSWER_BYTES: usize = 8 << 20;

/// Deltas in one answer to a proxy.
const ANSWER: usize = 256;

/// A published delta.
#[derive(Debug, Clone)]
pub(super) struct RecentDelta {
    pub(super) delta: Arc<Delta>,
    pub(super) bytes: Bytes,
}

/// Deltas of the last revisions: each begins where the one before ends.
#[derive(Debug, Default)]
pub(super) struct Recent {
    deltas: VecDeque<RecentDelta>,
    bytes: usize,
}

impl Recent {
    /// Adds the delta of the newest revision. One that does not follow the last makes all before it useless.
    pub(super) fn push(&mut self, delta: RecentDelta) {
        if self.deltas.back().is_some_and(|last| last.delta.to != delta.delta.from) {
            self.clear();
        }
        self.bytes += delta.bytes.len();
        self.deltas.push_back(delta);
        while self.deltas.len() > KEPT || (self.bytes > KEPT_BYTES && self.deltas.len() > 1) {
            if let Some(oldest) = self.deltas.pop_front() {
                self.bytes -= oldest.bytes.len();
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.deltas.clear();
        self.bytes = 0;
    }

    /// The first deltas after `after`, as many as fit one answer; `None` when they are not all here.
    pub(super) fn after(&self, after: Revision) -> Option<Vec<RecentDelta>> {
        let first = self.deltas.binary_search_by_key(&after, |recent| recent.delta.from).ok()?;
        let mut bytes = 0;
        let fits = self.deltas.iter().skip(first).take(ANSWER).take_while(|recent| {
            bytes += recent.bytes.len();
            bytes <= ANSWER_BYTES || bytes == recent.bytes.len()
        });
        Some(fits.cloned().collect())
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn delta(from: u64, to: u64, size: usize) -> RecentDelta {
        let delta = Delta { from: Revision(from), to: Revision(to), changes: Vec::new() };
        RecentDelta { delta: Arc::new(delta), bytes: Bytes::from(vec![0; size]) }
    }

    fn revisions(recent: &Recent, after: u64) -> Option<Vec<u64>> {
        Some(recent.after(Revision(after))?.iter().map(|recent| recent.delta.to.0).collect())
    }

    #[test]
    fn what_follows_a_revision_is_given_in_order_or_not_at_all() {
        let mut recent = Recent::default();
        for from in 3..8 {
            recent.push(delta(from, from + 1, 10));
        }
        assert_eq!(revisions(&recent, 5), Some(vec![6, 7, 8]));
        assert_eq!(revisions(&recent, 2), None);
        assert_eq!(revisions(&recent, 8), None);
    }

    #[test]
    fn an_answer_has_a_bound_but_never_less_than_one_delta() {
        let mut recent = Recent::default();
        recent.push(delta(0, 1, ANSWER_BYTES + 1));
        recent.push(delta(1, 2, 1));
        assert_eq!(revisions(&recent, 0), Some(vec![1]));
        assert_eq!(revisions(&recent, 1), Some(vec![2]));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes_or_a_gap() {
        let mut recent = Recent::default();
        recent.push(delta(0, 1, KEPT_BYTES));
        recent.push(delta(1, 2, 1));
        assert_eq!(revisions(&recent, 0), None);
        assert_eq!(revisions(&recent, 1), Some(vec![2]));
        recent.push(delta(7, 8, 1));
        assert_eq!(revisions(&recent, 1), None);
        assert_eq!(revisions(&recent, 7), Some(vec![8]));
    }
}
