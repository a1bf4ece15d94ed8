//! The server itself: how it starts, stops, and bears bad clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use schoolgate_config::seal::Keeper;
use schoolgate_control_api::{ContextKeys, ControlError, ControlOptions, ControlServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::site::Site;

#[tokio::test]
async fn an_address_in_use_is_named() {
    let site = Site::start().await;
    let address = site.handle.as_ref().expect("it runs").address();
    let options = ControlOptions {
        listen: address,
        socket: None,
        store: site.store.clone(),
        publisher: site.publisher.clone(),
        keys: site.keys.clone(),
        domain_checks: site.domain_checks.clone(),
        issues_at_once: false,
        keeper: Arc::new(Keeper::new(&[7; 32])),
        context_keys: ContextKeys::new(Arc::new(Keeper::new(&[7; 32])), &Default::default()),
    };
    let error = ControlServer::start(options).await.expect_err("it is taken");
    assert!(matches!(error, ControlError::AddressInUse { .. }));
    assert!(error.to_string().contains(&address.to_string()));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_long_polls_nor_for_waiting_writes() {
    let mut site = Site::start().await;
    site.pool("shared").await;
    site.tenant("greenhill").await;
    let token = std::fs::read_to_string(site.data.join("node.token")).expect("the token");
    let node = site.api.with_token(token.trim());
    let at = site.publisher.wait_published(site.store.head().change, Duration::from_secs(5)).await.expect("published");
    let poll =
        tokio::spawn(
            async move { node.get(&format!("/internal/v1/feed?node=far&after={at}&wait_ms=60000")).await.status },
        );
    schoolgate_testkit::until(crate::site::WAIT, async || {
        site.publisher.feed().nodes().iter().any(|node| node.live).then_some(())
    })
    .await;
    let api = site.api.clone();
    let write = tokio::spawn(async move {
        let body = serde_json::json!({"name": "x"});
        api.patch("tenants/slug:greenhill?wait=applied&timeout=60", body).await
    });
    schoolgate_testkit::until(crate::site::WAIT, async || {
        (site.store.head().table.tenant_by_slug("greenhill")?.tenant.name == "x").then_some(())
    })
    .await;
    let began = Instant::now();
    site.handle.take().expect("it runs").stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(poll.await.expect("no panic"), 200);
    let answer = write.await.expect("no panic");
    assert_eq!((answer.status, answer.header("schoolgate-applied")), (200, Some("false")));
}

#[tokio::test]
async fn bytes_that_are_not_http_do_no_harm() {
    let site = Site::start().await;
    let address = site.handle.as_ref().expect("it runs").address();
    for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\n", &[0; 4096]] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(bytes).await.expect("sent");
        stream.shutdown().await.expect("shut down");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(site.api.get("/healthz").await.status, 200);
}
