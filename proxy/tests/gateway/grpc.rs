use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use rustls::pki_types::ServerName;
use schoolgate_testkit::{Origin, client_config};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::site::{Site, given};

const PATIENCE: Duration = Duration::from_secs(10);

/// A stream of an HTTP/2 connection to greenhill: `te: trailers`, a message at a time.
async fn call(site: &Site, path: &str) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let tcp = TcpStream::connect(site.https()).await.unwrap();
    let name = ServerName::try_from("greenhill.school.test").unwrap();
    let connector = TlsConnector::from(Arc::new(client_config(&site.ca, &["h2"])));
    let tls = connector.connect(name, tcp).await.unwrap();
    let (mut client, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("https://greenhill.school.test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    client.send_request(request, false).unwrap()
}

#[tokio::test]
async fn trailers_reach_the_client_from_an_http_2_backend() {
    let origin = Origin::start().await;
    let site = given([origin.h2c_url()]).start().await;
    let (answer, mut sending) = call(&site, "/trailers").await;
    sending.send_data(Bytes::from_static(&[0, 0, 0, 0, 0]), true).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut received = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        received.extend_from_slice(&piece);
    }
    assert_eq!(received, b"body\n");
    let trailers = body.trailers().await.unwrap().expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(origin.last().header("te"), Some("trailers"), "without it a gRPC server refuses");
    assert_eq!(origin.last().header("content-type"), Some("application/grpc"));
}

#[tokio::test]
async fn of_a_backends_trailers_only_those_pass_that_mean_nothing_but_themselves() {
    let origin = Origin::start().await;
    let site = given([origin.h2c_url()]).start().await;
    let (answer, mut sending) = call(&site, "/trailers/forged").await;
    sending.send_data(Bytes::new(), true).unwrap();
    let mut body = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap().expect("trailers");
    assert_eq!(trailers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
}

#[tokio::test]
async fn messages_of_a_call_pass_both_ways_while_it_lasts() {
    let origin = Origin::start().await;
    let site = given([origin.h2c_url()]).start().await;
    let (answer, mut sending) = call(&site, "/duplex").await;
    sending.send_data(Bytes::from_static(b"one"), false).unwrap();
    let mut body = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    let mut next = async || loop {
        let piece = tokio::time::timeout(PATIENCE, body.data()).await.unwrap().expect("more").unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        if !piece.is_empty() {
            return piece;
        }
    };
    assert_eq!(next().await, "one");
    sending.send_data(Bytes::from_static(b"two"), false).unwrap();
    assert_eq!(next().await, "two");
    drop(sending);
}
