//! Who grants slices of tenants' rates to all nodes: Redis, or a model of it in tests.

use async_trait::async_trait;
use schoolgate_config::model::TenantId;

use crate::limit::Rate;

/// What a node asks for one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) tenant: TenantId,
    /// What holds for the tenant on the whole fleet.
    pub(super) rate: Rate,
    /// Requests let through that nobody granted.
    pub(super) spent: u32,
    /// Requests granted before and not let through.
    pub(super) back: u32,
    /// Requests wanted.
    pub(super) wanted: u32,
}

/// What is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    /// Requests that may be let through.
    pub(super) granted: u32,
    /// Milliseconds until there is room for one more, rounded up.
    pub(super) wait_ms: u64,
}

/// Why nothing is granted. The node lets through its share then.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum BankError {
    /// The password, or the permissions of the user, are not what they must be.
    #[error("Redis refuses this node: {0}")]
    Refused(String),
    /// Nobody there, or the connection broke.
    #[error("Redis cannot be reached: {0}")]
    Unreachable(String),
    /// Not there in time.
    #[error("Redis did not answer within {0} ms")]
    Timeout(u128),
    /// It is full, read-only, or still loading.
    #[error("Redis does not do it: {0}")]
    Failed(String),
}

impl BankError {
    /// The metric label.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Failed(_) => "failed",
        }
    }
}

/// Grants slices.
#[async_trait]
pub(super) trait Bank: Send {
    /// Answers all asks, in their order.
    ///
    /// # Errors
    /// The first [`BankError`]; what was granted beside it is lost, which costs some of the limit and exceeds nothing.
    async fn lease(&mut self, asks: &[Ask]) -> Result<Vec<Grant>, BankError>;

    /// Whether it is there, when there is nothing to ask.
    ///
    /// # Errors
    /// The [`BankError`] that an ask would have.
    async fn probe(&mut self) -> Result<(), BankError>;
}
