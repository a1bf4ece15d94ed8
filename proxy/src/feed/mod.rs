//! How a snapshot becomes the table.
//!
//! [`adopt`] follows a [`SnapshotFeed`]: fetch, verify, compile, open keys, write to disk, swap, acknowledge. Its cost
//! follows the change. [`last_good`] is what the node starts from when nobody answers.

pub mod adopt;
pub(crate) mod backoff;
pub mod last_good;
pub mod questions;
pub mod remote;
pub mod report;
mod signing;
pub(crate) mod usage;

use std::time::Duration;

use async_trait::async_trait;
use schoolgate_config::feed::{FeedAnswer, NodeReport, ReportTaken, RequestAnswer};
use schoolgate_config::model::Revision;
use schoolgate_config::snapshot::WireError;
use schoolgate_config::usage::{QuotaUse, UsageFlush, UsageTaken};

pub use signing::{Signing, SigningKey};

/// Where revisions come from, and where acknowledgements go.
#[async_trait]
pub trait SnapshotFeed: Send + Sync + 'static {
    /// What came after `after`; waits up to `wait` when there is nothing. [`Revision::NONE`] asks for everything.
    async fn next(&self, after: Revision, wait: Duration) -> Result<FeedAnswer, FeedError>;

    /// Says how this node is: what it serves, or why it refused to.
    async fn report(&self, report: NodeReport) -> Result<ReportTaken, FeedError>;

    /// Hands over what tenants used. Answered, it is counted; unanswered, it may be, and is sent again as it is. A feed
    /// that counts nothing takes everything.
    async fn usage(&self, flush: &UsageFlush) -> Result<UsageTaken, FeedError> {
        Ok(UsageTaken { number: flush.number, quotas: Vec::new() })
    }

    /// What the fleet has used of quotas in periods that last, of those after `after` in an order of the feed's own; none
    /// at the end. A feed that counts nothing knows of none.
    async fn quotas(&self, _after: Option<&QuotaUse>) -> Result<Vec<QuotaUse>, FeedError> {
        Ok(Vec::new())
    }

    /// Identifiers of requests that the control plane wants to know about; waits up to `wait` for one. A feed that has
    /// none for ever waits for ever.
    async fn questions(&self, _wait: Duration) -> Result<Vec<String>, FeedError> {
        std::future::pending().await
    }

    /// Answers questions.
    async fn answer(&self, _answers: Vec<RequestAnswer>) -> Result<(), FeedError> {
        Ok(())
    }
}

/// Why the feed has no answer. The node goes on with what it serves and asks again.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// Nobody there, or the answer stopped midway.
    #[error("{from} cannot be reached")]
    Unreachable {
        /// Who was asked.
        from: String,
        /// What the network said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not there in time.
    #[error("{from} did not answer within {seconds} s")]
    Timeout {
        /// Who was asked.
        from: String,
        /// How long we waited.
        seconds: u64,
    },
    /// It does not talk to us. A node token that was revoked looks like this.
    #[error("{from} answered {status}: {reason}")]
    Refused {
        /// Who was asked.
        from: String,
        /// The status.
        status: u16,
        /// The `error` of its answer, if it gave one.
        reason: String,
    },
    /// The answer is longer than any snapshot.
    #[error("the answer of {from} is longer than {most} bytes")]
    TooLong {
        /// Who was asked.
        from: String,
        /// What is read at most.
        most: usize,
    },
    /// The answer is damaged, or of another release.
    #[error("the answer of {from} is no feed answer")]
    Malformed {
        /// Who was asked.
        from: String,
        /// What is wrong with it.
        source: WireError,
    },
    /// The feed is closing, as the process is.
    #[error("the feed is closed")]
    Closed,
}

/// An error with its causes, for a log line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
