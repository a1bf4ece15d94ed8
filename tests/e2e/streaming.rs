//! Bodies stream, WebSockets pass, and neither is disturbed by a change.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use schoolgate_testkit::{Http, Origin, eventually};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{SOON, gateway_with, pool};

#[tokio::test]
async fn a_websocket_survives_a_routing_change() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let site = gateway_with(&[&one]).await;
    pool(&site.api(), "other", &[&two]).await;
    let tls = site.tls("ash.localhost").await.expect("a handshake");
    let mut socket = tls.websocket("ash.localhost", "/ws").await.expect("an upgrade");
    let mut echo = async |text: &str| {
        socket.send(Message::text(text)).await.expect("sent");
        let back = tokio::time::timeout(SOON, socket.next()).await.expect("in time").expect("open").expect("a message");
        assert_eq!(back, Message::text(text));
    };
    echo("before").await;
    site.api().patch("tenants/slug:ash?wait=applied", json!({"pool": "other"})).await.expect(200);
    assert_eq!(site.client("ash.localhost").get_json("/").await["origin"], "two", "new requests go to the new pool");
    echo("after").await;
}

#[tokio::test]
async fn an_answer_streams_while_it_is_made() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    for http in [Http::One, Http::Two] {
        let client = site.client_with("ash.localhost", http);
        let mut body = client.get("/sse").await.bytes_stream();
        for _ in 0..3 {
            let piece = tokio::time::timeout(SOON, body.next()).await.expect("in time").expect("more").expect("whole");
            assert!(!piece.is_empty());
        }
        drop(body);
        eventually(SOON, || async { origin.in_flight() == 0 }).await;
    }
}

#[tokio::test]
async fn a_request_body_streams_up_while_its_answer_streams_down() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    for http in [Http::One, Http::Two] {
        let (pieces, body) = tokio::sync::mpsc::channel::<Result<&'static str, std::io::Error>>(1);
        let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(body));
        let client = site.client_with("ash.localhost", http);
        pieces.send(Ok("first")).await.expect("open");
        let answer = client.request(Method::POST, "/duplex").body(body).send();
        let answer = tokio::time::timeout(SOON, answer).await.expect("in time").expect("an answer");
        let mut down = answer.bytes_stream();
        let mut next = async || loop {
            // HTTP/2 may end with an empty frame.
            match tokio::time::timeout(SOON, down.next()).await.expect("in time").map(|p| p.expect("whole")) {
                Some(piece) if piece.is_empty() => {}
                piece => break piece,
            }
        };
        assert_eq!(next().await.as_deref(), Some(&b"first"[..]), "{http:?}");
        pieces.send(Ok("second")).await.expect("open");
        assert_eq!(next().await.as_deref(), Some(&b"second"[..]), "{http:?}");
        drop(pieces);
        assert_eq!(next().await, None);
    }
}

#[tokio::test]
async fn a_large_body_arrives_whole_in_both_directions() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    for http in [Http::One, Http::Two] {
        let client = site.client_with("ash.localhost", http);
        let answer = client.request(Method::POST, "/echo").body(vec![7_u8; 5 << 20]).send().await.expect("an answer");
        assert_eq!(answer.json::<serde_json::Value>().await.expect("JSON")["body_bytes"], 5 << 20);
        let down = client.get("/bytes/5242880").await.bytes().await.expect("whole");
        assert_eq!(down.len(), 5 << 20);
    }
}

#[tokio::test]
async fn a_body_above_the_plans_limit_is_413_with_or_without_a_length() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let api = site.api();
    api.post("plans", json!({"id": "tiny", "limits": {"body_bytes": 1000}})).await.expect(201);
    api.patch("tenants/slug:ash?wait=applied", json!({"plan": "tiny"})).await.expect(200);
    for http in [Http::One, Http::Two] {
        let client = site.client_with("ash.localhost", http);
        let known = client.request(Method::POST, "/").body(vec![0_u8; 1001]).send().await.expect("an answer");
        assert_eq!(known.status(), 413, "{http:?}");
        assert_eq!(known.json::<serde_json::Value>().await.expect("JSON")["error"], "BODY_TOO_LARGE");
        let pieces = futures_util::stream::iter((0..4).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 500])));
        let unknown = client.request(Method::POST, "/").body(reqwest::Body::wrap_stream(pieces)).send().await;
        assert!(unknown.is_ok_and(|r| r.status() == 413), "{http:?} without a length");
        let fits = client.request(Method::POST, "/").body(vec![0_u8; 1000]).send().await.expect("an answer");
        assert_eq!(fits.status(), 200, "{http:?}");
    }
}

#[tokio::test]
async fn stopping_lets_a_request_in_flight_finish() {
    let origin = Origin::start().await;
    let mut site = gateway_with(&[&origin]).await;
    let client = site.client("ash.localhost");
    let slow = tokio::spawn(async move { client.get("/delay/1000").await.status() });
    eventually(SOON, || async { origin.in_flight() == 1 }).await;
    assert!(site.stop().await.success());
    assert_eq!(slow.await.expect("no panic"), 200);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request_upstream() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let client = site.client("ash.localhost");
    let gone = tokio::time::timeout(Duration::from_millis(300), client.try_get("/delay/60000")).await;
    assert!(gone.is_err());
    eventually(SOON, || async { origin.in_flight() == 0 }).await;
}
