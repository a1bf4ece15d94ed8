//! Maintenance that is over: proxies see that by themselves, and the state of a tenant follows.

use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::model::{Platform, PlatformId, Pool, Tenant, TenantState};
use schoolgate_config::time::Clock;
use schoolgate_store::{Actor, Store, StoreError};
use serde_json::json;

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

    /// Looks from time to time, for ever.
    pub async fn run(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.forget_those_over().await {
                tracing::warn!(%error, "windows of maintenance that have passed are not forgotten: {error}");
            }
        }
    }

    /// Forgets every window that has passed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn forget_those_over(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.unix_ms();
        let head = self.store.head();
        let tenants = head.table.tenants().map(|entry| &entry.tenant).filter(|tenant| is_over(tenant, now_ms));
        for id in tenants.map(|tenant| tenant.id) {
            let mut transaction = self.store.begin(Actor::system("maintenance-windows")).await?;
            // Somebody may have said something else meanwhile.
            let found = transaction.get::<Tenant>(&id).await?.map(|found| found.value);
            let Some(mut tenant) = found.filter(|tenant| is_over(tenant, now_ms)) else { continue };
            let window = tenant.maintenance.take();
            if tenant.state == TenantState::Maintenance {
                (tenant.state, tenant.state_reason) = (TenantState::Active, None);
            }
            transaction.update(tenant, None).await?;
            transaction.commit("tenant.resume", &format!("tenant {id}"), json!({ "window": window })).await?;
        }
        let pools = head.table.pools().map(|entry| &entry.pool).filter(|pool| pool_is_over(pool, now_ms));
        for id in pools.map(|pool| &pool.id) {
            let mut transaction = self.store.begin(Actor::system("maintenance-windows")).await?;
            let found = transaction.get::<Pool>(id).await?.map(|found| found.value);
            let Some(mut pool) = found.filter(|pool| pool_is_over(pool, now_ms)) else { continue };
            let window = pool.maintenance.take();
            transaction.update(pool, None).await?;
            transaction.commit("pool.resume", &format!("pool {id}"), json!({ "window": window })).await?;
        }
        if head.table.platform().is_some_and(|platform| platform_is_over(platform, now_ms)) {
            let mut transaction = self.store.begin(Actor::system("maintenance-windows")).await?;
            let found = transaction.get::<Platform>(&PlatformId).await?.map(|found| found.value);
            let Some(mut platform) = found.filter(|platform| platform_is_over(platform, now_ms)) else { return Ok(()) };
            let window = platform.maintenance.take();
            transaction.update(platform, None).await?;
            transaction.commit("platform.resume", "platform platform", json!({ "window": window })).await?;
        }
        Ok(())
    }
}

fn platform_is_over(platform: &Platform, now_ms: i64) -> bool {
    platform.maintenance.as_ref().is_some_and(|window| window.is_over(now_ms))
}

fn is_over(tenant: &Tenant, now_ms: i64) -> bool {
    tenant.maintenance.as_ref().is_some_and(|window| window.is_over(now_ms))
}

fn pool_is_over(pool: &Pool, now_ms: i64) -> bool {
    pool.maintenance.as_ref().is_some_and(|window| window.is_over(now_ms))
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
        windows.forget_those_over().await.expect("looked");
        assert_eq!(store.head().table.tenant(&id).expect("there").tenant.state, TenantState::Maintenance);
        clock.advance_ms(1);
        windows.forget_those_over().await.expect("looked");
        let head = store.head();
        let tenant = &head.table.tenant(&id).expect("there").tenant;
        assert_eq!((tenant.state, &tenant.state_reason, &tenant.maintenance), (TenantState::Active, &None, &None));
        assert!(head.table.pools().all(|pool| pool.pool.maintenance.is_none()));
        let change = head.change;
        windows.forget_those_over().await.expect("looked");
        assert_eq!(store.head().change, change, "there is nothing left to do");
    }
}
