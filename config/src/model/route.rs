//! A route: which requests of a tenant, a pool or the platform are treated differently, and how.
//!
//! # The order in which routes are asked
//!
//! 1. Public routes of the platform, before anybody asks which tenant a request is for.
//! 2. The tenant's routes, then those of its pool, then the platform's ([`RouteScope`]).
//! 3. Within a scope: the higher [`Route::priority`]; at the same priority exact paths before prefixes, longer prefixes
//!    before shorter ones, more conditions before fewer, older routes before younger ones.
//!
//! The first that matches decides alone; no later one adds anything. So a route that matches no request which an
//! earlier one of its scope leaves to it is dead: it is refused when it is written ([`RouteMatch::covers`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Canary, FilesAnswer, PoolId, PoolTimeouts, RouteId, TenantId};

/// A rule for some requests. The scope is the tenant if one is named, else the pool, else the platform.
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

/// Which routes a route stands among.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RouteScope {
    /// For every known host, before anybody asks which tenant a request is for.
    Public,
    /// A tenant's.
    Tenant(TenantId),
    /// Of all tenants on a pool.
    Pool(PoolId),
    /// Of all tenants.
    Platform,
}

impl Route {
    /// Which routes it stands among.
    pub fn scope(&self) -> RouteScope {
        match (&self.tenant, &self.pool) {
            (Some(tenant), _) => RouteScope::Tenant(*tenant),
            (None, Some(pool)) => RouteScope::Pool(pool.clone()),
            (None, None) if self.action.public => RouteScope::Public,
            (None, None) => RouteScope::Platform,
        }
    }

    /// Pools that it names: as its scope, and as where requests go.
    pub fn pools(&self) -> impl Iterator<Item = &PoolId> {
        let canary = self.action.canary.as_ref().map(|canary| &canary.pool);
        self.pool.iter().chain(&self.action.pool).chain(canary)
    }
}

/// What kind of name a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostClass {
    /// A slug below one of the platform's zones.
    PlatformZone,
    /// A school's own domain.
    CustomDomain,
    /// A zone's shared host.
    SharedHost,
}

impl HostClass {
    /// The name used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PlatformZone => "platform_zone",
            Self::CustomDomain => "custom_domain",
            Self::SharedHost => "shared_host",
        }
    }
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
    /// The host is of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostClass>,
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

    /// Whether every request that falls under `other` falls under this match too.
    pub fn covers(&self, other: &Self) -> bool {
        let path = match (&self.path_exact, &other.path_exact) {
            (Some(exact), other_exact) => other_exact.as_ref() == Some(exact),
            (None, Some(exact)) => self.takes_path(exact),
            (None, None) => self.covers_prefix(other.path_prefix.as_deref()),
        };
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty() && other.methods.iter().all(|m| self.takes_method(m)));
        let headers = self.headers.iter().all(|needed| {
            let implies =
                |had: &HeaderMatch| had.name == needed.name && (needed.value.is_none() || had.value == needed.value);
            other.headers.iter().any(implies)
        });
        path && methods && headers && (self.host.is_none() || self.host == other.host)
    }

    fn covers_prefix(&self, other: Option<&str>) -> bool {
        match (self.path_prefix.as_deref(), other) {
            // A path always begins with a slash.
            (None | Some("" | "/"), _) => true,
            (Some(_), None) => false,
            // `/api` takes `/api` itself, which `/api/` does not.
            (Some(prefix), Some(other)) => self.takes_path(other) || prefix == other,
        }
    }

    /// How many conditions it has beside the path.
    pub fn conditions(&self) -> usize {
        self.headers.len() + usize::from(!self.methods.is_empty()) + usize::from(self.host.is_some())
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
    /// Fields set on the answer of a backend or of the route itself (`answer`, `files`, `redirect`), in place of its own
    /// and of what the gateway adds there for security.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set_response_headers: BTreeMap<String, String>,
    /// Fields removed from such an answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_response_headers: Vec<String>,
    /// Answer with a redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Refuse with 403 `FEATURE_NOT_IN_PLAN` unless the tenant has this feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires_feature: Option<String>,
    /// Bytes of a request body, instead of the plan's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// Milliseconds to wait for the backend, instead of the pool's `first_byte_ms` and `read_ms`.
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
    /// How long each phase may take, instead of the pool's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RouteTimeouts>,
    /// Answer with 503 `TENANT_MAINTENANCE`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub maintenance: bool,
    /// Send a share of the requests to another pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Answer with this, without any backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<FixedAnswer>,
    /// Answer with files that each gateway holds in memory, without any backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesAnswer>,
    /// Serve it on every known host, before anybody asks which tenant it is for: the backend is told no tenant. Only of
    /// the platform's routes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
}

/// How long each phase of a route's requests may take, in milliseconds; what is absent is the pool's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// To connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u64>,
    /// From the request sent to the answer's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// Between two pieces of the answer's body; from the request sent to the head when nobody gives `first_byte_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_ms: Option<u64>,
    /// For one piece of the request to be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_ms: Option<u64>,
    /// From the request's head to the last byte of the answer, retries included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
}

impl RouteAction {
    /// How long each phase may take, for requests that would have these times of a pool. `timeout_ms` stands for the
    /// wait for the head and between pieces, where nothing more exact is said.
    #[must_use]
    pub fn times(&self, pool: &PoolTimeouts) -> PoolTimeouts {
        let RouteTimeouts { connect_ms, first_byte_ms, read_ms, write_ms, total_ms } =
            self.timeouts.unwrap_or_default();
        PoolTimeouts {
            connect_ms: connect_ms.unwrap_or(pool.connect_ms),
            first_byte_ms: first_byte_ms.or(self.timeout_ms).or(pool.first_byte_ms),
            read_ms: read_ms.or(self.timeout_ms).unwrap_or(pool.read_ms),
            write_ms: write_ms.unwrap_or(pool.write_ms),
            idle_ms: pool.idle_ms,
            total_ms: total_ms.or(pool.total_ms),
        }
    }
}

/// An answer that needs no backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedAnswer {
    /// 200 to 599.
    #[serde(default = "FixedAnswer::default_status")]
    pub status: u16,
    /// The type of the body.
    #[serde(default = "FixedAnswer::default_type")]
    pub content_type: String,
    /// The body, at most 16,384 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
}

impl FixedAnswer {
    /// Characters of a body: 16,384. It is in the memory of every proxy, and in every snapshot.
    pub const BODY_CHARACTERS: usize = 16_384;

    const fn default_status() -> u16 {
        200
    }

    fn default_type() -> String {
        "text/plain; charset=utf-8".to_owned()
    }
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

    #[test]
    fn a_route_says_how_long_each_phase_may_take() {
        let pool = PoolTimeouts { first_byte_ms: Some(40), total_ms: Some(90), ..PoolTimeouts::default() };
        assert_eq!(RouteAction::default().times(&pool), pool);
        let action = RouteAction { timeout_ms: Some(7), ..RouteAction::default() };
        let times = PoolTimeouts { first_byte_ms: Some(7), read_ms: 7, ..pool.clone() };
        assert_eq!(action.times(&pool), times);
        let all: RouteTimeouts = serde_json::from_value(serde_json::json!({
            "connect_ms": 1, "first_byte_ms": 2, "read_ms": 3, "write_ms": 4, "total_ms": 5
        }))
        .expect("times");
        let action = RouteAction { timeout_ms: Some(7), timeouts: Some(all), ..RouteAction::default() };
        let PoolTimeouts { connect_ms, first_byte_ms, read_ms, write_ms, idle_ms, total_ms } = action.times(&pool);
        assert_eq!((connect_ms, first_byte_ms, read_ms, write_ms, total_ms), (1, Some(2), 3, 4, Some(5)));
        assert_eq!(idle_ms, pool.idle_ms, "a connection is not a route's");
    }

    fn matching(json: serde_json::Value) -> RouteMatch {
        serde_json::from_value(json).expect("a match")
    }

    #[test]
    fn a_match_covers_what_it_leaves_nothing_of() {
        let covers = |a: serde_json::Value, b: serde_json::Value| matching(a).covers(&matching(b));
        use serde_json::json;
        assert!(covers(json!({}), json!({"path_prefix": "/api"})));
        assert!(covers(json!({"path_prefix": "/"}), json!({})));
        assert!(covers(json!({"path_prefix": "/api"}), json!({"path_prefix": "/api/"})));
        assert!(!covers(json!({"path_prefix": "/api/"}), json!({"path_prefix": "/api"})));
        assert!(covers(json!({"path_prefix": "/api"}), json!({"path_exact": "/api/v1"})));
        assert!(!covers(json!({"path_exact": "/api"}), json!({"path_prefix": "/api"})));
        assert!(!covers(json!({"path_prefix": "/api"}), json!({"path_prefix": "/apix"})));
        assert!(covers(json!({"methods": ["GET", "PUT"]}), json!({"methods": ["PUT"]})));
        assert!(!covers(json!({"methods": ["GET"]}), json!({})));
        let (any, beta) = (json!({"headers": [{"name": "x"}]}), json!({"headers": [{"name": "x", "value": "b"}]}));
        assert!(covers(any.clone(), beta.clone()) && !covers(beta.clone(), any) && !covers(beta, json!({})));
        assert!(covers(json!({}), json!({"host": "shared_host"})));
        assert!(!covers(json!({"host": "custom_domain"}), json!({"host": "shared_host"})));
    }
}
