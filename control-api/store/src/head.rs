//! Everything that is committed, in memory: what a transaction is checked against.

use schoolgate_config::model::Revision;
use schoolgate_config::snapshot::{Change, Object, Snapshot};
use schoolgate_config::table::{NoLive, RoutingTable, Violations};

/// Everything up to one change.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The number of the last change in it.
    pub change: u64,
    /// All objects. Its revision is the number of the change, not one that was published.
    pub table: RoutingTable,
}

impl Head {
    /// The head that holds these objects.
    ///
    /// # Errors
    /// Every violation at once.
    pub(crate) fn of(change: u64, objects: Vec<Object>) -> Result<Self, Violations> {
        let snapshot = Snapshot { revision: Revision(change), objects };
        Ok(Self { change, table: RoutingTable::from_snapshot(&snapshot, &NoLive, None)? })
    }

    /// The head after one more commit.
    ///
    /// # Errors
    /// Every violation at once.
    pub(crate) fn with(&self, change: u64, changes: &[Change]) -> Result<Self, Violations> {
        Ok(Self { change, table: self.table.with_changes(Revision(change), changes, &NoLive)? })
    }
}
