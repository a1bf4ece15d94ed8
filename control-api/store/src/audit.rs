//! The chain of the audit: each line's hash covers its content and the hash of the line before.

use ring::digest::{Context, SHA256};

use crate::records::AuditEntry;

/// What the first line follows.
pub(crate) const FIRST: [u8; 32] = [0; 32];

/// Where the audit does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditBroken {
    /// A line was taken away.
    #[error("line {number} of the audit is missing")]
    Missing {
        /// Which.
        number: u64,
    },
    /// A line was changed, or put in another's place.
    #[error("line {number} of the audit does not have the hash that follows from it and the line before")]
    Changed {
        /// Which.
        number: u64,
    },
}

/// The hash of a line after one with the hash `previous`. Every field is preceded by its length, so that no two lines
/// hash the same bytes.
pub(crate) fn hash(previous: &[u8; 32], entry: &AuditEntry, summary: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut field = |bytes: Option<&[u8]>| {
        context.update(&bytes.map_or(u64::MAX, |b| b.len() as u64).to_le_bytes());
        context.update(bytes.unwrap_or_default());
    };
    field(Some(previous));
    field(Some(&entry.number.to_le_bytes()));
    field(Some(&entry.at_ms.to_le_bytes()));
    field(Some(entry.actor.as_bytes()));
    field(Some(entry.via.as_bytes()));
    field(entry.request_id.as_deref().map(str::as_bytes));
    field(entry.client_ip.as_deref().map(str::as_bytes));
    field(Some(entry.action.as_bytes()));
    field(Some(entry.object.as_bytes()));
    field(Some(summary.as_bytes()));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
