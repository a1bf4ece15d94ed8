//! The control API as operators and their scripts use it.

use schoolgate_testkit::{Api, Origin};
use serde_json::json;

use crate::{gateway, gateway_with};

#[tokio::test]
async fn the_shapes_that_scripts_rely_on() {
    let site = gateway().up().await;
    let api = site.api();
    let pool = api.post("pools", json!({"id": "p1", "kind": "shared", "balance": "least_request", "backends": [{"address": "http://127.0.0.1:9001", "weight": 1}]})).await;
    assert!(pool.header("etag").is_some());
    pool.expect(201);
    api.post("pools/p1/backends", json!({"address": "http://127.0.0.1:9002"})).await.expect(201);
    let tenant = api
        .post("tenants", json!({"slug": "greenhill", "name": "Greenhill Academy", "plan": "basic", "pool": "p1"}))
        .await;
    assert!(tenant.header("etag").is_some());
    let tenant = tenant.expect(201);
    assert!(tenant["id"].as_str().is_some_and(|id| id.starts_with("tnt_") && id.len() == 30), "{tenant}");
    let read = api.get("tenants/slug:greenhill").await.expect(200);
    assert_eq!((&read["state"], &read["active"], &read["pool"]), (&json!("active"), &json!(true), &json!("p1")));
    let plan = json!({"id": "tiny", "limits": {"requests_per_minute": 60, "burst": 10, "requests_per_day": {"value": 1000, "mode": "hard"}, "in_flight": 5, "websockets": 5, "body_bytes": 1_048_576}});
    api.post("plans", plan).await.expect(201);
    api.post(
        "zones",
        json!({"name": "schools.test", "shared_host": "api.schools.test", "trusted_callers": ["127.0.0.1/32"]}),
    )
    .await
    .expect(201);
    let domain = api.post("domains", json!({"name": "erp.greenhill.test", "tenant": tenant["id"]})).await.expect(201);
    for field in ["name", "ready", "ownership", "routing", "certificate", "blocking", "records"] {
        assert!(domain.get(field).is_some(), "no {field} in {domain}");
    }
    api.post("tenants/create", json!({"slug": "riverside", "name": "Riverside", "plan": "standard", "pool": "p1"}))
        .await
        .expect(201);
    let list = api.get("tenants").await.expect(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
    assert!(list.get("next").is_some());
    assert!(api.get("revisions").await.expect(200)["items"].as_array().is_some_and(|r| !r.is_empty()));
}

#[tokio::test]
async fn a_slug_that_is_taken_is_409_and_a_wrong_field_has_its_pointer() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let api = site.api();
    let taken = api.post("tenants", json!({"slug": "ash", "name": "Other", "plan": "basic", "pool": "web"})).await;
    assert_eq!(taken.status, 409);
    assert_eq!(taken.json["error"], "SUBDOMAIN_EXISTS");
    let wrong = api
        .post("tenants", json!({"slug": "No Good", "name": "", "plan": "nosuch", "pool": "web", "colour": "red"}))
        .await;
    assert!(matches!(wrong.status, 400 | 422), "{}", wrong.text);
    assert_eq!(wrong.header("content-type"), Some("application/problem+json"));
    let pointers: Vec<&str> =
        wrong.json["errors"].as_array().expect("errors").iter().filter_map(|e| e["pointer"].as_str()).collect();
    for pointer in ["/slug", "/name", "/colour"] {
        assert!(pointers.contains(&pointer), "{pointer} is not among {pointers:?}");
    }
}

#[tokio::test]
async fn a_change_to_what_has_changed_meanwhile_is_refused() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let api = site.api();
    let etag = api.get("tenants/slug:ash").await.etag().to_owned();
    let patch = |name: &str, etag: &str| {
        api.request(reqwest::Method::PATCH, "tenants/slug:ash").header("if-match", etag).json(&json!({"name": name}))
    };
    let first = Api::send(patch("First", &etag)).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_ne!(first.etag(), etag);
    assert_eq!(Api::send(patch("Second", &etag)).await.status, 412);
    assert_eq!(api.get("tenants/slug:ash").await.json["name"], "First");
}

#[tokio::test]
async fn a_rehearsal_changes_nothing() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let api = site.api();
    let before = api.get("revisions").await.expect(200);
    let rehearsed = api
        .post("tenants?dry_run=true", json!({"slug": "birch", "name": "Birch", "plan": "basic", "pool": "web"}))
        .await;
    assert!((200..300).contains(&rehearsed.status), "{}", rehearsed.text);
    assert_eq!(api.get("tenants/slug:birch").await.status, 404);
    assert_eq!(api.get("revisions").await.expect(200), before);
}

#[tokio::test]
async fn what_others_need_cannot_be_deleted() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let api = site.api();
    let plan = api.get("tenants/slug:ash").await.expect(200)["plan"].as_str().expect("a plan").to_owned();
    for path in ["pools/web".to_owned(), format!("plans/{plan}")] {
        let path = path.as_str();
        let refused = api.delete(path).await;
        assert_eq!(refused.status, 409, "{path}: {}", refused.text);
    }
    assert_eq!(site.client("ash.localhost").get("/").await.status(), 200);
}

#[tokio::test]
async fn without_a_token_nothing_is_told() {
    let site = gateway().up().await;
    for path in ["tenants", "pools", "audit", "nodes"] {
        let answer = site.api().anonymous().get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(site.api().with_token("sgk_wrong_token").get(path).await.status, 401, "{path}");
    }
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/openapi.json"] {
        assert_eq!(site.api().anonymous().get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_openapi_document_describes_what_is_served() {
    let site = gateway().up().await;
    let document = site.api().get("/api/v1/openapi.json").await.expect(200);
    assert!(document["openapi"].as_str().is_some_and(|v| v.starts_with("3.1")), "{}", document["openapi"]);
    for path in [
        "/api/v1/tenants",
        "/api/v1/domains",
        "/api/v1/pools",
        "/api/v1/plans",
        "/api/v1/zones",
        "/api/v1/routes",
        "/api/v1/revisions",
        "/api/v1/nodes",
    ] {
        assert!(document["paths"].get(path).is_some(), "{path} is not described");
    }
}

#[tokio::test]
async fn every_change_leaves_an_audit_line() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    site.api().post("tenants/slug:ash/suspend", json!({"reason": "unpaid"})).await.expect(200);
    let audit = site.api().get("audit").await.expect(200);
    let text = audit.to_string();
    assert!(text.contains("suspend") && text.contains("ash"), "{text}");
}
