//! `?wait=applied`: the answer comes when every live proxy serves the change.

use std::time::Duration;

use schoolgate_config::feed::{FeedAnswer, RefusedRevision};
use schoolgate_config::model::Revision;
use schoolgate_testkit::Api;
use serde_json::json;

use crate::site::{Site, problem, report};

#[tokio::test]
async fn an_answer_waits_until_every_live_proxy_serves_the_change() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let (a, b) = (site.node("node-a"), site.node("node-b"));
    let answer = site.api.patch("tenants/slug:greenhill?wait=applied", json!({"name": "New"})).await;
    assert_eq!(answer.header("schoolgate-applied"), Some("true"));
    let revision = answer.header("schoolgate-revision").expect("a revision").to_owned();
    let body = answer.expect(200);
    assert_eq!((&body["name"], &body["applied"]["applied"]), (&json!("New"), &json!(true)));
    assert_eq!(body["applied"]["revision"].to_string(), revision);
    let nodes = site.api.get("nodes").await.expect(200);
    for node in nodes["items"].as_array().expect("nodes") {
        assert!(node["serving"].as_u64() >= body["applied"]["revision"].as_u64(), "{node}");
    }
    assert_eq!(site.api.delete("tenants/slug:greenhill?wait=applied").await.status, 204);
    a.abort();
    b.abort();
}

#[tokio::test]
async fn a_proxy_that_does_not_follow_is_named() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let node = site.node("node-a");
    let feed = site.publisher.feed();
    feed.report(report("stuck", Revision(1)));
    let answer = site.api.patch("tenants/slug:greenhill?wait=applied&timeout=0.3", json!({"name": "New"})).await;
    assert_eq!(answer.header("schoolgate-applied"), Some("false"));
    let body = answer.expect(200);
    assert_eq!(body["applied"]["applied"], false);
    let waiting = body["applied"]["waiting_for"].as_array().expect("a list");
    assert_eq!((waiting.len(), &waiting[0]["node"]), (1, &json!("stuck")));
    assert_eq!(site.api.get("tenants/slug:greenhill").await.expect(200)["name"], "New", "committed all the same");
    // One that refuses is not waited for.
    let mut refusing = report("stuck", Revision(1));
    refusing.refused = Some(RefusedRevision { revision: Revision(u64::MAX), reason: "no disk".into() });
    feed.report(refusing);
    let body = site.api.delete("tenants/slug:greenhill?wait=applied&timeout=30").await.expect(200);
    assert_eq!(body["applied"]["waiting_for"][0]["refused"], "no disk");
    node.abort();
}

#[tokio::test]
async fn without_proxies_a_published_change_is_applied() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let body = site.api.patch("tenants/slug:greenhill?wait=applied", json!({"name": "New"})).await.expect(200);
    assert_eq!(body["applied"]["applied"], true);
    // A write that changes no object has a line in the audit only.
    let token = site.api.post("tokens?wait=applied&timeout=5", json!({"name": "x", "role": "auditor"})).await;
    assert_eq!(token.expect(201)["applied"]["applied"], true);
}

#[tokio::test]
async fn a_domain_is_waited_for_with_its_certificate() {
    let site = Site::with_issuer(true).await;
    site.pool("shared").await;
    site.tenant("greenhill").await;
    site.api.patch("tenants/slug:greenhill", json!({"plan": "standard"})).await.expect(200);
    let (node, issuer) = (site.node("node-a"), site.issuer());
    let body = json!({"name": "erp.greenhill.test", "tenant": "greenhill"});
    let answer = site.api.post("domains?wait=applied", body).await;
    assert_eq!(answer.header("schoolgate-applied"), Some("true"));
    let domain = answer.expect(201);
    assert_eq!((&domain["ready"], &domain["certificate"]), (&json!(true), &json!("issued")));
    let served = site.publisher.table();
    assert!(served.certificates().any(|c| c.about.names == ["erp.greenhill.test"]));
    issuer.abort();
    let body = json!({"name": "late.greenhill.test", "tenant": "greenhill"});
    let late = site.api.post("domains?wait=applied&timeout=0.3", body).await.expect(201);
    assert_eq!(late["applied"]["applied"], false);
    assert_eq!(late["applied"]["waiting_for_certificates"], json!(["late.greenhill.test"]));
    node.abort();
}

#[tokio::test]
async fn a_proxy_follows_and_reports_over_http() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let token = std::fs::read_to_string(site.data.join("node.token")).expect("the token");
    let node = site.api.with_token(token.trim());
    let published = site.publisher.wait_published(site.store.head().change, Duration::from_secs(5)).await;
    let published = published.expect("published");
    let fetch = async |after: u64, wait_ms: u64| {
        let path = format!("/internal/v1/feed?node=far&after={after}&wait_ms={wait_ms}");
        let request = node.request(http::Method::GET, &path);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.headers()["content-type"], "application/vnd.schoolgate.feed");
        FeedAnswer::decode(&response.bytes().await.expect("a body")).expect("whole")
    };
    match fetch(0, 0).await {
        FeedAnswer::Snapshot(snapshot) => assert_eq!(snapshot.revision, published),
        other => panic!("expected a snapshot, found {other:?}"),
    }
    assert_eq!(fetch(published.0, 10).await, FeedAnswer::Nothing);
    let (answer, _) = tokio::join!(fetch(published.0, 10_000), async {
        site.api.patch("tenants/slug:greenhill", json!({"name": "New"})).await.expect(200)
    });
    match answer {
        FeedAnswer::Deltas(deltas) => assert_eq!((deltas.len(), deltas[0].from), (1, published)),
        other => panic!("expected a delta, found {other:?}"),
    }
    let report = json!(report("far", published));
    assert_eq!(node.post("/internal/v1/nodes/far/report", report.clone()).await.status, 200);
    assert_eq!(site.api.get("nodes/far").await.expect(200)["serving"], published.0);
    problem(node.post("/internal/v1/nodes/other/report", report).await, 400, "BAD_REQUEST");
    problem(Api::send(node.request(http::Method::GET, "/internal/v1/feed?node=far")).await, 400, "BAD_REQUEST");
}
