//! Leases: a named right to act, which expires and carries a fencing number.
//!
//! Of many control processes one holds a lease. Work that must not run twice runs in [`Store::while_leased`]: it begins
//! when the lease is taken and is dropped when the lease is lost. Dropping is not enough, though: a process that was
//! stopped for a minute (a paused virtual machine, a stuck disk) still believes it holds the lease when it goes on. So
//! what the work writes goes through [`Transaction::require`](crate::Transaction::require), which refuses a number that
//! is not the current one, in the same transaction.

use std::future::Future;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::error::StoreError;
use crate::{Actor, Store, Transaction};

/// How long a lease is held without a sign of life: 30 s. A crashed holder's work rests this long; a live one survives
/// a store that is busy for as long.
pub const LEASE_TTL: Duration = Duration::from_secs(30);

/// A sign of life, and a look whether a lease is free, three times within [`LEASE_TTL`].
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A lease that this process was given. Hand it to [`crate::Transaction::require`] with everything written under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    name: String,
    holder: String,
    fence: u64,
}

impl Lease {
    pub(crate) fn new(name: &str, holder: &str, fence: u64) -> Self {
        Self { name: name.to_owned(), holder: holder.to_owned(), fence }
    }

    /// The right.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who was given it.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// The fencing number: higher than that of every holder before.
    pub const fn fence(&self) -> u64 {
        self.fence
    }
}

/// A lease as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The right.
    pub name: String,
    /// Who holds it; `None` when it was given back.
    pub holder: Option<String>,
    /// How often it changed hands.
    pub fence: u64,
    /// Since when it is held by this holder, milliseconds since 1970.
    pub since_ms: i64,
    /// When it runs out without a sign of life, milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// How a turn at the work of [`Store::while_leased`] ended.
enum Turn {
    /// The lease is somebody else's.
    Lost,
    /// The work itself ended.
    Ended,
}

impl Store {
    /// Takes a lease for a holder, when it is free, has run out, or is this holder's already. `None` when another
    /// holds it. A holder's name must be its own: of two that share one, both would hold the lease.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn take_lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        let mut transaction = self.begin(Actor::system("lease")).await?;
        let taken = transaction.take_lease(name, holder, ttl).await?;
        match taken {
            Some(_) => transaction.finish().await?,
            None => transaction.rollback().await,
        }
        Ok(taken)
    }

    /// A sign of life: holds the lease for another `ttl`. `false` when it ran out or was taken over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let mut transaction = self.begin(Actor::system("lease")).await?;
        let renewed = transaction.renew_lease(lease, ttl).await?;
        transaction.finish().await?;
        Ok(renewed)
    }

    /// Gives a lease back, so that another need not wait until it runs out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut transaction = self.begin(Actor::system("lease")).await?;
        transaction.release_lease(lease).await?;
        transaction.finish().await
    }

    /// All leases that were ever taken.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn leases(&self) -> Result<Vec<LeaseRecord>, StoreError> {
        self.sqlite.leases().await
    }

    /// Runs `work` whenever this process holds the lease `name`, until `stop` is done or the work ends by itself. The
    /// work is dropped when the lease is lost and begins again when it is regained; when `stop` is done the lease is
    /// given back.
    pub async fn while_leased<W, F>(&self, name: &str, holder: &str, stop: impl Future<Output = ()>, mut work: W)
    where
        W: FnMut(Lease) -> F,
        F: Future<Output = ()>,
    {
        let mut stop = std::pin::pin!(stop);
        let mut told = false;
        loop {
            match self.take_lease(name, holder, LEASE_TTL).await {
                Ok(Some(lease)) => {
                    debug!(lease.name = name, lease.fence = lease.fence, "{holder} holds the lease {name}");
                    told = false;
                    let turn = tokio::select! {
                        () = &mut stop => Turn::Ended,
                        () = work(lease.clone()) => Turn::Ended,
                        () = self.heartbeat(&lease) => Turn::Lost,
                    };
                    if let Turn::Ended = turn {
                        if let Err(error) = self.release_lease(&lease).await {
                            debug!(%error, "the lease {name} could not be given back; it runs out by itself: {error}");
                        }
                        return;
                    }
                    warn!(lease.name = name, "{holder} has lost the lease {name}; another process does its work");
                }
                Ok(None) if !told => {
                    told = true;
                    info!(lease.name = name, "another process holds the lease {name}; this one stands by");
                }
                Ok(None) => {}
                Err(error) => warn!(%error, "the lease {name} cannot be taken: {error}"),
            }
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
        }
    }

    /// Ends when the lease is lost.
    async fn heartbeat(&self, lease: &Lease) {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            match self.renew_lease(lease, LEASE_TTL).await {
                Ok(true) => {}
                Ok(false) => return,
                // Until the store answers nothing can be written under the lease either.
                Err(error) => warn!(%error, "no sign of life for the lease {}: {error}", lease.name),
            }
        }
    }
}

impl Transaction {
    async fn take_lease(&mut self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        let (now, expires) = self.until(ttl);
        self.turn.take_lease((name, holder), now, expires).await
    }

    async fn renew_lease(&mut self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let (now, expires) = self.until(ttl);
        self.turn.renew_lease(lease, now, expires).await
    }

    async fn release_lease(&mut self, lease: &Lease) -> Result<bool, StoreError> {
        self.turn.release_lease(lease).await
    }

    /// Goes on only while `lease` is held under its number: nobody can take it before this transaction is over.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another process has taken it over; drop this transaction and stop.
    pub async fn require(&mut self, lease: &Lease) -> Result<(), StoreError> {
        if self.turn.is_lease_held(lease).await? {
            return Ok(());
        }
        Err(StoreError::LeaseLost { name: lease.name.clone() })
    }

    fn until(&self, ttl: Duration) -> (i64, i64) {
        (self.now_ms, self.now_ms.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use schoolgate_config::time::ManualClock;
    use serde_json::json;

    use super::*;
    use crate::OpenMode;

    struct World {
        store: Store,
        clock: Arc<ManualClock>,
        _dir: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::at(1_000_000));
            let url = format!("sqlite://{}", dir.path().join("control.db").display());
            let store = Store::open_at(&url, OpenMode::Create, clock.clone()).await.unwrap();
            Self { store, clock, _dir: dir }
        }

        async fn take(&self, holder: &str) -> Option<Lease> {
            self.store.take_lease("orders", holder, LEASE_TTL).await.unwrap()
        }
    }

    #[tokio::test]
    async fn one_holds_it_until_it_runs_out_and_each_holder_has_a_higher_number() {
        let world = World::new().await;
        let a = world.take("a").await.unwrap();
        assert_eq!(world.take("b").await, None);
        assert_eq!(world.take("a").await, Some(a.clone()), "asking again is no new turn");
        world.clock.advance_ms(29_999);
        assert_eq!(world.take("b").await, None);
        world.clock.advance_ms(1);
        let b = world.take("b").await.unwrap();
        assert!(b.fence() > a.fence());
        assert!(!world.store.renew_lease(&a, LEASE_TTL).await.unwrap());
        assert!(world.store.renew_lease(&b, LEASE_TTL).await.unwrap());
    }

    #[tokio::test]
    async fn a_sign_of_life_keeps_it_and_giving_it_back_frees_it() {
        let world = World::new().await;
        let a = world.take("a").await.unwrap();
        for _ in 0..10 {
            world.clock.advance_ms(20_000);
            assert!(world.store.renew_lease(&a, LEASE_TTL).await.unwrap());
            assert_eq!(world.take("b").await, None);
        }
        world.store.release_lease(&a).await.unwrap();
        assert!(!world.store.renew_lease(&a, LEASE_TTL).await.unwrap(), "given back is given back");
        let b = world.take("b").await.unwrap();
        assert_eq!(b.fence(), a.fence() + 1);
        world.store.release_lease(&a).await.unwrap();
        assert_eq!(world.take("a").await, None, "an old lease frees nothing");
    }

    #[tokio::test]
    async fn a_holder_whose_lease_ran_out_takes_it_again_under_a_new_number() {
        let world = World::new().await;
        let first = world.take("a").await.unwrap();
        world.clock.advance_ms(30_000);
        assert!(!world.store.renew_lease(&first, LEASE_TTL).await.unwrap());
        assert_eq!(world.take("a").await.unwrap().fence(), first.fence() + 1);
    }

    #[tokio::test]
    async fn what_an_earlier_holder_writes_is_refused() {
        let world = World::new().await;
        let a = world.take("a").await.unwrap();
        world.clock.advance_ms(30_000);
        let mut transaction = world.store.begin(Actor::system("a")).await.unwrap();
        transaction.require(&a).await.expect("nobody else has it");
        transaction.commit("test", "test", json!(null)).await.unwrap();

        let b = world.take("b").await.unwrap();
        let mut transaction = world.store.begin(Actor::system("a")).await.unwrap();
        let why = transaction.require(&a).await;
        assert!(matches!(&why, Err(StoreError::LeaseLost { name }) if name == "orders"), "{why:?}");
        drop(transaction);
        let mut transaction = world.store.begin(Actor::system("b")).await.unwrap();
        transaction.require(&b).await.unwrap();
        transaction.commit("test", "test", json!(null)).await.unwrap();
        assert_eq!(world.store.leases().await.unwrap()[0].holder.as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn two_processes_on_one_database_do_not_both_hold_it() {
        let world = World::new().await;
        let url = format!("sqlite://{}", world.store.path().display());
        let other = Store::open_at(&url, OpenMode::Existing, world.clock.clone()).await.unwrap();
        for round in 0..20 {
            let (one, two) = tokio::join!(
                world.store.take_lease("orders", "one", LEASE_TTL),
                other.take_lease("orders", "two", LEASE_TTL)
            );
            let (one, two) = (one.unwrap(), two.unwrap());
            assert!(one.is_some() != two.is_some(), "round {round}: {one:?} {two:?}");
            world.clock.advance_ms(30_000);
        }
    }

    #[tokio::test]
    async fn work_runs_under_the_lease_and_gives_it_back_at_the_end() {
        let world = World::new().await;
        let ran = AtomicUsize::new(0);
        let work = |_| async {
            ran.fetch_add(1, Ordering::SeqCst);
        };
        world.store.while_leased("orders", "a", std::future::pending(), work).await;
        assert_eq!(ran.load(Ordering::SeqCst), 1);
        assert!(world.take("b").await.is_some(), "it was given back");
    }

    #[tokio::test]
    async fn stopping_ends_work_that_never_would_and_waiting_too() {
        let world = World::new().await;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let store = world.store.clone();
        let mut begun = Some(begun);
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            store
                .while_leased("orders", "a", stopped, move |lease| {
                    if let Some(begun) = begun.take() {
                        let _ = begun.send(lease);
                    }
                    std::future::pending()
                })
                .await;
        });
        let lease = has_begun.await.unwrap();
        assert_eq!(lease.holder(), "a");
        let stand_by = world.store.while_leased("orders", "b", std::future::ready(()), |_| std::future::pending());
        stand_by.await;
        assert_eq!(world.take("b").await, None);
        stop.send(()).unwrap();
        task.await.unwrap();
        assert!(world.take("b").await.is_some());
    }
}
