//! The life of each kind of object.

use http::Method;
use schoolgate_testkit::Api;
use serde_json::json;

use crate::site::{Site, problem};

#[tokio::test]
async fn a_tenant_lives_from_create_to_delete() {
    let site = Site::start().await;
    site.pool("shared").await;
    let body = json!({"slug": "greenhill", "name": "Greenhill Academy", "plan": "basic", "pool": "shared"});
    let created = site.api.post("tenants", body).await;
    let etag = created.etag().to_owned();
    let location = created.header("location").expect("a location").to_owned();
    let tenant = created.expect(201);
    assert!(tenant["id"].as_str().expect("an id").starts_with("tnt_"));
    assert_eq!((&tenant["state"], &tenant["active"]), (&json!("active"), &json!(true)));
    assert_eq!(tenant["hosts"], json!(["greenhill.schools.test"]));

    let by_slug = site.api.get("tenants/slug:greenhill").await;
    assert_eq!(by_slug.etag(), etag);
    assert_eq!(by_slug.expect(200), tenant);
    assert_eq!(site.api.get(&location).await.expect(200), tenant);

    let patched = site.api.patch("tenants/slug:greenhill", json!({"name": "Greenhill", "plan": "standard"})).await;
    assert_ne!(patched.etag(), etag);
    let patched = patched.expect(200);
    assert_eq!((&patched["name"], &patched["plan"]), (&json!("Greenhill"), &json!("standard")));

    let put = site.api.put("tenants/slug:greenhill", json!({"slug": "greenhill", "name": "G"})).await.expect(200);
    assert_eq!((&put["plan"], &put["id"]), (&json!("basic"), &tenant["id"]), "PUT replaces, identity stays");

    assert_eq!(site.api.delete("tenants/slug:greenhill").await.status, 204);
    problem(site.api.get(&location).await, 404, "NOT_FOUND");
    problem(site.api.get("tenants/slug:greenhill").await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn older_scripts_create_tenants_at_their_path() {
    let site = Site::start().await;
    site.pool("shared").await;
    let tenant = site.api.post("tenants/create", json!({"slug": "a", "name": "A"})).await.expect(201);
    assert_eq!(tenant["slug"], "a");
    let taken = site.api.post("tenants/create", json!({"slug": "a", "name": "B"})).await;
    let taken = problem(taken, 409, "SUBDOMAIN_EXISTS");
    assert_eq!(taken["errors"][0]["pointer"], "/slug");
}

#[tokio::test]
async fn actions_change_the_state_of_a_tenant() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let path = |action: &str| format!("tenants/{}/{action}", tenant["id"].as_str().expect("an id"));
    let suspended = site.api.post(&path("suspend"), json!({"reason": "no payment"})).await.expect(200);
    assert_eq!((&suspended["state"], &suspended["active"]), (&json!("suspended"), &json!(false)));
    assert_eq!(suspended["state_reason"], "no payment");
    assert_eq!(site.api.post(&path("maintenance"), json!({})).await.expect(200)["state"], "maintenance");
    let resumed = site.api.post(&path("resume"), json!({})).await.expect(200);
    assert_eq!(resumed["state"], "active");
    assert!(resumed.get("state_reason").is_none());
    assert_eq!(site.api.post(&path("archive"), json!({})).await.expect(200)["state"], "archived");
    problem(site.api.post(&path("resume"), json!({})).await, 409, "INVALID_STATE");
    assert_eq!(site.api.post(&path("restore"), json!({})).await.expect(200)["state"], "active");
    problem(site.api.post(&path("suspend"), json!({"raeson": "x"})).await, 422, "VALIDATION_FAILED");
    let request = site.api.request(http::Method::POST, &path("suspend"));
    assert_eq!(schoolgate_testkit::Api::send(request).await.status, 200, "the body is optional");
}

#[tokio::test]
async fn a_state_cannot_be_written_but_what_was_read_can_come_back() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let path = format!("tenants/{}", tenant["id"].as_str().expect("an id"));
    let refused = problem(site.api.patch(&path, json!({"state": "archived"})).await, 422, "VALIDATION_FAILED");
    assert_eq!(refused["errors"][0]["code"], "read_only");
    let mut edited = tenant.clone();
    edited["name"] = json!("Edited");
    assert_eq!(site.api.put(&path, edited).await.expect(200)["name"], "Edited");
}

#[tokio::test]
async fn deleting_a_tenant_takes_its_domains_and_routes_along() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    site.api.post("domains", json!({"name": "erp.greenhill.test", "tenant": "greenhill"})).await.expect(201);
    let route = json!({"tenant": "greenhill", "match": {"path_prefix": "/api/"}, "action": {"maintenance": true}});
    site.api.post("routes", route).await.expect(201);
    assert_eq!(site.api.delete(&format!("tenants/{}", tenant["id"].as_str().expect("an id"))).await.status, 204);
    assert_eq!(site.api.get("domains/erp.greenhill.test").await.status, 404);
    assert_eq!(site.api.get("routes").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn a_zone_lives_from_create_to_delete() {
    let site = Site::start().await;
    let body = json!({
        "name": "academy.test", "shared_host": "api.academy.test", "trusted_callers": ["127.0.0.1/32", "10.1.2.3"],
    });
    let zone = site.api.post("zones", body).await.expect(201);
    assert_eq!(zone["trusted_callers"], json!(["127.0.0.1/32", "10.1.2.3/32"]));
    problem(site.api.post("zones", json!({"name": "academy.test"})).await, 409, "ZONE_EXISTS");
    let patched = site.api.patch("zones/academy.test", json!({"shared_host": null})).await.expect(200);
    assert!(patched.get("shared_host").is_none());
    let bad = json!({"name": "b.test", "shared_host": "api.other.test", "reserved": ["UP"], "trusted_callers": ["x"]});
    let refused = problem(site.api.post("zones", bad).await, 422, "VALIDATION_FAILED");
    assert_eq!(crate::site::pointers(&refused), ["/trusted_callers/0"]);
    let bad = json!({"name": "b.test", "shared_host": "api.other.test", "reserved": ["UP"]});
    let refused = problem(site.api.post("zones", bad).await, 422, "VALIDATION_FAILED");
    assert_eq!(crate::site::pointers(&refused), ["/reserved/0", "/shared_host"]);
    assert_eq!(site.api.delete("zones/academy.test").await.status, 204);
    assert_eq!(site.api.get("zones").await.expect(200)["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_zone_is_not_laid_over_a_domain() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.api.post("domains", json!({"name": "erp.greenhill.test", "tenant": "greenhill"})).await.expect(201);
    problem(site.api.post("zones", json!({"name": "greenhill.test"})).await, 409, "IN_USE");
}

#[tokio::test]
async fn a_plan_lives_from_create_to_delete() {
    let site = Site::start().await;
    let body = json!({"id": "tiny", "limits": {
        "requests_per_minute": 60, "burst": 10, "requests_per_day": {"value": 1000, "mode": "hard"}, "in_flight": 5,
        "websockets": 5, "body_bytes": 1048576,
    }});
    let plan = site.api.post("plans", body.clone()).await.expect(201);
    assert_eq!((&plan["name"], &plan["limits"]), (&json!("tiny"), &body["limits"]));
    let patched = site.api.patch("plans/tiny", json!({"limits": {"burst": 20, "websockets": null}})).await.expect(200);
    assert_eq!(patched["limits"]["burst"], 20);
    assert!(patched["limits"].get("websockets").is_none());
    let bad = json!({"limits": {"requests_per_minute": 0, "burst": -1}});
    let refused = problem(site.api.patch("plans/tiny", bad).await, 422, "VALIDATION_FAILED");
    assert_eq!(crate::site::pointers(&refused), ["/limits/burst"]);
    problem(site.api.patch("plans/tiny", json!({"id": "huge"})).await, 422, "VALIDATION_FAILED");
    assert_eq!(site.api.delete("plans/tiny").await.status, 204);
    assert_eq!(site.api.get("plans").await.expect(200)["items"].as_array().map(Vec::len), Some(5));
}

#[tokio::test]
async fn what_is_in_use_is_not_removed() {
    let (site, _) = Site::with_tenant("greenhill").await;
    problem(site.api.delete("pools/shared").await, 409, "IN_USE");
    problem(site.api.delete("plans/basic").await, 409, "IN_USE");
}

#[tokio::test]
async fn a_pool_and_its_backends_live_from_create_to_delete() {
    let site = Site::start().await;
    let body = json!({
        "id": "p1", "kind": "shared", "balance": "least_request",
        "backends": [{"address": "http://127.0.0.1:9001", "weight": 1}],
    });
    let pool = site.api.post("pools", body).await.expect(201);
    let first = pool["backends"][0]["id"].as_str().expect("an id").to_owned();
    let added = site.api.post("pools/p1/backends", json!({"address": "http://127.0.0.1:9002"})).await;
    let location = added.header("location").expect("a location").to_owned();
    let backend = added.expect(201);
    assert_eq!((&backend["pool"], &backend["weight"], &backend["state"]), (&json!("p1"), &json!(1), &json!("active")));
    let path = format!("pools/p1/backends/{}", backend["id"].as_str().expect("an id"));
    assert_eq!(location, format!("/api/v1/{path}"));
    let twice = site.api.post("pools/p1/backends", json!({"address": "http://127.0.0.1:9002"})).await;
    problem(twice, 409, "BACKEND_EXISTS");
    assert_eq!(site.api.post(&format!("{path}/drain"), json!({})).await.expect(200)["state"], "draining");
    assert_eq!(site.api.post(&format!("{path}/undrain"), json!({})).await.expect(200)["state"], "active");
    assert_eq!(site.api.patch(&path, json!({"weight": 5})).await.expect(200)["weight"], 5);
    let moved = site.api.patch(&path, json!({"address": "http://127.0.0.1:9003"})).await;
    problem(moved, 422, "VALIDATION_FAILED");
    assert_eq!(site.api.get(&path).await.expect(200)["weight"], 5);
    assert_eq!(site.api.get("pools/p1/backends").await.expect(200)["items"].as_array().map(Vec::len), Some(2));

    // A backend that stays at its address stays the same, so that proxies keep what they know of it.
    let put = json!({"id": "p1", "backends": [{"address": "http://127.0.0.1:9001", "weight": 3}]});
    let put = site.api.put("pools/p1", put).await.expect(200);
    assert_eq!(put["backends"][0]["id"], first.as_str());
    assert_eq!(site.api.get(&path).await.status, 404);

    let only = format!("pools/p1/backends/{first}");
    assert_eq!(site.api.delete(&only).await.status, 204);
    assert_eq!(site.api.delete(&only).await.status, 404);
    assert_eq!(site.api.delete("pools/p1").await.status, 204);
}

#[tokio::test]
async fn a_pool_that_says_nothing_of_checks_gets_one_that_connects_and_null_stays_none() {
    let site = Site::start().await;
    let connects = json!({
        "kind": "tcp", "interval_ms": 2_000, "timeout_ms": 1_000, "healthy_after": 1, "unhealthy_after": 2,
    });
    assert_eq!(site.pool("p1").await["health_check"], connects);
    let off = site.api.patch("pools/p1", json!({"health_check": null})).await.expect(200);
    assert_eq!(off.get("health_check"), Some(&json!(null)), "said, so that what is read can be written back");
    let same = site.api.get("pools/p1").await.expect(200);
    assert_eq!(site.api.put("pools/p1", same).await.expect(200)["health_check"], json!(null));
    assert_eq!(
        site.api.patch("pools/p1", json!({"balance": "round_robin"})).await.expect(200)["health_check"],
        json!(null)
    );
    assert_eq!(site.api.put("pools/p1", json!({})).await.expect(200)["health_check"], connects);
    let none = json!({"id": "p2", "health_check": null});
    assert_eq!(site.api.post("pools", none).await.expect(201)["health_check"], json!(null));

    let asks = site.api.patch("pools/p1", json!({"health_check": {"kind": "http", "path": "/up"}})).await.expect(200);
    assert_eq!((&asks["health_check"]["path"], &asks["health_check"]["expect"]), (&json!("/up"), &json!([200, 299])));
    let again = site.api.patch("pools/p1", json!({"health_check": {"kind": "tcp"}})).await.expect(200);
    assert_eq!(again["health_check"], connects);
    let both = json!({"id": "p3", "health_check": {"kind": "tcp", "path": "/up"}});
    let refused = problem(site.api.post("pools", both).await, 422, "VALIDATION_FAILED");
    assert_eq!(crate::site::pointers(&refused), ["/health_check/path"]);
}

#[tokio::test]
async fn the_path_says_which_object_is_replaced() {
    let site = Site::start().await;
    site.pool("p1").await;
    site.api.post("plans", json!({"id": "tiny"})).await.expect(201);
    for (path, field, body) in [
        ("pools/p1", "id", json!({"kind": "dedicated"})),
        ("plans/tiny", "id", json!({"name": "Tiny"})),
        ("zones/schools.test", "name", json!({"reserved": ["staff"]})),
    ] {
        let own = path.split('/').next_back().expect("a name");
        assert_eq!(site.api.put(path, body.clone()).await.expect(200)[field], own);
        let with = |name: &str| {
            let mut body = body.clone();
            body[field] = json!(name);
            site.api.put(path, body)
        };
        with(own).await.expect(200);
        let refused = problem(with("other").await, 400, "BAD_REQUEST");
        assert_eq!(refused["errors"][0]["pointer"], format!("/{field}"));
        problem(with("Not a name").await, 422, "VALIDATION_FAILED");
    }
    let body = json!({"action": {"maintenance": true}});
    let route = site.api.post("routes", body.clone()).await.expect(201);
    let path = format!("routes/{}", route["id"].as_str().expect("an id"));
    assert_eq!(site.api.put(&path, body.clone()).await.expect(200)["id"], route["id"]);
    let elsewhere = json!({"match": {"path_prefix": "/lms/"}, "action": {"maintenance": true}});
    let other = site.api.post("routes", elsewhere).await.expect(201);
    let refused = site.api.put(&path, json!({"id": other["id"], "action": {"maintenance": true}})).await;
    let refused = problem(refused, 400, "BAD_REQUEST");
    assert_eq!(refused["errors"][0]["pointer"], "/id");
}

#[tokio::test]
async fn a_pool_that_could_not_work_is_refused_with_every_reason() {
    let site = Site::start().await;
    let body = json!({
        "id": "p1",
        "backends": [{"address": "http://127.0.0.1:9001"}, {"address": "http://127.0.0.1:9001"}],
        "timeouts": {"connect_ms": 0},
        "retry": {"attempts": 9},
        "health_check": {"path": "healthz", "interval_ms": 1},
    });
    let refused = problem(site.api.post("pools", body).await, 422, "VALIDATION_FAILED");
    let expected = [
        "/backends/1/address",
        "/health_check/interval_ms",
        "/health_check/path",
        "/retry/attempts",
        "/timeouts/connect_ms",
    ];
    assert_eq!(crate::site::pointers(&refused), expected);
}

#[tokio::test]
async fn a_route_lives_from_create_to_delete() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    site.pool("p2").await;
    let body = json!({"tenant": "greenhill", "match": {"path_prefix": "/api/"}, "action": {"pool": "p2"}});
    let route = site.api.post("routes", body).await.expect(201);
    assert_eq!(route["tenant"], tenant["id"]);
    let path = format!("routes/{}", route["id"].as_str().expect("an id"));
    let patched = site.api.patch(&path, json!({"priority": 7})).await.expect(200);
    assert_eq!((&patched["priority"], &patched["match"]), (&json!(7), &json!({"path_prefix": "/api/"})));
    let platform = site.api.post("routes", json!({"tenant": null, "action": {"redirect": {"to": "/x"}}})).await;
    assert_eq!(platform.expect(201)["tenant"], json!(null));
    let mine = site.api.get("routes?tenant=greenhill").await.expect(200);
    assert_eq!(mine["items"].as_array().map(Vec::len), Some(1));
    problem(site.api.delete("pools/p2").await, 409, "IN_USE");
    let bad = json!({"tenant": "nobody", "match": {"path_prefix": "api"}, "action": {"pool": "p9"}});
    let refused = problem(site.api.post("routes", bad).await, 422, "VALIDATION_FAILED");
    assert_eq!(crate::site::pointers(&refused), ["/action/pool", "/match/path_prefix", "/tenant"]);
    assert_eq!(site.api.delete(&path).await.status, 204);
}

#[tokio::test]
async fn a_cursor_that_no_list_gave_is_named() {
    let (site, _) = Site::with_tenant("greenhill").await;
    for list in ["tenants", "domains", "zones", "plans", "pools", "routes", "certificates", "audit", "revisions"] {
        for cursor in ["", "no%20cursor", "%00"] {
            let refused = problem(site.api.get(&format!("{list}?cursor={cursor}")).await, 400, "BAD_REQUEST");
            assert!(refused["message"].as_str().expect("text").contains("the parameter cursor"), "{refused}");
        }
    }
}

#[tokio::test]
async fn what_a_client_has_already_is_not_sent_again() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.api.post("domains", json!({"name": "erp.test", "tenant": "greenhill"})).await.expect(201);
    let ask = |path: &str, etag: &str| Api::send(site.api.request(Method::GET, path).header("if-none-match", etag));
    for path in ["tenants/slug:greenhill", "pools/shared", "plans/basic", "zones/schools.test", "domains/erp.test"] {
        let etag = site.api.get(path).await.etag().to_owned();
        let same = ask(path, &etag).await;
        assert_eq!((same.status, same.text.as_str(), same.etag()), (304, "", etag.as_str()), "{path}");
        assert_eq!(ask(path, "\"1\"").await.status, 200, "{path}");
    }
    // What is shown changes without a new version of the object itself.
    let (tenant, domain) = ("tenants/slug:greenhill", "domains/erp.test");
    let (of_tenant, of_domain) = (site.api.get(tenant).await, site.api.get(domain).await);
    site.api.post("zones", json!({"name": "academy.test"})).await.expect(201);
    assert_eq!(ask(tenant, of_tenant.etag()).await.expect(200)["version"], of_tenant.json["version"]);
    let issuer = site.issuer();
    schoolgate_testkit::until(crate::site::WAIT, async || {
        (ask(domain, of_domain.etag()).await.status == 200).then_some(())
    })
    .await;
    issuer.abort();
    // Either form of the tag is a precondition of a write.
    let version = format!("\"{}\"", of_tenant.json["version"]);
    for etag in [of_tenant.etag(), &version] {
        let write = site.api.request(Method::PATCH, "tenants/slug:greenhill?dry_run=true").header("if-match", etag);
        assert_eq!(Api::send(write.json(&json!({}))).await.status, 200);
    }
}

#[tokio::test]
async fn lists_are_cut_into_parts_and_searched() {
    let site = Site::start().await;
    site.pool("shared").await;
    for slug in ["alder", "birch", "cedar"] {
        site.tenant(slug).await;
    }
    let first = site.api.get("tenants?limit=2").await.expect(200);
    assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
    let next = first["next"].as_str().expect("there is more");
    let second = site.api.get(&format!("tenants?limit=2&cursor={next}")).await.expect(200);
    assert_eq!(second["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(second["next"], json!(null));
    let found = site.api.get("tenants?search=BIR").await.expect(200);
    assert_eq!(found["items"][0]["slug"], "birch");
    assert_eq!(site.api.get("tenants?plan=premium").await.expect(200)["items"], json!([]));
    problem(site.api.get("tenants?limit=0").await, 400, "BAD_REQUEST");
    problem(site.api.get("tenants?colour=red").await, 400, "BAD_REQUEST");
    problem(site.api.get("tenants?state=happy").await, 400, "BAD_REQUEST");
}
