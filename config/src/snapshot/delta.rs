//! What changed between two revisions.

use serde::{Deserialize, Serialize};

use super::{Object, ObjectKey};
use crate::model::Revision;

/// What leads from one revision to a later one. Order does not matter; no object appears twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// The revision this applies to.
    pub from: Revision,
    /// The revision this leads to.
    pub to: Revision,
    /// What changed.
    pub changes: Vec<Change>,
}

/// One object made, replaced or removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The object is now this.
    Put(Object),
    /// The object is gone.
    Remove(ObjectKey),
}

impl Change {
    /// What names the object changed.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Put(object) => object.key(),
            Self::Remove(key) => key.clone(),
        }
    }
}

impl Delta {
    /// Folds changes in the order they were committed: the last word on each object counts.
    pub fn fold(from: Revision, to: Revision, committed: impl IntoIterator<Item = Change>) -> Self {
        let mut place = std::collections::HashMap::new();
        let mut changes: Vec<Change> = Vec::new();
        for change in committed {
            match place.entry(change.key()) {
                std::collections::hash_map::Entry::Occupied(at) => changes[*at.get()] = change,
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(changes.len());
                    changes.push(change);
                }
            }
        }
        Self { from, to, changes }
    }
}
