//! Who has the next turn.

use serde::{Deserialize, Serialize};

use schoolgate_config::model::CaId;

use super::{OrderStep, RenewalWindow};
use crate::CertificateWant;

/// How urgent a name is. Strict: a lower number goes first; within one, tenants take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueClass {
    /// Its certificate ends within a day, or the CA's renewal window is over.
    Expiring,
    /// Somebody waits for a new name.
    New,
    /// A renewal whose time has come.
    Renewal,
    /// It failed before.
    Retry,
    /// One of many that came together.
    Bulk,
}

impl QueueClass {
    /// All, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Expiring, Self::New, Self::Renewal, Self::Retry, Self::Bulk];

    /// The name used in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expiring => "expiring",
            Self::New => "new",
            Self::Renewal => "renewal",
            Self::Retry => "retry",
            Self::Bulk => "bulk",
        }
    }

    pub(crate) fn from_rank(rank: i64) -> Self {
        usize::try_from(rank).ok().and_then(|rank| Self::ALL.get(rank)).copied().unwrap_or(Self::Bulk)
    }
}

/// Which names of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuePart {
    /// Those that can be ordered now and are not.
    Due,
    /// Of those, renewals of a certificate that an ACME CA made.
    Renewals,
    /// Of those, the others.
    NewNames,
    /// All without the certificate they should have: due, waiting for a moment, or ordered.
    All,
}

/// A name whose certificate comes from an ACME CA.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueEntry {
    /// Where it stands.
    pub want: CertificateWant,
    /// How urgent it is.
    pub class: QueueClass,
    /// Whose it is; `None` for a name of the platform's own.
    pub tenant: Option<String>,
    /// Since when it waits, milliseconds since 1970.
    pub since_ms: i64,
    /// The end of the certificate it has, milliseconds since 1970.
    pub not_after_ms: Option<i64>,
    /// Which CA made that one.
    pub ca: Option<CaId>,
    /// Why it waits or fails, for programs.
    pub reason: Option<String>,
    /// Who must act: `school`, `operator` or `nobody`.
    pub who_acts: Option<String>,
    /// A page of the CA that helps.
    pub link: Option<String>,
    /// What the CA said of renewing.
    pub renewal: Option<RenewalWindow>,
    /// How far its order is, and at which CA, when one is open.
    pub order: Option<(OrderStep, CaId)>,
}
