//! Maintenance that is over: proxies see that by themselves, and the state of a tenant follows.

use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::model::{Maintenance, Platform, PlatformId, Pool, Tenant, TenantState};
use schoolgate_config::time::Clock;
use schoolgate_store::{Actor, Aggregate, Lease, Store, StoreError};
use serde_json::json;

/// The right to forget windows: of many control processes one does, in this name.
const LEASE: &str = "maintenance-windows";

/// Time between two looks: 5 s. Nobody waits for it; until then an operator reads of a window that has passed.
const LOOK: Duration = Duration::from_secs(5);

/// Forgets windows that have passed, so that what operators read is what visitors see.
#[derive(Clone)]
pub struct MaintenanceWindows {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for MaintenanceWindows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaintenanceWindows")
    }
}

impl MaintenanceWindows {
    /// Of the tenants and pools in this store.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Looks while this process holds the lease, until `stop` is ready.
    pub async fn run(self, holder: String, stop: impl Future<Output = ()>) {
        let store = self.store.clone();
        store.while_leased(LEASE, &holder, stop, |lease| self.clone().keep_looking(lease)).await;
    }

    async fn keep_looking(self, lease: Lease) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.forget_those_over(&lease).await {
                Ok(()) => {}
                Err(StoreError::LeaseLost { .. }) => return,
                Err(error) => {
                    tracing::warn!(%error, "windows of maintenance that have passed are not forgotten: {error}");
                }
            }
        }
    }

    /// Forgets every window that has passed.
    async fn forget_those_over(&self, lease: &Lease) -> Result<(), StoreError> {
        let now_ms = self.clock.unix_ms();
        let head = self.store.head();
        for entry in head.table.tenants().filter(|entry| is_over(&*entry.tenant, now_ms)) {
            self.forget::<Tenant>(&entry.tenant.id, lease, now_ms).await?;
        }
        for entry in head.table.pools().filter(|entry| is_over(&*entry.pool, now_ms)) {
            self.forget::<Pool>(&entry.pool.id, lease, now_ms).await?;
        }
        if head.table.platform().is_some_and(|platform| is_over(&**platform, now_ms)) {
            self.forget::<Platform>(&PlatformId, lease, now_ms).await?;
        }
        Ok(())
    }

    async fn forget<T: Interrupted>(&self, key: &T::Key, lease: &Lease, now_ms: i64) -> Result<(), StoreError> {
        let mut transaction = self.store.begin(Actor::system(LEASE)).await?;
        transaction.require(lease).await?;
        // Somebody may have said something else meanwhile.
        let found = transaction.get::<T>(key).await?.map(|found| found.value);
        let Some(mut found) = found.filter(|found| is_over(found, now_ms)) else { return Ok(()) };
        let window = found.resume();
        transaction.update(found, None).await?;
        let (action, target) = (format!("{}.resume", T::NOUN), format!("{} {key}", T::NOUN));
        transaction.commit(&action, &target, json!({ "window": window })).await?;
        Ok(())
    }
}

/// What can be in maintenance for a while.
trait Interrupted: Aggregate {
    /// What the audit calls it.
    const NOUN: &'static str;

    /// What is said of its maintenance.
    fn window(&self) -> Option<&Maintenance>;

    /// Ends it; gives what was said.
    fn resume(&mut self) -> Option<Box<Maintenance>>;
}

impl Interrupted for Tenant {
    const NOUN: &'static str = "tenant";

    fn window(&self) -> Option<&Maintenance> {
        self.maintenance.as_deref()
    }

    fn resume(&mut self) -> Option<Box<Maintenance>> {
        if self.state == TenantState::Maintenance {
            (self.state, self.state_reason) = (TenantState::Active, None);
        }
        self.maintenance.take()
    }
}

impl Interrupted for Pool {
    const NOUN: &'static str = "pool";

    fn window(&self) -> Option<&Maintenance> {
        self.maintenance.as_deref()
    }

    fn resume(&mut self) -> Option<Box<Maintenance>> {
        self.maintenance.take()
    }
}

impl Interrupted for Platform {
    const NOUN: &'static str = "platform";

    fn window(&self) -> Option<&Maintenance> {
        self.maintenance.as_deref()
    }

    fn resume(&mut self) -> Option<Box<Maintenance>> {
        self.maintenance.take()
    }
}

fn is_over(of: &impl Interrupted, now_ms: i64) -> bool {
    of.window().is_some_and(|window| window.is_over(now_ms))
}

#[cfg(test)]
mod tests {
    use schoolgate_config::time::ManualClock;
    use schoolgate_store::OpenMode;

    use super::*;

    #[tokio::test]
    async fn a_tenant_whose_window_has_passed_is_active_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open(&url, OpenMode::Create).await.expect("a store");
        store.seed(Vec::new()).await.expect("seeded");
        let pool: Pool = serde_json::from_value(json!({
            "id": "shared", "maintenance": { "ends_at": "1970-01-01T00:00:20Z" },
        }))
        .expect("a pool");
        let tenant: Tenant = serde_json::from_value(json!({
            "id": "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV", "slug": "ash", "name": "Ash", "state": "maintenance",
            "state_reason": "results", "plan": "basic", "pool": "shared",
            "maintenance": { "ends_at": "1970-01-01T00:00:20Z" },
        }))
        .expect("a tenant");
        let id = tenant.id;
        let mut transaction = store.begin(Actor::system("test")).await.expect("begun");
        transaction.insert(pool).await.expect("inserted");
        transaction.insert(tenant).await.expect("inserted");
        transaction.commit("test", "test", json!({})).await.expect("committed");

        let clock = Arc::new(ManualClock::at(19_999));
        let windows = MaintenanceWindows::new(store.clone(), clock.clone());
        let lease = store.take_lease(LEASE, "here", Duration::from_secs(60)).await.expect("asked").expect("a lease");
        windows.forget_those_over(&lease).await.expect("looked");
        assert_eq!(store.head().table.tenant(&id).expect("there").tenant.state, TenantState::Maintenance);
        clock.advance_ms(1);
        windows.forget_those_over(&lease).await.expect("looked");
        let head = store.head();
        let tenant = &head.table.tenant(&id).expect("there").tenant;
        assert_eq!((tenant.state, &tenant.state_reason, &tenant.maintenance), (TenantState::Active, &None, &None));
        assert!(head.table.pools().all(|pool| pool.pool.maintenance.is_none()));
        let change = head.change;
        windows.forget_those_over(&lease).await.expect("looked");
        assert_eq!(store.head().change, change, "there is nothing left to do");
    }
}
