//! Names before they have a certificate, and authorities that look for them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use schoolgate_config::model::{AcmeAccount, Challenge, Domain};
use schoolgate_config::snapshot::Object;
use schoolgate_testkit::{Http, Origin, TlsConn, client_config};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::site::{Site, given, object};

const THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const NAME: &str = "erp.greenhill.example";

/// Believes any certificate: a content delivery network that asks its origin, or an authority.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn credulous(alpn: &[&str]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

fn domain(name: &str, ownership: &str) -> Object {
    object::<Domain>(json!({
        "name": name, "tenant": "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV", "ownership": ownership, "routing": "here", "token": "t",
    }))
}

fn account() -> Object {
    object::<AcmeAccount>(json!({"ca": "pebble", "thumbprint": THUMBPRINT, "primary": true}))
}

fn challenge(name: &str, digest: [u8; 32], expires_at: i64) -> Object {
    let answer = json!({"tls_alpn01": {"digest": digest.map(|byte| format!("{byte:02x}")).concat()}});
    object::<Challenge>(json!({"name": name, "answer": answer, "expires_at": expires_at}))
}

/// A school of two names, of which neither has a certificate, before an origin that answers everything.
async fn site(origin: &Origin) -> Site {
    given([origin.url()]).object(domain(NAME, "proven")).object(account()).start().await
}

/// The answer to a request over plain HTTP, whole.
async fn plain(address: SocketAddr, head: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[tokio::test]
async fn an_authority_that_looks_by_http_gets_its_answer_before_every_other_rule() {
    let origin = Origin::start().await;
    let site = site(&origin).await;
    let path = format!("/.well-known/acme-challenge/{TOKEN}");
    // A name without a certificate, one with, and one whose school is suspended: all the same over plain HTTP.
    site.change([crate::site::tenant("riverside", json!({"state": "suspended"}))]);
    for host in [NAME, "greenhill.school.test", "riverside.school.test"] {
        let answer = plain(site.http(), &format!("GET {path} HTTP/1.1\r\nHost: {host}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{TOKEN}.{THUMBPRINT}")), "{host}: {answer}");
        let head = answer.to_ascii_lowercase();
        assert!(head.contains("content-type: application/octet-stream"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
    // A redirect to TLS that a network in front forces on the authority leads to the same answer.
    let mut tls = TlsConn::connect_with(site.https(), NAME, credulous(&["http/1.1"])).await.unwrap();
    assert_eq!(tls.get(NAME, &path).await.unwrap().text(), format!("{TOKEN}.{THUMBPRINT}"));
    for (host, token) in [("nobody.example", TOKEN), (NAME, "short"), (NAME, "<script>alert(1)</script>aaaaaaaaa")] {
        let path = format!("/.well-known/acme-challenge/{}", token.replace(['<', '>'], "%3C"));
        let answer = plain(site.http(), &format!("GET {path} HTTP/1.1\r\nHost: {host}")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{host} {token}: {answer}");
        assert!(!answer.contains("script") && !answer.contains(TOKEN), "nothing is repeated: {answer}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_name_that_waits_for_its_certificate_says_so_and_serves_nothing_else() {
    let origin = Origin::start().await;
    let site = site(&origin).await;
    let mut tls = TlsConn::connect_with(site.https(), NAME, credulous(&["h2", "http/1.1"])).await.unwrap();
    assert_eq!(tls.alpn().as_deref(), Some("http/1.1"));
    tls.send(format!("GET /grades HTTP/1.1\r\nHost: {NAME}\r\nAccept: text/html\r\n\r\n")).await.unwrap();
    let page = tls.read_response().await.unwrap();
    assert_eq!((page.status, page.header("retry-after")), (503, Some("30")));
    assert!(page.text().contains("being set up") && page.text().contains("#1f6f43"), "in the school's theme: {page:?}");
    assert!(tls.read_to_end().await.unwrap().is_empty(), "the connection ends, so that the next finds the certificate");
    // Not even another name of the same school, and no redirect to where only a warning waits.
    let mut tls = TlsConn::connect_with(site.https(), NAME, credulous(&["http/1.1"])).await.unwrap();
    let other = tls.get("greenhill.school.test", "/").await.unwrap();
    assert_eq!((other.status, other.json()["error"].as_str()), (503, Some("DOMAIN_PENDING")));
    let answer = plain(site.http(), &format!("GET /grades HTTP/1.1\r\nHost: {NAME}")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("DOMAIN_PENDING"), "{answer}");
    assert_eq!(origin.requests(), 0);

    // A browser believes none of it, and a name that nobody has is refused without a certificate.
    assert!(TlsConn::connect(site.https(), NAME, &["http/1.1"], &site.ca).await.is_err());
    let refused = TlsConn::connect_with(site.https(), "nobody.example", credulous(&["h2"])).await.unwrap_err();
    assert_eq!(alert(&refused), Some(AlertDescription::UnrecognisedName), "{refused}");
    site.change([domain("unproven.example", "unproven")]);
    assert!(TlsConn::connect_with(site.https(), "unproven.example", credulous(&["h2"])).await.is_err());

    site.issue(NAME);
    assert_eq!(site.visitor(NAME, Http::Two).get("/grades").await.status(), 200);
    let answer = plain(site.http(), &format!("GET /grades HTTP/1.1\r\nHost: {NAME}")).await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
}

#[tokio::test]
async fn an_authority_that_looks_by_tls_gets_its_certificate_on_the_port_of_everybody() {
    let origin = Origin::start().await;
    let site = site(&origin).await;
    let acme = || credulous(&["acme-tls/1"]);
    let refused = TlsConn::connect_with(site.https(), NAME, acme()).await.unwrap_err();
    assert_eq!(alert(&refused), Some(AlertDescription::NoApplicationProtocol), "{refused}");

    let digest = [0xa7; 32];
    site.issue(NAME);
    site.change([challenge(NAME, digest, 4_000_000_000), challenge("early.example", digest, 4_000_000_000)]);
    // Also before the ownership of a name is proven, and where a certificate is renewed.
    for name in [NAME, "early.example"] {
        let mut tls = TlsConn::connect_with(site.https(), name, acme()).await.unwrap();
        assert_eq!(tls.alpn().as_deref(), Some("acme-tls/1"));
        let shown = tls.certificates();
        assert!(shown.len() == 1 && shown[0].windows(32).any(|window| window == digest), "{name}");
        assert!(tls.read_to_end().await.unwrap().is_empty(), "nothing is said on such a connection");
    }
    // One who offers anything else beside it is no authority.
    let other = TlsConn::connect_with(site.https(), NAME, credulous(&["acme-tls/1", "http/1.1"])).await.unwrap();
    assert_eq!(other.alpn().as_deref(), Some("http/1.1"));
    assert!(!other.certificates()[0].windows(32).any(|window| window == digest));
    for http in [Http::One, Http::Two] {
        assert_eq!(site.visitor(NAME, http).get("/grades").await.status(), 200);
    }

    site.change([challenge(NAME, digest, 1_700_000_000)]);
    let refused = TlsConn::connect_with(site.https(), NAME, acme()).await.unwrap_err();
    assert_eq!(alert(&refused), Some(AlertDescription::NoApplicationProtocol), "it is over: {refused}");
}

/// A client keeps its tickets by name, and so never shows one to another. This one keeps them all under one name.
#[derive(Debug)]
struct OneDrawer(rustls::client::ClientSessionMemoryCache);

const DRAWER: &str = "any.example";

impl rustls::client::ClientSessionStore for OneDrawer {
    fn set_kx_hint(&self, _: ServerName<'static>, group: rustls::NamedGroup) {
        self.0.set_kx_hint(DRAWER.try_into().unwrap(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        self.0.kx_hint(&DRAWER.try_into().unwrap())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: rustls::client::Tls12ClientSessionValue) {
        self.0.set_tls12_session(DRAWER.try_into().unwrap(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.tls12_session(&DRAWER.try_into().unwrap())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&DRAWER.try_into().unwrap());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: rustls::client::Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(DRAWER.try_into().unwrap(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&DRAWER.try_into().unwrap())
    }
}

#[tokio::test]
async fn a_ticket_of_one_school_resumes_on_both_protocols_and_never_at_another_school() {
    let origin = Origin::start().await;
    let site = site(&origin).await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let roots = client_config(&site.ca, &[]);
        let mut config = ClientConfig::builder_with_provider(roots.crypto_provider().clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything))
            .with_no_client_auth();
        let drawer = OneDrawer(rustls::client::ClientSessionMemoryCache::new(8));
        config.resumption = rustls::client::Resumption::store(Arc::new(drawer));
        let visit = async |host: &str, alpn: &str| {
            let mut config = config.clone();
            config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
            let mut tls = TlsConn::connect_with(site.https(), host, config).await.unwrap();
            let kind = tls.session().handshake_kind();
            if alpn == "http/1.1" {
                // A ticket of TLS 1.3 comes with the first answer.
                assert_eq!(tls.get(host, "/").await.unwrap().status, 200);
            }
            kind
        };
        let full = Some(HandshakeKind::Full);
        assert_eq!(visit("greenhill.school.test", "http/1.1").await, full, "{version:?}");
        assert_eq!(visit("greenhill.school.test", "http/1.1").await, Some(HandshakeKind::Resumed), "{version:?}");
        assert_eq!(visit("greenhill.school.test", "h2").await, Some(HandshakeKind::Resumed), "{version:?}");
        assert!(visit("greenhill.school.test", "http/1.1").await.is_some());
        // The same certificate, the same connection settings, another school.
        assert_eq!(visit("riverside.school.test", "http/1.1").await, full, "{version:?}");
    }
}
