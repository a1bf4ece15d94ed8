//! The store in one SQLite file (WAL).
//!
//! One connection writes, four read. `synchronous=FULL`: an acknowledged change survives the loss of power, for a proxy
//! may hold a revision made of it already, and a number that came back with other content would be taken for the same.
//! The price, one flush to the disk per commit, is shared by all transactions that were waiting; see [`writer`].

mod acme;
mod app_reports;
mod audit;
mod certificates;
mod dns_txt;
mod domain_checks;
mod events;
mod instances;
mod leases;
mod objects;
mod operations;
mod records;
mod revisions;
mod uploads;
mod usage;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use sqlx::ConnectOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::{Mutex, watch};

use schoolgate_config::snapshot::{Object, share_chains};
use schoolgate_config::time::Clock;

use crate::OpenMode;
use crate::error::StoreError;
use crate::head::Head;
use crate::recent::Recent;

pub(crate) use objects::TenantField;
pub(crate) use writer::{Advance, Turn};

use writer::Writer;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// Time a connection waits for another process's write: 5 s, far more than any transaction of ours takes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that read. Reads are short; each connection is a thread of its own.
const READERS: u32 = 4;

/// Pages each connection keeps in memory: 16 MiB (negative: in KiB), the indexes of 100,000 tenants.
const CACHE_SIZE: &str = "-16384";

/// Bytes that the write-ahead log shrinks to after a large import: 64 MiB.
const LOG_SIZE: &str = "67108864";

/// Attempts to bring the schema up to date: another process may be doing the same.
const MIGRATION_ATTEMPTS: u32 = 3;

/// The store in one SQLite file.
pub(crate) struct Sqlite {
    path: PathBuf,
    readers: SqlitePool,
    writer: Arc<Mutex<Writer>>,
    head: ArcSwap<Head>,
    recent: std::sync::Mutex<Recent>,
    committed: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
}

impl Sqlite {
    pub(crate) async fn open(url: &str, mode: OpenMode, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let path = path_of(url).ok_or_else(|| StoreError::Url { url: url.to_owned() })?;
        // SQLite takes an empty file for a new database; here it is one that was lost, and beginning anew over what the
        // proxies still serve must be somebody's decision.
        if std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() == 0) {
            return Err(StoreError::Corrupt { path, detail: "the file is empty".to_owned() });
        }
        if !path.exists() {
            if mode == OpenMode::Existing {
                return Err(StoreError::Absent { path });
            }
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)
                    .map_err(|e| StoreError::Unavailable { path: path.clone(), detail: e.to_string() })?;
            }
        }
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(mode == OpenMode::Create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("cache_size", CACHE_SIZE)
            .pragma("journal_size_limit", LOG_SIZE)
            .thread_name(|id| format!("store-{id}"))
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(|e| fault(&path, e))?;
        check_integrity(&path, &mut connection).await?;
        migrate(&path, &mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.pragma("query_only", "1"))
            .await
            .map_err(|e| fault(&path, e))?;
        let (change, objects) = read_everything(&readers).await.map_err(|e| fault(&path, e))?;
        let head = Head::of(change, objects)
            .map_err(|violations| StoreError::Corrupt { path: path.clone(), detail: violations.to_string() })?;
        let head = Arc::new(head);
        Ok(Self {
            writer: Arc::new(Mutex::new(Writer::new(connection, head.clone()))),
            head: ArcSwap::from(head),
            recent: std::sync::Mutex::new(Recent::starting_after(change)),
            committed: watch::Sender::new(change),
            runtime: tokio::runtime::Handle::current(),
            path,
            readers,
            clock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.unix_ms()
    }

    pub(crate) fn head(&self) -> Arc<Head> {
        self.head.load_full()
    }

    pub(crate) fn look_again(&self) {
        self.committed.send_modify(|_| {});
    }

    pub(crate) fn committed(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    pub(crate) async fn refresh(self: &Arc<Self>) -> Result<Arc<Head>, StoreError> {
        let last: Option<i64> = sqlx::query_scalar("SELECT max(number) FROM audit")
            .fetch_one(&self.readers)
            .await
            .map_err(|e| fault(&self.path, e))?;
        if last.unwrap_or(0).cast_unsigned() > self.head().change {
            // A turn begins by catching up, and ends when what it saw is the head.
            Turn::take(self.clone()).await?.commit(None).await?;
        }
        Ok(self.head())
    }

    pub(crate) async fn everything(&self) -> Result<(u64, Vec<Object>), StoreError> {
        read_everything(&self.readers).await.map_err(|e| fault(&self.path, e))
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        writer::close(self).await;
    }
}

/// `sqlite:///a/b`, `sqlite://a/b` or `sqlite:a/b`, without parameters.
fn path_of(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    (!path.is_empty() && path != ":memory:" && !path.contains(['?', '\0'])).then(|| PathBuf::from(path))
}

async fn check_integrity(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await.map_err(|e| fault(path, e))?;
    if found == "ok" { Ok(()) } else { Err(StoreError::Corrupt { path: path.into(), detail: found }) }
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let known = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
    let mut attempt = 1;
    loop {
        match MIGRATIONS.run(&mut *connection).await {
            Ok(()) => return Ok(()),
            Err(MigrateError::VersionMissing(found)) => {
                return Err(StoreError::Newer { path: path.into(), found, known });
            }
            Err(MigrateError::VersionMismatch(version)) => {
                let detail = format!("its schema {version} is not the one this release knows by that number");
                return Err(StoreError::Corrupt { path: path.into(), detail });
            }
            Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) if attempt == MIGRATION_ATTEMPTS => {
                return Err(fault(path, e));
            }
            Err(e) if attempt == MIGRATION_ATTEMPTS => {
                return Err(StoreError::Unavailable { path: path.into(), detail: e.to_string() });
            }
            // Another process may have made the table that this one was about to make.
            Err(_) => attempt += 1,
        }
    }
}

async fn read_everything(readers: &SqlitePool) -> Result<(u64, Vec<Object>), sqlx::Error> {
    // One transaction, so that the number belongs to the objects.
    let mut transaction = readers.begin().await?;
    let change: Option<i64> = sqlx::query_scalar("SELECT max(number) FROM audit").fetch_one(&mut *transaction).await?;
    let mut objects = objects::everything(&mut transaction).await?;
    share_chains(&mut objects);
    transaction.rollback().await?;
    Ok((change.unwrap_or(0).cast_unsigned(), objects))
}

/// What an error of the database means for the caller.
fn fault(path: &Path, error: sqlx::Error) -> StoreError {
    /// SQLITE_CORRUPT and SQLITE_NOTADB (<https://www.sqlite.org/rescode.html>).
    const DAMAGED: [i32; 2] = [11, 26];
    let path = path.to_path_buf();
    match &error {
        sqlx::Error::Database(e) => {
            let code = e.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0);
            let detail = e.message().to_owned();
            if DAMAGED.contains(&(code & 0xff)) {
                StoreError::Corrupt { path, detail }
            } else {
                StoreError::Unavailable { path, detail }
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::Corrupt { path, detail: error.to_string() }
        }
        _ => StoreError::Unavailable { path, detail: error.to_string() },
    }
}

/// What a stored value that cannot be read is reported as.
fn undecodable(what: &str, why: impl std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} cannot be read: {why}").into())
}

/// SQLite's integers are signed; numbers of ours that do not fit cannot be reached by counting.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Defines reads on the reader pool.
macro_rules! reads {
    ($(async fn $name:ident $(<$a:ident>)? (&self $(, $arg:ident: $type:ty)*) -> $out:ty = $module:ident;)*) => {
        impl Sqlite {$(
            pub(crate) async fn $name$(<$a: crate::Aggregate>)?(&self $(, $arg: $type)*) -> Result<$out, StoreError> {
                let mut connection = self.readers.acquire().await.map_err(|e| fault(&self.path, e))?;
                $module::$name$(::<$a>)?(&mut connection $(, $arg)*).await.map_err(|e| fault(&self.path, e))
            }
        )*}
    };
}

reads! {
    async fn get<A>(&self, key: &A::Key) -> Option<crate::Stored<A>> = objects;
    async fn tenant_by(&self, field: TenantField, value: &str) -> Option<crate::Stored<schoolgate_config::model::Tenant>> = objects;
    async fn certificates_due(&self, now_ms: i64, limit: u32) -> Vec<crate::CertificateWant> = certificates;
    async fn next_certificate_due(&self) -> Option<i64> = certificates;
    async fn certificate_want(&self, name: &str) -> Option<crate::CertificateWant> = certificates;
    async fn certificate_wants(&self, after: Option<&str>, limit: u32) -> Vec<crate::CertificateWant> = certificates;
    async fn certificate_counts(&self) -> Vec<(crate::WantState, u64)> = certificates;
    async fn audit(&self, query: &crate::AuditQuery) -> Vec<crate::AuditEntry> = audit;
    async fn verify_audit(&self) -> Result<u64, crate::AuditBroken> = audit;
    async fn revisions(&self, before: Option<schoolgate_config::model::Revision>, limit: u32) -> Vec<crate::RevisionRecord> = revisions;
    async fn revision_of(&self, change: u64) -> Option<schoolgate_config::model::Revision> = revisions;
    async fn deltas_after(&self, after: schoolgate_config::model::Revision, limit: u32) -> Vec<(crate::RevisionRecord, Vec<u8>)> = revisions;
    async fn token(&self, id: &str) -> Option<crate::Token> = records;
    async fn tokens(&self) -> Vec<crate::Token> = records;
    async fn nodes(&self) -> Vec<crate::NodeRecord> = records;
    async fn answer(&self, actor: &str, key: &str) -> Option<crate::StoredAnswer> = records;
    async fn uploaded_names(&self) -> Vec<(String, schoolgate_config::model::Fingerprint)> = uploads;
    async fn revocation(&self, fingerprint: &schoolgate_config::model::Fingerprint) -> Option<crate::Revocation> = uploads;
    async fn revocations_requested(&self, limit: u32) -> Vec<crate::Revocation> = uploads;
    async fn key_fetches(&self) -> Vec<crate::KeyFetch> = records;
    async fn ignored_hosts(&self) -> Vec<crate::IgnoredHost> = records;
    async fn acme_queue(&self, now_ms: i64, part: crate::acme::QueuePart, limit: u32) -> Vec<crate::acme::QueueEntry> = acme;
    async fn acme_entry(&self, now_ms: i64, name: &str) -> Option<crate::acme::QueueEntry> = acme;
    async fn acme_queue_depth(&self, now_ms: i64) -> Vec<(crate::acme::QueueClass, u64, i64)> = acme;
    async fn next_acme_due(&self) -> Option<i64> = acme;
    async fn acme_orders_due(&self, now_ms: i64, limit: u32) -> Vec<crate::acme::AcmeOrder> = acme;
    async fn acme_order(&self, name: &str) -> Option<crate::acme::AcmeOrder> = acme;
    async fn acme_orders_open(&self) -> u64 = acme;
    async fn acme_credentials(&self) -> Vec<crate::acme::AcmeCredentials> = acme;
    async fn acme_authorities(&self) -> Vec<(schoolgate_config::model::CaId, crate::acme::AuthorityHealth)> = acme;
    async fn acme_buckets(&self, limit: u32) -> Vec<crate::acme::Bucket> = acme;
    async fn acme_totals(&self) -> Vec<(schoolgate_config::model::CaId, String, u64)> = acme;
    async fn acme_renewals_to_ask(&self, now_ms: i64, limit: u32) -> Vec<crate::acme::QueueEntry> = acme;
    async fn certificates_ending(&self, limit: u32) -> Vec<(String, i64)> = acme;
    async fn certificate_issuers(&self, after: Option<&str>, limit: u32) -> Vec<(String, Option<String>)> = acme;
    async fn leases(&self) -> Vec<crate::LeaseRecord> = leases;
    async fn note(&self, key: &str) -> Option<String> = records;
    async fn events(&self, query: &crate::EventQuery) -> Vec<crate::Event> = events;
    async fn txt_values(&self, name: &str, now_ms: i64) -> Vec<String> = dns_txt;
    async fn domain_checks_due(&self, now_ms: i64, limit: u32) -> Vec<crate::DomainCheck> = domain_checks;
    async fn next_domain_check(&self) -> Option<i64> = domain_checks;
    async fn domain_check(&self, name: &schoolgate_config::model::DomainName) -> Option<crate::DomainCheck> = domain_checks;
    async fn domain_transfer(&self, name: &schoolgate_config::model::DomainName) -> Option<crate::DomainTransfer> = domain_checks;
    async fn released_name(&self, name: &schoolgate_config::model::DomainName, now_ms: i64) -> Option<crate::ReleasedName> = domain_checks;
    async fn app_reports(&self, tenants: &[schoolgate_config::model::TenantId]) -> Vec<crate::AppReport> = app_reports;
    async fn usage(&self, query: &crate::UsageQuery) -> Vec<schoolgate_config::usage::UsagePart> = usage;
    async fn usage_totals(&self, query: &crate::TotalsQuery) -> Vec<crate::UsageTotal> = usage;
    async fn usage_peaks(&self, above: &[(schoolgate_config::model::TenantId, u64)], since_s: i64) -> Vec<crate::UsagePeak> = usage;
    async fn quotas_used(&self, quotas: &[schoolgate_config::usage::QuotaUse]) -> Vec<schoolgate_config::usage::QuotaUse> = usage;
    async fn recent_quotas(&self, now_ms: i64, after: Option<&schoolgate_config::usage::QuotaUse>, limit: u32) -> Vec<schoolgate_config::usage::QuotaUse> = usage;
    async fn operation(&self, id: crate::OperationId) -> Option<crate::Operation> = operations;
    async fn operations(&self, query: &crate::OperationQuery) -> Vec<crate::Operation> = operations;
    async fn unfinished_operations(&self) -> Vec<crate::Operation> = operations;
    async fn instances(&self) -> Vec<crate::Instance> = instances;
}

impl Sqlite {
    pub(crate) async fn list<A: crate::Aggregate>(
        &self,
        query: &crate::ListQuery,
    ) -> Result<crate::Page<crate::Stored<A>>, StoreError> {
        objects::check_filters(A::KIND, query)?;
        let mut connection = self.readers.acquire().await.map_err(|e| fault(&self.path, e))?;
        objects::list(&mut connection, query).await.map_err(|e| fault(&self.path, e))
    }

    pub(crate) async fn count<A: crate::Aggregate>(&self, query: &crate::ListQuery) -> Result<u64, StoreError> {
        objects::check_filters(A::KIND, query)?;
        let mut connection = self.readers.acquire().await.map_err(|e| fault(&self.path, e))?;
        objects::count::<A>(&mut connection, query).await.map_err(|e| fault(&self.path, e))
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        // Every write leaves the list whole, so one that panicked has spoilt nothing.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn changes_between(
        &self,
        after: u64,
        to: u64,
        limit: u32,
    ) -> Result<Vec<crate::CommittedChanges>, StoreError> {
        if let Some(recent) = self.recent().between(after, to, limit) {
            return Ok(recent);
        }
        let mut connection = self.readers.acquire().await.map_err(|e| fault(&self.path, e))?;
        audit::changes_between(&mut connection, after, to, limit).await.map_err(|e| fault(&self.path, e))
    }
}
