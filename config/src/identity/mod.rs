//! Who is asking: the decision of which tenant, route and pool a request is for.
//!
//! One pure function of (table, request): [`decide`]. The proxy calls it for every request. It allocates only when a
//! name has to be normalised, which clients do for us.

mod authority;
mod challenge;
mod cookie;
mod explain;
mod identifier;
mod path;
mod query;
mod recorded;
mod refusal;
mod token;
mod trace;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

pub use authority::{Authority, AuthorityError, normalise};
pub use challenge::KeyAuthorization;
pub use cookie::line_has_cookie;
pub use explain::{DescribedRequest, Explanation, explain};
pub use identifier::{Identifier, Named};
pub use query::without_tenant;
pub use recorded::{Conditions, Happened, RecordedRequest, RecordedToken, Shortened, explain_recorded};
pub use refusal::{Mismatch, Refusal};
pub use token::{Bearer, TokenError, VerifiedToken, token_of};
pub use trace::{Silent, Step, Trace, Trust, Whose};

use crate::model::{CanaryAsked, HostClass, Maintenance, Route, RouteMatch, TenantState, Zone};
use crate::table::{Live, PoolEntry, RoutingTable, TenantEntry};
use identifier::identifiers;
use path::Prefixed;

/// What the decision reads of a request.
pub struct RequestFacts<'r, H: ?Sized, T: ?Sized> {
    /// The client came over TLS, to us or to a hop that we trust.
    pub secure: bool,
    /// The name in the TLS handshake, normalised; `None` on a plain connection.
    pub sni: Option<&'r str>,
    /// `Host` or `:authority`, as sent; `None` when there is none.
    pub authority: Option<&'r str>,
    /// The client's address, as far as we believe it.
    pub client: IpAddr,
    /// The method.
    pub method: &'r str,
    /// The path without the query.
    pub path: &'r str,
    /// The query, without `?`.
    pub query: Option<&'r str>,
    /// Looks a header up.
    pub headers: &'r H,
    /// Says what the bearer token is worth.
    pub token: &'r T,
    /// When, milliseconds since 1970: maintenance begins and ends by it.
    pub now_ms: i64,
    /// Chance, new for every request: what a canary may share requests by.
    pub chance: u64,
}

/// Looks up a request's header fields.
pub trait Headers {
    /// Whether a field of this (lower-case) name is there and, if a value is given, has it in one of its lines.
    fn has(&self, name: &str, value: Option<&str>) -> bool;
    /// Whether a cookie of this name has this value.
    fn has_cookie(&self, name: &str, value: &str) -> bool;
    /// Every line of `X-Tenant-ID`.
    fn tenant_ids(&self) -> impl Iterator<Item = &[u8]>;
    /// Every line of `X-Tenant-Slug`.
    fn tenant_slugs(&self) -> impl Iterator<Item = &[u8]>;
}

/// No header fields.
impl Headers for () {
    fn has(&self, _: &str, _: Option<&str>) -> bool {
        false
    }
    fn has_cookie(&self, _: &str, _: &str) -> bool {
        false
    }
    fn tenant_ids(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }
    fn tenant_slugs(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }
}

/// Says what a request's bearer token is worth. Asked at most once, and only where it can matter.
pub trait Token {
    /// Its worth to the issuers of this table.
    fn bearer<L: Live>(&self, table: &RoutingTable<L>) -> Bearer;
}

/// No token.
impl Token for () {
    fn bearer<L: Live>(&self, _: &RoutingTable<L>) -> Bearer {
        Bearer::Absent
    }
}

/// How a tenant was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// One of its own domains.
    Domain,
    /// Its slug in front of a zone.
    Zone,
    /// An identifier, on a zone's shared host.
    Shared(Identifier),
    /// Not at all: a public route serves everybody.
    Public,
}

impl Via {
    /// The name in explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Zone => "zone",
            Self::Shared(identifier) => identifier.as_str(),
            Self::Public => "public",
        }
    }
}

/// Where a request goes.
pub struct Selected<'t, 'r, L: Live> {
    /// For whom; `None` on a public route.
    pub tenant: Option<&'t Arc<TenantEntry<L>>>,
    /// Found how.
    pub via: Via,
    /// The host, normalised, without port.
    pub host: Cow<'r, str>,
    /// The port the client named.
    pub port: Option<u16>,
    /// `/t/{slug}`, where it is cut off the path.
    pub prefix: Option<&'r str>,
    /// The path without that prefix.
    pub path: &'r str,
    /// The route that matched, if one did.
    pub route: Option<&'t Arc<Route>>,
    /// To which pool.
    pub pool: &'t Arc<PoolEntry<L>>,
    /// For a canary's share: the pool of the rest, when the canary's has nothing to offer.
    pub otherwise: Option<&'t Arc<PoolEntry<L>>>,
}

/// Decides where a request goes.
///
/// # Errors
/// A [`Refusal`] names the answer.
pub fn decide<'t, 'r, L: Live, H: Headers + ?Sized, T: Token + ?Sized>(
    table: &'t RoutingTable<L>,
    request: &RequestFacts<'r, H, T>,
) -> Result<Selected<'t, 'r, L>, Refusal<'t, 'r, L>> {
    decide_with(table, request, &mut Silent)
}

/// [`decide`], saying every step.
///
/// # Errors
/// A [`Refusal`] names the answer.
pub fn decide_with<'t, 'r, L: Live, H: Headers + ?Sized, T: Token + ?Sized>(
    table: &'t RoutingTable<L>,
    request: &RequestFacts<'r, H, T>,
    trace: &mut impl Trace,
) -> Result<Selected<'t, 'r, L>, Refusal<'t, 'r, L>> {
    let sent = request.authority.filter(|a| !a.is_empty());
    let Some(Authority { host, port }) = sent.map(normalise).transpose().map_err(|error| {
        trace.step(Step::Authority { sent, host: None });
        Refusal::BadAuthority(error)
    })?
    else {
        trace.step(Step::Authority { sent, host: None });
        return Err(Refusal::NoIdentifier);
    };
    trace.step(Step::Authority { sent, host: Some(&host) });
    if let Some(token) = challenge::asked(table, &host, request.path) {
        trace.step(Step::Challenge { host: &host });
        let answer = challenge::answer(table, &host, request.method, token);
        return Err(answer.map_or(Refusal::NoChallenge, Refusal::Challenge));
    }
    let place = place_of(table, &host);
    trace.step(Step::Host { host: &host, whose: place.as_ref().map_or(Whose::Nobody, Place::whose) });
    let Some(place) = place else { return Err(Refusal::UnknownHost) };
    if !request.secure {
        trace.step(Step::Plain);
        return Err(Refusal::Plain { host });
    }
    if !table.public_routes().is_empty()
        && let Some(selected) = public(table, request, &place, &host, port, trace)?
    {
        return Ok(selected);
    }
    let prefixed = match &place {
        Place::Shared(zone) if zone.path_prefix => Prefixed::of(request.path),
        _ => None,
    };
    // A token costs most; where nobody issues any, only a shared host asks what is wrong with one.
    let shared = matches!(place, Place::Shared(_));
    let bearer = if shared || !table.has_no_issuers() { request.token.bearer(table) } else { Bearer::Absent };
    trace.step(Step::Token(&bearer));
    if matches!(bearer, Bearer::Several) {
        return Err(Refusal::Token(TokenError::Format));
    }
    let verified = if let Bearer::Verified(token) = &bearer { Some(&**token) } else { None };
    let slug = prefixed.map(|p| p.slug);
    let (tenant, via) = match &place {
        Place::Own(tenant, via, _) => (*tenant, *via),
        Place::Shared(zone) => select(table, zone, request, &bearer, slug, trace)?,
    };
    let path = prefixed.map_or(request.path, |p| p.rest);
    trace.step(Step::Selected { tenant: &tenant.tenant, via, path });
    let state = tenant.tenant.state;
    if matches!(state, TenantState::Provisioning | TenantState::Archived | TenantState::Deleting) {
        trace.step(Step::State(state));
        // Read as unknown, whatever the connection was opened for.
        return Err(match via {
            Via::Shared(by) => Refusal::not_active(by),
            Via::Domain | Via::Zone | Via::Public => Refusal::UnknownHost,
        });
    }
    // One connection carries one tenant: a name under the same certificate is not enough (h2 coalescing, fronting). A
    // shared host's own name is nobody's, and so no other's.
    if let Some(sni) = request.sni {
        let agrees = sni == host || tenant_of(table, sni).is_some_and(|(other, _)| other.tenant.id == tenant.tenant.id);
        trace.step(Step::Sni { sni, agrees });
        if !agrees {
            return Err(Refusal::Misdirected);
        }
    }
    for named in identifiers(request, verified, slug) {
        let other = named.tenant(table);
        let agrees = other.is_some_and(|other| other.tenant.id == tenant.tenant.id);
        trace.step(Step::Agreement { named: &named, tenant: other.map(|t| &*t.tenant), agrees });
        if !agrees {
            return Err(Refusal::Mismatch(Mismatch::of(Some(tenant), &named)));
        }
    }
    // On a shared host a bad token was refused before anything was selected.
    if let Bearer::Refused { issuer, error } = &bearer
        && counts(&issuer.zone, place.zone())
        && issuer.tenant.is_none_or(|only| only == tenant.tenant.id)
    {
        return Err(Refusal::Token(*error));
    }
    trace.step(Step::State(state));
    match state {
        TenantState::Active | TenantState::Maintenance => {}
        TenantState::Suspended => return Err(Refusal::Suspended(tenant)),
        TenantState::Provisioning | TenantState::Archived | TenantState::Deleting => return Err(Refusal::UnknownHost),
    }
    let gate = Gate { client: request.client, now_ms: request.now_ms };
    gate.of_platform(table, tenant, trace)?;
    gate.of_tenant(tenant, trace)?;
    if path.starts_with("//") {
        return Err(Refusal::BadPath);
    }
    let own = Own { tenant, host: place.class(), path };
    let route = own.route(table, request);
    trace.step(Step::Route(route.map(|r| &**r)));
    if let Some(route) = route {
        let action = &route.action;
        if action.maintenance {
            return Err(Refusal::Maintenance(tenant, None));
        }
        if let Some(name) = &action.requires_feature {
            let on = crate::context::has_feature(&tenant.tenant, &tenant.plan, name);
            trace.step(Step::Feature { name, on });
            if !on {
                return Err(Refusal::FeatureNotInPlan(tenant));
            }
        }
        ends(Some(tenant), route, request.method, path)?;
    }
    let goes = own.pool(table, request, route, trace);
    let pool = goes.pool.ok_or(Refusal::NoRoute(Some(tenant)))?;
    gate.of_pool(tenant, pool, trace)?;
    trace.step(Step::Pool(&pool.pool));
    let prefix = prefixed.map(|p| p.prefix);
    Ok(Selected { tenant: Some(tenant), via, host, port, prefix, path, route, pool, otherwise: goes.otherwise })
}

/// Answers that a route gives without a backend.
fn ends<'t, 'r, L: Live>(
    tenant: Option<&'t Arc<TenantEntry<L>>>,
    route: &'t Arc<Route>,
    method: &str,
    path: &'r str,
) -> Result<(), Refusal<'t, 'r, L>> {
    if route.action.redirect.is_some() {
        return Err(Refusal::Redirect(tenant, route));
    }
    if route.action.answer.is_some() {
        return Err(Refusal::Answer(tenant, route));
    }
    if route.action.files.is_some() {
        let reads = matches!(method, "GET" | "HEAD");
        return Err(if reads { Refusal::Files(tenant, route, path) } else { Refusal::ReadOnly(tenant) });
    }
    Ok(())
}

/// What a public route makes of a request to a known host.
fn public<'t, 'r, L: Live, H: Headers + ?Sized, T: ?Sized>(
    table: &'t RoutingTable<L>,
    request: &RequestFacts<'r, H, T>,
    place: &Place<'t, L>,
    host: &Cow<'r, str>,
    port: Option<u16>,
    trace: &mut impl Trace,
) -> Result<Option<Selected<'t, 'r, L>>, Refusal<'t, 'r, L>> {
    let path = request.path;
    let Some(route) = table.public_routes().find(path, |route| holds(&route.matches, request, place.class())) else {
        return Ok(None);
    };
    // One connection carries one tenant, also where nobody asks which.
    if let Some(sni) = request.sni {
        let is_same = |owner: &Arc<TenantEntry<L>>| place.tenant().is_some_and(|t| t.tenant.id == owner.tenant.id);
        let agrees = sni == host.as_ref() || tenant_of(table, sni).is_some_and(|(owner, _)| is_same(owner));
        trace.step(Step::Sni { sni, agrees });
        if !agrees {
            return Err(Refusal::Misdirected);
        }
    }
    if path.starts_with("//") {
        return Err(Refusal::BadPath);
    }
    trace.step(Step::Route(Some(route)));
    ends(None, route, request.method, path)?;
    let pool = route.action.pool.as_ref().and_then(|pool| table.pool(pool)).ok_or(Refusal::NoRoute(None))?;
    trace.step(Step::Pool(&pool.pool));
    let (route, host) = (Some(route), host.clone());
    Ok(Some(Selected { tenant: None, via: Via::Public, host, port, prefix: None, path, route, pool, otherwise: None }))
}

/// Who is turned away while something is in maintenance.
struct Gate {
    client: IpAddr,
    now_ms: i64,
}

impl Gate {
    fn of_tenant<'t, 'r, L: Live>(
        &self,
        tenant: &'t Arc<TenantEntry<L>>,
        trace: &mut impl Trace,
    ) -> Result<(), Refusal<'t, 'r, L>> {
        if !tenant.tenant.is_in_maintenance(self.now_ms) {
            return Ok(());
        }
        let maintenance = tenant.tenant.maintenance.as_deref();
        let passes = maintenance.is_some_and(|maintenance| !maintenance.turns_away(self.client, self.now_ms));
        trace.step(Step::Maintenance { of: "tenant", passes });
        if passes { Ok(()) } else { Err(Refusal::Maintenance(tenant, maintenance)) }
    }

    fn of_platform<'t, 'r, L: Live>(
        &self,
        table: &'t RoutingTable<L>,
        tenant: &'t Arc<TenantEntry<L>>,
        trace: &mut impl Trace,
    ) -> Result<(), Refusal<'t, 'r, L>> {
        let maintenance = table.platform().and_then(|platform| platform.maintenance.as_deref());
        maintenance.map_or(Ok(()), |maintenance| self.of("platform", maintenance, tenant, trace))
    }

    fn of_pool<'t, 'r, L: Live>(
        &self,
        tenant: &'t Arc<TenantEntry<L>>,
        pool: &'t PoolEntry<L>,
        trace: &mut impl Trace,
    ) -> Result<(), Refusal<'t, 'r, L>> {
        let maintenance = pool.pool.maintenance.as_deref();
        maintenance.map_or(Ok(()), |maintenance| self.of("pool", maintenance, tenant, trace))
    }

    fn of<'t, 'r, L: Live>(
        &self,
        what: &'static str,
        maintenance: &'t Maintenance,
        tenant: &'t Arc<TenantEntry<L>>,
        trace: &mut impl Trace,
    ) -> Result<(), Refusal<'t, 'r, L>> {
        if !maintenance.is_on(self.now_ms) {
            return Ok(());
        }
        let passes = !maintenance.turns_away(self.client, self.now_ms);
        trace.step(Step::Maintenance { of: what, passes });
        if passes { Ok(()) } else { Err(Refusal::Maintenance(tenant, Some(maintenance))) }
    }
}

/// Where a host leads.
enum Place<'t, L: Live> {
    /// To a tenant: its domain, or its label in a zone.
    Own(&'t Arc<TenantEntry<L>>, Via, Option<&'t Zone>),
    /// To whom the request names.
    Shared(&'t Zone),
}

impl<'t, L: Live> Place<'t, L> {
    fn whose(&self) -> Whose<'t> {
        match self {
            Self::Own(tenant, Via::Domain, _) => Whose::Domain(&tenant.tenant),
            Self::Own(tenant, _, _) => Whose::Zone(&tenant.tenant),
            Self::Shared(zone) => Whose::Shared(zone),
        }
    }

    fn tenant(&self) -> Option<&'t Arc<TenantEntry<L>>> {
        match self {
            Self::Own(tenant, ..) => Some(tenant),
            Self::Shared(_) => None,
        }
    }

    fn class(&self) -> HostClass {
        match self {
            Self::Own(_, _, None) => HostClass::CustomDomain,
            Self::Own(_, _, Some(_)) => HostClass::PlatformZone,
            Self::Shared(_) => HostClass::SharedHost,
        }
    }

    fn zone(&self) -> Option<&'t Zone> {
        match self {
            Self::Own(_, _, zone) => *zone,
            Self::Shared(zone) => Some(zone),
        }
    }
}

fn place_of<'t, L: Live>(table: &'t RoutingTable<L>, host: &str) -> Option<Place<'t, L>> {
    if let Some(tenant) = table.tenant_of_domain(host) {
        return Some(Place::Own(tenant, Via::Domain, None));
    }
    if let Some((zone, tenant)) = table.tenant_of_zone_name(host) {
        return Some(Place::Own(tenant, Via::Zone, Some(zone)));
    }
    table.zone_of_shared_host(host).map(|zone| Place::Shared(zone))
}

/// Whether the word of an issuer counts on names of `zone` (on a domain of a tenant's own there is none).
fn counts(only: &Option<crate::model::DomainName>, zone: Option<&Zone>) -> bool {
    only.as_ref().is_none_or(|only| zone.is_some_and(|zone| zone.name == *only))
}

/// Selects the tenant of a request to a zone's shared host.
fn select<'t, 'r, L: Live, H: Headers + ?Sized, T: ?Sized>(
    table: &'t RoutingTable<L>,
    zone: &Zone,
    request: &RequestFacts<'r, H, T>,
    bearer: &Bearer,
    slug: Option<&'r str>,
    trace: &mut impl Trace,
) -> Result<(&'t Arc<TenantEntry<L>>, Via), Refusal<'t, 'r, L>> {
    // What is of no use here, and why: the answer if nothing else selects.
    let (token, useless) = match bearer {
        Bearer::Verified(token) if counts(&token.issuer.zone, Some(zone)) => (Some(&**token), None),
        Bearer::Refused { issuer, error } if counts(&issuer.zone, Some(zone)) => return Err(Refusal::Token(*error)),
        Bearer::Verified(_) | Bearer::Refused { .. } => (None, Some(TokenError::Issuer)),
        Bearer::Stranger(error) => (None, Some(*error)),
        Bearer::Absent | Bearer::Several => (None, None),
    };
    if zone.require_token && token.is_none() {
        return Err(useless.map_or(Refusal::MissingToken, Refusal::Token));
    }
    let trust = if zone.trusted_callers.iter().any(|net| net.contains(&request.client)) {
        Trust::Network
    } else if token.is_some() {
        Trust::Token
    } else {
        Trust::None
    };
    trace.step(Step::Caller { client: request.client, zone, trust });
    for named in identifiers(request, token, slug) {
        let counts = trust != Trust::None || !named.by.needs_trust();
        let tenant = named.tenant(table);
        trace.step(Step::Candidate { named: &named, tenant: tenant.map(|t| &*t.tenant), counts });
        if !counts {
            continue;
        }
        if let Some(tenant) = tenant {
            return Ok((tenant, Via::Shared(named.by)));
        }
        // Two lines that say different things are a disagreement, also when the first says nothing that is known.
        let differs = |other: &Named<'_>| other.by == named.by && other.value != named.value;
        return Err(if identifiers(request, token, slug).any(|other| differs(&other)) {
            Refusal::Mismatch(Mismatch::of(None, &named))
        } else {
            Refusal::not_active(named.by)
        });
    }
    trace.step(Step::Nobody);
    Err(useless.map_or(Refusal::NoIdentifier, Refusal::Token))
}

/// Whether a host leads somewhere: to a tenant, or to a zone's shared host.
pub fn is_known<L: Live>(table: &RoutingTable<L>, host: &str) -> bool {
    place_of(table, host).is_some()
}

/// Whose name this is: an exact domain before a zone's subdomain.
pub fn tenant_of<'t, L: Live>(table: &'t RoutingTable<L>, host: &str) -> Option<(&'t Arc<TenantEntry<L>>, Via)> {
    match place_of(table, host)? {
        Place::Own(tenant, via, _) => Some((tenant, via)),
        Place::Shared(_) => None,
    }
}

/// Whether all of a match but the path holds for a request.
fn holds<H: Headers + ?Sized, T: ?Sized>(
    matches: &RouteMatch,
    request: &RequestFacts<'_, H, T>,
    host: HostClass,
) -> bool {
    matches.host.is_none_or(|wanted| wanted == host)
        && matches.takes_method(request.method)
        && matches.headers.iter().all(|h| request.headers.has(&h.name, h.value.as_deref()))
}

/// What is known of a request once its tenant is.
struct Own<'t, 'p, L: Live> {
    tenant: &'t TenantEntry<L>,
    host: HostClass,
    path: &'p str,
}

/// Where a request goes: its pool, and for a canary's share that of the rest.
struct Goes<'t, L: Live> {
    pool: Option<&'t Arc<PoolEntry<L>>>,
    otherwise: Option<&'t Arc<PoolEntry<L>>>,
}

impl<'t, L: Live> Own<'t, '_, L> {
    fn route<H: Headers + ?Sized, T: ?Sized>(
        &self,
        table: &'t RoutingTable<L>,
        request: &RequestFacts<'_, H, T>,
    ) -> Option<&'t Arc<Route>> {
        let holds = |route: &Route| holds(&route.matches, request, self.host);
        let of_pool = || table.pool(&self.tenant.tenant.pool).and_then(|own| own.routes.find(self.path, holds));
        let of_platform = || table.platform_routes().find(self.path, holds);
        self.tenant.routes.find(self.path, holds).or_else(of_pool).or_else(of_platform)
    }

    fn pool<H: Headers + ?Sized, T: ?Sized>(
        &self,
        table: &'t RoutingTable<L>,
        request: &RequestFacts<'_, H, T>,
        route: Option<&Arc<Route>>,
        trace: &mut impl Trace,
    ) -> Goes<'t, L> {
        let action = route.map(|route| &route.action);
        let named = action.and_then(|action| action.pool.as_ref());
        let rest = table.pool(named.unwrap_or(&self.tenant.tenant.pool));
        // A route that names a pool has said where its requests go; the tenant's canary is not asked.
        let of_tenant = || self.tenant.tenant.canary.as_deref().filter(|_| named.is_none());
        let canary = action.and_then(|action| action.canary.as_ref()).or_else(of_tenant);
        if let Some(canary) = canary {
            let asked =
                CanaryAsked { tenant: Some(self.tenant.tenant.id), client: request.client, chance: request.chance };
            let is_chosen = canary.header.as_ref().is_some_and(|h| request.headers.has(&h.name, h.value.as_deref()))
                || canary.cookie.as_ref().is_some_and(|c| request.headers.has_cookie(&c.name, &c.value));
            let goes = is_chosen || canary.takes(&asked);
            trace.step(Step::Canary { canary, is_chosen, goes });
            if goes && let Some(pool) = table.pool(&canary.pool) {
                return Goes { pool: Some(pool), otherwise: rest };
            }
        }
        Goes { pool: rest, otherwise: None }
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod shared;
#[cfg(test)]
pub(crate) mod tests;
