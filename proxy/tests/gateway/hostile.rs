//! Requests that two parsers could read differently, as bytes on the wire: nothing of them reaches a backend.

use std::time::Duration;

use reqwest::Method;
use schoolgate_config::model::Domain;
use schoolgate_testkit::{Http, Origin, eventually};
use serde_json::json;

use crate::site::{given, object};

const HOST: &str = "Host: greenhill.school.test\r\n";

#[tokio::test]
async fn a_doubtful_head_is_answered_400_and_nothing_after_it_is_read() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    for doubtful in [
        "GET / HTTP/1.1\n{host}\r\n",
        "GET / HTTP/1.1\r\nHost: greenhill.school.test\n\n",
        "GET / HTTP/1.1\r\n{host}X: a\rY: b\r\n\r\n",
        "GET / HTTP/1.1\r\n{host}X: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\n{host}X: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : greenhill.school.test\r\n\r\n",
        "GET / HTTP/1.1\r\n{host}{host}\r\n",
        "GET /\x01 HTTP/1.1\r\n{host}\r\n",
        "GET /a b HTTP/1.1\r\n{host}\r\n",
        "GET /ü HTTP/1.1\r\n{host}\r\n",
        "GET http://riverside.school.test/ HTTP/1.1\r\n{host}\r\n",
        "GET / HTTP/1.1\r\nHost: greenhill.school.test:abc\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@greenhill.school.test\r\n\r\n",
        "POST / HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\n{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\n{host}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n\r\n\r\n",
        "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n3;x\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n",
        "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\n",
        "POST / HTTP/1.0\r\n{host}\r\nhello",
    ] {
        let head = doubtful.replace("{host}", HOST);
        let mut connection = site.raw("greenhill.school.test").await;
        connection.send(format!("{head}GET /smuggled HTTP/1.1\r\n{HOST}\r\n")).await.unwrap();
        let answer = connection.read_response().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{head:?}");
        assert_eq!(answer.json()["error"], "BAD_REQUEST", "{head:?}");
        assert!(connection.read_to_end().await.unwrap().is_empty(), "{head:?}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn chunks_that_turn_bad_on_the_way_end_the_connection_and_the_request() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    connection
        .send(format!("POST /echo HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"))
        .await
        .unwrap();
    eventually(Duration::from_secs(5), || async { origin.requests() == 1 }).await;
    connection.send(format!("+3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n{HOST}\r\n")).await.unwrap();
    let said = String::from_utf8(connection.read_to_end().await.unwrap()).unwrap();
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
    assert!(origin.seen().iter().all(|request| request.path != "/smuggled"));
}

#[tokio::test]
async fn what_follows_a_body_in_chunks_is_the_next_request() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    let chunked = "3;x=y\r\nabc\r\n0\r\nX-Tenant-ID: forged\r\n\r\n";
    connection
        .send(format!(
            "POST /one HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{chunked}GET /two HTTP/1.1\r\n{HOST}\r\n"
        ))
        .await
        .unwrap();
    for path in ["/one", "/two"] {
        assert_eq!(connection.read_response().await.unwrap().status, 200, "{path}");
        let seen = origin.last();
        assert_eq!((seen.path.as_str(), seen.header("x-tenant-slug")), (path, Some("greenhill")));
        assert_eq!(seen.header_all("x-tenant-id").len(), 1);
    }
}

#[tokio::test]
async fn what_connection_says_of_our_fields_changes_nothing() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    for (name, value) in [
        // One that names another school is refused: this one agrees, and is replaced all the same.
        ("X-Tenant-ID", "greenhill"),
        ("x_tenant_id", "forged"),
        ("X-Tenant-Context", "forged"),
        ("X-Forwarded-For", "forged"),
        ("Forwarded", "forged"),
    ] {
        let mut connection = site.raw("greenhill.school.test").await;
        let head = format!("GET / HTTP/1.1\r\n{HOST}{name}: {value}\r\nConnection: keep-alive, {name}\r\n\r\n");
        connection.send(head).await.unwrap();
        assert_eq!(connection.read_response().await.unwrap().status, 200, "{name}");
        let seen = origin.last();
        assert!(seen.headers.iter().all(|(_, value)| !value.contains("forged")), "{seen:?}");
        for ours in ["x-tenant-id", "x-tenant-context", "x-forwarded-for", "x-request-id"] {
            assert_eq!(seen.header_all(ours).len(), 1, "{ours} after {name}");
        }
    }
    for name in ["Host", "Cookie", "Authorization", "Content-Length", "Transfer-Encoding"] {
        let mut connection = site.raw("greenhill.school.test").await;
        connection.send(format!("GET / HTTP/1.1\r\n{HOST}Connection: {name}\r\n\r\n")).await.unwrap();
        assert_eq!(connection.read_response().await.unwrap().status, 400, "{name}");
    }
}

#[tokio::test]
async fn a_name_beyond_ascii_is_read_as_its_a_label() {
    let origin = Origin::start().await;
    let domain = json!({"name": "bücher.test", "tenant": "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV", "ownership": "proven", "routing": "here", "token": "t"});
    let site = given([origin.url()]).object(object::<Domain>(domain)).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    assert_eq!(connection.get("BÜCHER.test", "/").await.unwrap().status, 200);
    assert_eq!(origin.last().header("host"), Some("xn--bcher-kva.test"));
    for bad in ["b\u{fffd}.test", "xn--\u{fc}.test"] {
        let mut connection = site.raw("greenhill.school.test").await;
        assert_eq!(connection.get(bad, "/").await.unwrap().status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_browser_reads_a_page_when_its_head_is_refused() {
    let site = given(Vec::<String>::new()).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    let long = "x".repeat(20_000);
    connection.send(format!("GET / HTTP/1.1\r\n{HOST}Accept: text/html\r\nX: {long}\r\n\r\n")).await.unwrap();
    let answer = connection.read_response().await.unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (431, Some("text/html; charset=utf-8")));
    assert!(answer.text().contains("HEADERS_TOO_LARGE"), "{}", answer.text());
}

#[tokio::test]
async fn a_header_list_beyond_its_bound_gets_431_on_http_2() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let visitor = site.visitor("greenhill.school.test", Http::Two);
    for kib in [33, 60, 100] {
        let request = visitor.request(Method::GET, "/").header("x", "a".repeat(kib * 1_024));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 431, "{kib} KiB");
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(problem["error"], "HEADERS_TOO_LARGE", "{kib} KiB");
    }
    assert_eq!(visitor.get("/").await.status(), 200, "the connection lives");
    assert_eq!(origin.requests(), 1);
}
