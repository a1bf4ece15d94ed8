//! A route: which requests of a tenant, a pool or the platform are treated differently, and how.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PoolId, RouteId, TenantId};

/// A rule for some requests. The scope is the tenant if one is named, else the pool, else the platform; a tenant's
/// routes are asked first, the platform's last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// Its identity.
    pub id: RouteId,
    /// Only for this tenant.
    #[serde(default)]
    pub tenant: Option<TenantId>,
    /// Only for tenants whose pool this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
    /// Routes of one scope are asked from the highest to the lowest.
    #[serde(default)]
    pub priority: i32,
    /// Which requests.
    #[serde(rename = "match")]
    pub matches: RouteMatch,
    /// What happens to them.
    pub action: RouteAction,
}

/// Which requests a route is for; all that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteMatch {
    /// The path is this, or continues it at a `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// The path is exactly this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_exact: Option<String>,
    /// The method is one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Each of these fields is there and has the value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
}

impl RouteMatch {
    /// Whether a path falls under this match. Prefixes match on segment boundaries: `/api` and `/api/` take `/api/x`,
    /// neither takes `/apix`.
    pub fn takes_path(&self, path: &str) -> bool {
        if let Some(exact) = &self.path_exact {
            return path == exact;
        }
        match self.path_prefix.as_deref() {
            None => true,
            Some(prefix) => path
                .strip_prefix(prefix)
                .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/')),
        }
    }

    /// Whether a method falls under this match.
    pub fn takes_method(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|m| m == method)
    }
}

/// A header that must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// The field's name, lower case.
    pub name: String,
    /// Its exact value; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What happens to a request that matches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteAction {
    /// Forward to this pool instead of the tenant's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
    /// Change the path on the way up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Fields set on the way up.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set_headers: BTreeMap<String, String>,
    /// Fields removed on the way up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_headers: Vec<String>,
    /// Answer with a redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Refuse with 403 `FEATURE_NOT_IN_PLAN` unless the tenant has this feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires_feature: Option<String>,
    /// Bytes of a request body, instead of the plan's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// Milliseconds to wait for the backend, instead of the pool's `read_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What kind of request it is. `static` and `public` ones do not count against the day's quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<RequestClass>,
    /// The class of the plan (`limits.classes`) whose rate holds beside the tenant's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_class: Option<String>,
    /// Where it waits when its pool is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// Answer with 503 `TENANT_MAINTENANCE`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub maintenance: bool,
}

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestClass {
    /// A call of the school's API.
    Api,
    /// A page.
    Page,
    /// A file that is the same for everyone: styles, scripts, pictures.
    Static,
    /// For anyone, such as a school's public calendar or a health check.
    Public,
}

/// Where a request waits when its pool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// In turn with its tenant's others.
    #[default]
    Fair,
    /// In a small lane of its own: for logins and health checks.
    Priority,
}

/// Replace the matched prefix of the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// What stands in its place; begins with `/`.
    pub prefix: String,
}

/// Answer with a redirect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Where to: an absolute URL or a path.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "Redirect::default_status")]
    pub status: u16,
}

impl Redirect {
    const fn default_status() -> u16 {
        308
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let takes = |prefix: &str, path: &str| {
            RouteMatch { path_prefix: Some(prefix.into()), ..RouteMatch::default() }.takes_path(path)
        };
        assert!(takes("/api", "/api"));
        assert!(takes("/api", "/api/v1"));
        assert!(!takes("/api", "/apix"));
        assert!(takes("/api/", "/api/v1"));
        assert!(!takes("/api/", "/api"));
        assert!(takes("/", "/anything"));
    }
}
