use std::io;
use std::time::Duration;

use rustls_pki_types::ServerName;
use schoolgate_proxy::transport::{HandshakeResult, TlsVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::{H1, config, handshake};
use crate::site::{Site, eventually};

fn alert(error: &io::Error) -> Option<rustls::AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[tokio::test]
async fn the_name_asked_for_selects_the_certificate() {
    let site = Site::start().await;
    let b = site.authority.issue(&["b.example"]);
    site.serve(&b);
    for name in ["a.example", "A.Example", "school.zone.example"] {
        handshake(site.https(), config(site.roots(), &[]), name).await.unwrap();
    }
    let tls = handshake(site.https(), config(site.roots(), &[]), "b.example").await.unwrap();
    assert_eq!(tls.get_ref().1.peer_certificates().unwrap()[0].as_ref(), b.leaf);
}

#[tokio::test]
async fn a_certificate_is_served_from_the_moment_it_is_added_until_it_is_removed() {
    let site = Site::start().await;
    let config = config(site.roots(), &[]);
    assert!(handshake(site.https(), config.clone(), "new.example").await.is_err());
    let new = site.authority.issue(&["new.example"]);
    site.serve(&new);
    let tls = handshake(site.https(), config.clone(), "new.example").await.unwrap();
    assert!(H1(tls).get("/hello").await.unwrap().text().contains("hello"));
    site.keyring.remove(&new.fingerprint());
    // A ticket of the connection before does not help either.
    assert!(handshake(site.https(), config, "new.example").await.is_err());
}

#[tokio::test]
async fn a_name_without_certificate_and_no_name_at_all_are_refused_by_alert() {
    let site = Site::start().await;
    let config = config(site.roots(), &[]);
    for unknown in ["unknown.example", "zone.example", "two.deep.zone.example"] {
        let refused = handshake(site.https(), config.clone(), unknown).await.unwrap_err();
        assert_eq!(alert(&refused), Some(rustls::AlertDescription::UnrecognisedName), "{unknown}: {refused}");
    }
    let tcp = TcpStream::connect(site.https()).await.unwrap();
    let by_address = ServerName::try_from("127.0.0.1").unwrap();
    let refused = TlsConnector::from(config).connect(by_address, tcp).await.unwrap_err();
    assert_eq!(alert(&refused), Some(rustls::AlertDescription::UnrecognisedName), "{refused}");
    let counted = |result| {
        let seen = site.observer.handshakes.lock().unwrap();
        seen.iter().filter(|(_, seen)| *seen == result).count()
    };
    eventually("all are counted", || counted(HandshakeResult::UnknownSni) == 3 && counted(HandshakeResult::NoSni) == 1)
        .await;
}

#[tokio::test]
async fn a_second_connection_resumes_and_a_client_without_tls_1_3_is_served() {
    let site = Site::start().await;
    let config = config(site.roots(), &["http/1.1"]);
    for _ in 0..2 {
        let tls = handshake(site.https(), config.clone(), "a.example").await.unwrap();
        assert_eq!(H1(tls).get("/hello").await.unwrap().status(), "200");
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(site.roots())
        .with_no_client_auth();
    handshake(site.https(), old.into(), "a.example").await.unwrap();
    let expected = [
        (TlsVersion::V13, HandshakeResult::Full),
        (TlsVersion::V13, HandshakeResult::Resumed),
        (TlsVersion::V12, HandshakeResult::Full),
    ];
    eventually("three handshakes", || *site.observer.handshakes.lock().unwrap() == expected).await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_cut() {
    let site = Site::with(|limits| limits.handshake = Duration::from_millis(200)).await;
    let mut silent = H1(TcpStream::connect(site.https()).await.unwrap());
    let mut half = H1(TcpStream::connect(site.https()).await.unwrap());
    half.0.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    assert!(silent.ends_within(Duration::from_secs(2)).await);
    assert!(half.ends_within(Duration::from_secs(2)).await);
    let timeouts = || {
        let seen = site.observer.handshakes.lock().unwrap();
        seen.iter().filter(|(_, result)| *result == HandshakeResult::Timeout).count()
    };
    eventually("both are counted", || timeouts() == 2).await;
}

#[tokio::test]
async fn what_is_not_tls_gets_an_alert_and_harms_nobody() {
    let site = Site::start().await;
    let mut tcp = TcpStream::connect(site.https()).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = tcp.read_to_end(&mut said).await;
    assert_eq!(said.first(), Some(&21), "an alert record: {said:?}");
    eventually("it is counted", || {
        site.observer.handshakes.lock().unwrap().contains(&(TlsVersion::None, HandshakeResult::Malformed))
    })
    .await;
    handshake(site.https(), config(site.roots(), &[]), "a.example").await.unwrap();
}
