//! One transaction: what an operator's request writes, all of it or nothing.

use std::sync::Arc;

use serde_json::Value;

use schoolgate_config::model::{Certificate, DomainName, Fingerprint, Slug, Tenant};
use schoolgate_config::snapshot::{Change, Object, ObjectKey};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::usage::UsageFlush;

use crate::aggregate::{Aggregate, ListQuery, Page, Stored};
use crate::audit;
use crate::check::{DomainCheck, DomainTransfer, ReleasedName};
use crate::error::StoreError;
use crate::event::NewEvent;
use crate::head::Head;
use crate::records::{
    Actor, AppReport, AuditEntry, CertificateWant, Committed, CommittedChanges, IgnoredHost, KeyFetch, NodeRecord,
    RevisionRecord, StoredAnswer, Token,
};
use crate::revocation::{Revocation, RevocationReason, RevocationState};
use crate::sqlite::{Advance, Sqlite, TenantField, Turn};
use crate::wanted::{changed_hands, wanted_names};

/// What an operator's request writes, all of it or nothing. Dropping it undoes it.
pub struct Transaction {
    pub(crate) turn: Turn,
    actor: Actor,
    pub(crate) now_ms: i64,
    changes: Vec<Change>,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("actor", &self.actor).field("changes", &self.changes.len()).finish()
    }
}

impl Transaction {
    pub(crate) async fn begin(sqlite: Arc<Sqlite>, actor: Actor) -> Result<Self, StoreError> {
        let now_ms = sqlite.now_ms();
        Ok(Self { turn: Turn::take(sqlite).await?, actor, now_ms, changes: Vec::new() })
    }

    /// The number the change will have when it commits: the version of all it writes.
    pub fn number(&self) -> u64 {
        self.turn.head().change + 1
    }

    /// The time of all it writes, milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Everything committed before this transaction. What it has written itself is not in here.
    pub fn table(&self) -> &RoutingTable {
        &self.turn.head().table
    }

    /// What it has done to objects so far.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// One object, as this transaction left it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn get<A: Aggregate>(&mut self, key: &A::Key) -> Result<Option<Stored<A>>, StoreError> {
        self.turn.get(key).await
    }

    /// A tenant by its slug, as this transaction left it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn tenant_by_slug(&mut self, slug: &Slug) -> Result<Option<Stored<Tenant>>, StoreError> {
        self.turn.tenant_by(TenantField::Slug, slug.as_str()).await
    }

    /// A part of the objects of a kind, as this transaction left them.
    ///
    /// # Errors
    /// [`StoreError::Filter`], [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn list<A: Aggregate>(&mut self, query: &ListQuery) -> Result<Page<Stored<A>>, StoreError> {
        self.turn.list(query).await
    }

    /// How many objects of a kind a query would list, as this transaction left them.
    ///
    /// # Errors
    /// [`StoreError::Filter`], [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn count<A: Aggregate>(&mut self, query: &ListQuery) -> Result<u64, StoreError> {
        self.turn.count::<A>(query).await
    }

    /// Makes an object.
    ///
    /// # Errors
    /// [`StoreError::Taken`] names the field whose value another object has.
    pub async fn insert<A: Aggregate>(&mut self, value: A) -> Result<Stored<A>, StoreError> {
        let (version, now) = (self.number(), self.now_ms);
        let object: Object = value.clone().into();
        self.turn.insert(&object, version, now).await?;
        self.changes.push(Change::Put(object));
        Ok(Stored { value, version, created_at_ms: now, updated_at_ms: now })
    }

    /// Replaces an object; if `expected` is given, only when it is at that version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Stale`], [`StoreError::Taken`].
    pub async fn update<A: Aggregate>(&mut self, value: A, expected: Option<u64>) -> Result<Stored<A>, StoreError> {
        let (version, now) = (self.number(), self.now_ms);
        let object: Object = value.clone().into();
        let created_at_ms = self.turn.update(&object, expected, version, now).await?;
        self.changes.push(Change::Put(object));
        Ok(Stored { value, version, created_at_ms, updated_at_ms: now })
    }

    /// Removes an object; if `expected` is given, only when it is at that version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Stale`].
    pub async fn delete<A: Aggregate>(&mut self, key: &A::Key, expected: Option<u64>) -> Result<(), StoreError> {
        let key = A::object_key(key);
        self.turn.delete(&key, expected).await?;
        self.changes.push(Change::Remove(key));
        Ok(())
    }

    /// Whether the state after a commit would hold together: what [`Self::commit`] checks, for a dry run.
    ///
    /// # Errors
    /// [`StoreError::Violations`] with all of them.
    pub fn check(&self) -> Result<(), StoreError> {
        self.turn.head().with(self.number(), &self.changes)?;
        Ok(())
    }

    /// Keeps a certificate that was issued for a wanted name, in place of the one before. `renew_at_ms` is when the
    /// worker looks again. Says `false`, and writes nothing, when the want went or another worker was first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn certificate_issued(
        &mut self,
        want: &CertificateWant,
        certificate: Certificate,
        renew_at_ms: i64,
    ) -> Result<bool, StoreError> {
        let fingerprint = certificate.about.fingerprint;
        if !self.turn.want_issued(want, &certificate.about, renew_at_ms).await? {
            return Ok(false);
        }
        if self.turn.get::<Certificate>(&fingerprint).await?.is_none() {
            self.insert(certificate).await?;
        }
        if let Some(old) = want.fingerprint.filter(|old| *old != fingerprint) {
            self.drop_certificate(&old).await?;
        }
        Ok(true)
    }

    /// Keeps a certificate that an operator brought: it serves the names it says, which must belong to whom it is for.
    /// It goes with the first of them that changes hands.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when it is here already.
    pub async fn upload_certificate(&mut self, certificate: Certificate) -> Result<Stored<Certificate>, StoreError> {
        let stored = self.insert(certificate).await?;
        let about = &stored.value.about;
        self.turn.add_upload(&about.fingerprint, &about.names).await?;
        Ok(stored)
    }

    /// Removes a certificate that an operator brought.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn remove_upload(&mut self, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        self.turn.forget_upload(fingerprint).await?;
        self.delete::<Certificate>(fingerprint, None).await
    }

    /// Takes a certificate out of service for good. Names that it was issued for want another at once. Its CA is to be
    /// told if it speaks ACME: [`crate::Store::revocations_requested`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn revoke_certificate(
        &mut self,
        fingerprint: &Fingerprint,
        reason: RevocationReason,
    ) -> Result<Revocation, StoreError> {
        let missing = || StoreError::NotFound { object: ObjectKey::Certificate(*fingerprint) };
        let certificate = self.turn.get::<Certificate>(fingerprint).await?.ok_or_else(missing)?.value;
        let at_ms = self.now_ms;
        let state = if certificate.about.issuer == ACME {
            RevocationState::Requested { error: None }
        } else {
            RevocationState::Done { at_ms }
        };
        let revocation = Revocation {
            fingerprint: *fingerprint,
            issuer: certificate.about.issuer,
            names: certificate.about.names,
            reason,
            state,
            leaf: certificate.chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default(),
            at_ms,
            actor: self.actor.name.clone(),
        };
        self.turn.insert_revocation(&revocation).await?;
        self.turn.want_instead(fingerprint, at_ms).await?;
        self.remove_upload(fingerprint).await?;
        Ok(revocation)
    }

    /// Notes that an attempt for a wanted name failed, and when to try again. Says `false` when the want went or
    /// another worker was first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn certificate_failed(
        &mut self,
        want: &CertificateWant,
        error: &str,
        next_attempt_ms: i64,
    ) -> Result<bool, StoreError> {
        self.turn.want_failed(want, error, next_attempt_ms).await
    }

    /// Asks for another attempt for a wanted name, now. Says whether the name is wanted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn retry_certificate(&mut self, name: &str) -> Result<bool, StoreError> {
        self.turn.want_now(name, self.now_ms).await
    }

    /// Records an event with what this transaction writes: both are kept, or neither.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn record_event(&mut self, event: &NewEvent) -> Result<(), StoreError> {
        self.turn.insert_event(event).await
    }

    /// Lets our DNS responder answer a TXT value for a name, until `expires_at_ms` (milliseconds since 1970) or until
    /// it is withdrawn. A name may have several values at once. Case and a final dot of the name do not matter.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn publish_txt(&mut self, name: &str, value: &str, expires_at_ms: i64) -> Result<(), StoreError> {
        self.turn.publish_txt(&canonical(name), value, expires_at_ms).await
    }

    /// Takes a TXT value back. Says whether it was there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn withdraw_txt(&mut self, name: &str, value: &str) -> Result<bool, StoreError> {
        self.turn.withdraw_txt(&canonical(name), value).await
    }

    /// How the checks of a domain stand.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn domain_check(&mut self, name: &DomainName) -> Result<Option<DomainCheck>, StoreError> {
        self.turn.domain_check(name).await
    }

    /// Saves what a check found. Says `false`, and writes nothing, when the domain went or another check was first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_domain_check(&mut self, check: &DomainCheck) -> Result<bool, StoreError> {
        let saved = self.turn.save_domain_check(check).await?;
        if saved {
            // An order may have waited for just this.
            self.turn.wake_waiting(check.name.as_str(), self.now_ms).await?;
        }
        Ok(saved)
    }

    /// The tenant that asks for a domain.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn domain_transfer(&mut self, name: &DomainName) -> Result<Option<DomainTransfer>, StoreError> {
        self.turn.domain_transfer(name).await
    }

    /// Remembers that a tenant asks for a domain, in the place of any before it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_domain_transfer(&mut self, transfer: &DomainTransfer) -> Result<(), StoreError> {
        self.turn.save_domain_transfer(transfer).await
    }

    /// Forgets that a tenant asks for a domain. Says whether one did.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn drop_domain_transfer(&mut self, name: &DomainName) -> Result<bool, StoreError> {
        self.turn.drop_domain_transfer(name).await
    }

    /// Whose a name was, if that is not long ago.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn released_name(&mut self, name: &DomainName) -> Result<Option<ReleasedName>, StoreError> {
        self.turn.released_name(name, self.now_ms).await
    }

    /// Remembers whose a name was.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn keep_released_name(&mut self, released: &ReleasedName) -> Result<(), StoreError> {
        self.turn.keep_released_name(released).await
    }

    /// Forgets whose a name was. Says whether that was remembered.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn drop_released_name(&mut self, name: &DomainName) -> Result<bool, StoreError> {
        self.turn.drop_released_name(name).await
    }

    /// Keeps what was written beside the objects (checks, events, transfers): no number, no audit.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    ///
    /// # Panics
    /// When an object was changed: such a change is numbered, by [`Self::commit`].
    pub async fn commit_records(self) -> Result<(), StoreError> {
        assert!(self.changes.is_empty(), "a change of objects has a number");
        self.finish().await
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when its id is taken.
    pub async fn insert_token(&mut self, token: &Token) -> Result<(), StoreError> {
        self.turn.insert_token(token).await
    }

    /// Removes a token. Says whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn delete_token(&mut self, id: &str) -> Result<bool, StoreError> {
        self.turn.delete_token(id).await
    }

    /// Remembers that nobody wants to be told of a host. Remembering it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn ignore_host(&mut self, host: &IgnoredHost) -> Result<(), StoreError> {
        self.turn.ignore_host(host).await
    }

    /// Forgets that nobody wants to be told of a host. Says whether that was so.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn heed_host(&mut self, name: &DomainName) -> Result<bool, StoreError> {
        self.turn.heed_host(name).await
    }

    /// Keeps the answer to the request that this transaction serves, under its Idempotency-Key.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is one already: drop this transaction and give [`crate::Store::answer`].
    pub async fn remember_answer(&mut self, answer: &StoredAnswer) -> Result<(), StoreError> {
        self.turn.insert_answer(answer).await
    }

    /// Keeps a fact about this installation, such as that its demo schools were made once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn set_note(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        self.turn.set_note(key, value).await
    }

    /// Commits, with one line of audit: `action` such as `tenant.suspend`, `object` such as `tenant tnt_…`. Answers when
    /// it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Violations`] when the state after it would not hold together.
    pub async fn commit(mut self, action: &str, object: &str, summary: Value) -> Result<Committed, StoreError> {
        let number = self.number();
        let head = self.settle(number).await?;
        let previous = self.turn.audit_hash();
        let summary_text = summary.to_string();
        let mut entry = AuditEntry {
            number,
            at_ms: self.now_ms,
            actor: self.actor.name,
            via: self.actor.via,
            request_id: self.actor.request_id,
            client_ip: self.actor.client_ip.map(|ip| ip.to_string()),
            action: action.to_owned(),
            object: object.to_owned(),
            summary,
            previous_hash: hex::encode(previous),
            hash: String::new(),
        };
        let hash = audit::hash(&previous, &entry, &summary_text);
        entry.hash = hex::encode(hash);
        self.turn.insert_audit(&entry, &summary_text).await?;
        if !self.changes.is_empty() {
            self.turn.follow_domains(&self.changes, self.now_ms).await?;
            self.turn.insert_changes(number, &self.changes).await?;
        }
        tracing::debug!(change = number, "change {number}: {} {} {}", entry.actor, entry.action, entry.object);
        let commit = CommittedChanges {
            number,
            actor: entry.actor,
            action: entry.action,
            object: entry.object,
            changes: self.changes,
        };
        self.turn.commit(Some(Advance { head: Arc::new(head), hash, commit })).await?;
        Ok(Committed { change: number, at_ms: self.now_ms })
    }

    /// Undoes everything.
    pub async fn rollback(self) {
        self.turn.rollback().await;
    }

    /// Checks the whole graph and brings the wanted certificates in step with it. Gives the head after the commit.
    async fn settle(&mut self, number: u64) -> Result<Head, StoreError> {
        let before = self.turn.head().clone();
        let after = before.with(number, &self.changes)?;
        let wanted = wanted_names(&before.table, &after.table, &self.changes);
        let own = self.changes.len();
        self.drop_uploads(&changed_hands(&before.table, &after.table, &self.changes)).await?;
        for name in &wanted.dropped {
            if let Some(fingerprint) = self.turn.drop_want(name).await? {
                self.drop_certificate(&fingerprint).await?;
            }
        }
        for name in &wanted.added {
            self.turn.add_want(name, wanted.added.len() > BULK, self.now_ms).await?;
        }
        for change in &self.changes[..own] {
            if let Change::Put(Object::Domain(domain)) = change {
                self.turn.wake_waiting(domain.name.as_str(), self.now_ms).await?;
            }
        }
        if own == self.changes.len() { Ok(after) } else { Ok(after.with(number, &self.changes[own..])?) }
    }

    /// Removes what operators brought for names that are no longer theirs.
    async fn drop_uploads(&mut self, names: &[String]) -> Result<(), StoreError> {
        for name in names {
            for fingerprint in self.turn.uploads_of(name).await? {
                self.remove_upload(&fingerprint).await?;
            }
        }
        Ok(())
    }

    /// Removes a certificate that a want had, unless another want has it too or someone uploaded it.
    async fn drop_certificate(&mut self, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        let Some(stored) = self.turn.get::<Certificate>(fingerprint).await? else { return Ok(()) };
        if stored.value.about.is_uploaded() || self.turn.is_fingerprint_wanted(fingerprint).await? {
            return Ok(());
        }
        self.delete::<Certificate>(fingerprint, None).await
    }

    pub(crate) async fn revocation_told(
        &mut self,
        fingerprint: &Fingerprint,
        told: Result<(), &str>,
    ) -> Result<bool, StoreError> {
        match told {
            Ok(()) => self.turn.revocation_done(fingerprint, self.now_ms).await,
            Err(error) => self.turn.revocation_failed(fingerprint, error).await,
        }
    }

    pub(crate) async fn record_revision(
        &mut self,
        record: &RevisionRecord,
        delta: &[u8],
        kept: u64,
    ) -> Result<(), StoreError> {
        self.turn.insert_revision(record, delta, kept).await
    }

    pub(crate) async fn save_node(&mut self, node: &NodeRecord) -> Result<(), StoreError> {
        self.turn.save_node(node).await
    }

    pub(crate) async fn save_key_fetch(&mut self, fetch: &KeyFetch) -> Result<(), StoreError> {
        self.turn.save_key_fetch(fetch).await
    }

    pub(crate) async fn forget_events(&mut self, before_ms: i64) -> Result<(), StoreError> {
        self.turn.forget_events(before_ms).await
    }

    pub(crate) async fn forget_released_names(&mut self, before_ms: i64) -> Result<(), StoreError> {
        self.turn.forget_released_names(before_ms).await
    }

    pub(crate) async fn forget_txt(&mut self, before_ms: i64) -> Result<(), StoreError> {
        self.turn.forget_txt(before_ms).await
    }

    pub(crate) async fn count_usage(&mut self, flush: &UsageFlush) -> Result<bool, StoreError> {
        self.turn.count_usage(flush, self.now_ms).await
    }

    pub(crate) async fn save_app_reports(&mut self, reports: &[AppReport]) -> Result<(), StoreError> {
        self.turn.save_app_reports(reports).await
    }

    pub(crate) async fn forget_usage(&mut self) -> Result<bool, StoreError> {
        self.turn.forget_usage(self.now_ms).await
    }

    pub(crate) async fn forget_answers(&mut self, before_ms: i64) -> Result<(), StoreError> {
        self.turn.forget_answers(before_ms).await
    }
}

/// A DNS name as TXT values are kept under. Not a [`DomainName`]: `_acme-challenge.schools.example` is none.
pub(crate) fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The issuer of a certificate from a CA that speaks ACME.
const ACME: &str = "acme";

/// More names than this in one change are an import: nobody waits for each of them.
const BULK: usize = 20;
