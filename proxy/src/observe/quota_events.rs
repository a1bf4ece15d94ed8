//! Quotas that were used up, or nearly.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use schoolgate_config::feed::QuotaEvent;

/// Events that are kept: 256, some 40 kB. Each is reported until newer ones push it out, and taken once by whoever
/// gathers them.
const KEPT: usize = 256;

/// The latest events.
#[derive(Debug, Default)]
pub(super) struct QuotaEvents(Mutex<VecDeque<QuotaEvent>>);

impl QuotaEvents {
    pub(super) fn add(&self, event: QuotaEvent) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() >= KEPT {
            latest.pop_front();
        }
        latest.push_back(event);
    }

    /// The latest first, as many as a report holds.
    pub(super) fn latest(&self) -> Vec<QuotaEvent> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.iter().rev().take(QuotaEvent::MOST).cloned().collect()
    }
}
