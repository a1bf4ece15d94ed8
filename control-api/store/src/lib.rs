//! Persistence of the control plane: the truth of what the gateway is told to do.
//!
//! A [`Store`] keeps objects ([`Aggregate`]: tenants, domains, …), an audit of every commit, published revisions, and a
//! few records beside them. One [`Transaction`] is one audit line and one change number; nothing is written in any
//! other way. The life of a transaction:
//!
//! 1. [`Store::begin`] waits for its turn: there is one writer at a time, in this process and beside it.
//! 2. [`Transaction::insert`], [`update`](Transaction::update), [`delete`](Transaction::delete), …
//! 3. [`Transaction::commit`] checks the whole graph with the change applied to the [`Head`], settles which names need
//!    a certificate ([`CertificateWant`]), writes the audit line and the changes, and answers when they are on disk.
//!    Transactions that were waiting meanwhile share one write to the disk.
//! 4. [`Store::committed`] tells the publisher and the certificate worker to look.
//!
//! SQL is in a private module; no type of it is seen outside.

pub mod acme;
mod aggregate;
mod audit;
mod check;
#[cfg(test)]
mod contract;
mod error;
mod event;
mod head;
mod instances;
pub mod lease;
mod operations;
mod recent;
mod records;
mod revocation;
mod sqlite;
mod transaction;
mod usage;
mod wanted;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use schoolgate_config::model::{DomainName, Fingerprint, Plan, Revision, Slug, Tenant, TenantId, Zone};
use schoolgate_config::snapshot::Object;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_config::usage::{QuotaUse, UsageFlush, UsagePart, UsageTaken};

pub use aggregate::{Aggregate, ListQuery, Page, Stored};
pub use audit::AuditBroken;
pub use check::{DomainCheck, DomainTransfer, Hindered, Hindrance, OrderFacts, ReleasedName};
pub use error::StoreError;
pub use event::{EVENTS_KEPT_MS, Event, EventQuery, NewEvent};
pub use head::Head;
pub use instances::Instance;
pub use lease::{Lease, LeaseRecord};
pub use operations::{Operation, OperationId, OperationQuery, OperationState};
pub use records::{
    Actor, AppReport, AuditEntry, AuditQuery, CertificateWant, Committed, CommittedChanges, IgnoredHost, KeyFetch,
    NodeRecord, RevisionRecord, StoredAnswer, Token, TokenKind, WantState,
};
pub use revocation::{Revocation, RevocationReason, RevocationState};
pub use transaction::Transaction;
pub use usage::{TotalsQuery, UsagePeak, UsageQuery, UsageTotal};

/// Whether [`Store::open`] makes a database where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Make one, empty.
    Create,
    /// Refuse with [`StoreError::Absent`].
    Existing,
}

/// The store. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Store {
    sqlite: Arc<sqlite::Sqlite>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.sqlite.path()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store at `url` (`sqlite:///path/control.db`), brings it to this release's schema and reads all objects.
    /// Must be called within a tokio runtime that outlives the store.
    ///
    /// # Errors
    /// [`StoreError::Absent`], [`StoreError::Url`], [`StoreError::Newer`], [`StoreError::Corrupt`] and
    /// [`StoreError::Unavailable`] name the file and how to mend it.
    pub async fn open(url: &str, mode: OpenMode) -> Result<Self, StoreError> {
        Self::open_at(url, mode, Arc::new(SystemClock)).await
    }

    /// [`Self::open`] with a clock of the caller's.
    ///
    /// # Errors
    /// The same.
    pub async fn open_at(url: &str, mode: OpenMode, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Ok(Self { sqlite: Arc::new(sqlite::Sqlite::open(url, mode, clock).await?) })
    }

    /// Gives a store without any commit what every installation begins with: the catalogue of plans and these zones.
    /// Does nothing to a store that has been written to. Says whether it did something.
    ///
    /// # Errors
    /// [`StoreError::Violations`] when the zones do not hold together; otherwise as [`Self::begin`].
    pub async fn seed(&self, zones: Vec<Zone>) -> Result<bool, StoreError> {
        let mut transaction = self.begin(Actor::system("first-start")).await?;
        if transaction.number() > 1 {
            transaction.rollback().await;
            return Ok(false);
        }
        for plan in Plan::catalogue() {
            transaction.insert(plan).await?;
        }
        for zone in zones {
            transaction.insert(zone).await?;
        }
        transaction.commit("store.seed", "store", serde_json::Value::Null).await?;
        Ok(true)
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        self.sqlite.path()
    }

    /// Begins a transaction, when those before it are done. Hold it for reads and writes of this store only: nothing
    /// else is written meanwhile. Dropping it undoes it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database is held by another process for more than five seconds.
    pub async fn begin(&self, actor: Actor) -> Result<Transaction, StoreError> {
        Transaction::begin(self.sqlite.clone(), actor).await
    }

    /// Everything that is committed, as this process last saw it: objects compiled to a table, without waiting.
    pub fn head(&self) -> Arc<Head> {
        self.sqlite.head()
    }

    /// Brings [`Self::head`] up to what other processes have committed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn refresh(&self) -> Result<Arc<Head>, StoreError> {
        self.sqlite.refresh().await
    }

    /// The number of the last change committed by this process; a receiver is told of the next.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.sqlite.committed()
    }

    /// Has everyone in this process who waits for commits look again: something changed that is no change of an object.
    pub fn look_again(&self) {
        self.sqlite.look_again();
    }

    /// One object.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn get<A: Aggregate>(&self, key: &A::Key) -> Result<Option<Stored<A>>, StoreError> {
        self.sqlite.get(key).await
    }

    /// A tenant by its slug.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn tenant_by_slug(&self, slug: &Slug) -> Result<Option<Stored<Tenant>>, StoreError> {
        self.sqlite.tenant_by(sqlite::TenantField::Slug, slug.as_str()).await
    }

    /// A tenant by the operator's own reference.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn tenant_by_external_id(&self, external_id: &str) -> Result<Option<Stored<Tenant>>, StoreError> {
        self.sqlite.tenant_by(sqlite::TenantField::ExternalId, external_id).await
    }

    /// A part of the objects of a kind, in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError::Filter`] for a filter that the kind does not have; [`StoreError::Unavailable`],
    /// [`StoreError::Corrupt`].
    pub async fn list<A: Aggregate>(&self, query: &ListQuery) -> Result<Page<Stored<A>>, StoreError> {
        self.sqlite.list(query).await
    }

    /// How many objects of a kind a query would list in all.
    ///
    /// # Errors
    /// The same as [`Self::list`].
    pub async fn count<A: Aggregate>(&self, query: &ListQuery) -> Result<u64, StoreError> {
        self.sqlite.count::<A>(query).await
    }

    /// All objects and the number of the last change in them, read in one go.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn everything(&self) -> Result<(u64, Vec<Object>), StoreError> {
        self.sqlite.everything().await
    }

    /// Names that need attention at `now_ms`: waiting, due for another attempt, or due for renewal; the longest due first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn certificates_due(&self, now_ms: i64, limit: u32) -> Result<Vec<CertificateWant>, StoreError> {
        self.sqlite.certificates_due(now_ms, limit).await
    }

    /// When the next name needs attention, milliseconds since 1970.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn next_certificate_due(&self) -> Result<Option<i64>, StoreError> {
        self.sqlite.next_certificate_due().await
    }

    /// Where the certificate for a name (exact, or `*.zone`) stands; `None` when none is wanted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn certificate_want(&self, name: &str) -> Result<Option<CertificateWant>, StoreError> {
        self.sqlite.certificate_want(name).await
    }

    /// Names that need a certificate, in alphabetical order, those after `after`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn certificate_wants(&self, after: Option<&str>, limit: u32) -> Result<Vec<CertificateWant>, StoreError> {
        self.sqlite.certificate_wants(after, limit).await
    }

    /// The names that certificates serve which operators brought, each with its certificate, in alphabetical order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn uploaded_names(&self) -> Result<Vec<(String, Fingerprint)>, StoreError> {
        self.sqlite.uploaded_names().await
    }

    /// How and why a certificate was revoked, if it was.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn revocation(&self, fingerprint: &Fingerprint) -> Result<Option<Revocation>, StoreError> {
        self.sqlite.revocation(fingerprint).await
    }

    /// Revoked certificates whose CA is still to be told, the oldest first. Whoever orders from that CA tells it, and
    /// then [`Self::revocation_told`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn revocations_requested(&self, limit: u32) -> Result<Vec<Revocation>, StoreError> {
        self.sqlite.revocations_requested(limit).await
    }

    /// The CA of a revoked certificate was told, or why that failed. Says whether it was still to be told.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn revocation_told(&self, fingerprint: &Fingerprint, told: Result<(), &str>) -> Result<bool, StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("acme")).await?;
        let open = transaction.revocation_told(fingerprint, told).await?;
        transaction.finish().await?;
        Ok(open)
    }

    /// How many names are in each state.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn certificate_counts(&self) -> Result<Vec<(WantState, u64)>, StoreError> {
        self.sqlite.certificate_counts().await
    }

    /// Lines of the audit, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
        self.sqlite.audit(query).await
    }

    /// Whether every line of the audit has the hash that follows from its content and the line before, and none is
    /// missing. The inner result says how many lines there are, or where it breaks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn verify_audit(&self) -> Result<Result<u64, AuditBroken>, StoreError> {
        self.sqlite.verify_audit().await
    }

    /// What the commits after `after` did to objects, at most `limit` of them, oldest first. Commits that touched none
    /// are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn changes_after(&self, after: u64, limit: u32) -> Result<Vec<CommittedChanges>, StoreError> {
        self.sqlite.changes_between(after, u64::MAX >> 1, limit).await
    }

    /// What the commits of a revision did to objects, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn changes_of(&self, revision: &RevisionRecord) -> Result<Vec<CommittedChanges>, StoreError> {
        let (from, to) = (revision.change_from.saturating_sub(1), revision.change_to);
        self.sqlite.changes_between(from, to, u32::MAX).await
    }

    /// The last published revision.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn last_revision(&self) -> Result<Option<RevisionRecord>, StoreError> {
        Ok(self.revisions(None, 1).await?.into_iter().next())
    }

    /// Published revisions, newest first, those before `before`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn revisions(&self, before: Option<Revision>, limit: u32) -> Result<Vec<RevisionRecord>, StoreError> {
        self.sqlite.revisions(before, limit).await
    }

    /// One published revision.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn revision(&self, revision: Revision) -> Result<Option<RevisionRecord>, StoreError> {
        let found = self.revisions(Some(revision.next()), 1).await?;
        Ok(found.into_iter().next().filter(|r| r.revision == revision))
    }

    /// The first published revision that holds a change; `None` when it is not published.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn revision_of(&self, change: u64) -> Result<Option<Revision>, StoreError> {
        self.sqlite.revision_of(change).await
    }

    /// The encoded deltas of the revisions after `after`, oldest first, at most `limit`. A revision whose delta is no
    /// longer kept is left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn deltas_after(
        &self,
        after: Revision,
        limit: u32,
    ) -> Result<Vec<(RevisionRecord, Vec<u8>)>, StoreError> {
        self.sqlite.deltas_after(after, limit).await
    }

    /// Records a published revision and forgets the deltas of those that are `kept` or more before it.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when another process has published this number.
    pub async fn record_revision(&self, record: &RevisionRecord, delta: &[u8], kept: u64) -> Result<(), StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("publisher")).await?;
        transaction.record_revision(record, delta, kept).await?;
        transaction.finish().await
    }

    /// A token by the part of it that is no secret.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn token(&self, id: &str) -> Result<Option<Token>, StoreError> {
        self.sqlite.token(id).await
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.sqlite.tokens().await
    }

    /// All proxies that were ever heard of and not forgotten.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.sqlite.nodes().await
    }

    /// Keeps what proxies last said.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_nodes(&self, nodes: &[NodeRecord]) -> Result<(), StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("feed")).await?;
        for node in nodes {
            transaction.save_node(node).await?;
        }
        transaction.finish().await
    }

    /// Counts what tenants used at a proxy, each flush once: one whose number is not above the last of the same start is
    /// known already. Answers when it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`]: it is not counted, and may be sent again.
    pub async fn count_usage(&self, flush: &UsageFlush) -> Result<UsageTaken, StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("usage")).await?;
        if transaction.count_usage(flush).await? {
            transaction.finish().await?;
        } else {
            transaction.rollback().await;
        }
        let quotas = if flush.quotas.is_empty() { Vec::new() } else { self.quotas_used(&flush.quotas).await? };
        Ok(UsageTaken { number: flush.number, quotas })
    }

    /// What the fleet has used of these quotas; `used` of the question does not matter. Those never used are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn quotas_used(&self, quotas: &[QuotaUse]) -> Result<Vec<QuotaUse>, StoreError> {
        self.sqlite.quotas_used(quotas).await
    }

    /// What the fleet has used of quotas in periods that may last still, of those after `after` by tenant, quota and
    /// period.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn recent_quotas(&self, after: Option<&QuotaUse>, limit: u32) -> Result<Vec<QuotaUse>, StoreError> {
        self.sqlite.recent_quotas(self.sqlite.now_ms(), after, limit).await
    }

    /// What a tenant used, oldest first. Times without use are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsagePart>, StoreError> {
        self.sqlite.usage(query).await
    }

    /// What each tenant used in some days, those that used something.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn usage_totals(&self, query: &TotalsQuery) -> Result<Vec<UsageTotal>, StoreError> {
        self.sqlite.usage_totals(query).await
    }

    /// The busiest time of each of these tenants since `since_s` (seconds since 1970), those that used something. A minute
    /// is told of if it had more requests than the number beside the tenant.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn usage_peaks(&self, above: &[(TenantId, u64)], since_s: i64) -> Result<Vec<UsagePeak>, StoreError> {
        self.sqlite.usage_peaks(above, since_s).await
    }

    /// Keeps what instances of the app report, in the place of what they reported before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_app_reports(&self, reports: &[AppReport]) -> Result<(), StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("app")).await?;
        transaction.save_app_reports(reports).await?;
        transaction.finish().await
    }

    /// What instances of the app last reported of these tenants, those of which they did.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn app_reports(&self, tenants: &[TenantId]) -> Result<Vec<AppReport>, StoreError> {
        self.sqlite.app_reports(tenants).await
    }

    /// Forgets a piece of the usage that was kept long enough (minutes 48 h, hours 30 d, days 400 d). Says whether there
    /// may be more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn forget_usage(&self) -> Result<bool, StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("usage")).await?;
        let more = transaction.forget_usage().await?;
        transaction.finish().await?;
        Ok(more)
    }

    /// How fetching the keys of each issuer went, for those whose keys were ever fetched.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn key_fetches(&self) -> Result<Vec<KeyFetch>, StoreError> {
        self.sqlite.key_fetches().await
    }

    /// Keeps how fetching an issuer's keys went, and forgets it of issuers that are no more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_key_fetch(&self, fetch: &KeyFetch) -> Result<(), StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("token-keys")).await?;
        transaction.save_key_fetch(fetch).await?;
        transaction.finish().await
    }

    /// Hosts that nobody wants to be told of, in alphabetical order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn ignored_hosts(&self) -> Result<Vec<IgnoredHost>, StoreError> {
        self.sqlite.ignored_hosts().await
    }

    /// The answer given to a request with this Idempotency-Key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn answer(&self, actor: &str, key: &str) -> Result<Option<StoredAnswer>, StoreError> {
        self.sqlite.answer(actor, key).await
    }

    /// Forgets answers given before `before_ms`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn forget_answers(&self, before_ms: i64) -> Result<(), StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("sweep")).await?;
        transaction.forget_answers(before_ms).await?;
        transaction.finish().await
    }

    /// Records events beside any change of an operator's; see [`Transaction::record_event`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn record_events(&self, events: &[NewEvent]) -> Result<(), StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("events")).await?;
        for event in events {
            transaction.record_event(event).await?;
        }
        transaction.finish().await
    }

    /// Records one event; see [`Self::record_events`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn record_event(&self, event: NewEvent) -> Result<(), StoreError> {
        self.record_events(&[event]).await
    }

    /// Events, the last recorded first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn events(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        self.sqlite.events(query).await
    }

    /// Lets our DNS responder answer a TXT value; see [`Transaction::publish_txt`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn publish_txt(&self, name: &str, value: &str, expires_at_ms: i64) -> Result<(), StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("dns")).await?;
        transaction.publish_txt(name, value, expires_at_ms).await?;
        transaction.finish().await
    }

    /// Takes a TXT value back. Says whether it was there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn withdraw_txt(&self, name: &str, value: &str) -> Result<bool, StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("dns")).await?;
        let was_there = transaction.withdraw_txt(name, value).await?;
        transaction.finish().await?;
        Ok(was_there)
    }

    /// The TXT values that a name has now. Case and a final dot of the name do not matter.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn txt_values(&self, name: &str) -> Result<Vec<String>, StoreError> {
        self.sqlite.txt_values(&transaction::canonical(name), self.sqlite.now_ms()).await
    }

    /// Domains to look at by `now_ms`, the longest due first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn domain_checks_due(&self, now_ms: i64, limit: u32) -> Result<Vec<DomainCheck>, StoreError> {
        self.sqlite.domain_checks_due(now_ms, limit).await
    }

    /// When the next domain is to be looked at, milliseconds since 1970.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn next_domain_check(&self) -> Result<Option<i64>, StoreError> {
        self.sqlite.next_domain_check().await
    }

    /// How the checks of a domain stand.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn domain_check(&self, name: &DomainName) -> Result<Option<DomainCheck>, StoreError> {
        self.sqlite.domain_check(name).await
    }

    /// The tenant that asks for a domain.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn domain_transfer(&self, name: &DomainName) -> Result<Option<DomainTransfer>, StoreError> {
        self.sqlite.domain_transfer(name).await
    }

    /// Whose a name was, if that is not long ago.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn released_name(&self, name: &DomainName) -> Result<Option<ReleasedName>, StoreError> {
        self.sqlite.released_name(name, self.sqlite.now_ms()).await
    }

    /// Forgets events that are too old or too many, TXT values that have ended, and whose names were long ago.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn forget_events(&self) -> Result<(), StoreError> {
        let mut transaction = Transaction::begin(self.sqlite.clone(), Actor::system("sweep")).await?;
        let now_ms = transaction.now_ms();
        transaction.forget_events(now_ms - EVENTS_KEPT_MS).await?;
        transaction.forget_txt(now_ms).await?;
        transaction.forget_released_names(now_ms).await?;
        transaction.finish().await
    }

    /// A fact about this installation; see [`Transaction::set_note`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.sqlite.note(key).await
    }

    /// Waits for what is being written and closes the files. Later calls fail with [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.sqlite.close().await;
    }
}
