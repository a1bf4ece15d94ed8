//! What is refused, and how it is said.

use http::Method;
use schoolgate_testkit::Api;
use serde_json::json;

use crate::site::{Site, pointers, problem};

#[tokio::test]
async fn every_error_of_a_document_is_named_at_once() {
    let site = Site::start().await;
    let body = json!({
        "slug": "Bad Slug", "name": "", "plan": "nope", "pool": "nope", "colour": 1, "retention_days": -1,
        "theme": {"primary_color": "red", "font": "x"}, "features": {"lms": "yes"},
        "subscription": {"status": "rich"},
    });
    let refused = problem(site.api.post("tenants", body).await, 422, "VALIDATION_FAILED");
    let expected = [
        "/colour",
        "/features/lms",
        "/name",
        "/plan",
        "/pool",
        "/retention_days",
        "/slug",
        "/subscription/status",
        "/theme/font",
        "/theme/primary_color",
    ];
    assert_eq!(pointers(&refused), expected);
    let empty = problem(site.api.post("tenants", json!({})).await, 422, "VALIDATION_FAILED");
    assert_eq!(pointers(&empty), ["/name", "/slug"]);
    for name in ["Lincoln\u{202e}egelloC", "Lincoln\u{2067}", "Lincoln\u{7}"] {
        let odd = problem(site.api.post("tenants", json!({"slug": "a", "name": name})).await, 422, "VALIDATION_FAILED");
        assert!(pointers(&odd).contains(&"/name".to_owned()), "{name:?}: {odd}");
    }
    let reserved = site.api.post("tenants", json!({"slug": "admin", "name": "x"})).await;
    assert!(pointers(&problem(reserved, 422, "VALIDATION_FAILED")).contains(&"/slug".to_owned()));
}

#[tokio::test]
async fn defaults_that_do_not_exist_are_named() {
    let site = Site::start().await;
    let refused = site.api.post("tenants", json!({"slug": "a", "name": "A"})).await;
    assert_eq!(pointers(&problem(refused, 422, "VALIDATION_FAILED")), ["/pool"]);
}

#[tokio::test]
async fn unknown_fields_are_refused_everywhere() {
    let (site, _) = Site::with_tenant("greenhill").await;
    for (path, body) in [
        ("tenants", json!({"slug": "a", "name": "A", "x_unknown": 1})),
        ("domains", json!({"name": "a.test", "tenant": "greenhill", "x_unknown": 1})),
        ("zones", json!({"name": "z.test", "x_unknown": 1})),
        ("plans", json!({"id": "p", "x_unknown": 1})),
        ("pools", json!({"id": "p", "x_unknown": 1})),
        ("pools/shared/backends", json!({"address": "http://127.0.0.1:9002", "x_unknown": 1})),
        ("routes", json!({"action": {"maintenance": true}, "x_unknown": 1})),
        ("tokens", json!({"name": "t", "role": "auditor", "x_unknown": 1})),
    ] {
        let refused = problem(site.api.post(path, body).await, 422, "VALIDATION_FAILED");
        assert_eq!(pointers(&refused), ["/x_unknown"], "{path}");
    }
    for (path, body) in [
        ("tenants/slug:greenhill", json!({"x_unknown": 1})),
        ("pools/shared", json!({"x_unknown": 1})),
        ("plans/basic", json!({"limits": {"x_unknown": 1}})),
    ] {
        assert_eq!(site.api.patch(path, body).await.status, 422, "{path}");
    }
}

#[tokio::test]
async fn every_error_is_a_problem_document() {
    let site = Site::start().await;
    problem(site.api.get("/nowhere").await, 404, "NOT_FOUND");
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let request = site.api.request(method, "webhooks/x");
        let message = problem(Api::send(request).await, 404, "NOT_FOUND")["message"].clone();
        let says = ["has no path /api/v1/webhooks/x;", "/api/v1/openapi.json"];
        assert!(says.iter().all(|part| message.as_str().is_some_and(|text| text.contains(part))), "{message}");
    }
    let answer = site.api.delete("status").await;
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{:?}", answer.headers);
    problem(answer, 405, "METHOD_NOT_ALLOWED");
    let post = |body: &str, kind: &str| {
        let request = site.api.request(Method::POST, "tenants").header("content-type", kind);
        Api::send(request.body(body.to_owned()))
    };
    problem(post("{", "application/json").await, 400, "BAD_REQUEST");
    problem(post("{\"a\":1} x", "application/json").await, 400, "BAD_REQUEST");
    problem(post("a=b", "application/x-www-form-urlencoded").await, 415, "UNSUPPORTED_MEDIA_TYPE");
    problem(post("[]", "application/json").await, 422, "VALIDATION_FAILED");
    problem(post("null", "application/json").await, 422, "VALIDATION_FAILED");
    problem(post("", "application/json").await, 422, "VALIDATION_FAILED");
    problem(post(&format!("{}{}", "[".repeat(60), "]".repeat(60)), "application/json").await, 400, "BAD_REQUEST");
    problem(post(&"[".repeat(100_000), "application/json").await, 400, "BAD_REQUEST");
    let huge = format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 20));
    problem(post(&huge, "application/json").await, 413, "BODY_TOO_LARGE");
    problem(site.api.post("tenants?dry_run=maybe", json!({})).await, 400, "BAD_REQUEST");
    problem(site.api.post("tenants?wait=forever", json!({})).await, 400, "BAD_REQUEST");
    problem(site.api.post("tenants?wait=applied&timeout=3600", json!({})).await, 400, "BAD_REQUEST");
    let request = site.api.request(Method::PATCH, "plans/basic").header("if-match", "7").json(&json!({}));
    problem(Api::send(request).await, 400, "BAD_REQUEST");
}

#[tokio::test]
async fn the_openapi_document_has_every_route_and_resolves() {
    let site = Site::start().await;
    let document = site.api.anonymous().get("openapi.json").await.expect(200);
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    let paths = document["paths"].as_object().expect("paths");
    // The document's paths are the router's: ask the server about each, and about one that it does not have.
    let mut operations = std::collections::HashSet::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("a name").to_owned();
            assert!(operations.insert(id.clone()), "{id} names two operations");
            assert!(operation["responses"].get("default").is_some(), "{id} has no problem");
            let concrete = path.replace(['{', '}'], "x");
            let method: Method = method.to_uppercase().parse().expect("a method");
            let answer = Api::send(site.api.request(method.clone(), &concrete)).await;
            assert_ne!(answer.status, 405, "{method} {path}");
            assert!(!answer.text.contains("this release has no path"), "{method} {path}");
        }
    }
    for path in ["/api/v1/tenants", "/api/v1/tenants/create", "/api/v1/pools/{pool}/backends/{backend}/drain"] {
        assert!(paths.contains_key(path), "{path} is missing");
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a reference");
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
}
