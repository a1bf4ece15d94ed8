//! A domain: one verified DNS name of a tenant, on three independent axes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DomainName, TenantId};

/// A DNS name that belongs to a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Domain {
    /// The name, unique over the platform.
    pub name: DomainName,
    /// Whose it is.
    pub tenant: TenantId,
    /// Whether this is the tenant's main name.
    #[serde(default)]
    pub primary: bool,
    /// Whether the tenant has proven that the name is its own.
    pub ownership: Ownership,
    /// Where the name points.
    pub routing: Routing,
    /// Random, unguessable part of the records the school sets.
    pub token: String,
}

impl Domain {
    /// Whether requests for the name reach the tenant: never before ownership is proven, wherever its DNS points.
    pub fn is_routable(&self) -> bool {
        self.ownership == Ownership::Proven
    }
}

/// Whether the tenant has proven that a name is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ownership {
    /// Not yet.
    Unproven,
    /// Yes.
    Proven,
    /// It was, and the proof has gone.
    Lapsed,
}

/// Where a name points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// Not at this gateway.
    Elsewhere,
    /// Some of its addresses are ours.
    Partial,
    /// At this gateway.
    Here,
    /// It was here and has moved in part.
    Drifted,
    /// It has been away for a week.
    Left,
}

/// Where a name's certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateState {
    /// Nothing asked for: something else blocks it.
    None,
    /// Waiting for its turn at the issuer.
    Queued,
    /// Usable.
    Issued,
    /// Past its end; still served, with an alarm.
    Expired,
    /// The last attempt failed.
    Failing,
}
