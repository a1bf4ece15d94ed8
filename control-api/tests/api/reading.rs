//! What can only be read.

use schoolgate_config::feed::BackendReport;
use serde_json::json;

use crate::site::{Site, problem, report};

#[tokio::test]
async fn a_revision_shows_its_changes_and_who_serves_it() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let node = site.node("node-a");
    let answer = site.api.post("tenants/slug:greenhill/suspend?wait=applied", json!({})).await;
    let revision = answer.header("schoolgate-revision").expect("a revision").to_owned();
    let listed = site.api.get("revisions?limit=1").await.expect(200);
    assert_eq!(listed["items"][0]["revision"].to_string(), revision);
    assert!(listed["next"].is_string());
    let detail = site.api.get(&format!("revisions/{revision}")).await.expect(200);
    let change = detail["changes"].as_array().expect("changes").last().expect("a change");
    assert_eq!((&change["action"], &change["actor"]), (&json!("tenant.suspend"), &json!("first-start")));
    assert_eq!(change["objects"][0], json!({"op": "put", "kind": "tenant", "id": tenant["id"]}));
    assert_eq!(detail["nodes"][0]["applied"], true);
    problem(site.api.get("revisions/99999").await, 404, "NOT_FOUND");
    problem(site.api.get("revisions/last").await, 404, "NOT_FOUND");
    node.abort();
}

#[tokio::test]
async fn the_status_has_the_whole_gateway_on_one_page() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.api.post("domains", json!({"name": "erp.test", "tenant": "greenhill"})).await.expect(201);
    let pool = site.api.get("pools/shared").await.expect(200);
    let backend = pool["backends"][0]["id"].as_str().expect("an id").to_owned();
    let mut said = report("node-a", site.publisher.revision());
    said.backends.push(BackendReport {
        pool: "shared".into(),
        backend: backend.clone(),
        address: "http://127.0.0.1:9001".into(),
        state: "unhealthy".into(),
        checked: true,
        in_flight: 3,
        reason: Some("connection refused".into()),
    });
    site.publisher.feed().report(said);
    let status = site.api.get("status").await.expect(200);
    assert_eq!(status["tenants"], json!({"active": 1}));
    assert_eq!(status["domains"]["proven"], 1);
    assert_eq!(status["certificates"]["queued"], 2, "one for the domain, one for the zone");
    assert_eq!((&status["nodes"][0]["id"], &status["nodes"][0]["live"]), (&json!("node-a"), &json!(true)));
    let seen = &status["backends"][0];
    assert_eq!((&seen["id"], &seen["state"]), (&json!(backend), &json!("active")));
    assert_eq!(seen["seen"][0]["reason"], "connection refused");
    let names: Vec<_> = site.api.get("certificates").await.expect(200)["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(names, ["*.schools.test", "erp.test"]);
}

#[tokio::test]
async fn health_metrics_and_keys_need_no_token() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let anybody = site.api.anonymous();
    assert_eq!(anybody.get("/healthz").await.expect(200)["status"], "ok");
    assert_eq!(anybody.get("/readyz").await.expect(200)["status"], "ok");
    site.api.get("tenants/slug:greenhill").await.expect(200);
    let metrics = anybody.get("/metrics").await;
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    for line in [
        "schoolgate_control_requests_total{code=\"200\",method=\"GET\",route=\"/api/v1/tenants/{tenant}\"} 1",
        "schoolgate_control_tenants 1",
        "schoolgate_certificates{state=\"queued\"} 1",
        "schoolgate_build_info{role=\"control\"",
    ] {
        assert!(metrics.text.contains(line), "{line} is not in\n{}", metrics.text);
    }
    let keys = anybody.get("/.well-known/schoolgate/jwks.json").await.expect(200);
    assert_eq!((&keys["keys"][0]["kty"], &keys["keys"][0]["crv"]), (&json!("OKP"), &json!("Ed25519")));
    assert!(keys["keys"][0].get("d").is_none());
    let file = std::fs::read_to_string(site.data.join("run/jwks.json")).expect("the file");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&file).expect("JSON"), keys);
}
