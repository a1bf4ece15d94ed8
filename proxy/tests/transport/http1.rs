use std::time::Duration;

use schoolgate_proxy::transport::HeadFault;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

use crate::client::{H1, config, handshake};
use crate::origin::pattern;
use crate::site::{Site, eventually};

async fn tls(site: &Site) -> H1<TlsStream<TcpStream>> {
    H1(handshake(site.https(), config(site.roots(), &["http/1.1"]), "a.example").await.unwrap())
}

async fn plain(site: &Site) -> H1<TcpStream> {
    H1(TcpStream::connect(site.http()).await.unwrap())
}

#[tokio::test]
async fn a_request_knows_its_connection() {
    let site = Site::start().await;
    let mut client = tls(&site).await;
    let address = client.0.get_ref().0.local_addr().unwrap();
    for count in 1..=3 {
        assert_eq!(client.get("/conn").await.unwrap().text(), format!("{address} a.example H1 {count}"));
    }
    let mut client = plain(&site).await;
    let address = client.0.local_addr().unwrap();
    assert_eq!(client.get("/conn").await.unwrap().text(), format!("{address} - H1 1"));
}

#[tokio::test]
async fn a_connection_that_idled_still_serves_and_one_that_idles_too_long_is_closed() {
    let site = Site::with(|limits| limits.idle = Duration::from_millis(600)).await;
    let mut client = tls(&site).await;
    for _ in 0..3 {
        assert_eq!(client.get("/hello").await.unwrap().text(), "hello");
        sleep(Duration::from_millis(300)).await;
    }
    assert!(client.ends_within(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn a_head_that_drips_is_cut_after_the_time_for_a_whole_head() {
    let site = Site::with(|limits| limits.head = Duration::from_millis(300)).await;
    let mut client = tls(&site).await;
    client.send("GET / HTTP/1.1\r\n").await;
    let drip = async {
        for _ in 0..100 {
            sleep(Duration::from_millis(50)).await;
            if client.0.write_all(b"x: y\r\n").await.is_err() {
                return;
            }
            client.0.flush().await.unwrap();
            if !site.observer.heads.lock().unwrap().is_empty() {
                return;
            }
        }
        panic!("never cut");
    };
    drip.await;
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.status(), "408");
    assert!(answer.text().contains("REQUEST_TIMEOUT"), "{}", answer.text());
}

#[tokio::test]
async fn a_head_in_many_pieces_is_one_request() {
    let site = Site::start().await;
    let mut client = tls(&site).await;
    for piece in "GET /hello HTTP/1.1\r\nHost: a.example\r\n\r\n".as_bytes().chunks(7) {
        client.0.write_all(piece).await.unwrap();
        client.0.flush().await.unwrap();
    }
    assert_eq!(client.answer().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn a_head_beyond_its_bounds_is_answered_and_the_connection_closed() {
    let site = Site::start().await;
    let cases = [
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9_000)), "414", "URI_TOO_LONG", HeadFault::UriTooLong),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", format!("a: {}\r\n", "b".repeat(4_000)).repeat(12)),
            "431",
            "HEADERS_TOO_LARGE",
            HeadFault::TooLarge,
        ),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)), "431", "HEADERS_TOO_LARGE", HeadFault::TooLarge),
    ];
    for (head, status, code, fault) in cases {
        let mut client = tls(&site).await;
        client.send(&head).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(answer.text().contains(code), "{}", answer.text());
        assert!(client.ends_within(Duration::from_secs(2)).await);
        assert_eq!(site.observer.heads.lock().unwrap().pop(), Some(fault));
    }
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_both_directions() {
    let site = Site::start().await;
    let mut over_tls = tls(&site).await;
    let mut over_tcp = plain(&site).await;
    for size in [0, 1, 16_383, 16_384, 16_385, 100_000, 3_000_000] {
        let path = format!("/big/{size}");
        let head = format!("POST /count HTTP/1.1\r\nHost: a.example\r\nContent-Length: {size}\r\n\r\n");
        assert!(over_tls.get(&path).await.unwrap().body == pattern(size), "{size} down over TLS");
        assert!(over_tcp.get(&path).await.unwrap().body == pattern(size), "{size} down over TCP");
        over_tls.send(&head).await;
        over_tls.0.write_all(&pattern(size)).await.unwrap();
        over_tls.0.flush().await.unwrap();
        assert_eq!(over_tls.answer().await.unwrap().text(), format!("{size} true"), "up over TLS");
        over_tcp.send(&head).await;
        over_tcp.0.write_all(&pattern(size)).await.unwrap();
        assert_eq!(over_tcp.answer().await.unwrap().text(), format!("{size} true"), "up over TCP");
    }
}

#[tokio::test]
async fn a_streamed_body_passes_piece_by_piece_in_both_directions() {
    let site = Site::start().await;
    let mut client = tls(&site).await;
    client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    for word in ["one", "two", "ten"] {
        client.send(&format!("3\r\n{word}\r\n")).await;
        assert_eq!(client.text(8).await, format!("3\r\n{word}\r\n"));
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.text(5).await, "0\r\n\r\n");
}

#[tokio::test]
async fn a_pause_in_a_body_of_known_length_does_not_hold_back_what_came_before() {
    let site = Site::start().await;
    let mut client = tls(&site).await;
    client.send("GET /pause HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.text(5).await, "first");
    site.origin.gate.add_permits(1);
    assert_eq!(client.text(5).await, "later");
}

#[tokio::test]
async fn an_upgraded_connection_passes_bytes_both_ways() {
    let site = Site::start().await;
    let mut client = tls(&site).await;
    client.send("GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    for word in ["over", "and", "back"] {
        client.send(word).await;
        assert_eq!(client.text(word.len()).await, word);
    }
}

#[tokio::test]
async fn a_connection_is_closed_after_its_last_request() {
    let site = Site::with(|limits| limits.requests_h1 = 2).await;
    let mut client = tls(&site).await;
    assert!(client.get("/hello").await.unwrap().head.to_ascii_lowercase().contains("connection: keep-alive"));
    assert!(client.get("/hello").await.unwrap().head.to_ascii_lowercase().contains("connection: close"));
    assert!(client.ends_within(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let site = Site::start().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let post = "POST /count HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\n";
    let body = String::from_utf8(pattern(3)).unwrap();
    let mut client = tls(&site).await;
    client.send(&format!("{}{post}{body}\r\n{}{}", get("/hello"), get("/big/20000"), get("/conn"))).await;
    assert_eq!(client.answer().await.unwrap().text(), "hello");
    assert_eq!(client.answer().await.unwrap().text(), "3 true");
    assert!(client.answer().await.unwrap().body == pattern(20_000));
    assert!(client.answer().await.unwrap().text().ends_with(" H1 4"));
}

#[tokio::test]
async fn a_request_that_comes_while_another_is_served_waits_for_its_turn() {
    let site = Site::start().await;
    let mut client = tls(&site).await;
    client.send("GET /gate HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    site.origin.waiting.acquire().await.unwrap().forget();
    client.send("GET /hello HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    // Time for the bytes to arrive and to do harm; nothing can be waited for, since nothing is to happen.
    sleep(Duration::from_millis(100)).await;
    site.origin.gate.add_permits(1);
    assert_eq!(client.answer().await.unwrap().text(), "through the gate");
    assert_eq!(client.answer().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn a_client_that_leaves_while_its_request_is_served_is_noticed() {
    let site = Site::start().await;
    let mut client = tls(&site).await;
    client.send("GET /gate HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    site.origin.waiting.acquire().await.unwrap().forget();
    drop(client);
    eventually("the connection is gone", || site.edge.connections() == 0).await;
}
