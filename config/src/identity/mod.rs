//! Who is asking: the decision of which tenant, route and pool a request is for.
//!
//! One pure function of (table, request): [`decide`]. The proxy calls it for every request. It allocates only when a
//! name has to be normalised, which clients do for us.

mod authority;

use std::borrow::Cow;
use std::sync::Arc;

pub use authority::{Authority, AuthorityError, normalise};

use crate::model::{Route, TenantState};
use crate::table::{Live, PoolEntry, RoutingTable, TenantEntry};

/// What the decision reads of a request.
pub struct RequestFacts<'r, H: ?Sized> {
    /// The name in the TLS handshake, normalised; `None` on a plain connection.
    pub sni: Option<&'r str>,
    /// `Host` or `:authority`, as sent; `None` when there is none.
    pub authority: Option<&'r str>,
    /// The method.
    pub method: &'r str,
    /// The path without the query.
    pub path: &'r str,
    /// Looks a header up.
    pub headers: &'r H,
}

/// Looks up a request's header fields.
pub trait Headers {
    /// Whether a field of this (lower-case) name is there and, if a value is given, has it in one of its lines.
    fn has(&self, name: &str, value: Option<&str>) -> bool;
}

/// No header fields.
impl Headers for () {
    fn has(&self, _: &str, _: Option<&str>) -> bool {
        false
    }
}

/// How a tenant was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// One of its own domains.
    Domain,
    /// Its slug in front of a zone.
    Zone,
}

/// Where a request goes.
pub struct Selected<'t, 'r, L: Live> {
    /// For whom.
    pub tenant: &'t Arc<TenantEntry<L>>,
    /// Found how.
    pub via: Via,
    /// The host, normalised, without port.
    pub host: Cow<'r, str>,
    /// The port the client named.
    pub port: Option<u16>,
    /// The route that matched, if one did.
    pub route: Option<&'t Arc<Route>>,
    /// To which pool.
    pub pool: &'t Arc<PoolEntry<L>>,
}

/// Why a request goes nowhere. The tenant is named where its visitors may know it: their page is themed.
pub enum Refusal<'t, L: Live> {
    /// The authority is not a host: 400 `BAD_REQUEST`.
    BadAuthority(AuthorityError),
    /// Nothing says which tenant: 400 `TENANT_NOT_FOUND`.
    NoIdentifier,
    /// SNI and authority lead to different tenants: 421 `MISDIRECTED`.
    Misdirected,
    /// No such tenant, or one that is not served: 404 `TENANT_NOT_ACTIVE`, the same for both.
    NotActive,
    /// 403 `TENANT_SUSPENDED`.
    Suspended(&'t Arc<TenantEntry<L>>),
    /// 503 `TENANT_MAINTENANCE`.
    Maintenance(&'t Arc<TenantEntry<L>>),
    /// 403 `FEATURE_NOT_IN_PLAN`.
    FeatureNotInPlan(&'t Arc<TenantEntry<L>>),
    /// The route redirects: its status and target.
    Redirect(&'t Arc<TenantEntry<L>>, &'t Arc<Route>),
    /// The pool that a route or tenant names is not there; the whole-graph check prevents it: 404 `NO_ROUTE`.
    NoRoute(&'t Arc<TenantEntry<L>>),
}

impl<L: Live> std::fmt::Debug for Refusal<'_, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, tenant) = match self {
            Self::BadAuthority(e) => return write!(f, "BadAuthority({e})"),
            Self::NoIdentifier => ("NoIdentifier", None),
            Self::Misdirected => ("Misdirected", None),
            Self::NotActive => ("NotActive", None),
            Self::Suspended(t) => ("Suspended", Some(t)),
            Self::Maintenance(t) => ("Maintenance", Some(t)),
            Self::FeatureNotInPlan(t) => ("FeatureNotInPlan", Some(t)),
            Self::Redirect(t, _) => ("Redirect", Some(t)),
            Self::NoRoute(t) => ("NoRoute", Some(t)),
        };
        match tenant {
            Some(t) => write!(f, "{name}({})", t.tenant.slug),
            None => f.write_str(name),
        }
    }
}

/// Decides where a request goes.
///
/// # Errors
/// A [`Refusal`] names the answer.
pub fn decide<'t, 'r, L: Live, H: Headers + ?Sized>(
    table: &'t RoutingTable<L>,
    request: &RequestFacts<'r, H>,
) -> Result<Selected<'t, 'r, L>, Refusal<'t, L>> {
    let sent = request.authority.filter(|a| !a.is_empty()).ok_or(Refusal::NoIdentifier)?;
    let Authority { host, port } = normalise(sent).map_err(Refusal::BadAuthority)?;
    let (tenant, via) = match tenant_of(table, &host) {
        Some(found) => found,
        None if table.zone_of_shared_host(&host).is_some() => return Err(Refusal::NoIdentifier),
        None => return Err(Refusal::NotActive),
    };
    // Read as unknown whatever the connection was opened for.
    if matches!(tenant.tenant.state, TenantState::Provisioning | TenantState::Archived | TenantState::Deleting) {
        return Err(Refusal::NotActive);
    }
    // One connection carries one tenant: a name under the same certificate is not enough (h2 coalescing, fronting).
    if let Some(sni) = request.sni
        && sni != host
        && tenant_of(table, sni).is_none_or(|(other, _)| other.tenant.id != tenant.tenant.id)
    {
        return Err(Refusal::Misdirected);
    }
    match tenant.tenant.state {
        TenantState::Active => {}
        TenantState::Suspended => return Err(Refusal::Suspended(tenant)),
        TenantState::Maintenance => return Err(Refusal::Maintenance(tenant)),
        TenantState::Provisioning | TenantState::Archived | TenantState::Deleting => return Err(Refusal::NotActive),
    }
    let own_pool = table.pool(&tenant.tenant.pool);
    let route = route_of(table, tenant, own_pool, request);
    let mut pool = own_pool;
    if let Some(route) = route {
        let action = &route.action;
        if action.maintenance {
            return Err(Refusal::Maintenance(tenant));
        }
        if action
            .requires_feature
            .as_ref()
            .is_some_and(|f| !crate::context::has_feature(&tenant.tenant, &tenant.plan, f))
        {
            return Err(Refusal::FeatureNotInPlan(tenant));
        }
        if action.redirect.is_some() {
            return Err(Refusal::Redirect(tenant, route));
        }
        if let Some(other) = &action.pool {
            pool = table.pool(other);
        }
    }
    let pool = pool.ok_or(Refusal::NoRoute(tenant))?;
    Ok(Selected { tenant, via, host, port, route, pool })
}

/// Whose name this is: an exact domain before a zone's subdomain.
pub fn tenant_of<'t, L: Live>(table: &'t RoutingTable<L>, host: &str) -> Option<(&'t Arc<TenantEntry<L>>, Via)> {
    if let Some(tenant) = table.tenant_of_domain(host) {
        return Some((tenant, Via::Domain));
    }
    table.tenant_of_zone_name(host).map(|(_, tenant)| (tenant, Via::Zone))
}

fn route_of<'t, L: Live, H: Headers + ?Sized>(
    table: &'t RoutingTable<L>,
    tenant: &'t TenantEntry<L>,
    pool: Option<&'t Arc<PoolEntry<L>>>,
    request: &RequestFacts<'_, H>,
) -> Option<&'t Arc<Route>> {
    let of_pool = pool.into_iter().flat_map(|p| p.routes.iter());
    tenant.routes.iter().chain(of_pool).chain(table.platform_routes().iter()).find(|route| {
        let matches = &route.matches;
        matches.takes_path(request.path)
            && matches.takes_method(request.method)
            && matches.headers.iter().all(|h| request.headers.has(&h.name, h.value.as_deref()))
    })
}

#[cfg(test)]
pub(crate) mod tests;
