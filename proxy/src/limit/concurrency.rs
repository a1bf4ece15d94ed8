//! Concurrency: what a tenant has in progress at the same time. Given back on drop, whatever became of the request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::TenantLimits;

/// Counts what is in progress.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicU32);

impl Gauge {
    /// One more, if that is no more than `most`.
    fn enter(&self, most: u32) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |now| (now < most).then_some(now + 1)).is_ok()
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(super) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// What is in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Request,
    /// A WebSocket, from the request that asks for it.
    WebSocket,
}

/// One request or WebSocket of a tenant in progress, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<TenantLimits>,
    kind: Kind,
}

impl Permit {
    /// One more in progress, if that is no more than `most`.
    pub(super) fn take(limits: &Arc<TenantLimits>, kind: Kind, most: u32) -> Option<Self> {
        limits.gauge(kind).enter(most).then(|| Self { limits: limits.clone(), kind })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limits.gauge(self.kind).leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_in_progress_as_the_limit_says_and_dropping_gives_back() {
        let limits = Arc::new(TenantLimits::default());
        let two: Vec<_> = (0..2).map(|_| Permit::take(&limits, Kind::Request, 2).expect("room")).collect();
        assert!(Permit::take(&limits, Kind::Request, 2).is_none());
        assert!(Permit::take(&limits, Kind::WebSocket, 1).is_some(), "WebSockets are counted apart");
        drop(two);
        assert_eq!((limits.in_progress(Kind::Request), limits.in_progress(Kind::WebSocket)), (0, 0));
    }

    #[test]
    fn a_panic_gives_back_too() {
        let limits = Arc::new(TenantLimits::default());
        let inner = limits.clone();
        let thread = std::thread::spawn(move || {
            let _permit = Permit::take(&inner, Kind::Request, 1).expect("room");
            panic!("a test's own");
        });
        assert!(thread.join().is_err());
        assert_eq!(limits.in_progress(Kind::Request), 0);
    }
}
