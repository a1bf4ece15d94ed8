//! What many slow clients make the gateway hold is bounded for all of them together, and given back when they go.

use std::time::Duration;

use reqwest::Method;
use schoolgate_testkit::{Http, Mood, Origin, Site, eventually};

use crate::frames::{INITIAL_WINDOW, Raw, get};
use crate::{HOST, gateway, with_backend};

const SOON: Duration = Duration::from_secs(20);

const SETTINGS: &str = "[proxy.limits]\nbuffered_bytes = 300_000\n";

async fn is_refused(site: &Site) -> bool {
    let answer = site.client_with(HOST, Http::One).get("/").await;
    if answer.status() != 503 {
        return false;
    }
    assert!(answer.headers().contains_key("retry-after"));
    let problem: serde_json::Value = answer.json().await.expect("a problem document");
    assert_eq!(problem["error"], "OVERLOADED");
    true
}

async fn recovered(site: &Site) {
    eventually(SOON, || async { site.metric("schoolgate_buffered_bytes", &[]).await == 0.0 }).await;
    assert_eq!(site.client(HOST).get("/").await.status(), 200);
}

#[tokio::test]
async fn uploads_that_wait_for_their_backend_are_bounded_together() {
    let origin = Origin::start().await;
    let site = with_backend(gateway().settings(SETTINGS), origin.addr()).await;
    origin.set_mood(Mood::Hang);
    let upload = "x".repeat(64 * 1024);
    let mut uploads = Vec::new();
    for _ in 0..6 {
        let request = site.client_with(HOST, Http::One).request(Method::POST, "/").body(upload.clone());
        uploads.push(tokio::spawn(request.send()));
    }
    eventually(SOON, || async { site.metric("schoolgate_buffered_bytes", &[]).await >= 300_000.0 }).await;
    assert!(is_refused(&site).await);
    uploads.iter().for_each(tokio::task::JoinHandle::abort);
    origin.set_mood(Mood::Well);
    recovered(&site).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_together() {
    let origin = Origin::start().await;
    let site = with_backend(gateway().settings(SETTINGS), origin.addr()).await;
    let mut raw = Raw::connect(&site, &[(INITIAL_WINDOW, 0)]).await.expect("a connection");
    let requests: Vec<u8> = (0..90).flat_map(|n| get(2 * n + 1, "/bytes/200000")).collect();
    raw.send(&requests).await.expect("sent");
    eventually(SOON, || is_refused(&site)).await;
    drop(raw);
    recovered(&site).await;
}

#[tokio::test]
async fn heads_that_do_not_end_are_bounded_together() {
    let origin = Origin::start().await;
    let site = with_backend(gateway().settings(SETTINGS), origin.addr()).await;
    let mut slow = Vec::new();
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}", "y".repeat(15_000));
    for _ in 0..40 {
        let mut tls = site.tls(HOST).await.expect("a handshake");
        // One that comes too late is answered, and its connection closed.
        let _ = tls.send(&head).await;
        slow.push(tls);
    }
    eventually(SOON, || async { site.metric("schoolgate_request_heads_refused_total", &["code=\"503\""]).await > 0.0 })
        .await;
    drop(slow);
    recovered(&site).await;
}
