//! Background services that must not die quietly: one that panics or ends is logged and started again.

use std::any::Any;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tracing::error;

/// Wait before a service is started again; doubled each time it fails soon after.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait: a cause that goes away is noticed within this.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A service that ran this long was well: the next failure is a first one.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// Ready when services have to end.
pub(super) type Stopped = WaitForCancellationFutureOwned;

/// Waits that grow with failures in a row.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    /// No failure yet.
    pub(super) const fn new() -> Self {
        Self(FIRST_WAIT)
    }

    /// How long to wait after a run that lasted `ran`.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= WELL_AFTER {
            self.0 = FIRST_WAIT;
        }
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST_WAIT);
        wait
    }
}

/// Keeps background services running until told to stop.
#[derive(Debug, Clone)]
pub(super) struct Supervisor {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Supervisor {
    /// A supervisor whose services end when `stop` is cancelled.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { stop, tasks: TaskTracker::new() }
    }

    /// Runs a service, again whenever it panics or ends before the stop: `run` is given a clone of it, and what is ready
    /// when it has to end.
    pub(super) fn serve<S, F>(&self, name: &'static str, service: S, run: impl Fn(S, Stopped) -> F + Send + 'static)
    where
        S: Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.keep_running(name, move || run(service.clone(), stop.clone().cancelled_owned()));
    }

    /// Runs what `start` makes, again whenever it panics or ends before the stop.
    pub(super) fn keep_running<F>(&self, name: &'static str, mut start: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let mut backoff = Backoff::new();
            while !stop.is_cancelled() {
                let began = Instant::now();
                // A service is told to stop through its own means; what it leaves half done is its own to mend, since
                // it is started again from what is stored.
                let result = std::panic::AssertUnwindSafe(start()).catch_unwind().await;
                if stop.is_cancelled() {
                    break;
                }
                let wait = backoff.after(began.elapsed());
                let why = result.as_ref().err().map_or("it ended", |panic| message(panic.as_ref()));
                error!(
                    service = name,
                    wait_ms = wait.as_millis() as u64,
                    "the service {name} stopped, and is started again: {why}"
                );
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
    }

    /// Waits until all services have ended, at most `within`; says whether they have.
    pub(super) async fn ended(&self, within: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(within, self.tasks.wait()).await.is_ok()
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it panicked")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_panics_is_started_again_until_the_stop() {
        let stop = CancellationToken::new();
        let supervisor = Supervisor::new(stop.clone());
        let starts = Arc::new(AtomicU32::new(0));
        let third = Arc::new(tokio::sync::Notify::new());
        let (counter, signal, until) = (Arc::clone(&starts), Arc::clone(&third), stop.clone());
        supervisor.keep_running("test", move || {
            let (counter, signal, until) = (Arc::clone(&counter), Arc::clone(&signal), until.clone());
            async move {
                if counter.fetch_add(1, Ordering::SeqCst) < 2 {
                    panic!("as tests do");
                }
                signal.notify_one();
                until.cancelled().await;
            }
        });
        third.notified().await;
        stop.cancel();
        assert!(supervisor.ended(Duration::from_secs(1)).await);
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn waits_grow_and_a_long_good_run_resets_them() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..12).map(|_| backoff.after(Duration::ZERO)).collect();
        assert!(waits.is_sorted());
        assert_eq!(waits[11], LONGEST_WAIT);
        assert_eq!(backoff.after(WELL_AFTER), FIRST_WAIT);
    }
}
