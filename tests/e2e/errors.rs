//! What the gateway says itself: one table, as JSON or as the school's page.

use schoolgate_testkit::{Http, Origin};
use serde_json::json;

use crate::gateway_with;

#[tokio::test]
async fn an_error_is_problem_json_for_programs_and_a_themed_page_for_people() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let api = site.api();
    let theme = json!({"name": "<script>alert(1)</script>", "theme": {"primary_color": "#123456"}});
    api.patch("tenants/slug:ash", theme).await.expect(200);
    api.post("tenants/slug:ash/suspend?wait=applied", json!({"reason": "a test"})).await.expect(200);
    for http in [Http::One, Http::Two] {
        let client = site.client_with("ash.localhost", http);
        let json_answer = client.get("/").await;
        assert_eq!(json_answer.headers()["content-type"], "application/problem+json");
        let id = json_answer.headers()["x-request-id"].to_str().expect("text").to_owned();
        let body: serde_json::Value = json_answer.json().await.expect("JSON");
        assert_eq!(
            (body["error"].as_str(), body["request_id"].as_str()),
            (Some("TENANT_SUSPENDED"), Some(id.as_str()))
        );
        assert!(body["message"].as_str().is_some_and(|m| !m.is_empty()));

        let page = client
            .request(reqwest::Method::GET, "/")
            .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
            .send()
            .await
            .expect("an answer");
        assert_eq!(page.status(), 403);
        assert!(page.headers()["content-type"].to_str().is_ok_and(|t| t.starts_with("text/html")));
        let html = page.text().await.expect("a body");
        assert!(html.contains("#123456") && html.contains("&lt;script&gt;"), "{html}");
        assert!(!html.contains("<script>alert"), "{html}");

        let head = client.request(reqwest::Method::HEAD, "/").send().await.expect("an answer");
        assert_eq!(head.status(), 403);
        assert_eq!(head.text().await.expect("a body"), "");
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_an_error() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let mut tls = site.tls("ash.localhost").await.expect("a handshake");
    assert_eq!(tls.get("nosuch.localhost", "/").await.expect("an answer").status, 404);
    assert_eq!(tls.get("ash.localhost", "/").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_request_head_that_is_too_large_is_refused() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let long_path = format!("/{}", "a".repeat(9_000));
    let mut tls = site.tls("ash.localhost").await.expect("a handshake");
    assert_eq!(tls.get("ash.localhost", &long_path).await.expect("an answer").status, 414);
    let mut tls = site.tls("ash.localhost").await.expect("a handshake");
    let fields: String = (0..40).map(|n| format!("X-Field-{n}: {}\r\n", "b".repeat(1_000))).collect();
    tls.send(format!("GET / HTTP/1.1\r\nHost: ash.localhost\r\n{fields}\r\n")).await.expect("sent");
    assert_eq!(tls.read_response().await.expect("an answer").status, 431);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn nothing_of_our_insides_is_told() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    origin.die().await;
    let answer = site.client("ash.localhost").get("/").await;
    assert!(matches!(answer.status().as_u16(), 502 | 503));
    assert!(
        answer.headers().get("server").is_none_or(|s| !s
            .to_str()
            .unwrap_or_default()
            .to_lowercase()
            .contains("pingora"))
    );
    let body = answer.text().await.expect("a body");
    for inside in ["127.0.0.1", "pingora", "panicked", ".rs", "Connect", "web"] {
        assert!(!body.contains(inside), "{inside} in {body}");
    }
}
