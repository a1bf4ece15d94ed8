use std::time::Duration;

use schoolgate_proxy::transport::{ConnectionRefusal, ProxyProtocol, Rate};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{self, H1, PATIENCE, config, handshake};
use crate::site::{Site, eventually};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

#[tokio::test]
async fn an_address_has_only_so_many_connections_at_once() {
    let site = Site::with(|limits| limits.connections_per_address = 2).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = H1(TcpStream::connect(site.http()).await.unwrap());
        assert_eq!(client.get("/hello").await.unwrap().text(), "hello");
        kept.push(client);
    }
    let mut third = H1(TcpStream::connect(site.http()).await.unwrap());
    assert!(third.ends_within(PATIENCE).await);
    eventually("it is counted", || *site.observer.refusals.lock().unwrap() == [ConnectionRefusal::Address]).await;
    kept.pop();
    eventually("a place is free", || site.edge.connections() == 1).await;
    let mut fourth = H1(TcpStream::connect(site.http()).await.unwrap());
    assert_eq!(fourth.get("/hello").await.unwrap().text(), "hello");
}

#[tokio::test]
async fn a_trusted_proxy_header_names_the_client() {
    let from = |net: &str| ProxyProtocol::From(vec![net.parse().unwrap()]);
    let site = Site::with(|limits| limits.proxy_protocol = from("127.0.0.0/8")).await;
    let mut client = H1(TcpStream::connect(site.http()).await.unwrap());
    client.send("PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n").await;
    assert_eq!(client.get("/conn").await.unwrap().text(), "203.0.113.7:4711 - H1 1");

    let mut tcp = TcpStream::connect(site.https()).await.unwrap();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend_from_slice(&[203, 0, 113, 8, 198, 51, 100, 1, 0x12, 0x67, 1, 187]);
    tcp.write_all(&v2).await.unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let tls = TlsConnector::from(config(site.roots(), &["http/1.1"])).connect(name, tcp).await.unwrap();
    assert_eq!(H1(tls).get("/conn").await.unwrap().text(), "203.0.113.8:4711 a.example H1 1");

    let mut without = H1(TcpStream::connect(site.http()).await.unwrap());
    without.send("GET /conn HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(without.ends_within(PATIENCE).await);
    eventually("it is counted", || *site.observer.refusals.lock().unwrap() == [ConnectionRefusal::ProxyHeader]).await;
}

#[tokio::test]
async fn a_proxy_header_of_a_stranger_is_not_believed() {
    let stranger = ProxyProtocol::From(vec!["192.0.2.0/24".parse().unwrap()]);
    for setting in [ProxyProtocol::Off, stranger] {
        let site = Site::with(|limits| limits.proxy_protocol = setting).await;
        let mut client = H1(TcpStream::connect(site.http()).await.unwrap());
        client
            .send("PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\nGET /conn HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .await;
        let head = client.head().await;
        assert!(!head.starts_with("HTTP/1.1 200"), "{head}");
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut() {
    let site = Site::with(|limits| limits.write_stall = Duration::from_millis(300)).await;
    let mut client = H1(handshake(site.https(), config(site.roots(), &["http/1.1"]), "a.example").await.unwrap());
    client.send("GET /big/30000000 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    eventually("the connection is there", || site.edge.connections() == 1).await;
    eventually("the connection is gone", || site.edge.connections() == 0).await;
}

#[tokio::test]
async fn an_address_that_shakes_hands_too_fast_is_refused_and_no_other() {
    let site = Site::with(|limits| {
        limits.handshakes = Rate { per_s: 1, burst: 2 };
        limits.proxy_protocol = ProxyProtocol::From(vec!["127.0.0.0/8".parse().unwrap()]);
    })
    .await;
    let connect = async |client: &str| {
        let mut tcp = TcpStream::connect(site.https()).await.unwrap();
        tcp.write_all(format!("PROXY TCP4 {client} 198.51.100.1 4711 443\r\n").as_bytes()).await.unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        TlsConnector::from(config(site.roots(), &["http/1.1"])).connect(name, tcp).await.is_ok()
    };
    assert!(connect("203.0.113.7").await && connect("203.0.113.7").await);
    assert!(!connect("203.0.113.7").await);
    assert!(connect("203.0.113.8").await);
    assert_eq!(*site.observer.refusals.lock().unwrap(), [ConnectionRefusal::HandshakeRate]);
}

#[tokio::test]
async fn an_address_whose_handshakes_fail_is_refused_before_the_next() {
    let site = Site::with(|limits| limits.failing_handshakes = Rate { per_s: 1, burst: 2 }).await;
    let unknown = || handshake(site.https(), config(site.roots(), &[]), "unknown.example");
    assert!(unknown().await.is_err() && unknown().await.is_err());
    eventually("both are counted", || site.observer.handshakes.lock().unwrap().len() == 2).await;
    assert!(handshake(site.https(), config(site.roots(), &[]), "a.example").await.is_err());
    assert_eq!(*site.observer.refusals.lock().unwrap(), [ConnectionRefusal::FailingHandshakes]);
    let mut plain = H1(TcpStream::connect(site.http()).await.unwrap());
    assert_eq!(plain.get("/hello").await.unwrap().text(), "hello", "only handshakes are refused");
}

#[tokio::test]
async fn who_idles_has_less_patience_when_it_is_crowded() {
    let site = Site::with(|limits| {
        limits.connections = Some(5);
        limits.idle_crowded = Duration::from_millis(100);
    })
    .await;
    let mut kept = Vec::new();
    for _ in 0..4 {
        let mut client = H1(TcpStream::connect(site.http()).await.unwrap());
        assert_eq!(client.get("/hello").await.unwrap().text(), "hello");
        kept.push(client);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(site.edge.connections(), 4, "there is room");
    kept.push(H1(TcpStream::connect(site.http()).await.unwrap()));
    eventually("those who idle have gone", || site.edge.connections() < 5).await;
}

#[tokio::test]
async fn an_old_connection_is_told_to_go_with_its_next_answer() {
    let site = Site::with(|limits| limits.lifetime = Duration::ZERO).await;
    let mut client = H1(TcpStream::connect(site.http()).await.unwrap());
    assert!(client.get("/hello").await.unwrap().head.to_ascii_lowercase().contains("connection: close"));
    assert!(client.ends_within(PATIENCE).await);
    let (mut sender, driver) = client::h2(site.https(), site.roots()).await;
    assert_eq!(client::h2_get(&mut sender, "/hello").await.unwrap().0, 200);
    drop(sender);
    assert!(timeout(PATIENCE, driver).await.expect("the connection ends").unwrap().is_ok());
}
