//! Which schools' databases are open.
//!
//! The most recently used stay open, up to a bound: each SQLite connection is a thread and three descriptors. Evicting one only
//! forgets it; it closes when the last request that uses it is done.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolOptions;
use tokio::sync::{Notify, OnceCell};
use tracing::debug;

use super::{SchoolDb, StoreError, file};
use crate::context::{TenantContext, TenantId};

/// Connections to one school's database: 4. SQLite has one writer; this is three slow readers beside it.
pub(crate) const CONNECTIONS_PER_SCHOOL: u32 = 4;

/// Time a request waits for a connection: 5 s, as long as a connection waits for another process's write lock.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A school that nobody asked for in 5 min is closed.
const IDLE: Duration = Duration::from_secs(300);

/// The open databases of one instance.
#[derive(Debug)]
pub(crate) struct Schools {
    dir: PathBuf,
    max_open: usize,
    open: Mutex<HashMap<TenantId, Slot>>,
    /// Schools that were opened, or got somebody, since somebody asked. No more than were open.
    changed: Mutex<HashSet<TenantId>>,
    /// There are some.
    pub(crate) news: Notify,
}

#[derive(Debug)]
struct Slot {
    /// Empty while the database is being opened; who comes meanwhile waits for the same opening.
    db: Arc<OnceCell<Arc<SchoolDb>>>,
    used: Instant,
}

impl Schools {
    /// The schools under `dir`, of which at most `max_open` stay open.
    pub(crate) fn new(dir: PathBuf, max_open: usize) -> Self {
        Self { dir, max_open, open: Mutex::default(), changed: Mutex::default(), news: Notify::new() }
    }

    /// The database of the school that the gateway vouched for; made, migrated and seeded if this is its first use.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be made or opened, or is another school's. The next call tries again.
    pub(crate) async fn open(&self, tenant: &TenantContext) -> Result<Arc<SchoolDb>, StoreError> {
        self.open_by_id(tenant.tenant_id()).await
    }

    async fn open_by_id(&self, tenant: &TenantId) -> Result<Arc<SchoolDb>, StoreError> {
        let slot = self.slot(tenant, Instant::now());
        let opened = async {
            let db = open_pool(&self.dir, tenant).await?;
            self.changed(tenant);
            Ok(db)
        };
        slot.get_or_try_init(|| opened).await.cloned()
    }

    /// What a school has is not what it was.
    pub(crate) fn changed(&self, tenant: &TenantId) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        // More than can be open are schools that were closed again: they are told of when they are opened.
        if changed.len() < self.max_open.saturating_mul(4) {
            changed.insert(tenant.clone());
        }
        drop(changed);
        self.news.notify_one();
    }

    /// Schools that changed since this was asked last.
    pub(crate) fn take_changed(&self) -> HashSet<TenantId> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Schools that are open.
    pub(crate) fn open_now(&self) -> Vec<(TenantId, Arc<SchoolDb>)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter_map(|(tenant, slot)| Some((tenant.clone(), slot.db.get()?.clone()))).collect()
    }

    /// The slot of a school, now the most recently used.
    fn slot(&self, tenant: &TenantId, now: Instant) -> Arc<OnceCell<Arc<SchoolDb>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = open.get_mut(tenant) {
            slot.used = now;
            return slot.db.clone();
        }
        if open.len() >= self.max_open {
            let oldest = open.iter().min_by_key(|(_, slot)| slot.used).map(|(tenant, _)| tenant.clone());
            if let Some(oldest) = oldest {
                debug!(tenant.id = %oldest, "closing the database of {oldest} to make room");
                open.remove(&oldest);
            }
        }
        let db = Arc::default();
        open.insert(tenant.clone(), Slot { db: Arc::clone(&db), used: now });
        db
    }

    /// Closes what nobody asked for lately, again and again.
    pub(crate) async fn close_idle(&self) {
        let mut period = tokio::time::interval(IDLE / 10);
        loop {
            period.tick().await;
            self.forget_unused(Instant::now());
        }
    }

    fn forget_unused(&self, now: Instant) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, slot| now.saturating_duration_since(slot.used) < IDLE);
    }

    /// Closes all, and waits until their files are whole: a closed SQLite database has no write-ahead log.
    pub(crate) async fn close(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for slot in open.into_values() {
            if let Some(db) = slot.db.get() {
                db.pool.close().await;
            }
        }
    }
}

async fn open_pool(dir: &Path, tenant: &TenantId) -> Result<Arc<SchoolDb>, StoreError> {
    let path = file::prepare(dir, tenant).await?;
    let pool = PoolOptions::new()
        .max_connections(CONNECTIONS_PER_SCHOOL)
        .min_connections(0)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(file::options(&path));
    Ok(Arc::new(SchoolDb { pool }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(n: u32) -> TenantId {
        TenantId::parse(&format!("tnt_01JD00000000000000{n:08}")).unwrap()
    }

    fn open_schools(schools: &Schools) -> Vec<TenantId> {
        let mut open: Vec<_> = schools.open.lock().unwrap().keys().cloned().collect();
        open.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        open
    }

    #[tokio::test]
    async fn the_least_recently_used_school_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let schools = Schools::new(dir.path().to_owned(), 2);
        schools.open_by_id(&tenant(1)).await.unwrap();
        schools.open_by_id(&tenant(2)).await.unwrap();
        schools.open_by_id(&tenant(1)).await.unwrap();
        schools.open_by_id(&tenant(3)).await.unwrap();
        assert_eq!(open_schools(&schools), [tenant(1), tenant(3)]);
    }

    #[tokio::test]
    async fn an_evicted_school_serves_those_who_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let schools = Schools::new(dir.path().to_owned(), 1);
        let held = schools.open_by_id(&tenant(1)).await.unwrap();
        schools.open_by_id(&tenant(2)).await.unwrap();
        let students = crate::store::students::count(&mut held.read().await.unwrap(), "").await.unwrap();
        assert!(students > 0);
    }

    #[tokio::test]
    async fn a_school_nobody_asks_for_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let schools = Schools::new(dir.path().to_owned(), 2);
        schools.open_by_id(&tenant(1)).await.unwrap();
        schools.forget_unused(Instant::now() + IDLE / 2);
        assert_eq!(open_schools(&schools).len(), 1);
        schools.forget_unused(Instant::now() + IDLE);
        assert_eq!(open_schools(&schools).len(), 0);
    }

    #[tokio::test]
    async fn a_failed_opening_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let in_the_way = dir.path().join("schools");
        std::fs::write(&in_the_way, "not a directory").unwrap();
        let schools = Schools::new(in_the_way.clone(), 2);
        assert!(schools.open_by_id(&tenant(1)).await.is_err());
        std::fs::remove_file(&in_the_way).unwrap();
        assert!(schools.open_by_id(&tenant(1)).await.is_ok());
    }
}
