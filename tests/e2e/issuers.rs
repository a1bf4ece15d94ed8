//! Issuers of tokens rotate their keys and go down, and the right tokens go on being good.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_testkit::{Answer, Client, Origin, Site, TokenSigner, eventually, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{SOON, gateway, gateway_with, pool, school};

fn publish(idp: &Origin, keys: &[Value]) {
    idp.answer("/keys", Answer::new(200).body(json!({ "keys": keys }).to_string()));
}

fn token(signer: &TokenSigner, kid: &str, tenant: &str) -> String {
    let now = SystemClock.unix_ms() / 1_000;
    signer.token(kid, &json!({"iss": "https://id.example", "aud": "school", "exp": now + 600, "tenantId": tenant}))
}

async fn status_with(site: &Site, token: &str) -> u16 {
    let request = site.client("ash.localhost").request(reqwest::Method::GET, "/").bearer_auth(token);
    request.send().await.expect("an answer").status().as_u16()
}

async fn issuer(site: &Site, idp: &Origin) {
    let body = json!({"id": "idp", "issuer": "https://id.example", "audiences": ["school"],
                      "jwks_url": format!("{}/keys", idp.url())});
    site.api().post("token-issuers", body).await.expect(201);
}

#[tokio::test]
async fn keys_rotate_and_their_issuer_may_go_down() {
    let (origin, idp) = (Origin::start().await, Origin::start().await);
    let mut site = gateway_with(&[&origin]).await;
    let (old, new) = (TokenSigner::ed25519(), TokenSigner::p256());
    publish(&idp, &[old.jwk("old")]);
    let (old_token, new_token) = (token(&old, "old", "ash"), token(&new, "new", "ash"));
    assert_eq!(status_with(&site, &old_token).await, 200, "nobody knows the issuer: no business of ours");
    issuer(&site, &idp).await;
    // Until the proxy knows the issuer the token is a stranger's, and until it has the keys it is refused: only what a
    // good token says disagrees.
    eventually(SOON, || async { status_with(&site, &token(&old, "old", "nosuch")).await == 403 }).await;
    assert_eq!(status_with(&site, &old_token).await, 200);
    assert_eq!(status_with(&site, &new_token).await, 401);

    publish(&idp, &[new.jwk("new")]);
    let missing = async || site.api().get("nodes").await.expect(200)["items"][0]["missing_keys"][0].clone();
    eventually(SOON, || async { missing().await["kid"] == "new" }).await;
    assert_eq!(missing().await["issuer"], "idp");
    let refreshed = site.api().post("token-issuers/idp/refresh?wait=applied", json!({})).await.expect(200);
    assert_eq!(refreshed["keys"], json!([{"kid": "new", "alg": "ES256"}]), "{refreshed}");
    assert_eq!(status_with(&site, &new_token).await, 200);
    assert_eq!(status_with(&site, &old_token).await, 401, "also when it was found good before");

    idp.die().await;
    let refused = until(SOON, async || {
        // Somebody asked a moment ago; it is asked again when that is over.
        let answer = site.api().post("token-issuers/idp/refresh", json!({})).await;
        (answer.status != 429).then_some(answer)
    })
    .await;
    assert_eq!(refused.expect(502)["error"], "KEYS_UNREACHABLE");
    let shown = site.api().get("token-issuers/idp").await.expect(200);
    assert!(shown["last_error"].as_str().is_some_and(|error| error.contains("cannot be reached")), "{shown}");
    assert!(shown["fetched_at"].is_string(), "{shown}");
    assert_eq!(status_with(&site, &new_token).await, 200);
    site.restart().await;
    assert_eq!(status_with(&site, &new_token).await, 200, "keys are in the store and in the last good state");
    assert_eq!(status_with(&site, &old_token).await, 401);
}

#[tokio::test]
async fn a_proxy_of_its_own_gets_keys_and_tells_what_it_saw() {
    let (origin, idp) = (Origin::start().await, Origin::start().await);
    let site = gateway().settings("[telemetry]\nformat = \"json\"").split().await;
    pool(&site.api(), "web", &[&origin]).await;
    for slug in ["ash", "birch"] {
        school(&site.api(), slug, "web").await;
    }
    let signer = TokenSigner::ed25519();
    publish(&idp, &[signer.jwk("k")]);
    issuer(&site, &idp).await;
    eventually(SOON, || async { status_with(&site, &token(&signer, "k", "birch")).await == 403 }).await;
    assert_eq!(status_with(&site, &token(&signer, "k", "ash")).await, 200);

    let event = until(SOON, async || {
        let events = site.api().get("events?tenant=ash").await.expect(200);
        events["items"].get(0).cloned()
    })
    .await;
    assert_eq!(
        (&event["kind"], &event["detail"]["identifier"], &event["detail"]["named"]),
        (&json!("security.cross_tenant_attempt"), &json!("token"), &json!("birch"))
    );
    let detail = &event["detail"];
    assert_eq!((&detail["host"], &detail["client"]), (&json!("ash.localhost"), &json!("127.0.0.1")));
    let log = site.log();
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.find(|line| line["event"] == "security.cross_tenant_attempt").expect("it is in the log");
    assert_eq!(
        (&line["client.addr"], &line["identifier"], &line["request.id"]),
        (&json!("127.0.0.1"), &json!("token"), &detail["request_id"])
    );
    assert!(!log.contains("eyJ"), "and no token is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_clients_ask_for_is_found_and_adopted_on_the_command_line() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let run = |args: &[&str]| {
        let data = site.data().display().to_string();
        let output = site.run(&[args, &["--data-dir", &data]].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    for host in ["erp.ash.test", "noise.example"] {
        assert_eq!(Client::builder(site.http()).base(format!("http://{host}")).build().get("/").await.status(), 404);
    }
    eventually(SOON, || async { run(&["unknown-hosts"]).contains("noise.example") }).await;
    run(&["unknown-hosts", "ignore", "noise.example"]);
    let listed = run(&["unknown-hosts", "list"]);
    assert!(listed.contains("erp.ash.test") && !listed.contains("noise.example"), "{listed}");
    assert!(run(&["unknown-hosts", "--ignored"]).contains("noise.example"));
    run(&["unknown-hosts", "adopt", "erp.ash.test", "--tenant", "ash", "--wait"]);
    assert_eq!(site.client("erp.ash.test").get("/").await.status(), 200);
    assert!(!run(&["unknown-hosts"]).contains("erp.ash.test"));
    run(&["unknown-hosts", "unignore", "noise.example"]);

    let idp = Origin::start().await;
    publish(&idp, &[TokenSigner::ed25519().jwk("k")]);
    let url = format!("{}/keys", idp.url());
    run(&[
        "token-issuer",
        "create",
        "idp",
        "--issuer",
        "https://id.example",
        "--audience",
        "school",
        "--jwks-url",
        &url,
    ]);
    eventually(SOON, || async { run(&["token-issuer", "get", "idp"]).contains("EdDSA") }).await;
    assert!(run(&["token-issuer", "list"]).contains(&url));
    run(&["token-issuer", "update", "idp", "--leeway-s", "5"]);
    assert!(run(&["token-issuer", "refresh", "idp", "--json"]).contains("\"leeway_s\": 5"));
    run(&["token-issuer", "delete", "idp", "--yes"]);
}

/// Publishes keys over TLS, under `localhost`, with a certificate of an authority of its own. Says where, and gives the
/// authority's certificate as PEM.
async fn published_over_tls(keys: Value) -> (String, String) {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).expect("signed").pem();
    let authority = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &authority).expect("signed");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let url = format!("https://localhost:{}/keys", listener.local_addr().expect("bound").port());
    let body = json!({ "keys": keys }).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let _ = tls.read(&mut [0; 4_096]).await;
                let _ = tls.write_all(answer.as_bytes()).await;
                let _ = tls.shutdown().await;
            });
        }
    });
    (url, pem)
}

#[tokio::test]
async fn keys_are_fetched_over_tls_from_whom_the_machine_trusts_and_nobody_else() {
    let origin = Origin::start().await;
    let signer = TokenSigner::ed25519();
    let (url, trusted) = published_over_tls(json!([signer.jwk("k")])).await;
    let (other, _) = published_over_tls(json!([signer.jwk("k")])).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("authorities.pem");
    std::fs::write(&file, trusted).expect("written");
    let site = gateway().env("SSL_CERT_FILE", &file.display().to_string()).env("NO_PROXY", "*").up().await;
    pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    for (id, iss, url) in [("idp", "https://id.example", &url), ("other", "https://other.example", &other)] {
        let body = json!({"id": id, "issuer": iss, "audiences": ["school"], "jwks_url": url});
        site.api().post("token-issuers", body).await.expect(201);
    }
    eventually(SOON, || async { status_with(&site, &token(&signer, "k", "nosuch")).await == 403 }).await;
    assert_eq!(status_with(&site, &token(&signer, "k", "ash")).await, 200);
    let error = until(SOON, async || {
        let shown = site.api().get("token-issuers/other").await.expect(200);
        shown["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(site.api().get("token-issuers/other").await.expect(200)["keys"], json!([]));
}

/// A proxy that lacks a key says so, and a minute after the last look the keys are read again, without anybody's doing.
#[tokio::test]
async fn a_key_that_a_proxy_lacks_is_fetched_by_itself() {
    let (origin, idp) = (Origin::start().await, Origin::start().await);
    let site = gateway_with(&[&origin]).await;
    let (old, new) = (TokenSigner::ed25519(), TokenSigner::ed25519());
    publish(&idp, &[old.jwk("old")]);
    issuer(&site, &idp).await;
    eventually(SOON, || async { status_with(&site, &token(&old, "old", "nosuch")).await == 403 }).await;
    publish(&idp, &[old.jwk("old"), new.jwk("new")]);
    let new_token = token(&new, "new", "ash");
    assert_eq!(status_with(&site, &new_token).await, 401);
    eventually(Duration::from_secs(120), || async { status_with(&site, &new_token).await == 200 }).await;
    assert_eq!(status_with(&site, &token(&old, "old", "ash")).await, 200);
}
