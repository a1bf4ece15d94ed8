//! The file of one school: made, migrated and seeded before anyone can open it.
//!
//! A new file is built under another name and then renamed, so it is either whole or not there. A lock file beside it lets one
//! process build while the others, on the same host, wait and then find it made. The tenant's id is in the file and is
//! compared each time it is opened: a file that was moved or copied to another school's place is refused.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tracing::info;
use ulid::Ulid;

use super::{StoreError, seed};
use crate::clock;
use crate::context::TenantId;

/// All migrations of a school's database, embedded.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Time a connection waits for another process's write lock: 5 s. With immediate transactions the measured worst of 32 writers
/// on one row was 0.5 s.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Page cache of one connection in KiB: 1 MiB, so that a thousand open schools stay near 300 MiB.
const CACHE_KIB: &str = "-1024";

/// How connections to a school's file are opened.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("trusted_schema", "OFF")
        .pragma("cache_size", CACHE_KIB)
        .disable_statement_logging()
}

/// The file of a school, whole, of this release's schema, and its own.
///
/// # Errors
/// [`StoreError`] names what is in the way. Nothing half-made stays.
pub(super) async fn prepare(dir: &Path, tenant: &TenantId) -> Result<PathBuf, StoreError> {
    let path = path(dir, tenant);
    if fs::exists(&path).map_err(failed(&path))? && is_current(&path, tenant).await? {
        return Ok(path);
    }
    let lock = lock(&path).await?;
    if !fs::exists(&path).map_err(failed(&path))? {
        build(&path, tenant).await?;
        info!(tenant.id = %tenant, "made the database of {tenant}");
    } else if !is_current(&path, tenant).await? {
        upgrade(&path).await?;
        info!(tenant.id = %tenant, "migrated the database of {tenant}");
    }
    drop(lock);
    Ok(path)
}

/// `<dir>/<2 hex digits>/<tenant>/school.db`: 256 directories, so that none holds many thousands.
fn path(dir: &Path, tenant: &TenantId) -> PathBuf {
    let fan_out = crc32fast::hash(tenant.as_str().as_bytes()) & 0xff;
    dir.join(format!("{fan_out:02x}")).join(tenant.as_str()).join("school.db")
}

/// Waits for the right to make or migrate the file. Given back when dropped, also by the end of the process.
async fn lock(path: &Path) -> Result<File, StoreError> {
    let lock_path = path.with_extension("lock");
    let locked = tokio::task::spawn_blocking(move || {
        if let Some(parent) = lock_path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::options().create(true).write(true).truncate(false).open(&lock_path)?;
        file.lock()?;
        Ok(file)
    });
    locked.await.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(failed(path))
}

/// Whether the file has this release's schema. An older one has to be migrated first.
async fn is_current(path: &Path, tenant: &TenantId) -> Result<bool, StoreError> {
    let mut db = options(path).connect().await?;
    let found: Option<String> = sqlx::query_scalar("SELECT tenant_id FROM meta").fetch_optional(&mut db).await?;
    let found = found.unwrap_or_default();
    if found != tenant.as_str() {
        return Err(StoreError::WrongTenant { expected: tenant.clone(), found });
    }
    let schema: i64 =
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(&mut db).await?;
    db.close().await?;
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    if schema > known {
        return Err(StoreError::TooNew { path: path.to_owned(), found: schema, known });
    }
    Ok(schema == known)
}

/// Makes the file under another name, then gives it its own. Called with the lock held.
async fn build(path: &Path, tenant: &TenantId) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    remove_leftovers(dir).map_err(failed(dir))?;
    let fresh = dir.join(format!("{}.db.new", Ulid::generate()));
    let mut db = options(&fresh).create_if_missing(true).synchronous(SqliteSynchronous::Off).connect().await?;
    MIGRATIONS
        .run_direct(None, &mut db, false)
        .await
        .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
    seed_school(&mut db, tenant).await?;
    // The last connection to close folds the write-ahead log into the file, which is then all there is.
    db.close().await?;
    File::open(&fresh)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&fresh, path))
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(failed(path))
}

async fn seed_school(db: &mut SqliteConnection, tenant: &TenantId) -> Result<(), StoreError> {
    let now = clock::now();
    let mut seeding = db.begin().await?;
    sqlx::query("INSERT INTO meta (only_row, tenant_id, created_at) VALUES (1, ?, ?)")
        .bind(tenant.as_str())
        .bind(clock::millis(now))
        .execute(&mut *seeding)
        .await?;
    seed::plant(&mut seeding, now).await?;
    seeding.commit().await?;
    Ok(())
}

/// What a process that died while building left behind. Nobody else builds: the lock is held.
fn remove_leftovers(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(".db.new") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Applies the migrations that an older file lacks, each in its own transaction. Called with the lock held.
async fn upgrade(path: &Path) -> Result<(), StoreError> {
    let mut db = options(path).connect().await?;
    MIGRATIONS
        .run_direct(None, &mut db, false)
        .await
        .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
    db.close().await?;
    Ok(())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(n: u32) -> TenantId {
        TenantId::parse(&format!("tnt_01JD00000000000000{n:08}")).unwrap()
    }

    #[tokio::test]
    async fn a_made_file_is_whole_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = prepare(dir.path(), &tenant(1)).await.unwrap();
        let mut files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|f| f.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["school.db", "school.lock"]);
        let mut db = options(&path).connect().await.unwrap();
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut db).await.unwrap();
        let sound: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut db).await.unwrap();
        assert_eq!((mode.as_str(), sound.as_str()), ("wal", "ok"));
    }

    #[tokio::test]
    async fn many_who_need_a_new_school_at_once_make_one() {
        let dir = tempfile::tempdir().unwrap();
        let makers = (0..8).map(|_| {
            let dir = dir.path().to_owned();
            tokio::spawn(async move { prepare(&dir, &tenant(1)).await })
        });
        for maker in makers.collect::<Vec<_>>() {
            maker.await.unwrap().unwrap();
        }
        let mut db = options(&path(dir.path(), &tenant(1))).connect().await.unwrap();
        let years: i64 = sqlx::query_scalar("SELECT count(*) FROM academic_years").fetch_one(&mut db).await.unwrap();
        assert_eq!(years, 1);
    }

    #[tokio::test]
    async fn leftovers_of_a_killed_builder_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let place = path(dir.path(), &tenant(1));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place.with_file_name("01JD.db.new"), "half").unwrap();
        fs::write(place.with_file_name("01JD.db.new-wal"), "half").unwrap();
        prepare(dir.path(), &tenant(1)).await.unwrap();
        assert!(!place.with_file_name("01JD.db.new").exists());
    }

    #[tokio::test]
    async fn a_file_in_another_schools_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let made = prepare(dir.path(), &tenant(1)).await.unwrap();
        let other = path(dir.path(), &tenant(2));
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::copy(made, &other).unwrap();
        let refused = prepare(dir.path(), &tenant(2)).await.unwrap_err();
        assert!(matches!(refused, StoreError::WrongTenant { .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_file_of_an_older_release_is_migrated_and_keeps_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let place = path(dir.path(), &tenant(1));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let mut db = options(&place).create_if_missing(true).connect().await.unwrap();
        MIGRATIONS.run_direct(Some(1), &mut db, false).await.unwrap();
        let of_then = "INSERT INTO meta VALUES (1, 'tnt_01JD0000000000000000000001', 0); \
                       INSERT INTO departments VALUES ('d1', 'Arts')";
        sqlx::raw_sql(of_then).execute(&mut db).await.unwrap();
        db.close().await.unwrap();

        prepare(dir.path(), &tenant(1)).await.unwrap();
        assert!(is_current(&place, &tenant(1)).await.unwrap());
        let mut db = options(&place).connect().await.unwrap();
        let kept: Vec<String> = sqlx::query_scalar("SELECT name FROM departments").fetch_all(&mut db).await.unwrap();
        let students: i64 = sqlx::query_scalar("SELECT count(*) FROM students").fetch_one(&mut db).await.unwrap();
        assert_eq!((kept, students), (vec!["Arts".to_owned()], 0));
    }

    #[tokio::test]
    async fn a_file_of_a_newer_release_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = prepare(dir.path(), &tenant(1)).await.unwrap();
        let mut db = options(&path).connect().await.unwrap();
        sqlx::query(
            "UPDATE _sqlx_migrations SET version = 9999 WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
        )
        .execute(&mut db)
        .await
        .unwrap();
        db.close().await.unwrap();
        let refused = prepare(dir.path(), &tenant(1)).await.unwrap_err();
        assert!(matches!(refused, StoreError::TooNew { found: 9999, .. }), "{refused}");
    }
}
