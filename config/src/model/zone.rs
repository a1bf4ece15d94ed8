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
    /// Networks whose callers may name a tenant on the shared host, by header or query. Callers with a token of an
    /// issuer that counts there may too; nobody else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub trusted_callers: Vec<IpNet>,
    /// Labels that are no tenants, beside [`RESERVED_LABELS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<String>,
    /// On the shared host, `/t/{slug}/…` names a tenant. Any caller may; the prefix is cut off before forwarding, and
    /// told to the backend in `X-Forwarded-Prefix`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_prefix: bool,
    /// The shared host serves only callers with a token of an issuer that counts there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_token: bool,
}

impl Zone {
    /// Whether `label` can never be a tenant here: the shared host's neither, whoever takes it for a slug.
    pub fn reserves(&self, label: &str) -> bool {
        let shared = self.shared_host.as_ref().and_then(|host| host.as_str().split('.').next());
        RESERVED_LABELS.binary_search(&label).is_ok()
            || shared == Some(label)
            || self.reserved.iter().any(|r| r == label)
    }

    /// Whether one certificate for `*.zone` covers its tenants. Clients refuse a wildcard right under a top-level
    /// name (RFC 6125 section 6.4.3 leaves it to them; OpenSSL wants two dots), so `localhost` needs one per tenant.
    pub fn takes_wildcard(&self) -> bool {
        self.name.labels() >= 2
    }
}
