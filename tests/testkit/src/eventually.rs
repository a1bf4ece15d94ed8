//! Waiting for a state.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

/// Pause between two looks. A look may cost a request, so not a spin.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until the probe says `true`.
///
/// # Panics
/// Names the caller's line when the time is over.
#[track_caller]
pub fn eventually<F, Fut>(timeout: Duration, mut probe: F) -> impl Future<Output = ()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    until(timeout, move || {
        let look = probe();
        async move { look.await.then_some(()) }
    })
}

/// Looks until the probe finds something, and returns it.
///
/// # Panics
/// Names the caller's line when the time is over.
#[track_caller]
pub fn until<F, Fut, T>(timeout: Duration, mut probe: F) -> impl Future<Output = T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let caller = Location::caller();
    async move {
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            match tokio::time::timeout(left, probe()).await {
                Ok(Some(found)) => return found,
                Ok(None) if start.elapsed() < timeout => tokio::time::sleep(PAUSE).await,
                Ok(None) | Err(_) => panic!("not within {timeout:?}: what {caller} waits for"),
            }
        }
    }
}
