use std::time::Duration;

use reqwest::Method;
use schoolgate_testkit::Http;
use schoolgate_testkit::Origin;
use serde_json::json;

use crate::site::{given, route};

const LIMIT: u64 = 100_000;

fn limited() -> schoolgate_config::snapshot::Object {
    route(json!({"action": {"body_bytes": LIMIT}}))
}

fn chunked(bytes: usize) -> reqwest::Body {
    let pieces = (0..bytes / 1_000).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1_000]));
    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
}

/// A body that begins and never ends.
fn stalled() -> reqwest::Body {
    let begun = futures_util::stream::iter([Ok::<_, std::io::Error>("begun")]);
    reqwest::Body::wrap_stream(futures_util::stream::StreamExt::chain(begun, futures_util::stream::pending()))
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_by_its_length_and_by_its_bytes() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).object(limited()).start().await;
    for http in [Http::One, Http::Two] {
        let visitor = site.visitor("greenhill.school.test", http);
        let fits = visitor.request(Method::POST, "/").body(vec![b'x'; LIMIT as usize]).send().await.unwrap();
        assert_eq!(fits.status(), 200);
        let body: serde_json::Value = serde_json::from_str(&fits.text().await.unwrap()).unwrap();
        assert_eq!(body["body_bytes"], LIMIT);
        let fits = visitor.request(Method::POST, "/").body(chunked(LIMIT as usize)).send().await.unwrap();
        assert_eq!(fits.status(), 200);
        let before = origin.requests();
        let announced = visitor.request(Method::POST, "/").body(vec![b'x'; LIMIT as usize + 1]).send().await;
        assert_eq!(announced.unwrap().status(), 413, "{http:?}");
        assert_eq!(origin.requests(), before, "nothing of it was forwarded");
        let streamed = visitor.request(Method::POST, "/").body(chunked(LIMIT as usize + 20_000)).send().await;
        assert_eq!(streamed.unwrap().status(), 413, "{http:?}");
    }
}

#[tokio::test]
async fn a_short_body_that_nobody_wanted_does_not_cost_the_connection() {
    let site = given(Vec::<String>::new()).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    for _ in 0..2 {
        connection
            .send("POST / HTTP/1.1\r\nHost: greenhill.school.test\r\nContent-Length: 5\r\n\r\nhello")
            .await
            .unwrap();
        assert_eq!(connection.read_response().await.unwrap().status, 503);
    }
    connection
        .send("POST / HTTP/1.1\r\nHost: greenhill.school.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        .await
        .unwrap();
    let answer = connection.read_response().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert!(connection.read_to_end().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_body_that_stalls_is_cut_on_both_protocols() {
    let origin = Origin::start().await;
    let pool = json!({"timeouts": {"read_ms": 300}});
    let site = given([origin.url()]).pool(pool).body_stall(Duration::from_millis(500)).start().await;
    for http in [Http::One, Http::Two] {
        let visitor = site.visitor("greenhill.school.test", http);
        let sending = visitor.request(Method::POST, "/").body(stalled()).send();
        let answer = tokio::time::timeout(Duration::from_secs(5), sending).await.expect("cut").unwrap();
        assert_eq!(answer.status(), 408, "{http:?}");
    }
    let slow = site.greenhill().get("/delay/2000").await;
    assert_eq!(slow.status(), 504, "without a body the time is the backend's");
}

#[tokio::test]
async fn a_patient_pool_does_not_let_a_body_stand_still_for_longer() {
    let origin = Origin::start().await;
    let pool = json!({"timeouts": {"read_ms": 60_000, "first_byte_ms": 60_000}});
    let site = given([origin.url()]).pool(pool).body_stall(Duration::from_millis(300)).start().await;
    for http in [Http::One, Http::Two] {
        let visitor = site.visitor("greenhill.school.test", http);
        let sending = visitor.request(Method::POST, "/").body(stalled()).send();
        let answer = tokio::time::timeout(Duration::from_secs(20), sending).await.expect("cut").unwrap();
        assert_eq!(answer.status(), 408, "{http:?}");
        let slow = visitor.request(Method::POST, "/delay/1000").body("all of it").send().await.unwrap();
        assert_eq!(slow.status(), 200, "{http:?}: once the body is whole the time is the backend's");
    }
}

#[tokio::test]
async fn who_listens_need_not_speak() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).body_stall(Duration::from_millis(600)).start().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<&'static str, std::io::Error>>(1);
    let body = futures_util::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|piece| (piece, r)) });
    let visitor = site.visitor("greenhill.school.test", Http::Two);
    let answer = visitor.request(Method::POST, "/stream/10/200").body(reqwest::Body::wrap_stream(body)).send();
    let text = answer.await.unwrap().text().await.unwrap();
    assert!(text.ends_with("chunk 9\n"), "two seconds of an answer, and the body never ended: {text}");
    drop(sender);
}

#[tokio::test]
async fn a_body_that_comes_slowly_but_steadily_passes() {
    let origin = Origin::start().await;
    let pool = json!({"timeouts": {"read_ms": 300}});
    let site = given([origin.url()]).pool(pool).body_stall(Duration::from_millis(500)).start().await;
    let steady = futures_util::stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        (n < 5).then_some((Ok::<_, std::io::Error>("piece"), n + 1))
    });
    let sending = site.greenhill().request(Method::POST, "/").body(reqwest::Body::wrap_stream(steady)).send();
    assert_eq!(sending.await.unwrap().status(), 200);
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<&'static str, std::io::Error>>(1);
    let body = futures_util::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|piece| (piece, r)) });
    let visitor = site.visitor("greenhill.school.test", Http::Two);
    let sending = visitor.request(Method::POST, "/duplex").body(reqwest::Body::wrap_stream(body)).send();
    let feeding = async {
        sender.send(Ok("one")).await.unwrap();
        sender
    };
    let (answer, sender) = tokio::join!(sending, feeding);
    let mut answer = answer.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "one");
    sender.send(Ok("two")).await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "two");
    drop(sender);
    assert!(answer.chunk().await.unwrap().is_none_or(|rest| rest.is_empty()));
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    connection
        .send("POST / HTTP/1.1\r\nHost: greenhill.school.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(connection.read_response().await.unwrap().status, 100);
    connection.send("hello").await.unwrap();
    let answer = connection.read_response().await.unwrap();
    assert_eq!((answer.status, answer.json()["body_bytes"].as_u64()), (200, Some(5)));
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_chunks() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    connection.send("GET /stream/3/5 HTTP/1.0\r\nHost: greenhill.school.test\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(connection.read_to_end().await.unwrap()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(body, "chunk 0\nchunk 1\nchunk 2\n");
}
