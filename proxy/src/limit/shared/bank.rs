//! Who grants slices of tenants' rates to all nodes: Redis, or a model of it in tests.

use std::time::Duration;

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

/// What is answered to an ask. What was spent and what is given back is charged either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    /// A lease.
    Lease {
        /// Requests that may be let through.
        requests: u32,
        /// Milliseconds until there is room for one more, rounded up.
        wait_ms: u64,
    },
    /// The bank was away from all nodes, and they are coming back: until all have asked, each lets its share through.
    Share {
        /// Milliseconds until leases are granted again, rounded up.
        wait_ms: u64,
    },
}

/// Why nothing is granted. The node lets through its share then.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum BankError {
    /// The password, or the permissions of the user, are not what they must be.
    #[error("Redis refuses this node: {0}")]
    Refused(String),
    /// The server is not who it should be.
    #[error("Redis shows a certificate that redis.root_ca_file (without it, this machine) does not vouch for: {0}")]
    Untrusted(String),
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
            Self::Untrusted(_) => "untrusted",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Failed(_) => "failed",
        }
    }
}

/// Grants slices.
#[async_trait]
pub(super) trait Bank: Send {
    /// Answers all asks, in their order. `away` is how long this node has had no answer; `None` when the last one came.
    ///
    /// # Errors
    /// The first [`BankError`]; what was granted beside it is lost, which costs some of the limit and exceeds nothing.
    async fn lease(&mut self, asks: &[Ask], away: Option<Duration>) -> Result<Vec<Grant>, BankError>;

    /// Whether it is there, when there is nothing to ask.
    ///
    /// # Errors
    /// The [`BankError`] that an ask would have.
    async fn probe(&mut self) -> Result<(), BankError>;
}
