//! What the data plane knows, at one revision, and how it changes from one to the next.
//!
//! A [`Snapshot`] is a list of objects, a [`Delta`] a list of changes. Neither is trusted: the one way to use them is
//! [`crate::table::RoutingTable`], which checks the whole graph, so a table that does not hold together cannot exist.

mod chains;
mod delta;
mod object;
mod wire;

pub use chains::share_chains;
pub use delta::{Change, Delta};
pub use object::{Object, ObjectKey, ObjectKind};
pub use wire::{SCHEMA, SCHEMA_OLDEST, WireError, decode_delta, decode_snapshot, encode_delta, encode_snapshot};

use serde::{Deserialize, Serialize};

use crate::model::Revision;

/// All that a proxy must know at one revision, in no particular order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which state this is.
    pub revision: Revision,
    /// Everything in it.
    pub objects: Vec<Object>,
}
