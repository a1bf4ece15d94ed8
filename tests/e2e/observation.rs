//! What others can see: metrics that stay bounded, a line per request, health.

use std::io::Write;
use std::process::{Command, Stdio};

use schoolgate_testkit::{Client, Origin, eventually};

use crate::{SOON, gateway, pool, school};

#[tokio::test]
async fn metrics_name_the_busiest_tenants_and_sum_the_rest() {
    let origin = Origin::start().await;
    let site = gateway().settings("[telemetry]\nmetrics_tenants = 2").up().await;
    pool(&site.api(), "web", &[&origin]).await;
    for slug in ["ash", "birch", "cedar", "elm"] {
        school(&site.api(), slug, "web").await;
    }
    for (slug, requests) in [("ash", 6), ("birch", 4), ("cedar", 2), ("elm", 1)] {
        for _ in 0..requests {
            assert_eq!(site.client(&format!("{slug}.localhost")).get("/").await.status(), 200);
        }
    }
    let total = async |tenant: &str| site.metric("schoolgate_requests_total", &[&format!("tenant=\"{tenant}\"")]).await;
    eventually(SOON, || async { total("ash").await == 6.0 && total("birch").await == 4.0 }).await;
    assert_eq!((total("cedar").await, total("elm").await), (0.0, 0.0));
    assert_eq!(total("_other").await, 3.0);
    let text = site.metrics().await;
    for name in [
        "schoolgate_build_info",
        "schoolgate_revision",
        "schoolgate_tls_handshakes_total",
        "schoolgate_request_duration_seconds_bucket",
        "schoolgate_backend_up",
        "schoolgate_certificate_expiry_seconds",
    ] {
        assert!(text.contains(name), "no {name}");
    }
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    let origin = Origin::start().await;
    let site = crate::gateway_with(&[&origin]).await;
    site.client("ash.localhost").get("/").await;
    let control = site.api().anonymous().get("/metrics").await.text;
    for text in [site.metrics().await, control] {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is there: Debian package prometheus");
        promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
        let output = promtool.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}

#[tokio::test]
async fn a_line_per_request_names_tenant_request_and_phases() {
    let origin = Origin::start().await;
    let site = gateway().settings("[telemetry]\naccess_log = \"<data>/access.log\"").up().await;
    pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    let answer = site.client("ash.localhost").get("/grades?secret=1").await;
    let id = answer.headers()["x-request-id"].to_str().expect("text").to_owned();
    let path = site.data().join("access.log");
    eventually(SOON, || async { std::fs::read_to_string(&path).is_ok_and(|log| log.contains(&id)) }).await;
    let log = std::fs::read_to_string(&path).expect("readable");
    let line = log.lines().find(|line| line.contains(&id)).expect("the line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let text = line.to_string();
    assert!(text.contains("\"ash\"") && text.contains("/grades"), "{text}");
    assert!(!text.contains("secret"), "the query may hold secrets: {text}");
}

#[tokio::test]
async fn health_and_readiness_are_told_on_the_private_address() {
    let site = gateway().up().await;
    let status = Client::plain(site.status_addr());
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status.get(path).await.status(), 200, "{path}");
    }
}
