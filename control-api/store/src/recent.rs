//! The last commits, in memory: what the publisher asks for right after each of them.

use std::collections::VecDeque;

use crate::records::CommittedChanges;

/// Commits kept: 4096, more than a bulk import makes while one revision is published. Their objects are those of the
/// head, so they cost little beside it. Who asks for older ones reads them from the database.
const KEPT: usize = 4_096;

/// The last commits that touched objects.
#[derive(Debug)]
pub(crate) struct Recent {
    /// Every commit after this number is here.
    after: u64,
    commits: VecDeque<CommittedChanges>,
}

impl Recent {
    pub(crate) fn starting_after(change: u64) -> Self {
        Self { after: change, commits: VecDeque::new() }
    }

    /// Adds a commit; its number is above those of all before it.
    pub(crate) fn push(&mut self, commit: CommittedChanges) {
        if !commit.changes.is_empty() {
            self.commits.push_back(commit);
        }
        while self.commits.len() > KEPT {
            self.after = self.commits.pop_front().map_or(self.after, |oldest| oldest.number);
        }
    }

    /// The commits after `after` up to `to`, at most `limit`; `None` when they are not all here.
    pub(crate) fn between(&self, after: u64, to: u64, limit: u32) -> Option<Vec<CommittedChanges>> {
        if after < self.after {
            return None;
        }
        let first = self.commits.partition_point(|commit| commit.number <= after);
        let wanted = self.commits.iter().skip(first).take_while(|commit| commit.number <= to);
        Some(wanted.take(limit as usize).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::snapshot::{Change, ObjectKey};

    use super::*;

    fn commit(number: u64) -> CommittedChanges {
        let changes = vec![Change::Remove(ObjectKey::Plan("basic".parse().expect("a name")))];
        CommittedChanges { number, actor: String::new(), action: String::new(), object: String::new(), changes }
    }

    #[test]
    fn what_is_not_all_here_is_not_given() {
        let mut recent = Recent::starting_after(10);
        for number in [11, 12, 15] {
            recent.push(commit(number));
        }
        let numbers = |after, to, limit| {
            recent.between(after, to, limit).map(|found| found.iter().map(|c| c.number).collect::<Vec<_>>())
        };
        assert_eq!(numbers(9, 20, 9), None);
        assert_eq!(numbers(10, 20, 9), Some(vec![11, 12, 15]));
        assert_eq!(numbers(11, 14, 9), Some(vec![12]));
        assert_eq!(numbers(10, 20, 2), Some(vec![11, 12]));
        assert_eq!(numbers(15, 20, 9), Some(vec![]));
    }

    #[test]
    fn the_oldest_go() {
        let mut recent = Recent::starting_after(0);
        for number in 1..=KEPT as u64 + 5 {
            recent.push(commit(number));
        }
        assert_eq!(recent.between(4, u64::MAX, 1), None);
        assert_eq!(recent.between(5, u64::MAX, 1).map(|found| found[0].number), Some(6));
    }
}
