//! Backends that go: drained, disabled or removed. What they have in flight may finish within their pool's time; what is
//! there longer, a WebSocket too, is cut.
//!
//! A request that is over within a second costs nothing of this: only then does whoever waits for a backend begin to
//! listen for the end of its time ([`LONG`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::info;

use schoolgate_config::model::BackendState;

use super::pool::{LiveBackend, LivePool};

/// How long a wait for a backend is before it listens for the end of the backend's time: 1 s.
pub(crate) const LONG: Duration = Duration::from_secs(1);

/// Time between two looks at backends that go: 100 ms.
const LOOK: Duration = Duration::from_millis(100);

/// Whether a backend goes, and whether its time is over.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// The end of its time.
    until: Mutex<Option<Instant>>,
    over: AtomicBool,
    ends: Notify,
}

impl Leaving {
    fn until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that it goes. `false`: that is known, and its time does not begin anew.
    fn begin(&self, until: Instant) -> bool {
        let mut known = self.until();
        let is_new = known.is_none();
        known.get_or_insert(until);
        is_new
    }

    fn stay(&self) {
        *self.until() = None;
        self.over.store(false, Ordering::Relaxed);
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.ends.notify_waiters();
    }
}

impl LiveBackend {
    /// Whether what it has in flight is to be cut.
    pub(crate) fn is_over(&self) -> bool {
        self.leaving.over.load(Ordering::Relaxed)
    }

    /// Waits until what it has in flight is to be cut.
    pub(crate) async fn over(&self) {
        loop {
            let ends = self.leaving.ends.notified();
            // Notified from here on, whenever it is polled.
            if self.is_over() {
                return;
            }
            ends.await;
        }
    }
}

/// The backends that go, of one node.
#[derive(Debug, Default)]
pub(crate) struct Drains(Mutex<Vec<Arc<LiveBackend>>>);

impl Drains {
    fn going(&self) -> std::sync::MutexGuard<'_, Vec<Arc<LiveBackend>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a pool from one version to the next: backends that are not active in it, or not in it, go, and have
    /// `time` to finish; those that are active again stay.
    pub(crate) fn follow(&self, before: &LivePool, now: &LivePool, time: Duration) {
        for member in before.members() {
            let backend = &member.backend;
            let still = now.members().iter().find(|other| Arc::ptr_eq(&other.backend, backend));
            if still.is_some_and(|still| still.state == BackendState::Active) {
                backend.leaving.stay();
            } else if backend.leaving.begin(Instant::now() + time) {
                self.going().push(backend.clone());
            }
        }
    }

    /// Ends the time of those for whom it is over.
    fn look(&self, now: Instant) {
        self.going().retain(|backend| {
            let until = *backend.leaving.until();
            // One that stays after all has none.
            let Some(until) = until else { return false };
            if now < until {
                return true;
            }
            backend.leaving.end();
            let (LiveBackend { pool, address, .. }, in_flight) = (&**backend, backend.in_flight());
            if in_flight > 0 {
                info!(
                    pool.id = %pool, backend.addr = %address,
                    "{in_flight} requests at {address} are cut: it had the time that the pool {pool} gives to finish them"
                );
            }
            false
        });
    }

    /// Ends the time of backends that go, until the future is dropped.
    pub(crate) async fn run(&self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look(Instant::now());
        }
    }
}

tokio::task_local! {
    /// The backend that the exchange of this task is with, where Pingora's `HttpProxy` drives it.
    static WATCHED: Arc<Watched>;
}

/// The backend that an exchange is with.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    backend: Mutex<Option<Arc<LiveBackend>>>,
    changed: Notify,
}

impl Watched {
    fn backend(&self) -> Option<Arc<LiveBackend>> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs what may be with a backend; what it is with is known from [`watch`].
    pub(crate) async fn scope<F: Future>(self: Arc<Self>, work: F) -> F::Output {
        WATCHED.scope(self, work).await
    }

    /// Waits until the time of the backend that the exchange is with is over.
    pub(crate) async fn over(&self) {
        tokio::time::sleep(LONG).await;
        loop {
            let changed = self.changed.notified();
            let backend = self.backend();
            tokio::select! {
                () = changed => {}
                () = async { match &backend {
                    Some(backend) => backend.over().await,
                    None => std::future::pending().await,
                } } => return,
            }
        }
    }
}

/// The exchange of this task is with a backend from now on.
pub(crate) fn watch(backend: &Arc<LiveBackend>) {
    // A test drives the phases without a task of its own.
    let _ = WATCHED.try_with(|watched| {
        *watched.backend.lock().unwrap_or_else(PoisonError::into_inner) = Some(backend.clone());
        watched.changed.notify_waiters();
    });
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::Pool;

    use super::super::pool::tests::{live, next, pool};
    use super::*;

    const TIME: Duration = Duration::from_secs(3);

    /// The next version of a pool, followed.
    fn followed(drains: &Drains, pool: &Pool, before: &LivePool) -> LivePool {
        let now = next(pool, before);
        drains.follow(before, &now, TIME);
        now
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_has_its_time_once_and_what_stays_is_left_alone() {
        let (drains, mut pool) = (Drains::default(), pool(&[1, 1, 1]));
        let first = live(&pool);
        let backends: Vec<_> = first.members().iter().map(|member| member.backend.clone()).collect();
        pool.backends[0].state = BackendState::Draining;
        pool.backends.pop();
        let second = followed(&drains, &pool, &first);
        tokio::time::advance(TIME / 2).await;
        pool.max_in_flight = Some(9);
        let _third = followed(&drains, &pool, &second);
        drains.look(Instant::now());
        assert!(backends.iter().all(|backend| !backend.is_over()));
        tokio::time::advance(TIME / 2).await;
        drains.look(Instant::now());
        assert_eq!([0, 1, 2].map(|n: usize| backends[n].is_over()), [true, false, true]);
        assert!(drains.going().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_active_again_stays_and_goes_anew() {
        let (drains, mut pool) = (Drains::default(), pool(&[1, 1]));
        let first = live(&pool);
        let backend = first.members()[0].backend.clone();
        pool.backends[0].state = BackendState::Draining;
        let second = followed(&drains, &pool, &first);
        pool.backends[0].state = BackendState::Active;
        let third = followed(&drains, &pool, &second);
        tokio::time::advance(TIME * 2).await;
        drains.look(Instant::now());
        assert!(!backend.is_over());
        pool.backends[0].state = BackendState::Disabled;
        let _fourth = followed(&drains, &pool, &third);
        tokio::time::advance(TIME - LOOK).await;
        drains.look(Instant::now());
        assert!(!backend.is_over(), "its time begins anew");
        tokio::time::advance(LOOK).await;
        drains.look(Instant::now());
        backend.over().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_ends_with_the_backend_that_it_is_with() {
        let live = live(&pool(&[1, 1]));
        let [first, second] = [0, 1].map(|n: usize| live.members()[n].backend.clone());
        let watched = Arc::new(Watched::default());
        let exchange = watched.clone().scope(async {
            watch(&first);
            watch(&second);
            first.leaving.end();
            watched.over().await;
        });
        let mut exchange = std::pin::pin!(exchange);
        assert!(tokio::time::timeout(TIME, &mut exchange).await.is_err(), "it went on to another");
        second.leaving.end();
        exchange.await;
    }
}
