//! Whose turn it is to write, and one flush to the disk for all who waited.
//!
//! The connection that writes is behind a fair lock. A transaction takes the lock, works in a savepoint, and leaves the database's own transaction open for the next; the first of a group asks for a flush. The
//! flush queues for the lock like everyone, so it comes after those who were waiting already: it commits them all,
//! then they are told. Alone, a transaction is flushed at once.
//!
//! A transaction that is dropped midway leaves its savepoint behind, and the next turn undoes it. A failure of the
//! database itself undoes the whole group, and each of its members is told.

use std::sync::Arc;

use sqlx::Connection;
use sqlx::FromRow;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use tokio::sync::{OwnedMutexGuard, oneshot};

use schoolgate_config::model::{
    BackendAddress, CaId, CertificateRef, DomainName, Fingerprint, PoolId, Tenant, TenantId,
};
use schoolgate_config::snapshot::{Change, Object, ObjectKey};

use super::{
    Sqlite, TenantField, acme, app_reports, audit, certificates, dns_txt, domain_checks, events, fault, instances,
    leases, objects, operations, records, revisions, signed, uploads, usage,
};
use crate::acme::{AcmeCredentials, AcmeOrder, AuthorityHealth, Bucket, RenewalWindow, Setback};
use crate::aggregate::{Aggregate, ListQuery, Page, Stored};
use crate::audit::FIRST;
use crate::check::{DomainCheck, DomainTransfer, ReleasedName};
use crate::error::StoreError;
use crate::event::NewEvent;
use crate::head::Head;
use crate::lease::Lease;
use crate::operations::{Operation, OperationId};
use crate::records::{
    AuditEntry, CertificateWant, CommittedChanges, IgnoredHost, KeyFetch, NodeRecord, RevisionRecord, StoredAnswer,
    Token,
};
use crate::revocation::Revocation;

/// The one connection that writes, and how far the group at work is.
pub(super) struct Writer {
    /// `None` after the store was closed.
    connection: Option<SqliteConnection>,
    phase: Phase,
    /// Everything committed, and what the group at work has added.
    head: Arc<Head>,
    /// The hash of the last line of audit in `head`.
    hash: [u8; 32],
    savepoint: Savepoint,
    /// The database failed in this group: nothing of it can be kept.
    failed: Option<String>,
    /// The commits that `head` holds and the store's does not.
    commits: Vec<CommittedChanges>,
    /// Who waits for the flush.
    group: Vec<oneshot::Sender<Result<(), String>>>,
    flush_asked: bool,
}

/// What is to be done about the savepoint of the turn before. Set before the statement is sent: a statement that was
/// sent is executed, even if the one who sent it is gone before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Savepoint {
    /// There is none.
    None,
    /// To be undone: its transaction is at work, or was dropped.
    Open,
    /// To be kept.
    Done,
}

/// How far the database's own transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// None is open.
    Closed,
    /// Open; what other processes committed is not read yet.
    Begun,
    /// Open and up to date.
    Ready,
}

impl Writer {
    pub(super) fn new(connection: SqliteConnection, head: Arc<Head>) -> Self {
        Self {
            connection: Some(connection),
            phase: Phase::Closed,
            head,
            hash: FIRST,
            savepoint: Savepoint::None,
            failed: None,
            commits: Vec::new(),
            group: Vec::new(),
            flush_asked: false,
        }
    }

    pub(super) fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Leaves the connection in a fresh savepoint of an open transaction that has seen everything committed.
    async fn make_ready(&mut self, durable: Arc<Head>) -> Result<(), sqlx::Error> {
        if self.failed.is_some() {
            self.undo_group().await;
        }
        self.settle_savepoint().await?;
        if self.phase == Phase::Closed {
            self.head = durable;
            self.phase = Phase::Begun;
            if let Err(e) = sqlx::query("BEGIN IMMEDIATE").execute(self.connection()?).await {
                self.phase = Phase::Closed;
                return Err(e);
            }
        }
        if self.phase == Phase::Begun {
            self.catch_up().await?;
            self.phase = Phase::Ready;
        }
        self.savepoint = Savepoint::Open;
        sqlx::query("SAVEPOINT turn").execute(self.connection()?).await?;
        Ok(())
    }

    /// Keeps or undoes what the turn before did.
    async fn settle_savepoint(&mut self) -> Result<(), sqlx::Error> {
        if self.savepoint == Savepoint::Open {
            sqlx::query("ROLLBACK TO turn").execute(self.connection()?).await?;
        }
        if self.savepoint != Savepoint::None {
            self.savepoint = Savepoint::None;
            sqlx::query("RELEASE turn").execute(self.connection()?).await?;
        }
        Ok(())
    }

    /// Reads what other processes committed, and where the audit is.
    async fn catch_up(&mut self) -> Result<(), sqlx::Error> {
        let last: Option<SqliteRow> = sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
            .fetch_optional(self.connection()?)
            .await?;
        let (number, hash) = match &last {
            Some(row) => {
                let (number, hash) = <(i64, Vec<u8>)>::from_row(row)?;
                let hash = hash.try_into().map_err(|_| super::undecodable("the audit", "a hash has 32 bytes"))?;
                (number.cast_unsigned(), hash)
            }
            None => (0, FIRST),
        };
        let known = self.head.change;
        if number < known {
            let why = format!("it ends at change {number}, this process has seen {known}; restart it");
            return Err(super::undecodable("the database was replaced while in use", why));
        }
        if number > known {
            let connection = self.connection()?;
            let missed = audit::changes_between(connection, known, number, u32::MAX).await?;
            let changes: Vec<Change> = missed.iter().flat_map(|commit| commit.changes.iter().cloned()).collect();
            let head = self.head.with(number, &changes);
            self.head = Arc::new(head.map_err(|v| super::undecodable("another process's change", v))?);
            self.commits.extend(missed);
        }
        self.hash = hash;
        Ok(())
    }

    /// Commits the database's own transaction.
    async fn finish_group(&mut self) -> Result<(), sqlx::Error> {
        if self.savepoint == Savepoint::Open {
            self.settle_savepoint().await?;
        }
        // Releases a savepoint that is to be kept, too (<https://www.sqlite.org/lang_savepoint.html>).
        sqlx::query("COMMIT").execute(self.connection()?).await?;
        (self.phase, self.savepoint) = (Phase::Closed, Savepoint::None);
        Ok(())
    }

    /// Undoes all that is not committed, and tells those who wait.
    async fn undo_group(&mut self) {
        let why = self.failed.take().unwrap_or_else(|| "undone".to_owned());
        if self.phase != Phase::Closed
            && let Some(connection) = self.connection.as_mut()
            && let Err(e) = sqlx::query("ROLLBACK").execute(connection).await
        {
            // SQLite undoes a transaction by itself after some failures, such as a full disk.
            tracing::debug!("nothing left to undo: {e}");
        }
        self.phase = Phase::Closed;
        self.savepoint = Savepoint::None;
        self.commits.clear();
        for waiting in self.group.drain(..) {
            // One who no longer waits needs no answer.
            let _ = waiting.send(Err(why.clone()));
        }
    }
}

/// Commits the group at work, or undoes it.
async fn flush(sqlite: &Sqlite, writer: &mut Writer) {
    writer.flush_asked = false;
    if writer.phase == Phase::Closed {
        return;
    }
    if writer.failed.is_none()
        && let Err(e) = writer.finish_group().await
    {
        writer.failed = Some(e.to_string());
    }
    if writer.failed.is_some() {
        writer.undo_group().await;
        return;
    }
    if writer.head.change > sqlite.head.load().change {
        let mut recent = sqlite.recent();
        writer.commits.drain(..).for_each(|commit| recent.push(commit));
        drop(recent);
        sqlite.head.store(writer.head.clone());
        sqlite.committed.send_replace(writer.head.change);
    }
    for waiting in writer.group.drain(..) {
        // One who no longer waits needs no answer: what it asked for is on disk all the same.
        let _ = waiting.send(Ok(()));
    }
}

/// Closes the connection after what is at work.
pub(super) async fn close(sqlite: &Sqlite) {
    let mut writer = sqlite.writer.lock().await;
    flush(sqlite, &mut writer).await;
    if let Some(connection) = writer.connection.take()
        && let Err(e) = connection.close().await
    {
        tracing::warn!("the database was not closed cleanly: {e}");
    }
}

/// What a change brings forward.
pub(crate) struct Advance {
    /// The head after it.
    pub(crate) head: Arc<Head>,
    /// The hash of its line of audit.
    pub(crate) hash: [u8; 32],
    /// What it did.
    pub(crate) commit: CommittedChanges,
}

/// A turn at the connection that writes. Dropping it undoes what it did.
pub(crate) struct Turn {
    sqlite: Arc<Sqlite>,
    /// `None` once the turn is over.
    writer: Option<OwnedMutexGuard<Writer>>,
}

impl Turn {
    /// Waits for a turn.
    pub(crate) async fn take(sqlite: Arc<Sqlite>) -> Result<Self, StoreError> {
        let writer = sqlite.writer.clone().lock_owned().await;
        let mut turn = Self { sqlite, writer: Some(writer) };
        let durable = turn.sqlite.head();
        if let Err(e) = turn.writer().make_ready(durable).await {
            return Err(turn.failure(e));
        }
        Ok(turn)
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("only `end` and `drop` take it, and both end the turn")
    }

    /// Everything before this turn, on disk or about to be.
    pub(crate) fn head(&self) -> &Arc<Head> {
        &self.writer.as_ref().expect("only `end` and `drop` take it, and both end the turn").head
    }

    /// The hash of the last line of audit.
    pub(crate) fn audit_hash(&mut self) -> [u8; 32] {
        self.writer().hash
    }

    /// The connection, if the group at work can still be kept.
    fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        if let Some(why) = &self.writer().failed {
            let detail = why.clone();
            return Err(StoreError::Unavailable { path: self.sqlite.path.clone(), detail });
        }
        let path = self.sqlite.path.clone();
        self.writer().connection().map_err(|e| fault(&path, e))
    }

    /// Says what an error means; one of the database itself costs the whole group.
    fn failure(&mut self, error: sqlx::Error) -> StoreError {
        let writer = self.writer();
        if writer.phase != Phase::Closed {
            writer.failed.get_or_insert_with(|| error.to_string());
        }
        fault(&self.sqlite.path, error)
    }

    /// Keeps what the turn did, with what it brings forward if it was a change; answers when it is on disk.
    pub(crate) async fn commit(mut self, advance: Option<Advance>) -> Result<(), StoreError> {
        self.connection()?;
        let (tell, told) = oneshot::channel();
        let writer = self.writer();
        // No await from here to the end of the turn: it is kept as a whole.
        writer.savepoint = Savepoint::Done;
        writer.group.push(tell);
        if let Some(Advance { head, hash, commit }) = advance {
            (writer.head, writer.hash) = (head, hash);
            writer.commits.push(commit);
        }
        self.end();
        let why = match told.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => "the store is shutting down".to_owned(),
        };
        Err(StoreError::Unavailable { path: self.sqlite.path.clone(), detail: why })
    }

    /// Undoes what the turn did.
    pub(crate) async fn rollback(mut self) {
        if let Err(e) = self.writer().settle_savepoint().await {
            self.failure(e);
        }
        self.end();
    }

    /// Gives the turn to the next, and sees to it that the group is flushed.
    fn end(&mut self) {
        let Some(mut writer) = self.writer.take() else { return };
        if writer.phase != Phase::Closed && !writer.flush_asked {
            writer.flush_asked = true;
            let sqlite = self.sqlite.clone();
            self.sqlite.runtime.spawn(async move {
                let mut writer = sqlite.writer.lock().await;
                flush(&sqlite, &mut writer).await;
            });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads and writes of a turn that can only fail with the database.
macro_rules! turns {
    ($(async fn $name:ident $(<$a:ident>)? (&mut self $(, $arg:ident: $type:ty)*) -> $out:ty = $module:ident;)*) => {
        impl Turn {$(
            pub(crate) async fn $name$(<$a: Aggregate>)?(&mut self $(, $arg: $type)*) -> Result<$out, StoreError> {
                let done = $module::$name$(::<$a>)?(self.connection()? $(, $arg)*).await;
                done.map_err(|e| self.failure(e))
            }
        )*}
    };
}

turns! {
    async fn get<A>(&mut self, key: &A::Key) -> Option<Stored<A>> = objects;
    async fn tenant_by(&mut self, field: TenantField, value: &str) -> Option<Stored<Tenant>> = objects;
    async fn insert_changes(&mut self, number: u64, changes: &[Change]) -> () = audit;
    async fn insert_audit(&mut self, entry: &AuditEntry, summary: &str) -> () = audit;
    async fn add_want(&mut self, name: &str, bulk: bool, now_ms: i64) -> () = certificates;
    async fn drop_want(&mut self, name: &str) -> Option<Fingerprint> = certificates;
    async fn is_fingerprint_wanted(&mut self, fingerprint: &Fingerprint) -> bool = certificates;
    async fn want_issued(&mut self, want: &CertificateWant, about: &CertificateRef, renew_at_ms: i64) -> bool = certificates;
    async fn certificate_want(&mut self, name: &str) -> Option<CertificateWant> = certificates;
    async fn set_certificate_issuer(&mut self, name: &str, issuer: &str, now_ms: i64) -> () = acme;
    async fn set_certificate_ca(&mut self, name: &str, ca: &CaId, now_ms: i64) -> () = acme;
    async fn open_acme_order(&mut self, order: &AcmeOrder) -> bool = acme;
    async fn save_acme_order(&mut self, order: &AcmeOrder) -> () = acme;
    async fn close_acme_order(&mut self, name: &str, ca: &CaId, result: &str) -> () = acme;
    async fn acme_order(&mut self, name: &str) -> Option<AcmeOrder> = acme;
    async fn serve_tenant(&mut self, tenant: &str, now_ms: i64) -> () = acme;
    async fn acme_failed(&mut self, name: &str, why: &Setback, next_ms: i64) -> () = acme;
    async fn acme_waits(&mut self, name: &str, why: &Setback, next_ms: i64) -> () = acme;
    async fn wake_waiting(&mut self, name: &str, now_ms: i64) -> () = acme;
    async fn save_renewal(&mut self, name: &str, window: Option<&RenewalWindow>, ask_ms: i64, renew_ms: i64) -> () = acme;
    async fn save_acme_credentials(&mut self, credentials: &AcmeCredentials) -> () = acme;
    async fn acme_authorities(&mut self) -> Vec<(CaId, AuthorityHealth)> = acme;
    async fn save_acme_authority(&mut self, ca: &CaId, health: &AuthorityHealth) -> () = acme;
    async fn acme_bucket(&mut self, ca: &CaId, name: &str, subject: &str) -> Option<Bucket> = acme;
    async fn save_acme_bucket(&mut self, bucket: &Bucket) -> () = acme;
    async fn acme_failures(&mut self, ca: &CaId, name: &str, since_ms: i64) -> Vec<i64> = acme;
    async fn count_acme_failure(&mut self, ca: &CaId, name: &str, now_ms: i64, since_ms: i64) -> () = acme;
    async fn want_failed(&mut self, want: &CertificateWant, error: &str, next_attempt_ms: i64) -> bool = certificates;
    async fn want_instead(&mut self, fingerprint: &Fingerprint, now_ms: i64) -> () = uploads;
    async fn add_upload(&mut self, fingerprint: &Fingerprint, names: &[String]) -> () = uploads;
    async fn forget_upload(&mut self, fingerprint: &Fingerprint) -> () = uploads;
    async fn uploads_of(&mut self, name: &str) -> Vec<Fingerprint> = uploads;
    async fn insert_revocation(&mut self, revocation: &Revocation) -> () = uploads;
    async fn revocation_done(&mut self, fingerprint: &Fingerprint, now_ms: i64) -> bool = uploads;
    async fn revocation_failed(&mut self, fingerprint: &Fingerprint, error: &str) -> bool = uploads;
    async fn want_now(&mut self, name: &str, now_ms: i64) -> bool = certificates;
    async fn take_lease(&mut self, name_and_holder: (&str, &str), now_ms: i64, expires_at_ms: i64) -> Option<Lease> = leases;
    async fn renew_lease(&mut self, lease: &Lease, now_ms: i64, expires_at_ms: i64) -> bool = leases;
    async fn release_lease(&mut self, lease: &Lease) -> bool = leases;
    async fn is_lease_held(&mut self, lease: &Lease) -> bool = leases;
    async fn delete_token(&mut self, id: &str) -> bool = records;
    async fn set_note(&mut self, key: &str, value: &str) -> () = records;
    async fn save_node(&mut self, node: &NodeRecord) -> () = records;
    async fn save_key_fetch(&mut self, fetch: &KeyFetch) -> () = records;
    async fn ignore_host(&mut self, host: &IgnoredHost) -> () = records;
    async fn heed_host(&mut self, name: &DomainName) -> bool = records;
    async fn forget_answers(&mut self, before_ms: i64) -> () = records;
    async fn insert_event(&mut self, event: &NewEvent) -> () = events;
    async fn forget_events(&mut self, before_ms: i64) -> () = events;
    async fn publish_txt(&mut self, name: &str, value: &str, expires_at_ms: i64) -> () = dns_txt;
    async fn withdraw_txt(&mut self, name: &str, value: &str) -> bool = dns_txt;
    async fn forget_txt(&mut self, before_ms: i64) -> () = dns_txt;
    async fn domain_check(&mut self, name: &DomainName) -> Option<DomainCheck> = domain_checks;
    async fn save_domain_check(&mut self, check: &DomainCheck) -> bool = domain_checks;
    async fn follow_domains(&mut self, changes: &[Change], now_ms: i64) -> () = domain_checks;
    async fn domain_transfer(&mut self, name: &DomainName) -> Option<DomainTransfer> = domain_checks;
    async fn save_domain_transfer(&mut self, transfer: &DomainTransfer) -> () = domain_checks;
    async fn drop_domain_transfer(&mut self, name: &DomainName) -> bool = domain_checks;
    async fn released_name(&mut self, name: &DomainName, now_ms: i64) -> Option<ReleasedName> = domain_checks;
    async fn keep_released_name(&mut self, released: &ReleasedName) -> () = domain_checks;
    async fn drop_released_name(&mut self, name: &DomainName) -> bool = domain_checks;
    async fn forget_released_names(&mut self, before_ms: i64) -> () = domain_checks;
    async fn count_usage(&mut self, flush: &schoolgate_config::usage::UsageFlush, now_ms: i64) -> bool = usage;
    async fn save_app_reports(&mut self, reports: &[crate::AppReport]) -> () = app_reports;
    async fn forget_usage(&mut self, now_ms: i64) -> bool = usage;
    async fn operation(&mut self, id: OperationId) -> Option<Operation> = operations;
    async fn unfinished_operation(&mut self, tenant: TenantId) -> Option<Operation> = operations;
    async fn insert_operation(&mut self, operation: &Operation) -> () = operations;
    async fn save_operation(&mut self, operation: &Operation) -> () = operations;
    async fn cancel_operation(&mut self, id: OperationId) -> bool = operations;
    async fn instance_at(&mut self, pool: &PoolId, address: &BackendAddress) -> Option<crate::Instance> = instances;
    async fn save_instance(&mut self, instance: &crate::Instance) -> () = instances;
    async fn forget_instance(&mut self, pool: &PoolId, address: &BackendAddress) -> () = instances;
}

impl Turn {
    pub(crate) async fn list<A: Aggregate>(&mut self, query: &ListQuery) -> Result<Page<Stored<A>>, StoreError> {
        objects::check_filters(A::KIND, query)?;
        let done = objects::list(self.connection()?, query).await;
        done.map_err(|e| self.failure(e))
    }

    pub(crate) async fn count<A: Aggregate>(&mut self, query: &ListQuery) -> Result<u64, StoreError> {
        objects::check_filters(A::KIND, query)?;
        let done = objects::count::<A>(self.connection()?, query).await;
        done.map_err(|e| self.failure(e))
    }

    pub(crate) async fn insert(&mut self, object: &Object, version: u64, now_ms: i64) -> Result<(), StoreError> {
        let done = objects::insert(self.connection()?, object, version, now_ms).await;
        done.map_err(|e| objects::taken(object, &e).unwrap_or_else(|| self.failure(e)))
    }

    /// Gives the time the object was made.
    pub(crate) async fn update(
        &mut self,
        object: &Object,
        expected: Option<u64>,
        version: u64,
        now_ms: i64,
    ) -> Result<i64, StoreError> {
        let done = objects::update(self.connection()?, object, expected, version, now_ms).await;
        match done {
            Ok(Some(created_at_ms)) => Ok(created_at_ms),
            Ok(None) => Err(self.why_untouched(object.key(), expected).await),
            Err(e) => Err(objects::taken(object, &e).unwrap_or_else(|| self.failure(e))),
        }
    }

    pub(crate) async fn delete(&mut self, key: &ObjectKey, expected: Option<u64>) -> Result<(), StoreError> {
        let done = objects::delete(self.connection()?, key, expected).await;
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.why_untouched(key.clone(), expected).await),
            Err(e) => Err(self.failure(e)),
        }
    }

    /// Why an object was not touched: it is not there, or at another version.
    async fn why_untouched(&mut self, object: ObjectKey, expected: Option<u64>) -> StoreError {
        let found = match self.connection() {
            Ok(connection) => objects::version(connection, &object).await,
            Err(e) => return e,
        };
        match (found, expected) {
            (Ok(Some(found)), Some(expected)) => StoreError::Stale { object, expected, found },
            (Ok(_), _) => StoreError::NotFound { object },
            (Err(e), _) => self.failure(e),
        }
    }

    pub(crate) async fn insert_token(&mut self, token: &Token) -> Result<(), StoreError> {
        let done = records::insert_token(self.connection()?, token).await;
        self.unless_exists(done, || format!("the token {}", token.id))
    }

    pub(crate) async fn insert_answer(&mut self, answer: &StoredAnswer) -> Result<(), StoreError> {
        let done = records::insert_answer(self.connection()?, answer).await;
        self.unless_exists(done, || format!("an answer under the Idempotency-Key `{}`", answer.key))
    }

    pub(crate) async fn insert_revision(
        &mut self,
        record: &RevisionRecord,
        delta: &[u8],
        kept: u64,
    ) -> Result<(), StoreError> {
        let done = revisions::insert_revision(self.connection()?, record, delta).await;
        self.unless_exists(done, || format!("the revision {}", record.revision))?;
        let done = revisions::forget_deltas(self.connection()?, signed(record.revision.0.saturating_sub(kept))).await;
        done.map_err(|e| self.failure(e))
    }

    fn unless_exists<T>(
        &mut self,
        done: Result<T, sqlx::Error>,
        what: impl FnOnce() -> String,
    ) -> Result<T, StoreError> {
        done.map_err(|e| match &e {
            sqlx::Error::Database(d) if d.is_unique_violation() => StoreError::Exists { what: what() },
            _ => self.failure(e),
        })
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::time::SystemClock;
    use serde_json::json;

    use super::*;
    use crate::{Actor, OpenMode, Transaction};

    #[tokio::test]
    async fn a_failure_of_the_database_undoes_the_group_and_tells_each_of_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite://{}", directory.path().join("control.db").display());
        let sqlite = Arc::new(Sqlite::open(&url, OpenMode::Create, Arc::new(SystemClock)).await.expect("opens"));
        let begin = || Transaction::begin(sqlite.clone(), Actor::system("test"));
        let commit = |transaction: Transaction| transaction.commit("test", "test", json!(null));
        commit(begin().await.expect("begins")).await.expect("commits");

        let first = begin().await.expect("begins");
        // The second waits already when the first commits, so they are one group; there the disk fills up.
        let second = tokio::spawn({
            let sqlite = sqlite.clone();
            async move {
                let mut turn = Turn::take(sqlite).await.expect("begins");
                turn.failure(sqlite_full());
                let why = turn.commit(None).await;
                assert!(matches!(why, Err(StoreError::Unavailable { .. })), "{why:?}");
            }
        });
        tokio::task::yield_now().await;
        match commit(first).await {
            Err(StoreError::Unavailable { detail, .. }) => assert!(detail.contains("full"), "{detail}"),
            other => panic!("{other:?}"),
        }
        second.await.expect("joins");
        assert_eq!(sqlite.head().change, 1);
        assert_eq!(commit(begin().await.expect("begins")).await.expect("commits").change, 2);
        assert_eq!(sqlite.verify_audit().await.expect("reads"), Ok(2));
    }

    fn sqlite_full() -> sqlx::Error {
        sqlx::Error::Io(std::io::Error::other("database or disk is full"))
    }
}
