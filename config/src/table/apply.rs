//! From a snapshot or a delta to the next table.

use std::collections::HashMap;
use std::sync::Arc;

use super::check::{Violation, Violations, count};
use super::{Live, Map, PoolEntry, RoutingTable, TenantEntry};
use crate::model::{
    Certificate, Challenge, ChallengeAnswer, Der, DomainName, Fingerprint, IssuerId, Plan, Pool, Revision, Route,
    RouteId, RouteScope, Tenant, TenantId, TokenIssuer, Zone,
};
use crate::snapshot::{Change, Delta, Object, ObjectKey, Snapshot};

impl<L: Live> RoutingTable<L> {
    /// Compiles a snapshot. What lives beside tenants and pools of `before` is handed on.
    ///
    /// # Errors
    /// Every [`Violation`] at once; there is no table then.
    pub fn from_snapshot(snapshot: &Snapshot, live: &L, before: Option<&Self>) -> Result<Self, Violations> {
        let mut building = Building::new(Self { revision: snapshot.revision, ..Self::default() }, live, before);
        for object in &snapshot.objects {
            building.put(object);
        }
        building.finish()
    }

    /// The table after a delta; this one stays as it is.
    ///
    /// # Errors
    /// Every [`Violation`] at once; there is no new table then.
    pub fn apply(&self, delta: &Delta, live: &L) -> Result<Self, Violations> {
        if delta.from != self.revision {
            return Err(Violations(vec![Violation::Revision { needs: delta.from.0, at: self.revision.0 }]));
        }
        if delta.to <= delta.from {
            return Err(Violations(vec![Violation::NotNewer { from: delta.from.0, to: delta.to.0 }]));
        }
        self.with_changes(delta.to, &delta.changes, live)
    }

    /// The table with some changes, at `revision`: what a control process checks before it commits.
    ///
    /// # Errors
    /// Every [`Violation`] at once.
    pub fn with_changes(&self, revision: Revision, changes: &[Change], live: &L) -> Result<Self, Violations> {
        let mut building = Building::new(Self { revision, ..self.clone() }, live, None);
        for change in changes {
            match change {
                Change::Put(object) => building.put(object),
                Change::Remove(key) => building.remove(key),
            }
        }
        building.finish()
    }
}

/// A table between two revisions, and what must be looked at before it counts.
struct Building<'a, L: Live> {
    table: RoutingTable<L>,
    live: &'a L,
    before: Option<&'a RoutingTable<L>>,
    /// Objects put, whose references must exist at the end.
    put: Vec<Object>,
    /// Objects removed, which nothing may refer to at the end.
    removed: Vec<ObjectKey>,
    /// Slugs that were taken over from another tenant.
    contested: Vec<(String, TenantId)>,
    /// Names in tokens that were taken over from another issuer.
    contested_issuers: Vec<IssuerId>,
    /// Plans that changed: their tenants' entries hold the old one.
    plans: Vec<Arc<Plan>>,
    /// Routes that went from a scope or changed there. Each list is ordered once, at the end.
    left: HashMap<RouteScope, Vec<RouteId>>,
}

impl<'a, L: Live> Building<'a, L> {
    fn new(table: RoutingTable<L>, live: &'a L, before: Option<&'a RoutingTable<L>>) -> Self {
        Self {
            table,
            live,
            before,
            put: Vec::new(),
            removed: Vec::new(),
            contested: Vec::new(),
            contested_issuers: Vec::new(),
            plans: Vec::new(),
            left: HashMap::new(),
        }
    }

    fn put(&mut self, object: &Object) {
        match object {
            Object::Plan(plan) => {
                if self.table.plans.insert(plan.id.clone(), plan.clone()).is_some() {
                    self.plans.push(plan.clone());
                }
            }
            Object::Pool(pool) => self.put_pool(pool),
            Object::Zone(zone) => {
                self.remove_zone(zone.name.as_str());
                if let Some(host) = &zone.shared_host {
                    self.table.shared_hosts.insert(host.clone(), zone.name.clone());
                }
                self.table.zones.insert(zone.name.clone(), zone.clone());
            }
            Object::Tenant(tenant) => self.put_tenant(tenant),
            Object::Domain(domain) => {
                self.forget_domain(domain.name.as_str());
                count(&mut self.table.refs.tenant, &domain.tenant, true);
                self.table.domains.insert(domain.name.clone(), domain.clone());
            }
            Object::Route(route) => {
                self.forget_route(&route.id);
                self.remember_route(route);
            }
            Object::Certificate(certificate) => self.put_certificate(certificate),
            Object::ContextKey(key) => {
                self.table.context_keys.insert(key.id.clone(), key.clone());
            }
            Object::TokenIssuer(issuer) => self.put_issuer(issuer),
            Object::Platform(platform) => self.table.platform = Some(platform.clone()),
            Object::AcmeAccount(account) => {
                self.table.acme_accounts.insert(account.ca.clone(), account.clone());
            }
            Object::Challenge(challenge) => {
                self.forget_challenge(&challenge.name);
                self.count_challenge(challenge, true);
                self.table.challenges.insert(challenge.name.clone(), challenge.clone());
            }
        }
        self.put.push(object.clone());
    }

    fn put_pool(&mut self, pool: &Arc<Pool>) {
        let old = self.table.pools.get(&pool.id).or_else(|| self.before.and_then(|b| b.pools.get(&pool.id)));
        let live = self.live.pool(pool, old.map(|p| &p.live));
        let routes = self.table.pools.get(&pool.id).map(|p| p.routes.clone()).unwrap_or_default();
        self.table.pools.insert(pool.id.clone(), Arc::new(PoolEntry { pool: pool.clone(), routes, live }));
    }

    fn put_tenant(&mut self, tenant: &Arc<Tenant>) {
        let here = self.table.tenants.get(&tenant.id).cloned();
        let live = {
            let old = here.as_ref().or_else(|| self.before.and_then(|b| b.tenants.get(&tenant.id)));
            self.live.tenant(tenant, old.map(|t| &t.live))
        };
        if let Some(old) = &here {
            self.forget_tenant(&old.tenant);
        }
        count(&mut self.table.refs.plan, &tenant.plan, true);
        for pool in tenant.pools() {
            count(&mut self.table.refs.pool, pool, true);
        }
        if tenant.canary.is_some() {
            self.table.canaries.insert(tenant.id, ());
        }
        if let Some(other) = self.table.slugs.insert(tenant.slug.clone(), tenant.id)
            && other != tenant.id
        {
            self.contested.push((tenant.slug.to_string(), other));
        }
        // A plan that is missing is found by the check at the end, with every other violation.
        let plan = self.table.plans.get(&tenant.plan).cloned().unwrap_or_else(|| unknown_plan(tenant));
        let routes = here.map(|t| t.routes.clone()).unwrap_or_default();
        self.table.tenants.insert(tenant.id, Arc::new(TenantEntry { tenant: tenant.clone(), plan, routes, live }));
    }

    fn remove(&mut self, key: &ObjectKey) {
        match key {
            ObjectKey::Plan(id) => {
                self.table.plans.remove(id);
            }
            ObjectKey::Pool(id) => {
                self.table.pools.remove(id);
            }
            ObjectKey::Zone(name) => self.remove_zone(name.as_str()),
            ObjectKey::Tenant(id) => {
                if let Some(old) = self.table.tenants.remove(id) {
                    self.forget_tenant(&old.tenant);
                }
            }
            ObjectKey::Domain(name) => {
                self.forget_domain(name.as_str());
                self.table.domains.remove(name.as_str());
            }
            ObjectKey::Route(id) => self.forget_route(id),
            ObjectKey::Certificate(fingerprint) => self.forget_certificate(fingerprint),
            ObjectKey::ContextKey(id) => {
                self.table.context_keys.remove(id);
            }
            ObjectKey::TokenIssuer(id) => self.forget_issuer(id),
            ObjectKey::Platform(_) => self.table.platform = None,
            ObjectKey::AcmeAccount(ca) => {
                self.table.acme_accounts.remove(ca);
            }
            ObjectKey::Challenge(name) => self.forget_challenge(name),
        }
        self.removed.push(key.clone());
    }

    fn put_issuer(&mut self, issuer: &Arc<TokenIssuer>) {
        self.forget_issuer(&issuer.id);
        self.count_issuer(issuer, true);
        if let Some(other) = self.table.issuer_names.insert(issuer.issuer.as_str().into(), issuer.id.clone()) {
            self.contested_issuers.push(other);
        }
        self.table.issuers.insert(issuer.id.clone(), issuer.clone());
    }

    fn forget_issuer(&mut self, id: &IssuerId) {
        if let Some(old) = self.table.issuers.remove(id) {
            self.count_issuer(&old, false);
            if self.table.issuer_names.get(old.issuer.as_str()) == Some(id) {
                self.table.issuer_names.remove(old.issuer.as_str());
            }
        }
    }

    fn count_issuer(&mut self, issuer: &TokenIssuer, more: bool) {
        if let Some(tenant) = &issuer.tenant {
            count(&mut self.table.refs.tenant, tenant, more);
        }
        if let Some(zone) = &issuer.zone {
            count(&mut self.table.refs.zone, zone, more);
        }
    }

    fn put_certificate(&mut self, certificate: &Arc<Certificate>) {
        self.forget_certificate(&certificate.about.fingerprint);
        let certificate = share_chain(certificate, &self.table.intermediates);
        for der in certificate.chain.iter().skip(1) {
            count(&mut self.table.intermediates, der, true);
        }
        self.table.certificates.insert(certificate.about.fingerprint, certificate);
    }

    fn forget_certificate(&mut self, fingerprint: &Fingerprint) {
        if let Some(old) = self.table.certificates.remove(fingerprint) {
            for der in old.chain.iter().skip(1) {
                count(&mut self.table.intermediates, der, false);
            }
        }
    }

    fn forget_challenge(&mut self, name: &DomainName) {
        if let Some(old) = self.table.challenges.remove(name) {
            self.count_challenge(&old, false);
        }
    }

    fn count_challenge(&mut self, challenge: &Challenge, more: bool) {
        if let ChallengeAnswer::Http01 { ca } = &challenge.answer {
            count(&mut self.table.refs.acme_account, ca, more);
        }
    }

    fn remove_zone(&mut self, name: &str) {
        if let Some(host) = self.table.zones.remove(name).and_then(|old: Arc<Zone>| old.shared_host.clone()) {
            self.table.shared_hosts.remove(host.as_str());
        }
    }

    fn forget_tenant(&mut self, old: &Tenant) {
        count(&mut self.table.refs.plan, &old.plan, false);
        for pool in old.pools() {
            count(&mut self.table.refs.pool, pool, false);
        }
        self.table.canaries.remove(&old.id);
        if self.table.slugs.get(old.slug.as_str()) == Some(&old.id) {
            self.table.slugs.remove(old.slug.as_str());
        }
    }

    fn forget_domain(&mut self, name: &str) {
        if let Some(old) = self.table.domains.get(name) {
            let tenant = old.tenant;
            count(&mut self.table.refs.tenant, &tenant, false);
        }
    }

    fn remember_route(&mut self, route: &Arc<Route>) {
        self.count_route(route, true);
        self.table.routes.insert(route.id, route.clone());
    }

    fn forget_route(&mut self, id: &RouteId) {
        if let Some(old) = self.table.routes.remove(id) {
            self.count_route(&old, false);
            self.left.entry(old.scope()).or_default().push(*id);
        }
    }

    fn count_route(&mut self, route: &Route, more: bool) {
        if let Some(tenant) = &route.tenant {
            count(&mut self.table.refs.tenant, tenant, more);
        }
        for pool in route.pools() {
            count(&mut self.table.refs.pool, pool, more);
        }
    }

    /// Brings the lists in step with the routes that were put and removed. Objects have no order, so a route may have
    /// come before what it hangs on.
    fn order_routes(&mut self, put: &[Object]) {
        let mut new: HashMap<RouteScope, Vec<Arc<Route>>> = HashMap::new();
        for object in put {
            if let Object::Route(route) = object
                && self.table.routes.get(&route.id) == Some(route)
            {
                new.entry(route.scope()).or_default().push(route.clone());
            }
        }
        let mut left = std::mem::take(&mut self.left);
        for (scope, routes) in new {
            let gone = left.remove(&scope).unwrap_or_default();
            self.change_routes(&scope, &gone, &routes);
        }
        for (scope, gone) in left {
            self.change_routes(&scope, &gone, &[]);
        }
    }

    /// Changes the list that a scope's routes are looked up in.
    fn change_routes(&mut self, scope: &RouteScope, gone: &[RouteId], put: &[Arc<Route>]) {
        match scope {
            RouteScope::Tenant(id) => {
                if let Some(old) = self.table.tenants.get(id).cloned() {
                    let TenantEntry { tenant, plan, routes, live } = &*old;
                    let (routes, live) = (routes.changed(gone, put), live.clone());
                    let next = TenantEntry { tenant: tenant.clone(), plan: plan.clone(), routes, live };
                    self.table.tenants.insert(*id, Arc::new(next));
                }
            }
            RouteScope::Pool(id) => {
                if let Some(old) = self.table.pools.get(id).cloned() {
                    let (routes, live) = (old.routes.changed(gone, put), old.live.clone());
                    self.table.pools.insert(id.clone(), Arc::new(PoolEntry { pool: old.pool.clone(), routes, live }));
                }
            }
            RouteScope::Platform => self.table.platform_routes = self.table.platform_routes.changed(gone, put),
            RouteScope::Public => self.table.public_routes = self.table.public_routes.changed(gone, put),
        }
    }

    fn finish(mut self) -> Result<RoutingTable<L>, Violations> {
        let put = std::mem::take(&mut self.put);
        let mut violations = Vec::new();
        self.order_routes(&put);
        for object in &put {
            // A tenant may have come before its plan: objects have no order.
            if let Object::Tenant(tenant) = object {
                self.renew_plan(tenant.id);
            }
        }
        for plan in std::mem::take(&mut self.plans) {
            self.renew_tenants_of(&plan);
        }
        for object in &put {
            self.check_put(object, &mut violations);
        }
        for key in &self.removed {
            self.check_removed(key, &mut violations);
        }
        for (slug, owner) in &self.contested {
            // It may have taken another slug, or gone, later in the same delta.
            if self.table.tenants.get(owner).is_some_and(|t| t.tenant.slug.as_str() == slug)
                && self.table.slugs.contains_key(slug.as_str())
            {
                violations.push(Violation::SlugTaken { slug: slug.clone(), owner: *owner });
            }
        }
        for owner in &self.contested_issuers {
            // It may have taken another name, or gone, later in the same delta.
            if let Some(issuer) = self.table.issuers.get(owner)
                && self.table.issuer_names.get(issuer.issuer.as_str()) != Some(owner)
            {
                violations.push(Violation::IssuerTaken { iss: issuer.issuer.clone(), owner: owner.clone() });
            }
        }
        if violations.is_empty() { Ok(self.table) } else { Err(Violations(violations)) }
    }

    fn renew_plan(&mut self, id: TenantId) {
        let Some(old) = self.table.tenants.get(&id) else { return };
        let Some(plan) = self.table.plans.get(&old.tenant.plan) else { return };
        if !Arc::ptr_eq(plan, &old.plan) {
            let next = TenantEntry {
                tenant: old.tenant.clone(),
                plan: plan.clone(),
                routes: old.routes.clone(),
                live: old.live.clone(),
            };
            self.table.tenants.insert(id, Arc::new(next));
        }
    }

    /// A changed plan changes all its tenants: the one change whose cost follows the table, and plans change rarely.
    fn renew_tenants_of(&mut self, plan: &Plan) {
        let ids: Vec<TenantId> =
            self.table.tenants.values().filter(|t| t.tenant.plan == plan.id).map(|t| t.tenant.id).collect();
        for id in ids {
            self.renew_plan(id);
        }
    }

    fn check_put(&self, object: &Object, violations: &mut Vec<Violation>) {
        let table = &self.table;
        let mut need = |there: bool, missing: ObjectKey| {
            if !there {
                violations.push(Violation::Missing { object: object.key(), missing });
            }
        };
        match object {
            Object::Tenant(t) if table.tenants.get(&t.id).is_some_and(|now| now.tenant == *t) => {
                need(table.plans.contains_key(&t.plan), ObjectKey::Plan(t.plan.clone()));
                for pool in t.pools() {
                    need(table.pools.contains_key(pool), ObjectKey::Pool(pool.clone()));
                }
            }
            Object::Domain(d) if table.domains.get(&d.name) == Some(d) => {
                need(table.tenants.contains_key(&d.tenant), ObjectKey::Tenant(d.tenant));
                // In a zone the first label is a tenant's slug: a domain there could shadow another school, and one
                // below it would be sent the cookies that this school sets for its host and what lies below.
                let name_and_parents =
                    std::iter::successors(Some(d.name.as_str()), |name| name.split_once('.').map(|(_, parent)| parent));
                if let Some(zone) = name_and_parents.into_iter().find_map(|name| table.zones.get(name)) {
                    violations.push(Violation::DomainInZone { name: d.name.to_string(), zone: zone.name.to_string() });
                }
            }
            Object::Route(r) if table.routes.get(&r.id) == Some(r) => {
                if let Some(tenant) = r.tenant {
                    need(table.tenants.contains_key(&tenant), ObjectKey::Tenant(tenant));
                }
                for pool in r.pools() {
                    need(table.pools.contains_key(pool), ObjectKey::Pool(pool.clone()));
                }
            }
            Object::Zone(z) => {
                if let Some(host) = &z.shared_host
                    && host.parent() != Some(z.name.as_str())
                {
                    violations.push(Violation::SharedHost { host: host.to_string(), zone: z.name.to_string() });
                }
            }
            Object::TokenIssuer(i) if table.issuers.get(&i.id) == Some(i) => {
                if let Some(tenant) = i.tenant {
                    need(table.tenants.contains_key(&tenant), ObjectKey::Tenant(tenant));
                }
                if let Some(zone) = &i.zone {
                    need(table.zones.contains_key(zone), ObjectKey::Zone(zone.clone()));
                }
                let problems = i.problems().into_iter();
                violations.extend(problems.map(|problem| Violation::Issuer { issuer: i.id.clone(), problem }));
            }
            Object::AcmeAccount(a) if a.primary && table.acme_accounts.get(&a.ca) == Some(a) => {
                let other = table.acme_accounts.values().find(|other| other.primary && other.ca != a.ca);
                violations.extend(
                    other.map(|other| Violation::TwoPrimary { account: a.ca.clone(), other: other.ca.clone() }),
                );
            }
            Object::Challenge(c) if table.challenges.get(&c.name) == Some(c) => {
                if let ChallengeAnswer::Http01 { ca } = &c.answer {
                    need(table.acme_accounts.contains_key(ca), ObjectKey::AcmeAccount(ca.clone()));
                }
            }
            Object::Certificate(c) => {
                for name in &c.about.names {
                    let bare = name.strip_prefix("*.").unwrap_or(name);
                    if crate::model::DomainName::parse(bare).map(|n| n.as_str() != bare) != Ok(false) {
                        violations.push(Violation::CertificateName {
                            fingerprint: c.about.fingerprint.to_string(),
                            name: name.clone(),
                        });
                    }
                }
            }
            _ => {}
        }
    }

    fn check_removed(&self, key: &ObjectKey, violations: &mut Vec<Violation>) {
        let refs = &self.table.refs;
        let (gone, users, what) = match key {
            ObjectKey::Plan(id) => (!self.table.plans.contains_key(id), refs.plan.get(id), "tenants"),
            ObjectKey::Pool(id) => (!self.table.pools.contains_key(id), refs.pool.get(id), "tenants or routes"),
            ObjectKey::Tenant(id) => {
                (!self.table.tenants.contains_key(id), refs.tenant.get(id), "domains, routes or token issuers")
            }
            ObjectKey::Zone(name) => (!self.table.zones.contains_key(name), refs.zone.get(name), "token issuers"),
            ObjectKey::AcmeAccount(ca) => {
                (!self.table.acme_accounts.contains_key(ca), refs.acme_account.get(ca), "challenges")
            }
            _ => return,
        };
        if gone && let Some(users) = users {
            violations.push(Violation::InUse { object: key.clone(), users: *users, what });
        }
    }
}

/// The certificate with the intermediates that the table has already, in the place of its own copies.
fn share_chain(certificate: &Arc<Certificate>, known: &Map<Der, u64>) -> Arc<Certificate> {
    let shared = |der: &Der| known.get_key_value(der).map_or_else(|| der.clone(), |(known, _)| known.clone());
    let is_shared = |der: &Der| shared(der).is_shared_with(der);
    if certificate.chain.iter().skip(1).all(is_shared) {
        return Arc::clone(certificate);
    }
    let chain = certificate.chain.iter().take(1).cloned().chain(certificate.chain.iter().skip(1).map(shared));
    Arc::new(Certificate { about: certificate.about.clone(), chain: chain.collect(), key: certificate.key.clone() })
}

/// Stands in for a plan that is not there, until the check at the end refuses the table.
fn unknown_plan(tenant: &Tenant) -> Arc<Plan> {
    Arc::new(Plan {
        id: tenant.plan.clone(),
        name: String::new(),
        limits: crate::model::Limits::default(),
        mode: crate::model::LimitMode::Enforce,
        weight: crate::model::Weight::default(),
        pool_kind: crate::model::PoolKindRule::Any,
        features: Vec::new(),
    })
}
