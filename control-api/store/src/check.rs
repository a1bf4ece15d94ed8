//! What is known of a domain beside what is published of it.
//!
//! A check of the DNS changes the object `Domain` only when something happened; what it saw, and when to look again, is
//! here, so that nothing is published to the proxies a hundred thousand times a day.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use schoolgate_config::model::{CaId, DomainName, TenantId};

/// What an order would fail for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hindered {
    /// For looking at the gateway: HTTP-01, TLS-ALPN-01.
    Looking,
    /// For whatever way of proving the name.
    Everything,
}

/// Why an order for a domain would fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hindrance {
    /// At which CA; `None`: at any.
    pub ca: Option<CaId>,
    /// For what.
    pub hinders: Hindered,
    /// For people: what is wrong, and what to do.
    pub message: String,
    /// `school`, `operator` or `nobody`.
    pub who_acts: String,
}

/// What a check says to whoever orders the domain's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderFacts {
    /// The name of ours that `_acme-challenge.<name>` is an alias of: a TXT record there proves the domain.
    pub delegated_to: Option<String>,
    /// Why an order would fail.
    pub hindrances: Vec<Hindrance>,
}

/// How the checks of a domain stand. Every domain has one.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainCheck {
    /// Which domain.
    pub name: DomainName,
    /// When to look again, milliseconds since 1970; `None`: when somebody asks.
    pub next_check_ms: Option<i64>,
    /// When somebody last looked, milliseconds since 1970.
    pub checked_at_ms: Option<i64>,
    /// What the checks remember from one to the next; `null` before the first.
    pub life: Value,
    /// What the last one found.
    pub findings: Value,
    /// What the last one says to whoever orders the certificate.
    pub order_facts: OrderFacts,
    /// Hand this back with what was found; see [`crate::Transaction::save_domain_check`].
    pub turn: u64,
}

/// A tenant that asks for another tenant's domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainTransfer {
    /// Which domain.
    pub name: DomainName,
    /// Who asks.
    pub tenant: TenantId,
    /// The token of its proof.
    pub token: String,
    /// When it asked, milliseconds since 1970.
    pub requested_at_ms: i64,
    /// Who asked for it.
    pub requested_by: String,
    /// When its proof was seen first, milliseconds since 1970.
    pub proven_at_ms: Option<i64>,
}

/// A name that was a tenant's and was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedName {
    /// The name.
    pub name: DomainName,
    /// Whose it was.
    pub tenant: TenantId,
    /// When it was given up, milliseconds since 1970.
    pub released_at_ms: i64,
    /// Until when that is remembered, milliseconds since 1970.
    pub until_ms: i64,
}
