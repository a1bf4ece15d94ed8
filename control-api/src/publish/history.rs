//! The table of a revision that is past, made of what the store has.
//!
//! Every committed change is kept, with what became of each object; what an object was before is what an earlier change
//! made of it. So the table of today is taken back: objects that were touched since become what the last change up to
//! that revision made of them. Its cost follows what changed since, and how long ago the changed objects were made.

use std::collections::HashMap;
use std::sync::Arc;

use schoolgate_config::model::Revision;
use schoolgate_config::snapshot::{Change, ObjectKey};
use schoolgate_config::table::{NoLive, RoutingTable, Violations};
use schoolgate_store::{RevisionRecord, StoreError};

use super::publisher::Shared;

/// Changes that are read at once: 2,000.
const PAGE: u64 = 2_000;

/// Why there is no table of a revision.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// It was not published yet.
    #[error("revision {revision} is not published; the newest is {newest}")]
    NotYet {
        /// What was asked for.
        revision: Revision,
        /// The newest.
        newest: Revision,
    },
    /// It is not kept.
    #[error("revision {0} is no longer known")]
    Gone(Revision),
    /// Its objects do not hold together for this release, which is stricter than the one that published it.
    #[error("revision {revision} cannot be brought back by this release: {source}")]
    Unusable {
        /// Which.
        revision: Revision,
        /// What does not hold together.
        source: Violations,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The table of a revision.
pub(super) async fn table_at(shared: &Shared, revision: Revision) -> Result<Arc<RoutingTable>, PastError> {
    let now = shared.table.load_full();
    let newest = now.revision();
    if revision == newest {
        return Ok(now);
    }
    if revision > newest {
        return Err(PastError::NotYet { revision, newest });
    }
    let store = &shared.store;
    let past = store.revision(revision).await?.ok_or(PastError::Gone(revision))?;
    let present = store.revision(newest).await?.ok_or(PastError::Gone(newest))?;
    let span = |from: u64, to: u64| RevisionRecord { change_from: from, change_to: to, ..past.clone() };

    let since = store.changes_of(&span(past.change_to + 1, present.change_to)).await?;
    let touched = since.into_iter().flat_map(|commit| commit.changes).map(|change| change.key());
    let mut open: HashMap<ObjectKey, ()> = touched.map(|key| (key, ())).collect();
    let mut back = Vec::with_capacity(open.len());
    let mut to = past.change_to;
    while to > 0 && !open.is_empty() {
        let from = to.saturating_sub(PAGE - 1).max(1);
        let before = store.changes_of(&span(from, to)).await?;
        for change in before.into_iter().rev().flat_map(|commit| commit.changes.into_iter().rev()) {
            if open.remove(&change.key()).is_some() {
                back.push(change);
            }
        }
        to = from - 1;
    }
    // What nothing made up to then was not there.
    back.extend(open.into_keys().map(Change::Remove));
    let table = now.with_changes(revision, &back, &NoLive);
    table.map(Arc::new).map_err(|source| PastError::Unusable { revision, source })
}
