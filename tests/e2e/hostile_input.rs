//! Hostile input at the edge of the real binary: nothing of it reaches a backend, and the bystanders do not notice.

use std::net::{Ipv4Addr, SocketAddr};

use schoolgate_testkit::{Client, Http, Origin};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::{SOON, gateway, gateway_with, pool, school};

const HOST: &str = "Host: ash.localhost\r\n";

#[tokio::test]
async fn a_head_that_two_parsers_read_differently_is_refused_and_hung_up_on() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    for doubtful in [
        format!("GET / HTTP/1.1\n{HOST}\r\n"),
        format!("GET / HTTP/1.1\r\n{HOST}X: a\r\n folded\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{HOST}X : a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{HOST}X: a\0b\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{HOST}{HOST}\r\n"),
        format!("GET http://elm.localhost/ HTTP/1.1\r\n{HOST}\r\n"),
        format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody"),
        format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n+4\r\nbody\r\n0\r\n\r\n"),
    ] {
        let mut tls = site.tls("ash.localhost").await.expect("a handshake");
        tls.send(format!("{doubtful}GET /smuggled HTTP/1.1\r\n{HOST}\r\n")).await.expect("sent");
        let answer = tls.read_response().await.expect("an answer");
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{doubtful:?}");
        assert!(tls.read_to_end().await.expect("a close").is_empty(), "{doubtful:?}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_head_that_drips_is_cut_and_a_bystander_is_served_meanwhile() {
    let origin = Origin::start().await;
    let site = gateway().settings("[proxy.limits]\nhead_s = 0.5").up().await;
    pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    let mut slow = site.tls("ash.localhost").await.expect("a handshake");
    slow.send("GET / HTTP/1.1\r\nAccept: text/html\r\n").await.expect("sent");
    assert_eq!(site.client_with("ash.localhost", Http::Two).get("/").await.status(), 200);
    let answer = slow.read_response().await.expect("an answer");
    assert_eq!(answer.status, 408);
    assert!(answer.text().contains("<html"), "a browser reads a page: {}", answer.text());
}

#[tokio::test]
async fn a_field_may_be_as_long_as_the_setting_says_and_no_longer() {
    let origin = Origin::start().await;
    let site = gateway().settings("[proxy.limits]\nfield_bytes = 512").up().await;
    pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    // Name, colon, space and value.
    let just = "v".repeat(512 - "x-long: ".len());
    let over = format!("{just}v");
    for http in [Http::One, Http::Two] {
        let client = site.client_with("ash.localhost", http);
        let ask = async |value: &str| {
            let answer = client.request(reqwest::Method::GET, "/").header("x-long", value).send().await;
            answer.expect("an answer")
        };
        assert_eq!(ask(&just).await.status(), 200, "{http:?}");
        assert_eq!(origin.last().header("x-long"), Some(just.as_str()), "{http:?}");
        let before = origin.requests();
        let refused = ask(&over).await;
        assert_eq!(refused.status(), 431, "{http:?}");
        let problem: serde_json::Value = refused.json().await.expect("JSON");
        assert_eq!(problem["error"], "HEADERS_TOO_LARGE", "{http:?}");
        assert_eq!(origin.requests(), before, "{http:?}");
    }
}

/// A backend whose answers end with trailers that are not its to send.
async fn forging() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie, X-Tenant-ID\r\n\r\n\
                          2\r\nok\r\n0\r\nSet-Cookie: a=forged\r\nX-Tenant-ID: forged\r\n\r\n";
            let _ = tcp.read(&mut [0; 8_192]).await;
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    });
    addr
}

#[tokio::test]
async fn trailers_of_a_chunked_answer_reach_nobody() {
    let site = gateway().up().await;
    let backend = json!({"id": "web", "backends": [{"address": format!("http://{}", forging().await)}]});
    site.api().post("pools", backend).await.expect(201);
    school(&site.api(), "ash", "web").await;
    // With a body it takes another way through the gateway.
    for request in ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 1\r\n"] {
        let body = if request.starts_with("POST") { "x" } else { "" };
        let mut tls = site.tls("ash.localhost").await.expect("a handshake");
        tls.send(format!("{request}{HOST}TE: trailers\r\nConnection: close, TE\r\n\r\n{body}")).await.expect("sent");
        let answer = String::from_utf8(tls.read_to_end().await.expect("an answer")).expect("text");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n2\r\nok\r\n0\r\n\r\n"), "{answer}");
        assert!(!answer.contains("forged"), "{answer}");
    }
}

#[tokio::test]
async fn unknown_hosts_are_counted_and_reported() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let mut tls = site.tls("ash.localhost").await.expect("a handshake");
    assert_eq!(tls.get("new-school.localhost", "/").await.expect("an answer").status, 404);
    schoolgate_testkit::eventually(SOON, || async {
        let text = Client::plain(site.status_addr()).get("/status").await.text().await.unwrap_or_default();
        text.contains("new-school.localhost")
    })
    .await;
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn limits_that_would_cut_everybody_are_refused_with_their_key() {
    for (setting, key) in [
        ("head_s = 0", "proxy.limits.head_s"),
        ("h2_streams = 0", "proxy.limits.h2_streams"),
        ("field_bytes = 100", "proxy.limits.field_bytes"),
        // More than the head that it is a part of.
        ("field_bytes = 40000", "proxy.limits.field_bytes"),
    ] {
        let refused = gateway().settings(&format!("[proxy.limits]\n{setting}")).try_up().await;
        let told = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told.contains(key), "{told}");
    }
}
