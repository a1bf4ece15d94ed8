//! Handshakes: a certificate per name from memory, replaced at run time, and nothing for names nobody serves.

use std::sync::Arc;

use rustls::HandshakeKind;
use schoolgate_testkit::{Http, Origin, TlsConn, client_config, until};
use serde_json::json;

use crate::{SOON, gateway_with, school};

#[tokio::test]
async fn each_name_gets_its_own_certificate_without_a_restart() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let ash = site.tls("ash.localhost").await.expect("a handshake").certificates();
    assert!(site.tls("birch.localhost").await.is_err(), "nobody is called birch yet");
    school(&site.api(), "birch", "web").await;
    let birch = site.tls("birch.localhost").await.expect("a handshake").certificates();
    assert_ne!(ash[0], birch[0]);
    assert_eq!(site.tls("ash.localhost").await.expect("a handshake").certificates(), ash);
}

#[tokio::test]
async fn an_unknown_or_missing_name_is_refused_at_the_handshake() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    for name in ["nosuch.localhost", "example.com", "localhost", "a.ash.localhost"] {
        assert!(site.tls(name).await.is_err(), "{name} got a certificate");
    }
    assert!(TlsConn::connect_without_sni(site.https(), "ash.localhost", &site.ca()).await.is_err());
    assert!(site.tls("ash.localhost").await.is_ok(), "the others are still served");
}

#[tokio::test]
async fn h1_and_h2_share_one_port() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    for (http, version) in [(Http::One, reqwest::Version::HTTP_11), (Http::Two, reqwest::Version::HTTP_2)] {
        let answer = site.client_with("ash.localhost", http).get("/").await;
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    }
    let h2 =
        TlsConn::connect(site.https(), "ash.localhost", &["h2", "http/1.1"], &site.ca()).await.expect("a handshake");
    assert_eq!(h2.alpn().as_deref(), Some("h2"));
}

#[tokio::test]
async fn plain_http_redirects_to_https() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let answer = site.plain_client("ash.localhost").get("/a/b?c=d").await;
    assert_eq!(answer.status(), 308);
    let location = answer.headers()["location"].to_str().expect("text");
    assert_eq!(location, format!("https://ash.localhost:{}/a/b?c=d", site.https().port()));
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn openssl_verifies_the_chain_against_the_ca_file() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            &format!(
                "echo | openssl s_client -connect {} -servername ash.localhost -CAfile {} -verify_hostname ash.localhost -verify_return_error",
                site.https(),
                site.data().join("ca.pem").display(),
            ),
        ])
        .output()
        .expect("openssl runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("Verify return code: 0"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn no_private_key_is_on_disk_unsealed() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let mut files = vec![site.data().to_path_buf()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).expect("readable").map(|e| e.expect("readable").path()));
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("PRIVATE KEY"), "{} holds a key in PEM", path.display());
        // PKCS#8 of an EC P-256 key: the algorithm identifiers id-ecPublicKey and prime256v1, then an octet string.
        let pkcs8: &[u8] = &[
            0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
            0x03, 0x01, 0x07, 0x04,
        ];
        assert!(!bytes.windows(pkcs8.len()).any(|w| w == pkcs8), "{} holds a key in DER", path.display());
    }
}

#[tokio::test]
async fn a_ticket_is_good_for_its_name_while_it_is_the_same_schools() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    school(&site.api(), "birch", "web").await;
    let name = "erp.ash.test";
    let domain = |tenant: &str| json!({"name": name, "tenant": tenant});
    site.api().post("domains?wait=applied", domain("ash")).await.expect(201);
    // Remembers sessions, and has one to resume once it has read an answer.
    let visitor = Arc::new(client_config(&site.ca(), &["http/1.1"]));
    let visit = async || {
        let mut connection =
            TlsConn::connect_with(site.https(), name, Arc::clone(&visitor)).await.expect("a handshake");
        let status = connection.get(name, "/").await.expect("an answer").status;
        (status, connection.session().handshake_kind())
    };
    until(SOON, async || (visit().await.0 == 200).then_some(())).await;
    assert_eq!(visit().await, (200, Some(HandshakeKind::Resumed)));

    site.api().delete(&format!("domains/{name}?wait=applied")).await;
    site.api().post("domains?wait=applied", domain("birch")).await.expect(201);
    let first = until(SOON, async || {
        // While the name waits for its certificate, the handshake fails: a stand-in is nobody's.
        let connection = TlsConn::connect_with(site.https(), name, Arc::clone(&visitor)).await.ok()?;
        connection.session().handshake_kind()
    })
    .await;
    assert_eq!(first, HandshakeKind::Full, "what was agreed with one school does not go on with another");
    until(SOON, async || (visit().await == (200, Some(HandshakeKind::Resumed))).then_some(())).await;
}
