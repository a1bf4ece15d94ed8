//! A platform zone: `greenhill.schools.example` is the tenant `greenhill` when `schools.example` is a zone.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DomainName, RESERVED_LABELS};

/// A zone whose first labels are tenants' slugs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Zone {
    /// The zone's name.
    pub name: DomainName,
    /// A host of the zone that belongs to no tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_host: Option<DomainName>,
    /// Networks whose callers may name a tenant on the shared host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub trusted_callers: Vec<IpNet>,
    /// Labels that are no tenants, beside [`RESERVED_LABELS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<String>,
}

impl Zone {
    /// Whether `label` can never be a tenant here.
    pub fn reserves(&self, label: &str) -> bool {
        RESERVED_LABELS.binary_search(&label).is_ok() || self.reserved.iter().any(|r| r == label)
    }

    /// Whether one certificate for `*.zone` covers its tenants. Clients refuse a wildcard right under a top-level
    /// name (RFC 6125 section 6.4.3 leaves it to them; OpenSSL wants two dots), so `localhost` needs one per tenant.
    pub fn takes_wildcard(&self) -> bool {
        self.name.labels() >= 2
    }
}
