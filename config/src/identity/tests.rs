use super::*;
use crate::model::*;
use crate::snapshot::{Object, Snapshot};
use crate::table::NoLive;

pub(crate) fn tenant(slug: &str, state: TenantState) -> Tenant {
    let chance = slug.bytes().fold(0_u128, |n, b| n * 31 + u128::from(b));
    Tenant {
        id: TenantId::from_parts(1, chance),
        slug: slug.parse().expect("a slug"),
        name: slug.to_owned(),
        external_id: None,
        state,
        state_reason: None,
        plan: "basic".parse().expect("a plan"),
        subscription: Subscription::default(),
        pool: "shared".parse().expect("a pool"),
        canary: None,
        maintenance: None,
        isolation: Isolation::Database,
        profile: Box::default(),
        theme: Box::default(),
        security: Default::default(),
        features: Default::default(),
        contacts: Default::default(),
        labels: Default::default(),
        time_zone: None,
        overrides: Default::default(),
        region: None,
        retention_days: None,
    }
}

fn domain(name: &str, tenant: &Tenant, ownership: Ownership) -> Domain {
    Domain {
        name: name.parse().expect("a name"),
        tenant: tenant.id,
        primary: false,
        ownership,
        routing: Routing::Here,
        token: String::new(),
    }
}

pub(crate) fn pool(id: &str) -> Pool {
    Pool::new(id.parse().expect("a pool"))
}

pub(crate) fn zone(name: &str) -> Zone {
    Zone {
        name: name.parse().expect("a zone"),
        shared_host: Some(format!("api.{name}").parse().expect("a host")),
        trusted_callers: Vec::new(),
        reserved: Vec::new(),
        path_prefix: false,
        require_token: false,
    }
}

fn table() -> RoutingTable {
    let greenhill = tenant("greenhill", TenantState::Active);
    let riverside = tenant("riverside", TenantState::Active);
    let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
    objects.extend([
        pool("shared").into(),
        pool("other").into(),
        zone("schools.example").into(),
        domain("erp.greenhill.example", &greenhill, Ownership::Proven).into(),
        domain("new.greenhill.example", &greenhill, Ownership::Unproven).into(),
        greenhill.into(),
        riverside.into(),
        tenant("late", TenantState::Suspended).into(),
        tenant("moving", TenantState::Maintenance).into(),
        tenant("gone", TenantState::Archived).into(),
    ]);
    RoutingTable::from_snapshot(&Snapshot { revision: Revision(1), objects }, &NoLive, None).expect("holds together")
}

/// A request as a test says it; what is not said is a stranger's `GET /` over TLS.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) sni: Option<String>,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) client: IpAddr,
    pub(crate) ids: Vec<String>,
    pub(crate) slugs: Vec<String>,
    pub(crate) bearer: Bearer,
    pub(crate) now_ms: i64,
    pub(crate) chance: u64,
    pub(crate) cookie: Option<String>,
}

impl Asked {
    pub(crate) fn of(host: &str) -> Self {
        Self {
            sni: None,
            host: host.to_owned(),
            path: "/".to_owned(),
            query: None,
            client: [203, 0, 113, 9].into(),
            ids: Vec::new(),
            slugs: Vec::new(),
            bearer: Bearer::Absent,
            now_ms: 0,
            chance: 0,
            cookie: None,
        }
    }

    pub(crate) fn facts(&self) -> RequestFacts<'_, Self, Self> {
        RequestFacts {
            secure: true,
            sni: self.sni.as_deref(),
            authority: Some(&self.host),
            client: self.client,
            method: "GET",
            path: &self.path,
            query: self.query.as_deref(),
            headers: self,
            token: self,
            now_ms: self.now_ms,
            chance: self.chance,
        }
    }

    /// The tenant selected, or the refusal.
    pub(crate) fn ask(&self, table: &RoutingTable) -> String {
        match decide(table, &self.facts()) {
            Ok(selected) => selected.tenant.map_or_else(|| "nobody".to_owned(), |t| t.tenant.slug.to_string()),
            Err(refusal) => format!("{refusal:?}"),
        }
    }
}

impl Headers for Asked {
    fn has(&self, _: &str, _: Option<&str>) -> bool {
        false
    }
    fn has_cookie(&self, name: &str, value: &str) -> bool {
        self.cookie.as_ref().is_some_and(|line| line_has_cookie(line.as_bytes(), name, value))
    }
    fn tenant_ids(&self) -> impl Iterator<Item = &[u8]> {
        self.ids.iter().map(String::as_bytes)
    }
    fn tenant_slugs(&self) -> impl Iterator<Item = &[u8]> {
        self.slugs.iter().map(String::as_bytes)
    }
}

impl Token for Asked {
    fn bearer<L: Live>(&self, _: &RoutingTable<L>) -> Bearer {
        self.bearer.clone()
    }
}

fn ask(table: &RoutingTable, sni: Option<&str>, host: &str) -> String {
    Asked { sni: sni.map(str::to_owned), ..Asked::of(host) }.ask(table)
}

#[test]
fn a_domain_and_a_zone_label_lead_to_their_tenant() {
    let table = table();
    assert_eq!(ask(&table, None, "ERP.Greenhill.example.:8443"), "greenhill");
    assert_eq!(ask(&table, None, "riverside.schools.example"), "riverside");
}

#[test]
fn a_zone_takes_one_label_on_a_label_boundary_and_no_reserved_one() {
    let table = table();
    for stranger in [
        "a.riverside.schools.example",
        "riverside.schools.example.evil.example",
        "riverside.notschools.example",
        "riverside.attacker.example",
        "www.schools.example",
        "schools.example",
        "riverside",
        "nosuch.schools.example",
    ] {
        assert_eq!(ask(&table, None, stranger), "UnknownHost", "{stranger}");
    }
}

#[test]
fn an_unproven_domain_is_never_routed() {
    assert_eq!(ask(&table(), None, "new.greenhill.example"), "UnknownHost");
}

#[test]
fn sni_and_authority_lead_to_one_tenant() {
    let table = table();
    assert_eq!(ask(&table, Some("riverside.schools.example"), "greenhill.schools.example"), "Misdirected");
    assert_eq!(ask(&table, Some("unknown.example"), "greenhill.schools.example"), "Misdirected");
    assert_eq!(ask(&table, Some("erp.greenhill.example"), "greenhill.schools.example"), "greenhill");
    assert_eq!(ask(&table, Some("erp.greenhill.example"), "unknown.example"), "UnknownHost");
}

#[test]
fn a_tenant_that_is_not_active_gets_its_answer() {
    let table = table();
    assert_eq!(ask(&table, None, "late.schools.example"), "Suspended(late)");
    assert_eq!(ask(&table, None, "moving.schools.example"), "Maintenance(moving)");
    assert_eq!(ask(&table, None, "gone.schools.example"), "UnknownHost");
    assert_eq!(ask(&table, None, "api.schools.example"), "NoIdentifier");
}

#[test]
fn a_tenants_route_comes_before_the_platforms() {
    let base = table();
    let greenhill = base.tenant_by_slug("greenhill").expect("there").tenant.id;
    let route = |n: u128, tenant: Option<TenantId>, prefix: &str, action: RouteAction| Route {
        id: RouteId::from_parts(1, n),
        tenant,
        pool: None,
        priority: 0,
        matches: RouteMatch { path_prefix: Some(prefix.into()), ..RouteMatch::default() },
        action,
    };
    let to = |pool: &str| RouteAction { pool: Some(pool.parse().expect("a pool")), ..RouteAction::default() };
    let closed = RouteAction { maintenance: true, ..RouteAction::default() };
    let lms = RouteAction { requires_feature: Some("lms".into()), ..RouteAction::default() };
    let changes = [
        route(1, None, "/", closed),
        route(2, Some(greenhill), "/api", to("other")),
        route(3, Some(greenhill), "/", to("shared")),
        route(4, Some(greenhill), "/lms/", lms),
    ]
    .map(|r| crate::snapshot::Change::Put(r.into()));
    let table = base.with_changes(Revision(2), &changes, &NoLive).expect("holds together");
    let ask = |host: &str, path: &str| {
        let asked = Asked { path: path.to_owned(), ..Asked::of(host) };
        match decide(&table, &asked.facts()) {
            Ok(selected) => selected.pool.pool.id.to_string(),
            Err(refusal) => format!("{refusal:?}"),
        }
    };
    assert_eq!(ask("greenhill.schools.example", "/api/x"), "other");
    assert_eq!(ask("greenhill.schools.example", "/x"), "shared");
    assert_eq!(ask("greenhill.schools.example", "/lms/x"), "FeatureNotInPlan(greenhill)");
    assert_eq!(ask("riverside.schools.example", "/x"), "Maintenance(riverside)");
}
