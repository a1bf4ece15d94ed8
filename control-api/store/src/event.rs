//! Events: what happened that somebody should look at.
//!
//! The audit says who asked for what, and is kept for ever. An event says what became of things by themselves: a domain
//! left, a certificate could not be renewed, somebody tried another school's door. Events are forgotten after a while.

use serde_json::Value;

use schoolgate_config::model::{DomainName, TenantId};

/// Age at which an event is forgotten: 30 days, in milliseconds.
pub const EVENTS_KEPT_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// Events of one kind that are kept: 20,000, about 10 MB. Bounded by kind, for some kinds are in the hands of
/// strangers, and must not push out the others.
pub(crate) const KEPT_OF_A_KIND: i64 = 20_000;

/// An event to record.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// When it happened, milliseconds since 1970.
    pub at_ms: i64,
    /// What happened: an area and a word, such as `domain.proven`.
    pub kind: &'static str,
    /// Whom it concerns.
    pub tenant: Option<TenantId>,
    /// What it happened to, as in the audit: `domain erp.greenhill.example`, `certificate …`, `tenant tnt_…`.
    pub object: String,
    /// A sentence for people.
    pub summary: String,
    /// More about it, for programs; `null` for nothing.
    pub detail: Value,
    /// What tells it from every other event, where the same may be reported twice: the second is not recorded.
    pub once: Option<String>,
}

impl NewEvent {
    /// Something that happened to a domain.
    pub fn of_domain(
        at_ms: i64,
        kind: &'static str,
        name: &DomainName,
        tenant: TenantId,
        summary: impl Into<String>,
    ) -> Self {
        Self {
            at_ms,
            kind,
            tenant: Some(tenant),
            object: format!("domain {name}"),
            summary: summary.into(),
            detail: Value::Null,
            once: None,
        }
    }

    /// The same event with more about it.
    #[must_use]
    pub fn with_detail(self, detail: Value) -> Self {
        Self { detail, ..self }
    }
}

/// An event as it is in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number: events are numbered as they are recorded, with gaps.
    pub number: u64,
    /// When it happened, milliseconds since 1970.
    pub at_ms: i64,
    /// What happened.
    pub kind: String,
    /// Whom it concerns.
    pub tenant: Option<TenantId>,
    /// What it happened to.
    pub object: String,
    /// A sentence for people.
    pub summary: String,
    /// More about it.
    pub detail: Value,
}

/// Which events, the last recorded first.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Those before this number.
    pub before: Option<u64>,
    /// At most this many; 0 means 100.
    pub limit: u32,
    /// Those of this kind (`domain.proven`) or area (`domain`).
    pub kind: Option<String>,
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
    /// Those about this object.
    pub object: Option<String>,
}
