//! The only writer of revisions.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use utoipa::ToSchema;

use schoolgate_config::model::Revision;
use schoolgate_config::snapshot::{Delta, decode_delta, encode_delta};
use schoolgate_config::table::{NoLive, RoutingTable, Violations};
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_store::{CommittedChanges, RevisionRecord, Store, StoreError};

use super::feed::FeedServer;
use super::history::{self, PastError};
use super::nodes::Nodes;
use super::questions::Questions;
use super::recent::{Recent, RecentDelta};
use super::saving;

/// The shortest time between two revisions: 10 ms. A change that comes alone is published at once; a bulk import makes
/// a hundred revisions a second, not a thousand, each of which costs every proxy a write to its disk.
const PACE: Duration = Duration::from_millis(10);

/// Time between two looks for what other control processes committed or published: 500 ms.
const LOOK: Duration = Duration::from_millis(500);

/// Wait after a failure of the store before the next attempt: 1 s.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Commits in one revision: 2000. More are published in further ones, so that a proxy adopts a large import in pieces.
const COMMITS: u32 = 2_000;

/// Changes that are folded, checked and encoded on the runtime's own threads: 200, a millisecond or so.
const INLINE: usize = 200;

/// Revisions whose deltas the store keeps: 1024.
const KEPT_DELTAS: u64 = 1_024;

/// Revisions whose deltas are read from the store at start: 256.
const READ_AT_START: u64 = 256;

/// Names in a revision's list of actors.
const ACTORS: usize = 5;

/// Where publishing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The last published revision.
    pub(super) revision: Revision,
    /// The last change that is in it, or touched no object.
    pub(super) through: u64,
}

/// What the publisher and the feed share.
pub(super) struct Shared {
    pub(super) store: Store,
    clock: Arc<dyn Clock>,
    pub(super) position: watch::Sender<Position>,
    /// The table of the last published revision.
    pub(super) table: ArcSwap<RoutingTable>,
    recent: Mutex<Recent>,
    /// The newest snapshot that a proxy asked for, as bytes.
    pub(super) snapshot: tokio::sync::Mutex<Option<(Revision, Bytes)>>,
    pub(super) nodes: Nodes,
    pub(super) questions: Questions,
    unpublished: Mutex<Option<Unpublished>>,
}

impl Shared {
    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        // Every write leaves the list whole, so one that panicked has spoilt nothing.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_unpublished(&self, why: Option<Unpublished>) {
        *self.unpublished.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// Why committed changes are not published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Unpublished {
    /// The first of them.
    pub change_from: u64,
    /// The last of them.
    pub change_to: u64,
    /// Why.
    pub reason: String,
}

/// How publishing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PublisherStatus {
    /// The last published revision.
    pub revision: Revision,
    /// The last change that is published.
    pub published_change: u64,
    /// The last change that is committed.
    pub committed_change: u64,
    /// Why the changes between are not published, if not because it is about to happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpublished: Option<Unpublished>,
}

/// Why a step of publishing failed.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Every commit was checked, so this is a bug, or the database was edited by hand.
    #[error("changes {from} to {to} do not hold together: {source}")]
    Invalid { from: u64, to: u64, source: Violations },
    #[error("the process is shutting down")]
    Stopping,
}

/// Makes revisions of what is committed. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("position", &*self.shared.position.borrow()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Reads where publishing stands, and publishes what was committed but not published when the last process ended.
    /// Nothing further is published until [`Self::run`].
    ///
    /// # Errors
    /// What the store says.
    pub async fn load(store: Store) -> Result<Self, StoreError> {
        Self::load_at(store, Arc::new(SystemClock)).await
    }

    /// [`Self::load`] with a clock of the caller's.
    ///
    /// # Errors
    /// The same.
    pub async fn load_at(store: Store, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let nodes = Nodes::new(store.nodes().await?, clock.clone());
        let (position, table, recent) = read_position(&store, &*clock).await?;
        let shared = Shared {
            store,
            clock,
            position: watch::Sender::new(position),
            table: ArcSwap::from_pointee(table),
            recent: Mutex::new(recent),
            snapshot: tokio::sync::Mutex::new(None),
            nodes,
            questions: Questions::default(),
            unpublished: Mutex::new(None),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves proxies.
    pub fn feed(&self) -> FeedServer {
        FeedServer::new(self.shared.clone())
    }

    /// The last published revision.
    pub fn revision(&self) -> Revision {
        self.shared.position.borrow().revision
    }

    /// The table of the last published revision: what an up-to-date proxy decides by.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.shared.table.load_full()
    }

    /// The table of a revision, present or past.
    ///
    /// # Errors
    /// [`PastError`] says why there is none.
    pub async fn table_at(&self, revision: Revision) -> Result<Arc<RoutingTable>, PastError> {
        history::table_at(&self.shared, revision).await
    }

    /// How publishing is.
    pub fn status(&self) -> PublisherStatus {
        let Position { revision, through } = *self.shared.position.borrow();
        PublisherStatus {
            revision,
            published_change: through,
            committed_change: self.shared.store.head().change,
            unpublished: self.shared.unpublished.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Waits until a change is published, at most `timeout`. Gives a revision that holds it.
    pub async fn wait_published(&self, change: u64, timeout: Duration) -> Option<Revision> {
        let mut position = self.shared.position.subscribe();
        let published = tokio::time::timeout(timeout, position.wait_for(|position| position.through >= change)).await;
        published.ok()?.ok().map(|position| position.revision)
    }

    #[cfg(test)]
    pub(super) fn forget_recent(&self) {
        self.shared.recent().clear();
    }

    /// Publishes what is committed, until `stop` is ready; then saves what proxies said last.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let shared = self.shared.clone();
        tokio::select! {
            () = stop => {}
            () = publish(&shared) => {}
            () = saving::keep_saving(&shared) => {}
        }
        if let Err(e) = saving::save_all(&shared).await {
            tracing::warn!("what the proxies said last is not saved: {e}");
        }
    }
}

/// Publishes for ever.
async fn publish(shared: &Shared) {
    let mut committed = shared.store.committed();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        committed.mark_unchanged();
        let begun = Instant::now();
        let moved = match step(shared).await {
            Ok(moved) => {
                shared.set_unpublished(None);
                moved
            }
            Err(e) => {
                note_failure(shared, &e);
                tokio::time::sleep(BACK_OFF).await;
                false
            }
        };
        if moved {
            tokio::time::sleep_until(begun + PACE).await;
            continue;
        }
        tokio::select! {
            told = committed.changed() => if told.is_err() { return },
            _ = look.tick() => if let Err(e) = shared.store.refresh().await {
                note_failure(shared, &PublishError::Store(e));
            },
        }
    }
}

fn note_failure(shared: &Shared, error: &PublishError) {
    let through = shared.position.borrow().through;
    let why = Unpublished {
        change_from: through + 1,
        change_to: shared.store.head().change.max(through + 1),
        reason: error.to_string(),
    };
    let mut unpublished = shared.unpublished.lock().unwrap_or_else(PoisonError::into_inner);
    if unpublished.as_ref().map(|u| &u.reason) != Some(&why.reason) {
        tracing::error!(change.from = why.change_from, "committed changes are not published: {error}");
    }
    *unpublished = Some(why);
}

/// Publishes the next revision, or takes over one that another process published. Says whether there may be more.
async fn step(shared: &Shared) -> Result<bool, PublishError> {
    let Position { revision, through } = *shared.position.borrow();
    let last = shared.store.last_revision().await?;
    if let Some(last) = last.filter(|last| last.revision > revision) {
        follow(shared, &last).await?;
        return Ok(true);
    }
    let committed = shared.store.head().change;
    let pending = shared.store.changes_after(through, COMMITS).await?;
    let Some(last) = pending.last() else {
        // Changes that touched no object are published by doing nothing.
        if committed > through {
            shared.position.send_modify(|position| position.through = committed);
        }
        return Ok(false);
    };
    let change_to = if pending.len() < COMMITS as usize { committed.max(last.number) } else { last.number };
    let (record, changes) = fold_record(revision.next(), through + 1, change_to, shared.clock.unix_ms(), pending);
    let table = shared.table.load_full();
    let size = changes.len();
    let prepare = move || prepare(&table, revision, changes);
    let prepared = if size <= INLINE {
        prepare()
    } else {
        tokio::task::spawn_blocking(prepare).await.map_err(|_| PublishError::Stopping)?
    };
    let (table, delta) =
        prepared.map_err(|source| PublishError::Invalid { from: record.change_from, to: change_to, source })?;
    let record = RevisionRecord { objects: delta.delta.changes.len() as u64, ..record };
    match shared.store.record_revision(&record, &delta.bytes, KEPT_DELTAS).await {
        // Another process was first: follow it.
        Err(StoreError::Exists { .. }) => return Ok(true),
        other => other?,
    }
    tracing::debug!(revision = record.revision.0, change.to = change_to, "published revision {}", record.revision);
    serve(shared, table, delta, change_to);
    Ok(true)
}

/// Lets the feeds have a revision.
fn serve(shared: &Shared, table: RoutingTable, delta: RecentDelta, through: u64) {
    let revision = table.revision();
    shared.recent().push(delta);
    shared.table.store(Arc::new(table));
    shared.position.send_replace(Position { revision, through });
}

/// Applies the deltas that another process published.
async fn follow(shared: &Shared, last: &RevisionRecord) -> Result<(), PublishError> {
    let Position { revision, .. } = *shared.position.borrow();
    let published = shared.store.deltas_after(revision, COMMITS).await?;
    for (record, bytes) in published {
        let table = shared.table.load_full();
        let next = decode_delta(&bytes).ok().and_then(|delta| Some((table.apply(&delta, &NoLive).ok()?, delta)));
        let Some((next, delta)) = next else { return reload(shared, last).await };
        serve(shared, next, RecentDelta { delta: Arc::new(delta), bytes: bytes.into() }, record.change_to);
    }
    if shared.position.borrow().revision == revision { reload(shared, last).await } else { Ok(()) }
}

/// Begins anew from the store, when the deltas that lead there are not kept.
async fn reload(shared: &Shared, last: &RevisionRecord) -> Result<(), PublishError> {
    tracing::warn!(
        revision.last = last.revision.0,
        "another process published up to revision {}, too far ahead to follow: reading all objects",
        last.revision
    );
    let (position, table, recent) = read_position(&shared.store, &*shared.clock).await?;
    *shared.recent() = recent;
    shared.table.store(Arc::new(table));
    shared.position.send_replace(position);
    Ok(())
}

/// What was published last, with everything committed published.
async fn read_position(store: &Store, clock: &dyn Clock) -> Result<(Position, RoutingTable, Recent), StoreError> {
    loop {
        let last = store.last_revision().await?;
        let (revision, through) = last.map_or((Revision::NONE, 0), |last| (last.revision, last.change_to));
        let head = store.refresh().await?;
        let mut pending = store.changes_after(through, u32::MAX).await?;
        pending.retain(|commit| commit.number <= head.change);
        let mut position = Position { revision, through: head.change };
        if !pending.is_empty() {
            position.revision = revision.next();
            let (record, changes) = fold_record(position.revision, through + 1, head.change, clock.unix_ms(), pending);
            let delta = Delta::fold(revision, position.revision, changes);
            let record = RevisionRecord { objects: delta.changes.len() as u64, ..record };
            match store.record_revision(&record, &encode_delta(&delta), KEPT_DELTAS).await {
                // Another process publishes too: see how far it came.
                Err(StoreError::Exists { .. }) => continue,
                other => other?,
            }
        }
        let table = head.table.with_changes(position.revision, &[], &NoLive).map_err(StoreError::Violations)?;
        let mut recent = Recent::default();
        let first = Revision(position.revision.0.saturating_sub(READ_AT_START));
        for (_, bytes) in store.deltas_after(first, COMMITS).await? {
            // One that cannot be read is of an older release: proxies that need it take a snapshot.
            match decode_delta(&bytes) {
                Ok(delta) if delta.to <= position.revision => {
                    recent.push(RecentDelta { delta: Arc::new(delta), bytes: bytes.into() });
                }
                _ => {}
            }
        }
        return Ok((position, table, recent));
    }
}

/// The record of the next revision, and all changes in it in the order they were committed.
fn fold_record(
    revision: Revision,
    change_from: u64,
    change_to: u64,
    created_at_ms: i64,
    pending: Vec<CommittedChanges>,
) -> (RevisionRecord, Vec<schoolgate_config::snapshot::Change>) {
    let mut actors: Vec<String> = Vec::new();
    let mut changes = Vec::new();
    for commit in pending {
        if actors.len() < ACTORS && !actors.contains(&commit.actor) {
            actors.push(commit.actor);
        }
        changes.extend(commit.changes);
    }
    (RevisionRecord { revision, created_at_ms, change_from, change_to, objects: 0, actors }, changes)
}

/// Folds changes into the delta of the next revision and checks the whole graph with it.
fn prepare(
    table: &RoutingTable,
    from: Revision,
    changes: Vec<schoolgate_config::snapshot::Change>,
) -> Result<(RoutingTable, RecentDelta), Violations> {
    let delta = Delta::fold(from, from.next(), changes);
    let next = table.apply(&delta, &NoLive)?;
    let bytes = encode_delta(&delta).into();
    Ok((next, RecentDelta { delta: Arc::new(delta), bytes }))
}
