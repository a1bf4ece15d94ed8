//! The whole-graph check: what must hold between objects, whoever made them.
//!
//! It runs before an operator's change commits, before a revision is numbered and before a proxy adopts it. Its cost
//! follows the change: the table counts who refers to what, so a removal is checked without a search.

use std::fmt;

use super::Map;
use crate::model::{CaId, DomainName, IssuerId, PlanId, PoolId, TenantId, TokenIssuerError};
use crate::snapshot::ObjectKey;

/// One thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The delta belongs to another revision.
    #[error("the delta applies to revision {needs}, the table is at {at}")]
    Revision {
        /// The revision the delta applies to.
        needs: u64,
        /// The revision of the table.
        at: u64,
    },
    /// The delta does not lead forward.
    #[error("revision {to} does not follow {from}")]
    NotNewer {
        /// The revision the delta applies to.
        from: u64,
        /// The revision it leads to.
        to: u64,
    },
    /// An object names another that is not there.
    #[error("{object} refers to {missing}, which does not exist")]
    Missing {
        /// The object that refers.
        object: ObjectKey,
        /// The object that is not there.
        missing: ObjectKey,
    },
    /// An object is removed while others need it.
    #[error("{object} cannot be removed: {users} {what} still use it")]
    InUse {
        /// The object removed.
        object: ObjectKey,
        /// How many need it.
        users: u64,
        /// What they are.
        what: &'static str,
    },
    /// Two tenants have one slug.
    #[error("the slug {slug} belongs to {owner} already")]
    SlugTaken {
        /// The slug.
        slug: String,
        /// Who has it.
        owner: TenantId,
    },
    /// A domain lies in a zone of the platform, where first labels are slugs.
    #[error("{name} lies in the zone {zone}: its tenants are found by their slugs")]
    DomainInZone {
        /// The domain.
        name: String,
        /// The zone.
        zone: String,
    },
    /// A shared host that is not in its own zone.
    #[error("the shared host {host} is not one label below {zone}")]
    SharedHost {
        /// The shared host.
        host: String,
        /// The zone.
        zone: String,
    },
    /// Two issuers of tokens have one `iss`.
    #[error("tokens of `{iss}` belong to the issuer {owner} already")]
    IssuerTaken {
        /// The `iss`.
        iss: String,
        /// Who has it.
        owner: IssuerId,
    },
    /// An issuer of tokens is wrong in itself.
    #[error("token issuer {issuer}: {problem}")]
    Issuer {
        /// Which issuer.
        issuer: IssuerId,
        /// What is wrong.
        problem: TokenIssuerError,
    },
    /// Two accounts answer for names without a challenge.
    #[error("the accounts at {account} and {other} cannot both be primary")]
    TwoPrimary {
        /// One of them.
        account: CaId,
        /// Another.
        other: CaId,
    },
    /// A name of a certificate that is no name.
    #[error("the certificate {fingerprint} names `{name}`, which is not a DNS name")]
    CertificateName {
        /// Which certificate.
        fingerprint: String,
        /// The name in it.
        name: String,
    },
}

/// Everything that does not hold; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, violation) in self.0.iter().take(5).enumerate() {
            write!(f, "{}{violation}", if i == 0 { "" } else { "; " })?;
        }
        if self.0.len() > 5 {
            write!(f, "; and {} more", self.0.len() - 5)?;
        }
        Ok(())
    }
}
impl std::error::Error for Violations {}

/// Who refers to what, counted.
#[derive(Debug, Clone, Default)]
pub(super) struct References {
    /// Tenants on a plan.
    pub(super) plan: Map<PlanId, u64>,
    /// Tenants and routes that lead to a pool.
    pub(super) pool: Map<PoolId, u64>,
    /// Domains, routes and token issuers of a tenant.
    pub(super) tenant: Map<TenantId, u64>,
    /// Token issuers of a zone.
    pub(super) zone: Map<DomainName, u64>,
    /// HTTP-01 challenges of an account.
    pub(super) acme_account: Map<CaId, u64>,
}

/// Counts one more or one fewer user of a key.
pub(super) fn count<K: Clone + Eq + std::hash::Hash>(map: &mut Map<K, u64>, key: &K, more: bool) {
    let now = map.get(key).copied().unwrap_or(0);
    match if more { now + 1 } else { now.saturating_sub(1) } {
        0 => {
            map.remove(key);
        }
        n => {
            map.insert(key.clone(), n);
        }
    }
}
