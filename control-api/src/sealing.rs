//! The rotation of the key-encryption key, one step after the other while everything serves.
//!
//! 1. Somebody asks for it: a note in the store.
//! 2. A new key comes to the key file as `next`. Every live proxy reads it, and says so in its reports.
//! 3. It seals from then on, and the key before still opens.
//! 4. What is sealed under that one is wrapped anew, a few records per change; proxies follow like any change, and open
//!    nothing: the private keys they hold are the same.
//! 5. When every live proxy serves that, and every control process has had time to read the key file, the key before
//!    goes, and with it all that backups of the file could open.
//!
//! How far it is, is in the key file and in the records themselves. A process that is killed anywhere goes on from there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use schoolgate_config::model::{Certificate, ClientCertificate, ContextKey, Fingerprint, KeyId, NodeId, Pool, PoolId};
use schoolgate_config::seal::{Keeper, SealError, SealedKey};
use schoolgate_config::table::RoutingTable;
use schoolgate_store::acme::{AcmeCredentials, AcmeOrder};
use schoolgate_store::{Actor, Store, StoreError};

use crate::publish::{FeedServer, Publisher};

/// It looks this often: 2 s, for what proxies report is seen no other way.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Time in which every other control process has read that another key seals, and what it had sealed before is committed:
/// 6 s, three looks. A record under a key that is gone would never open again.
const SETTLED_AFTER: Duration = Duration::from_secs(6);

/// Records wrapped anew in one change: 100, some 150 KB for each proxy. A few thousand per second are no load.
const BATCH: usize = 100;

/// Where it is noted that somebody asked.
pub(crate) const NOTE: &str = "sealing.rotation";

/// What the note says then.
pub(crate) const REQUESTED: &str = "requested";

/// Wraps anew what is sealed outside of the store's objects. Says what is in the way.
pub type Elsewhere = Arc<dyn Fn(&Keeper) -> Result<(), String> + Send + Sync>;

/// Takes a rotation forward.
pub struct SealRotation {
    store: Store,
    publisher: Publisher,
    feed: FeedServer,
    keeper: Arc<Keeper>,
    elsewhere: Elsewhere,
    /// What was last in the way, so that it is said once.
    said: Option<String>,
    settled_after: Duration,
    /// The key that seals, and since when this process knows it as that.
    sealing_since: Mutex<Option<(String, Instant)>>,
}

/// What keeps a rotation from going on.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("{what}: {source}")]
    Record { what: String, source: SealError },
    #[error("{0}")]
    Elsewhere(String),
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// There may be more to do.
    Again,
    /// There is nothing to do, or somebody else's turn.
    Wait,
}

/// Sealed records of the store that are not under the key that seals.
pub(crate) struct Left {
    pub(crate) certificates: Vec<Fingerprint>,
    pub(crate) context_keys: Vec<KeyId>,
    /// Pools with a client certificate.
    pub(crate) pools: Vec<PoolId>,
}

impl Left {
    pub(crate) fn of(table: &RoutingTable, current: &str) -> Self {
        let certificates = table.certificates().filter(|certificate| certificate.key.kek_id() != current);
        let context_keys = table.context_keys().filter(|key| key.private.kek_id() != current);
        let shown = |pool: &Pool| pool.client_certificate.as_ref().is_some_and(|set| set.key.kek_id() != current);
        Self {
            pools: table.pools().filter(|entry| shown(&entry.pool)).map(|entry| entry.pool.id.clone()).collect(),
            certificates: certificates.map(|certificate| certificate.about.fingerprint).collect(),
            context_keys: context_keys.map(|key| key.id.clone()).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.context_keys.is_empty() && self.pools.is_empty()
    }
}

/// Live proxies that cannot open with a key yet.
pub(crate) fn without_key(feed: &FeedServer, id: &str) -> Vec<NodeId> {
    let live = feed.nodes().into_iter().filter(|node| node.live);
    let has = |keys: &[String]| keys.iter().any(|key| key == id);
    live.filter(|node| !node.report.as_ref().is_some_and(|report| has(&report.sealing_keys)))
        .map(|node| node.node)
        .collect()
}

impl SealRotation {
    /// For the store that `publisher` publishes. `elsewhere` wraps anew what is sealed outside of it.
    pub fn new(publisher: Publisher, store: Store, keeper: Arc<Keeper>, elsewhere: Elsewhere) -> Self {
        let (settled_after, sealing_since) = (SETTLED_AFTER, Mutex::default());
        Self { feed: publisher.feed(), store, publisher, keeper, elsewhere, said: None, settled_after, sealing_since }
    }

    /// Works until `stop` is ready.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = self.keep_rotating() => {}
            () = stop => {}
        }
    }

    async fn keep_rotating(&mut self) {
        let mut committed = self.store.committed();
        loop {
            committed.mark_unchanged();
            match self.step().await {
                Ok(Next::Again) => {
                    self.said = None;
                    continue;
                }
                Ok(Next::Wait) => self.said = None,
                Err(error) => {
                    let text = error.to_string();
                    if self.said.as_ref() != Some(&text) {
                        tracing::error!("the key-encryption key cannot be rotated further: {text}");
                        self.said = Some(text);
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
            }
            tokio::select! {
                changed = committed.changed() => if changed.is_err() {
                    // The store is closed: there is nothing to work on.
                    return;
                },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn step(&self) -> Result<Next, StepError> {
        self.keeper.refresh()?;
        if self.store.note(NOTE).await?.as_deref() == Some(REQUESTED) {
            return self.introduce().await;
        }
        if let Some(next) = self.keeper.next_id() {
            return self.promote(&next).await;
        }
        let Some(previous) = self.keeper.previous_id() else { return Ok(Next::Wait) };
        // Before the look at what is left: what is sealed under the key before came before this.
        let is_settled = self.is_settled();
        let head = self.store.refresh().await?;
        let left = Left::of(&head.table, &self.keeper.id());
        if !left.is_empty() {
            return self.rewrap(&left).await;
        }
        if let Next::Again = self.rewrap_acme().await? {
            return Ok(Next::Again);
        }
        (self.elsewhere)(&self.keeper).map_err(StepError::Elsewhere)?;
        if is_settled { self.retire(&previous, head.change).await } else { Ok(Next::Wait) }
    }

    /// Whether nobody seals under another key than the one that seals now.
    fn is_settled(&self) -> bool {
        let current = self.keeper.id();
        let mut since = self.sealing_since.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, at) = since.get_or_insert_with(|| (current.clone(), Instant::now()));
        if *known != current {
            (*known, *at) = (current, Instant::now());
        }
        at.elapsed() >= self.settled_after
    }

    /// Says in the audit what was done to the key file.
    async fn note(&self, action: &str, id: &str) -> Result<(), StepError> {
        let mut transaction = self.store.begin(Actor::system("sealing")).await?;
        transaction.set_note(NOTE, "").await?;
        transaction.commit(action, &format!("sealing key {id}"), json!({})).await?;
        Ok(())
    }

    async fn introduce(&self) -> Result<Next, StepError> {
        // A process that was killed between the file and the note finds a next key: then only the note is left to do.
        if self.keeper.introduce()? {
            tracing::info!("a new key-encryption key is in the key file; it seals when every proxy has it");
        }
        let id = self.keeper.next_id().unwrap_or_default();
        self.note("sealing_key.introduce", &id).await?;
        Ok(Next::Again)
    }

    async fn promote(&self, next: &str) -> Result<Next, StepError> {
        // A key file that is read-only is changed by whoever wrote `next` into it.
        if !without_key(&self.feed, next).is_empty() || self.keeper.can_rotate().is_err() {
            return Ok(Next::Wait);
        }
        if self.keeper.promote()? {
            tracing::info!("the key-encryption key {next} seals from now on");
            self.note("sealing_key.promote", next).await?;
        }
        Ok(Next::Again)
    }

    async fn rewrap(&self, left: &Left) -> Result<Next, StepError> {
        let mut transaction = self.store.begin(Actor::system("sealing")).await?;
        let (mut certificates, mut context_keys, mut client_certificates, mut broken) = (0, 0, 0, None);
        for fingerprint in &left.certificates {
            if certificates >= BATCH {
                break;
            }
            let Some(stored) = transaction.get::<Certificate>(fingerprint).await? else { continue };
            let mut certificate = stored.value;
            let subject = fingerprint.to_string();
            match self.keeper.rewrap(Certificate::KEY_PURPOSE, &subject, &certificate.key) {
                Ok(Some(key)) => {
                    certificate.key = key;
                    transaction.update(certificate, None).await?;
                    certificates += 1;
                }
                Ok(None) => {}
                Err(source) => broken = Some(StepError::Record { what: format!("certificate {subject}"), source }),
            }
        }
        for id in &left.context_keys {
            let Some(stored) = transaction.get::<ContextKey>(id).await? else { continue };
            let mut key = stored.value;
            match self.keeper.rewrap(ContextKey::KEY_PURPOSE, id.as_str(), &key.private) {
                Ok(Some(private)) => {
                    key.private = private;
                    transaction.update(key, None).await?;
                    context_keys += 1;
                }
                Ok(None) => {}
                Err(source) => broken = Some(StepError::Record { what: format!("context key {id}"), source }),
            }
        }
        for id in &left.pools {
            let Some(stored) = transaction.get::<Pool>(id).await? else { continue };
            let mut pool = stored.value;
            let Some(set) = &mut pool.client_certificate else { continue };
            let Some(subject) = set.chain.first().map(|leaf| ClientCertificate::subject(id, leaf)) else { continue };
            match self.keeper.rewrap(ClientCertificate::KEY_PURPOSE, &subject, &set.key) {
                Ok(Some(key)) => {
                    set.key = key;
                    transaction.update(pool, None).await?;
                    client_certificates += 1;
                }
                Ok(None) => {}
                Err(source) => {
                    broken = Some(StepError::Record { what: format!("client certificate of pool {id}"), source });
                }
            }
        }
        let done = certificates + context_keys + client_certificates;
        if done > 0 {
            let about = format!("sealing key {}", self.keeper.id());
            let summary = json!({
                "certificates": certificates, "context_keys": context_keys, "client_certificates": client_certificates,
            });
            transaction.commit("sealing_key.rewrap", &about, summary).await?;
        } else {
            transaction.rollback().await;
        }
        // What does not open keeps the key before in service: it may be under it after all.
        match broken {
            Some(error) if done == 0 => Err(error),
            _ => Ok(Next::Again),
        }
    }

    /// Wraps anew our account keys at authorities, and the keys of certificates on order.
    async fn rewrap_acme(&self) -> Result<Next, StepError> {
        let mut transaction = self.store.begin(Actor::system("sealing")).await?;
        let (mut accounts, mut orders) = (0, 0);
        for mut account in self.store.acme_credentials().await? {
            let ca = account.ca.to_string();
            if let Some(sealed) = self.rewrapped(AcmeCredentials::KEY_PURPOSE, &ca, &account.sealed)? {
                account.sealed = sealed;
                transaction.save_acme_credentials(&account).await?;
                accounts += 1;
            }
        }
        for due in self.store.acme_orders_due(i64::MAX, u32::MAX).await? {
            // As it is now: the worker writes it too.
            let Some(mut order) = transaction.acme_order(&due.name).await? else { continue };
            if let Some(key) = self.rewrapped(AcmeOrder::KEY_PURPOSE, &order.id, &order.key)? {
                order.key = key;
                transaction.save_rewrapped_acme_order(&order).await?;
                orders += 1;
            }
        }
        if accounts + orders == 0 {
            transaction.rollback().await;
            return Ok(Next::Wait);
        }
        let about = format!("sealing key {}", self.keeper.id());
        let summary = json!({ "acme_accounts": accounts, "acme_orders": orders });
        transaction.commit("sealing_key.rewrap", &about, summary).await?;
        Ok(Next::Again)
    }

    fn rewrapped(&self, purpose: &str, subject: &str, key: &SealedKey) -> Result<Option<SealedKey>, StepError> {
        let named = |source| StepError::Record { what: format!("{purpose} {subject}"), source };
        self.keeper.rewrap(purpose, subject, key).map_err(named)
    }

    /// Lets the key before go when every live proxy serves what `change` left: nothing is under it there.
    async fn retire(&self, previous: &str, change: u64) -> Result<Next, StepError> {
        if self.keeper.can_rotate().is_err() {
            return Ok(Next::Wait);
        }
        let Some(revision) = self.publisher.wait_published(change, LOOK_EVERY).await else { return Ok(Next::Wait) };
        if !self.feed.lagging(revision).is_empty() {
            return Ok(Next::Wait);
        }
        if self.keeper.retire()? {
            tracing::info!("the key-encryption key {previous} is gone: nothing is sealed under it");
            self.note("sealing_key.retire", previous).await?;
        }
        Ok(Next::Again)
    }
}

#[cfg(test)]
mod tests;
