//! Routes, canaries and maintenance in the decision.

use serde_json::{Value, json};

use super::tests::{Asked, pool, tenant, zone};
use super::*;
use crate::model::*;
use crate::snapshot::{Object, Snapshot};
use crate::table::NoLive;

const HOST: &str = "ash.schools.example";
const OWN: &str = "erp.ash.example";
const SHARED: &str = "api.schools.example";

fn route(n: u128, route: Value) -> Object {
    let mut whole = json!({ "id": RouteId::from_parts(1, n), "match": {} });
    whole.as_object_mut().expect("an object").extend(route.as_object().expect("an object").clone());
    serde_json::from_value::<Route>(whole).expect("a route").into()
}

fn table(change: impl FnOnce(&mut Tenant), routes: impl IntoIterator<Item = Object>) -> RoutingTable {
    let mut ash = tenant("ash", TenantState::Active);
    change(&mut ash);
    let domain = json!({ "name": OWN, "tenant": ash.id, "ownership": "proven", "routing": "here", "token": "t" });
    let domain: Domain = serde_json::from_value(domain).expect("a domain");
    let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
    objects.extend(routes);
    objects.extend([
        pool("shared").into(),
        pool("next").into(),
        zone("schools.example").into(),
        domain.into(),
        ash.into(),
        tenant("birch", TenantState::Active).into(),
    ]);
    RoutingTable::from_snapshot(&Snapshot { revision: Revision(1), objects }, &NoLive, None).expect("holds together")
}

fn asked(host: &str, path: &str) -> Asked {
    Asked { path: path.into(), ..Asked::of(host) }
}

/// The pool, or the refusal.
fn pool_of(table: &RoutingTable, asked: &Asked) -> String {
    match decide(table, &asked.facts()) {
        Ok(selected) => selected.pool.pool.id.to_string(),
        Err(refusal) => format!("{refusal:?}"),
    }
}

#[test]
fn a_route_can_be_for_one_kind_of_host() {
    let routes = [
        route(1, json!({ "match": { "host": "custom_domain" }, "action": { "pool": "next" } })),
        route(2, json!({ "match": { "host": "shared_host" }, "action": { "maintenance": true } })),
    ];
    let table = table(|_| {}, routes);
    assert_eq!(pool_of(&table, &asked(HOST, "/")), "shared");
    assert_eq!(pool_of(&table, &asked(OWN, "/")), "next");
    let trusted = Asked { slugs: vec!["ash".into()], ..asked(SHARED, "/") };
    assert_eq!(pool_of(&table, &trusted), "NoIdentifier", "a stranger selects nobody, whatever routes say");
}

#[test]
fn a_public_route_needs_no_tenant_and_tells_none() {
    let routes = [
        route(1, json!({ "match": { "path_prefix": "/assets/" }, "action": { "public": true, "pool": "next" } })),
        route(
            2,
            json!({ "match": { "path_exact": "/robots.txt" }, "action": { "public": true, "answer": { "body": "x" } } }),
        ),
    ];
    let table = table(|ash| ash.state = TenantState::Suspended, routes);
    for host in [HOST, OWN, SHARED] {
        let asked = asked(host, "/assets/app.css");
        let facts = asked.facts();
        let selected = decide(&table, &facts).expect("selected");
        assert!(selected.tenant.is_none() && selected.via == Via::Public);
        assert_eq!(selected.pool.pool.id.as_str(), "next");
    }
    assert_eq!(pool_of(&table, &asked(SHARED, "/robots.txt")), "Answer");
    assert_eq!(pool_of(&table, &asked(HOST, "/")), "Suspended(ash)");
    assert_eq!(pool_of(&table, &asked("stranger.example", "/assets/app.css")), "UnknownHost");
    let crossing = Asked { sni: Some("birch.schools.example".into()), ..asked(HOST, "/assets/app.css") };
    assert_eq!(pool_of(&table, &crossing), "Misdirected");
}

#[test]
fn a_canary_takes_its_share_and_whom_a_field_or_cookie_sends() {
    let canary = json!({ "pool": "next", "percent": 30, "by": "request", "cookie": { "name": "beta", "value": "1" } });
    let canary: Canary = serde_json::from_value(canary).expect("a canary");
    let table = table(|ash| ash.canary = Some(Box::new(canary)), []);
    let at = |chance: u64| Asked { chance, ..asked(HOST, "/") };
    assert_eq!(pool_of(&table, &at(0)), "next");
    assert_eq!(pool_of(&table, &at(u64::MAX)), "shared");
    let beta = Asked { cookie: Some("a=b; beta=1".into()), ..at(u64::MAX) };
    assert_eq!(pool_of(&table, &beta), "next");
    let chosen = at(0);
    let facts = chosen.facts();
    let selected = decide(&table, &facts).expect("selected");
    assert_eq!(
        selected.otherwise.map(|rest| rest.pool.id.as_str()),
        Some("shared"),
        "where it goes if nobody is there"
    );
    assert_eq!(pool_of(&table, &Asked { chance: 0, ..asked("birch.schools.example", "/") }), "shared");
}

#[test]
fn a_route_that_names_a_pool_is_not_asked_for_the_tenants_canary() {
    let canary: Canary = serde_json::from_value(json!({ "pool": "next", "percent": 100 })).expect("a canary");
    let routes = [
        route(1, json!({ "match": { "path_prefix": "/files/" }, "action": { "pool": "shared" } })),
        route(
            2,
            json!({ "match": { "path_prefix": "/api/" }, "action": { "pool": "shared",
            "canary": { "pool": "next", "percent": 100 } } }),
        ),
    ];
    let table = table(|ash| ash.canary = Some(Box::new(canary)), routes);
    assert_eq!(pool_of(&table, &asked(HOST, "/")), "next");
    assert_eq!(pool_of(&table, &asked(HOST, "/files/x")), "shared");
    assert_eq!(pool_of(&table, &asked(HOST, "/api/x")), "next");
}

#[test]
fn a_pool_that_a_canary_names_must_be_there() {
    let canary: Canary = serde_json::from_value(json!({ "pool": "next", "percent": 1 })).expect("a canary");
    let table = table(|ash| ash.canary = Some(Box::new(canary)), []);
    let remove = [crate::snapshot::Change::Remove(crate::snapshot::ObjectKey::Pool("next".parse().expect("a pool")))];
    let refused = table.with_changes(Revision(2), &remove, &NoLive).expect_err("a canary needs it");
    assert!(refused.to_string().contains("still use it"), "{refused}");
}

fn window(json: Value) -> Option<Box<Maintenance>> {
    Some(Box::new(serde_json::from_value(json).expect("maintenance")))
}

#[test]
fn maintenance_begins_and_ends_by_itself_and_lets_testers_in() {
    let times =
        json!({ "starts_at": "1970-01-01T00:00:10Z", "ends_at": "1970-01-01T00:00:20Z", "allow": ["192.0.2.0/24"] });
    let scheduled = table(|ash| ash.maintenance = window(times.clone()), []);
    let at = |now_ms: i64| Asked { now_ms, ..asked(HOST, "/") };
    assert_eq!(pool_of(&scheduled, &at(9_999)), "shared");
    assert_eq!(pool_of(&scheduled, &at(10_000)), "Maintenance(ash)");
    assert_eq!(pool_of(&scheduled, &at(20_000)), "shared");
    let tester = Asked { client: [192, 0, 2, 5].into(), ..at(10_000) };
    assert_eq!(pool_of(&scheduled, &tester), "shared");

    let ended = |ash: &mut Tenant| {
        ash.state = TenantState::Maintenance;
        ash.maintenance = window(json!({ "ends_at": "1970-01-01T00:00:20Z" }));
    };
    let ended = table(ended, []);
    assert_eq!(pool_of(&ended, &at(19_999)), "Maintenance(ash)");
    assert_eq!(pool_of(&ended, &at(20_000)), "shared", "nobody has to be awake");

    let open = table(|ash| ash.state = TenantState::Maintenance, []);
    assert_eq!(pool_of(&open, &at(i64::MAX)), "Maintenance(ash)");
}

#[test]
fn a_pool_in_maintenance_turns_all_its_tenants_away() {
    let mut closed = pool("shared");
    closed.maintenance = window(json!({ "allow": ["192.0.2.0/24"] }));
    let to_next = route(1, json!({ "match": { "path_prefix": "/api/" }, "action": { "pool": "next" } }));
    let table = table(|_| {}, [to_next]);
    let table =
        table.with_changes(Revision(2), &[crate::snapshot::Change::Put(closed.into())], &NoLive).expect("holds");
    assert_eq!(pool_of(&table, &asked(HOST, "/")), "Maintenance(ash)");
    assert_eq!(pool_of(&table, &asked("birch.schools.example", "/")), "Maintenance(birch)");
    assert_eq!(pool_of(&table, &asked(HOST, "/api/x")), "next", "what goes elsewhere is not in maintenance");
    assert_eq!(pool_of(&table, &Asked { client: [192, 0, 2, 5].into(), ..asked(HOST, "/") }), "shared");
}

#[test]
fn a_platform_in_maintenance_turns_everybody_away_but_testers() {
    let platform = Platform { maintenance: window(json!({ "allow": ["192.0.2.0/24"] })) };
    let open = table(
        |_| {},
        [route(1, json!({ "action": { "public": true, "answer": {} }, "match": { "path_exact": "/up" } }))],
    );
    let put = [crate::snapshot::Change::Put(platform.into())];
    let closed = open.with_changes(Revision(2), &put, &NoLive).expect("holds");
    for host in [HOST, OWN, "birch.schools.example"] {
        assert!(pool_of(&closed, &asked(host, "/")).starts_with("Maintenance("), "{host}");
    }
    assert_eq!(pool_of(&closed, &Asked { client: [192, 0, 2, 5].into(), ..asked(HOST, "/") }), "shared");
    assert_eq!(pool_of(&closed, &asked(HOST, "/up")), "Answer", "a public path is nobody's school");
    assert_eq!(closed.to_snapshot().objects.len(), open.to_snapshot().objects.len() + 1);
    let remove = [crate::snapshot::Change::Remove(crate::snapshot::ObjectKey::Platform(PlatformId))];
    let again = closed.with_changes(Revision(3), &remove, &NoLive).expect("holds");
    assert_eq!(pool_of(&again, &asked(HOST, "/")), "shared");
}

#[test]
fn an_explanation_names_route_canary_and_maintenance() {
    let canary: Canary = serde_json::from_value(json!({ "pool": "next", "percent": 100 })).expect("a canary");
    let routes =
        [route(7, json!({ "match": { "path_prefix": "/lms/" }, "action": { "set_headers": { "x-a": "b" } } }))];
    let table = table(|ash| ash.canary = Some(Box::new(canary)), routes);
    let request = json!({ "host": HOST, "path": "/lms/x" });
    let explanation = explain(&table, &serde_json::from_value(request).expect("a request"), 0);
    let step = |name: &str| explanation.steps.iter().find(|step| step.step == name).map(|step| step.text.clone());
    assert_eq!(step("route"), Some(format!("{} matches", RouteId::from_parts(1, 7))));
    assert!(step("canary").is_some_and(|text| text.contains("100 % (by client) that go to next")), "{explanation:?}");
    assert_eq!(explanation.would_have.as_ref().and_then(|there| there.pool.as_deref()), Some("next"));
}
