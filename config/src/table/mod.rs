//! The routing table: everything a request needs to know, in persistent maps.
//!
//! Cloning a table is a handful of reference counts, and a clone shares all that did not change, so adopting a delta
//! costs what changed: [`RoutingTable::apply`] makes the next table beside the one that requests still use.
//! What a node learns by itself (counters, health) hangs on the entries through [`Live`] and outlives a change.

mod apply;
mod check;
mod route_list;
mod route_trie;

use std::sync::Arc;

use foldhash::fast::RandomState;
use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;

pub use check::{Violation, Violations};
pub use route_list::{RouteConflict, RouteList};

use crate::model::{
    AcmeAccount, CaId, Certificate, Challenge, ContextKey, Der, Domain, DomainName, Fingerprint, IssuerId, KeyId, Plan,
    PlanId, Platform, Pool, PoolId, Revision, Route, RouteId, RouteScope, Slug, Tenant, TenantId, TokenIssuer, Zone,
};
use crate::snapshot::{Object, Snapshot};

/// The persistent map of the table. Keys come from operators, so a fast hash is enough; what clients send is only
/// looked up.
pub(crate) type Map<K, V> = GenericHashMap<K, V, RandomState, DefaultSharedPtr>;

/// What a node keeps beside the objects of a table: made when an object appears, handed on when it changes.
pub trait Live: Send + Sync + 'static {
    /// Beside a tenant: counters, a cached context.
    type Tenant: Send + Sync + 'static;
    /// Beside a pool: health and load of its backends.
    type Pool: Send + Sync + 'static;

    /// What belongs to `tenant`; `before` is what its last version had.
    fn tenant(&self, tenant: &Arc<Tenant>, before: Option<&Arc<Self::Tenant>>) -> Arc<Self::Tenant>;
    /// What belongs to `pool`; `before` is what its last version had.
    fn pool(&self, pool: &Arc<Pool>, before: Option<&Arc<Self::Pool>>) -> Arc<Self::Pool>;
}

/// A table without anything live: the control plane's.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLive;

impl Live for NoLive {
    type Tenant = ();
    type Pool = ();
    fn tenant(&self, _: &Arc<Tenant>, before: Option<&Arc<()>>) -> Arc<()> {
        before.cloned().unwrap_or_default()
    }
    fn pool(&self, _: &Arc<Pool>, before: Option<&Arc<()>>) -> Arc<()> {
        before.cloned().unwrap_or_default()
    }
}

/// A tenant as a request sees it.
pub struct TenantEntry<L: Live> {
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// Its plan at this revision.
    pub plan: Arc<Plan>,
    /// Its own routes.
    pub routes: RouteList,
    /// What this node keeps beside it.
    pub live: Arc<L::Tenant>,
}

/// A pool as a request sees it.
pub struct PoolEntry<L: Live> {
    /// The pool.
    pub pool: Arc<Pool>,
    /// Routes for all its tenants.
    pub routes: RouteList,
    /// What this node keeps beside it.
    pub live: Arc<L::Pool>,
}

/// Everything a request needs to know at one revision.
pub struct RoutingTable<L: Live = NoLive> {
    revision: Revision,
    plans: Map<PlanId, Arc<Plan>>,
    pools: Map<PoolId, Arc<PoolEntry<L>>>,
    zones: Map<DomainName, Arc<Zone>>,
    shared_hosts: Map<DomainName, DomainName>,
    tenants: Map<TenantId, Arc<TenantEntry<L>>>,
    slugs: Map<Slug, TenantId>,
    /// Those that have a canary.
    canaries: Map<TenantId, ()>,
    domains: Map<DomainName, Arc<Domain>>,
    routes: Map<RouteId, Arc<Route>>,
    platform: Option<Arc<Platform>>,
    platform_routes: RouteList,
    public_routes: RouteList,
    certificates: Map<Fingerprint, Arc<Certificate>>,
    /// What chains have above their leaves, held once, and in how many chains each is.
    intermediates: Map<Der, u64>,
    context_keys: Map<KeyId, Arc<ContextKey>>,
    issuers: Map<IssuerId, Arc<TokenIssuer>>,
    /// By the `iss` of their tokens.
    issuer_names: Map<Arc<str>, IssuerId>,
    acme_accounts: Map<CaId, Arc<AcmeAccount>>,
    challenges: Map<DomainName, Arc<Challenge>>,
    refs: check::References,
}

impl<L: Live> Clone for RoutingTable<L> {
    fn clone(&self) -> Self {
        Self {
            revision: self.revision,
            plans: self.plans.clone(),
            pools: self.pools.clone(),
            zones: self.zones.clone(),
            shared_hosts: self.shared_hosts.clone(),
            tenants: self.tenants.clone(),
            slugs: self.slugs.clone(),
            canaries: self.canaries.clone(),
            domains: self.domains.clone(),
            routes: self.routes.clone(),
            platform: self.platform.clone(),
            platform_routes: self.platform_routes.clone(),
            public_routes: self.public_routes.clone(),
            certificates: self.certificates.clone(),
            intermediates: self.intermediates.clone(),
            context_keys: self.context_keys.clone(),
            issuers: self.issuers.clone(),
            issuer_names: self.issuer_names.clone(),
            acme_accounts: self.acme_accounts.clone(),
            challenges: self.challenges.clone(),
            refs: self.refs.clone(),
        }
    }
}

impl<L: Live> Default for RoutingTable<L> {
    fn default() -> Self {
        Self {
            revision: Revision::NONE,
            plans: Map::default(),
            pools: Map::default(),
            zones: Map::default(),
            shared_hosts: Map::default(),
            tenants: Map::default(),
            slugs: Map::default(),
            canaries: Map::default(),
            domains: Map::default(),
            routes: Map::default(),
            platform: None,
            platform_routes: RouteList::default(),
            public_routes: RouteList::default(),
            certificates: Map::default(),
            intermediates: Map::default(),
            context_keys: Map::default(),
            issuers: Map::default(),
            issuer_names: Map::default(),
            acme_accounts: Map::default(),
            challenges: Map::default(),
            refs: check::References::default(),
        }
    }
}

impl<L: Live> std::fmt::Debug for RoutingTable<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoutingTable")
            .field("revision", &self.revision)
            .field("tenants", &self.tenants.len())
            .field("domains", &self.domains.len())
            .finish_non_exhaustive()
    }
}

impl<L: Live> RoutingTable<L> {
    /// The revision this table is compiled from.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The tenant that owns an exact name, if the name may be routed.
    pub fn tenant_of_domain(&self, name: &str) -> Option<&Arc<TenantEntry<L>>> {
        let domain = self.domains.get(name)?;
        if !domain.is_routable() {
            return None;
        }
        self.tenants.get(&domain.tenant)
    }

    /// The tenant whose slug is the one label in front of a zone.
    pub fn tenant_of_zone_name(&self, name: &str) -> Option<(&Arc<Zone>, &Arc<TenantEntry<L>>)> {
        let (label, rest) = name.split_once('.')?;
        let zone = self.zones.get(rest)?;
        if zone.reserves(label) {
            return None;
        }
        let id = self.slugs.get(label)?;
        Some((zone, self.tenants.get(id)?))
    }

    /// The zone whose shared host this name is.
    pub fn zone_of_shared_host(&self, name: &str) -> Option<&Arc<Zone>> {
        self.shared_hosts.get(name).and_then(|zone| self.zones.get(zone))
    }

    /// A tenant by its identity.
    pub fn tenant(&self, id: &TenantId) -> Option<&Arc<TenantEntry<L>>> {
        self.tenants.get(id)
    }

    /// A tenant by its slug.
    pub fn tenant_by_slug(&self, slug: &str) -> Option<&Arc<TenantEntry<L>>> {
        self.slugs.get(slug).and_then(|id| self.tenants.get(id))
    }

    /// A pool by its name.
    pub fn pool(&self, id: &PoolId) -> Option<&Arc<PoolEntry<L>>> {
        self.pools.get(id)
    }

    /// A plan by its name.
    pub fn plan(&self, id: &PlanId) -> Option<&Arc<Plan>> {
        self.plans.get(id)
    }

    /// A domain by its name, routable or not.
    pub fn domain(&self, name: &str) -> Option<&Arc<Domain>> {
        self.domains.get(name)
    }

    /// A zone by its name.
    pub fn zone(&self, name: &str) -> Option<&Arc<Zone>> {
        self.zones.get(name)
    }

    /// A certificate by its fingerprint.
    pub fn certificate(&self, fingerprint: &Fingerprint) -> Option<&Arc<Certificate>> {
        self.certificates.get(fingerprint)
    }

    /// A route by its identity.
    pub fn route(&self, id: &RouteId) -> Option<&Arc<Route>> {
        self.routes.get(id)
    }

    /// What holds for the platform as a whole, if anything was said.
    pub fn platform(&self) -> Option<&Arc<Platform>> {
        self.platform.as_ref()
    }

    /// Routes of the whole platform.
    pub fn platform_routes(&self) -> &RouteList {
        &self.platform_routes
    }

    /// Routes that are asked before anybody asks which tenant a request is for.
    pub fn public_routes(&self) -> &RouteList {
        &self.public_routes
    }

    /// The routes that one stands among; `None` when what they belong to is not there.
    pub fn routes_of(&self, scope: &RouteScope) -> Option<&RouteList> {
        match scope {
            RouteScope::Public => Some(&self.public_routes),
            RouteScope::Platform => Some(&self.platform_routes),
            RouteScope::Tenant(id) => self.tenants.get(id).map(|entry| &entry.routes),
            RouteScope::Pool(id) => self.pools.get(id).map(|entry| &entry.routes),
        }
    }

    /// All tenants, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<TenantEntry<L>>> {
        self.tenants.values()
    }

    /// Tenants that have a canary, in no order; at any time a few.
    pub fn tenants_with_canary(&self) -> impl Iterator<Item = &Arc<TenantEntry<L>>> {
        self.canaries.keys().filter_map(|id| self.tenants.get(id))
    }

    /// All pools, in no order.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<PoolEntry<L>>> {
        self.pools.values()
    }

    /// All zones, in no order.
    pub fn zones(&self) -> impl Iterator<Item = &Arc<Zone>> {
        self.zones.values()
    }

    /// All domains, in no order.
    pub fn domains(&self) -> impl Iterator<Item = &Arc<Domain>> {
        self.domains.values()
    }

    /// All certificates, in no order.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.certificates.values()
    }

    /// All signing keys of the tenant context, in no order.
    pub fn context_keys(&self) -> impl Iterator<Item = &Arc<ContextKey>> {
        self.context_keys.values()
    }

    /// Who issues tokens with this `iss`.
    pub fn issuer_of(&self, iss: &str) -> Option<&Arc<TokenIssuer>> {
        self.issuer_names.get(iss).and_then(|id| self.issuers.get(id))
    }

    /// An issuer of tokens by its name here.
    pub fn issuer(&self, id: &IssuerId) -> Option<&Arc<TokenIssuer>> {
        self.issuers.get(id)
    }

    /// All issuers of tokens, in no order.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<TokenIssuer>> {
        self.issuers.values()
    }

    /// Whether nobody's tokens count.
    pub fn has_no_issuers(&self) -> bool {
        self.issuers.is_empty()
    }

    /// Our account at a certificate authority.
    pub fn acme_account(&self, ca: &CaId) -> Option<&Arc<AcmeAccount>> {
        self.acme_accounts.get(ca)
    }

    /// The account that answers for names without a challenge of their own.
    pub fn primary_acme_account(&self) -> Option<&Arc<AcmeAccount>> {
        // There are as many as authorities in the settings: one or two.
        self.acme_accounts.values().find(|account| account.primary)
    }

    /// Our accounts at certificate authorities, in no order.
    pub fn acme_accounts(&self) -> impl Iterator<Item = &Arc<AcmeAccount>> {
        self.acme_accounts.values()
    }

    /// What an authority may be checking about a name. It may have expired.
    pub fn challenge(&self, name: &str) -> Option<&Arc<Challenge>> {
        self.challenges.get(name)
    }

    /// What authorities may be checking, in no order.
    pub fn challenges(&self) -> impl Iterator<Item = &Arc<Challenge>> {
        self.challenges.values()
    }

    /// How many tenants there are.
    pub fn tenant_count(&self) -> usize {
        self.tenants.len()
    }

    /// How many domains there are.
    pub fn domain_count(&self) -> usize {
        self.domains.len()
    }

    /// All objects, as a snapshot of this revision.
    pub fn to_snapshot(&self) -> Snapshot {
        let mut objects = Vec::with_capacity(
            self.plans.len()
                + self.pools.len()
                + self.zones.len()
                + self.tenants.len()
                + self.domains.len()
                + self.certificates.len(),
        );
        objects.extend(self.plans.values().cloned().map(Object::Plan));
        objects.extend(self.pools.values().map(|p| Object::Pool(p.pool.clone())));
        objects.extend(self.zones.values().cloned().map(Object::Zone));
        objects.extend(self.tenants.values().map(|t| Object::Tenant(t.tenant.clone())));
        objects.extend(self.domains.values().cloned().map(Object::Domain));
        objects.extend(self.platform.iter().cloned().map(Object::Platform));
        objects.extend(self.routes.values().cloned().map(Object::Route));
        objects.extend(self.certificates.values().cloned().map(Object::Certificate));
        objects.extend(self.context_keys.values().cloned().map(Object::ContextKey));
        objects.extend(self.issuers.values().cloned().map(Object::TokenIssuer));
        objects.extend(self.acme_accounts.values().cloned().map(Object::AcmeAccount));
        objects.extend(self.challenges.values().cloned().map(Object::Challenge));
        Snapshot { revision: self.revision, objects }
    }
}

#[cfg(test)]
mod tests;
