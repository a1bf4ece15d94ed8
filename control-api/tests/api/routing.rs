//! Routes, canaries and maintenance as an operator writes them.

use serde_json::{Value, json};

use crate::site::{Site, pointers, problem};

async fn refused(site: &Site, body: Value) -> (Vec<String>, String) {
    let problem = problem(site.api.post("routes", body).await, 422, "VALIDATION_FAILED");
    let message = problem["errors"][0]["message"].as_str().expect("a message").to_owned();
    (pointers(&problem), message)
}

#[tokio::test]
async fn a_route_that_would_never_match_is_refused_and_the_other_is_named() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let route = |priority: i32, matches: Value| json!({ "tenant": "greenhill", "priority": priority, "match": matches, "action": { "pool": "shared" } });
    let api = site.api.post("routes", route(5, json!({ "path_prefix": "/api" }))).await.expect(201);
    let id = api["id"].as_str().expect("an id").to_owned();
    for (priority, matches) in [
        (5, json!({ "path_prefix": "/api" })),
        (0, json!({ "path_prefix": "/api/v1" })),
        (0, json!({ "path_exact": "/api", "methods": ["GET"] })),
        (9, json!({})),
    ] {
        let (pointers, message) = refused(&site, route(priority, matches.clone())).await;
        assert_eq!(pointers, ["/match"], "{matches}");
        assert!(message.contains(&id) && message.contains("for /api…, priority 5"), "{message}");
    }
    for (priority, matches) in [
        (5, json!({ "path_prefix": "/api/v1" })),
        (9, json!({ "path_prefix": "/api", "methods": ["DELETE"] })),
        (0, json!({ "path_prefix": "/" })),
    ] {
        site.api.post("routes", route(priority, matches)).await.expect(201);
    }
    let everywhere = json!({ "match": {}, "action": { "pool": "shared" } });
    site.api.post("routes", everywhere).await.expect(201);
    site.api.patch(&format!("routes/{id}"), json!({ "action": { "body_bytes": 5 } })).await.expect(200);
    let lowered = site.api.patch(&format!("routes/{id}"), json!({ "priority": -1 })).await;
    let lowered = problem(lowered, 422, "VALIDATION_FAILED");
    assert_eq!(lowered["errors"][0]["code"], "shadowed", "a change is looked at as a new route is: {lowered}");
    let closed = json!({ "tenant": "greenhill", "priority": 100, "action": { "maintenance": true } });
    site.api.post("routes", closed).await.expect(201);
}

#[tokio::test]
async fn every_part_of_a_route_reads_back_and_nonsense_is_refused() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.pool("next").await;
    let route = json!({
        "tenant": null, "priority": 3,
        "match": { "path_prefix": "/lms/", "methods": ["GET"], "headers": [{ "name": "x-beta" }], "host": "custom_domain" },
        "action": {
            "pool": "shared", "class": "static", "timeouts": { "connect_ms": 50, "read_ms": 900 },
            "canary": { "pool": "next", "percent": 10, "by": "tenant", "cookie": { "name": "beta", "value": "1" } },
        },
    });
    let made = site.api.post("routes", route.clone()).await.expect(201);
    assert_eq!((&made["match"], &made["action"]), (&route["match"], &route["action"]));
    let public = json!({ "action": { "public": true, "answer": { "body": "User-agent: *" } }, "match": { "path_exact": "/robots.txt" } });
    let made = site.api.post("routes", public).await.expect(201);
    assert_eq!(made["action"]["answer"]["content_type"], "text/plain; charset=utf-8");

    for (body, pointer) in [
        (json!({ "match": { "host": "any" }, "action": { "pool": "shared" } }), "/match/host"),
        (json!({ "action": { "canary": { "pool": "gone", "percent": 5 } } }), "/action/canary/pool"),
        (json!({ "action": { "canary": { "pool": "next", "percent": 101 } } }), "/action/canary/percent"),
        (json!({ "action": { "pool": "next", "canary": { "pool": "next" } } }), "/action/canary/pool"),
        (
            json!({ "action": { "canary": { "pool": "next", "cookie": { "name": "a b", "value": "1" } } } }),
            "/action/canary/cookie/name",
        ),
        (
            json!({ "action": { "canary": { "pool": "next", "header": { "name": "X-Beta" } } } }),
            "/action/canary/header/name",
        ),
        (json!({ "action": { "public": true } }), "/action/pool"),
        (json!({ "tenant": "greenhill", "action": { "public": true, "pool": "shared" } }), "/tenant"),
        (
            json!({ "action": { "public": true, "pool": "shared", "requires_feature": "lms" } }),
            "/action/requires_feature",
        ),
        (json!({ "action": { "class": "dynamic" } }), "/action/class"),
        (json!({ "action": { "timeouts": { "total_ms": 0 } } }), "/action/timeouts/total_ms"),
    ] {
        assert_eq!(refused(&site, body.clone()).await.0, [pointer], "{body}");
    }
}

#[tokio::test]
async fn a_tenant_has_a_canary_whose_pool_stays() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.pool("next").await;
    let canary = json!({ "pool": "next", "percent": 25, "by": "client" });
    let tenant = site.api.patch("tenants/slug:greenhill", json!({ "canary": canary })).await.expect(200);
    assert_eq!(tenant["canary"], canary);
    problem(site.api.delete("pools/next").await, 409, "IN_USE");
    let own = site.api.patch("tenants/slug:greenhill", json!({ "canary": { "pool": "shared" } })).await;
    assert_eq!(pointers(&problem(own, 422, "VALIDATION_FAILED")), ["/canary/pool"]);
    let tenant = site.api.patch("tenants/slug:greenhill", json!({ "canary": null })).await.expect(200);
    assert!(tenant.get("canary").is_none());
    assert_eq!(site.api.delete("pools/next").await.status, 204);
}

#[tokio::test]
async fn maintenance_is_now_or_in_a_window_of_tenant_or_pool() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let far = "2100-01-01T00:00:00.000Z";
    let now = json!({ "reason": "disk", "message": "Back soon", "ends_at": far, "allow": ["192.0.2.1"] });
    let tenant = site.api.post("tenants/slug:greenhill/maintenance", now).await.expect(200);
    assert_eq!((&tenant["state"], &tenant["state_reason"]), (&json!("maintenance"), &json!("disk")));
    assert_eq!(tenant["maintenance"]["ends_at"], far);
    assert_eq!(tenant["maintenance"]["allow"], json!(["192.0.2.1/32"]));
    let resumed = site.api.post("tenants/slug:greenhill/resume", json!({})).await.expect(200);
    assert!(resumed["state"] == "active" && resumed.get("maintenance").is_none());

    let window = json!({ "starts_at": "2099-12-31T22:00:00Z", "ends_at": far });
    let tenant = site.api.post("tenants/slug:greenhill/maintenance", window.clone()).await.expect(200);
    assert_eq!(tenant["state"], "active", "it has not begun");
    assert_eq!(tenant["maintenance"]["starts_at"], "2099-12-31T22:00:00.000Z");
    let pool = site.api.post("pools/shared/maintenance", window).await.expect(200);
    assert_eq!(pool["maintenance"]["ends_at"], far);
    let edited = site.api.patch("pools/shared", json!({ "balance": "round_robin" })).await.expect(200);
    assert_eq!(edited["maintenance"]["ends_at"], far, "an edit does not end it");
    let pool = site.api.post("pools/shared/resume", json!({})).await.expect(200);
    assert!(pool.get("maintenance").is_none());

    assert_eq!(site.api.get("maintenance").await.expect(200), json!({ "maintenance": null, "on": false }));
    let begun = site.api.put("maintenance", json!({ "message": "Back at noon" })).await.expect(200);
    assert_eq!((&begun["on"], &begun["maintenance"]["message"]), (&json!(true), &json!("Back at noon")));
    let later = site.api.put("maintenance", json!({ "starts_at": "2099-12-31T22:00:00Z" })).await.expect(200);
    assert_eq!(later["on"], false, "PUT replaces, and it has not begun");
    assert_eq!(site.api.delete("maintenance").await.status, 204);
    assert_eq!(site.api.get("maintenance").await.expect(200), json!({ "maintenance": null, "on": false }));

    for (body, pointer) in [
        (json!({ "ends_at": "2000-01-01T00:00:00Z" }), "/ends_at"),
        (json!({ "ends_at": "soon" }), "/ends_at"),
        (json!({ "allow": ["everyone"] }), "/allow/0"),
        (json!({ "raeson": "x" }), "/raeson"),
    ] {
        let refused = problem(site.api.post("pools/shared/maintenance", body).await, 422, "VALIDATION_FAILED");
        assert_eq!(pointers(&refused), [pointer]);
    }
}
