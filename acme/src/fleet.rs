//! Whether every live proxy serves a change: only then may a CA look at any of them.

use async_trait::async_trait;
use schoolgate_store::StoreError;

/// How far a change has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// Every live proxy serves it.
    Everywhere,
    /// Somebody does not yet; who or what.
    NotYet(String),
}

/// The proxies, as the worker has to know them.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// Whether every live proxy serves the change with this number.
    ///
    /// # Errors
    /// What the store said.
    async fn serves(&self, change: u64) -> Result<Adopted, StoreError>;
}
