//! Whose request this is: the verified `X-Tenant-Context`, and nothing else.
//!
//! The gateway signs a compact JWS for each school (EdDSA, lives 60 s). [`Verifier`] checks it with the public
//! keys of [`keys`]; [`admission`] does so for every request, and refuses those without one. There is no current tenant
//! anywhere else: who wants a school's data holds its [`TenantContext`].

pub(crate) mod admission;
pub(crate) mod keys;
mod tenant_id;
mod token;
mod verified;
mod verifier;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::tenant_id::TenantId;
pub(crate) use self::verifier::Verifier;

/// A school as the gateway vouched for it. Only [`Verifier`] makes one, and only from a token that holds.
#[derive(Debug)]
pub(crate) struct TenantContext {
    tenant_id: TenantId,
    slug: String,
    name: String,
    plan: String,
    isolation: String,
    features: Vec<String>,
    limits: Limits,
    theme: Theme,
}

impl TenantContext {
    pub(crate) fn tenant_id(&self) -> &TenantId {
        &self.tenant_id
    }

    pub(crate) fn slug(&self) -> &str {
        &self.slug
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn plan(&self) -> &str {
        &self.plan
    }

    pub(crate) fn isolation(&self) -> &str {
        &self.isolation
    }

    pub(crate) fn features(&self) -> &[String] {
        &self.features
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn theme(&self) -> &Theme {
        &self.theme
    }
}

/// The limits of the school's plan, as the gateway wrote them: it may know limits that this release does not.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Limits(Map<String, Value>);

impl Limits {
    /// How many people may have an account.
    pub(crate) fn users(&self) -> Option<u64> {
        self.0.get("users").and_then(Value::as_u64)
    }

    /// The longest body of a request, in bytes.
    pub(crate) fn body_bytes(&self) -> Option<u64> {
        self.0.get("body_bytes").and_then(Value::as_u64)
    }
}

/// How the school wants to look: words of its operator, to be checked where they are used.
#[derive(Debug, Default, Clone, Deserialize)]
pub(crate) struct Theme {
    /// `#rgb` or `#rrggbb`.
    pub(crate) primary_color: Option<String>,
    /// `#rgb` or `#rrggbb`.
    pub(crate) secondary_color: Option<String>,
    /// A CSS list of font families.
    pub(crate) font_family: Option<String>,
    /// `https://…` or a path.
    pub(crate) logo_url: Option<String>,
    /// `https://…` or a path.
    pub(crate) favicon_url: Option<String>,
}
