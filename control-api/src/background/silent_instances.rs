//! Instances that registered themselves and are gone: those that said goodbye when they had their time, others when they
//! are not heard any more.

use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::model::BackendState;
use schoolgate_config::settings::Instances;
use schoolgate_config::time::Clock;
use schoolgate_store::{Actor, Instance, Lease, Store, StoreError};

use crate::operation::Refusal;
use crate::operation::instances::{self, Gone};

/// Time between two looks: 500 ms. A look is one read of a small table.
const LOOK: Duration = Duration::from_millis(500);

/// Takes instances that are gone out of their pools.
#[derive(Clone)]
pub struct SilentInstances {
    store: Store,
    clock: Arc<dyn Clock>,
    rules: Instances,
}

impl std::fmt::Debug for SilentInstances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SilentInstances")
    }
}

/// What becomes of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing.
    Stays,
    /// It is taken out of its pool.
    Goes(Gone),
    /// It is in no pool any more, and will not come back.
    Forgotten,
}

impl SilentInstances {
    /// Of the pools in this store.
    pub fn new(store: Store, clock: Arc<dyn Clock>, rules: Instances) -> Self {
        Self { store, clock, rules }
    }

    /// Looks while this process holds the lease, until `stop` is done.
    pub async fn run(self, holder: String, stop: impl Future<Output = ()>) {
        let store = self.store.clone();
        store.while_leased("instances", &holder, stop, |lease| self.clone().keep_looking(lease)).await;
    }

    async fn keep_looking(self, lease: Lease) {
        // While nobody listened nobody was silent.
        let since_ms = self.clock.unix_ms();
        loop {
            match self.look(since_ms, &lease).await {
                Ok(()) => {}
                Err(Refusal::Store(StoreError::LeaseLost { .. })) => return,
                Err(error) => tracing::warn!(%error, "instances that are gone are not removed: {error}"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self, since_ms: i64, lease: &Lease) -> Result<(), Refusal> {
        for instance in self.store.instances().await? {
            let fate = self.fate(&instance, since_ms);
            if fate == Fate::Stays {
                continue;
            }
            let mut transaction = self.store.begin(Actor::system("instances")).await?;
            transaction.require(lease).await?;
            // It may have been heard just now.
            if transaction.instance_at(&instance.pool, &instance.address).await?.as_ref() != Some(&instance) {
                continue;
            }
            match fate {
                Fate::Stays => {}
                Fate::Goes(gone) => instances::remove(transaction, &instance, gone).await?,
                Fate::Forgotten => {
                    transaction.forget_instance(&instance.pool, &instance.address).await?;
                    transaction.commit_records().await?;
                }
            }
        }
        Ok(())
    }

    fn fate(&self, instance: &Instance, since_ms: i64) -> Fate {
        let now_ms = self.clock.unix_ms();
        let silent_ms = now_ms.saturating_sub(instance.heard_at_ms.max(since_ms));
        let is_silent = silent_ms >= self.rules.silent_s.ms();
        let head = self.store.head();
        let pool = head.table.pool(&instance.pool).map(|entry| &entry.pool);
        let Some(pool) = pool.filter(|pool| pool.backends.iter().any(|backend| backend.id == instance.backend)) else {
            return if is_silent { Fate::Forgotten } else { Fate::Stays };
        };
        if let Some(leaving_ms) = instance.leaving_at_ms {
            let had_its_time = now_ms.saturating_sub(leaving_ms) >= i64::from(pool.drain_s) * 1_000;
            return if had_its_time { Fate::Goes(Gone::Left) } else { Fate::Stays };
        }
        // When nobody is heard, the way to us is broken rather than every instance. The proxies find out for themselves
        // who answers.
        let others = pool.backends.iter().filter(|other| other.id != instance.backend);
        let has_others = others.clone().any(|other| other.state == BackendState::Active);
        if is_silent && has_others { Fate::Goes(Gone::Silent) } else { Fate::Stays }
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::{BackendId, Pool};
    use schoolgate_config::time::ManualClock;
    use schoolgate_store::OpenMode;
    use serde_json::json;

    use super::*;

    struct World {
        looks: SilentInstances,
        clock: Arc<ManualClock>,
        _dir: tempfile::TempDir,
    }

    fn instance(n: u128, leaving_at_ms: Option<i64>) -> Instance {
        Instance {
            backend: BackendId::from_parts(1, n),
            pool: "web".parse().expect("a pool"),
            address: format!("http://127.0.0.1:{}", 8_700 + n).parse().expect("an address"),
            token: "abc".to_owned(),
            heard_at_ms: 0,
            leaving_at_ms,
        }
    }

    /// A pool with these backends.
    async fn world(numbers: &[u128]) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open(&url, OpenMode::Create).await.expect("a store");
        let backends: Vec<_> = numbers
            .iter()
            .map(|n| json!({ "id": instance(*n, None).backend, "address": instance(*n, None).address }))
            .collect();
        let pool: Pool =
            serde_json::from_value(json!({ "id": "web", "backends": backends, "drain_s": 3 })).expect("one");
        let mut transaction = store.begin(Actor::system("test")).await.expect("begun");
        transaction.insert(pool).await.expect("inserted");
        transaction.commit("test", "test", json!({})).await.expect("committed");
        let clock = Arc::new(ManualClock::at(0));
        World { looks: SilentInstances::new(store, clock.clone(), Instances::default()), clock, _dir: dir }
    }

    #[tokio::test]
    async fn who_is_not_heard_goes_unless_nobody_would_be_left() {
        let (two, alone) = (world(&[1, 2]).await, world(&[1]).await);
        let at = |world: &World, ms: i64, since_ms: i64| {
            world.clock.advance_ms(ms - world.clock.unix_ms());
            world.looks.fate(&instance(1, None), since_ms)
        };
        let silent_ms = Instances::default().silent_s.ms();
        assert_eq!(at(&two, silent_ms - 1, 0), Fate::Stays);
        assert_eq!(at(&two, silent_ms, 0), Fate::Goes(Gone::Silent));
        assert_eq!(at(&two, silent_ms, 1), Fate::Stays, "nobody listened before that");
        assert_eq!(at(&alone, silent_ms * 9, 0), Fate::Stays);
    }

    #[tokio::test]
    async fn who_says_goodbye_has_the_time_to_drain() {
        let alone = world(&[1]).await;
        let leaving = instance(1, Some(1_000));
        alone.clock.advance_ms(3_999);
        assert_eq!(alone.looks.fate(&leaving, 0), Fate::Stays);
        alone.clock.advance_ms(1);
        assert_eq!(alone.looks.fate(&leaving, 0), Fate::Goes(Gone::Left));
    }

    #[tokio::test]
    async fn whom_an_operator_removed_is_forgotten_when_it_is_silent() {
        let other = world(&[2]).await;
        assert_eq!(other.looks.fate(&instance(1, None), 0), Fate::Stays);
        other.clock.advance_ms(Instances::default().silent_s.ms());
        assert_eq!(other.looks.fate(&instance(1, None), 0), Fate::Forgotten);
    }
}
