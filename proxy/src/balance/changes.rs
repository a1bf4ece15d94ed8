//! What became of backends: the latest changes of their condition, for those who watch.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use schoolgate_config::feed::BackendChange;
use tokio::sync::watch;

/// Looks at the backends of a node and remembers what changed.
#[derive(Debug)]
pub struct BackendChanges {
    latest: Mutex<VecDeque<BackendChange>>,
    /// Moves with every change.
    news: watch::Sender<u64>,
}

impl Default for BackendChanges {
    fn default() -> Self {
        Self { latest: Mutex::default(), news: watch::Sender::new(0) }
    }
}

impl BackendChanges {
    /// Takes note of a change.
    pub(super) fn add(&self, change: BackendChange) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() >= BackendChange::MOST {
            latest.pop_front();
        }
        latest.push_back(change);
        drop(latest);
        self.news.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The latest changes, the last first.
    pub fn latest(&self) -> Vec<BackendChange> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// Moves with every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}
