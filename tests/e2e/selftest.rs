//! The self-test finds a sound gateway sound, and a leaky one leaky.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Output;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_testkit::{Origin, Site, TokenSigner, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::{SOON, gateway, gateway_with, school};

fn run(site: &Site, args: &[&str]) -> Output {
    let data = site.control_data().display().to_string();
    let mut all = vec!["selftest", "isolation"];
    all.extend(args);
    all.extend(["--data-dir", &data]);
    site.run(&all)
}

#[track_caller]
fn passes(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = |report: &Value| -> Vec<String> {
        let rows = report["rows"].as_array().cloned().unwrap_or_default();
        rows.iter().filter(|row| row["ok"] != true).map(Value::to_string).collect()
    };
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}\n{}", wrong(&report).join("\n"));
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_gateway_in_front_of_the_school_app_passes() {
    let site = Site::builder(env!("CARGO_BIN_EXE_schoolgate")).school_apps(1).up().await;
    for slug in ["ash", "birch"] {
        school(&site.api(), slug, "shared").await;
    }
    let report = passes(&run(&site, &["--json"]));
    assert_eq!((&report["passed"], &report["evidence"]), (&json!(true), &json!("whoami")));
    let rows = report["rows"].as_array().expect("rows");
    assert!(rows.len() > 60, "{} rows", rows.len());
    for protocol in ["h1", "h2"] {
        assert!(rows.iter().filter(|row| row["protocol"] == protocol).count() > 20, "{protocol}");
    }
    let same = site.api().post("selftest/isolation", json!({})).await.expect(200);
    assert_eq!(same["rows"].as_array().map(Vec::len), Some(rows.len()));
    let text = run(&site, &["--tenants", "birch,ash"]);
    let text = String::from_utf8_lossy(&text.stdout);
    for part in ["nothing crosses", "A         birch", "/whoami", "?tenant=B"] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

/// A token of an issuer, for a school, that is good for so many seconds.
fn token(signer: &TokenSigner, tenant: &str, seconds: i64) -> String {
    let exp = SystemClock.unix_ms() / 1_000 + seconds;
    signer.token("k", &json!({"iss": "https://id.example", "aud": "school", "exp": exp, "tenantId": tenant}))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_good_token_of_the_other_school_nothing_crosses_either() {
    let site = Site::builder(env!("CARGO_BIN_EXE_schoolgate")).school_apps(1).up().await;
    let api = site.api();
    // The first zone by name is the one that is tested.
    let zone = json!({"name": "campus.test", "shared_host": "api.campus.test", "trusted_callers": ["127.0.0.1/32"]});
    api.post("zones", zone).await.expect(201);
    let signer = TokenSigner::ed25519();
    let issuer = json!({"id": "idp", "issuer": "https://id.example", "audiences": ["school"], "leeway_s": 0,
        "jwks": {"keys": [signer.jwk("k")]}});
    api.post("token-issuers", issuer).await.expect(201);
    for slug in ["ash", "birch"] {
        school(&api, slug, "shared").await;
    }
    for host in ["ash.campus.test", "birch.campus.test", "api.campus.test"] {
        eventually(SOON, || async { site.tls(host).await.is_ok() }).await;
    }
    let file = site.data().join("token-of-birch");
    let with = |token: &str| {
        std::fs::write(&file, format!("{token}\n")).expect("written");
        run(&site, &["--json", "--tenants", "ash,birch", "--token", &file.display().to_string()])
    };
    let good = token(&signer, "birch", 600);
    let report = passes(&with(&good));
    let rows = report["rows"].as_array().expect("rows");
    let row = |case: &str, protocol: &str| {
        let found = rows.iter().find(|row| row["case"] == case && row["protocol"] == protocol);
        found.unwrap_or_else(|| panic!("{case} over {protocol}"))["got"].as_str().expect("text").to_owned()
    };
    for protocol in ["h1", "h2"] {
        assert_eq!(row("good token of B, host B", protocol), "200 for birch");
        assert_eq!(row("good token of B", protocol), "403 TENANT_MISMATCH");
        assert_eq!(row("good token of B, twice", protocol), "401 INVALID_TOKEN_FORMAT");
        assert_eq!(row("token of B with another signature, host B", protocol), "401 INVALID_TOKEN");
        assert_eq!(row("good token of B, X-Tenant-Slug: A, on the shared host", protocol), "403 TENANT_MISMATCH");
    }
    assert!(!report.to_string().contains(&good) && !site.log().contains(&good), "it is shown to nobody");

    for (token, part) in [
        ("x".to_owned(), "not a JSON Web Token"),
        (token(&TokenSigner::ed25519(), "birch", 600), "its signature is not the issuer's"),
        (token(&signer, "birch", -5), "it has expired"),
        (token(&signer, "birch", 20), "60 are needed"),
        (token(&signer, "ash", 600), "it names `ash`, and must name the second school, birch, alone"),
        (token(&signer, "nosuch", 600), "it names `nosuch`"),
    ] {
        let output = with(&token);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(part), "{part}: {error}");
    }
    api.patch("token-issuers/idp?wait=applied", json!({"zone": "localhost"})).await.expect(200);
    let output = with(&good);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("counts in the zone localhost only, and ash.campus.test is not in it"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_that_do_not_say_for_whom_they_answer_are_judged_by_status() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    school(&site.api(), "birch", "web").await;
    let report = passes(&run(&site, &["--json"]));
    assert_eq!((&report["passed"], &report["evidence"]), (&json!(true), &json!("status")));
}

/// Answers every request as the school `slug`, whoever is asked for.
async fn leaky(slug: &'static str, names: Vec<String>) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let body = json!({"tenant": {"slug": slug}}).to_string();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                while tls.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {
                    if tls.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_answers_everything_for_one_school_fails() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    school(&site.api(), "birch", "web").await;
    let names = ["ash.localhost", "birch.localhost"].map(str::to_owned).to_vec();
    let https = leaky("birch", names).await.to_string();
    let output = run(&site, &["--https", &https, "--tenants", "ash,birch"]);
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{text}{error}");
    assert!(text.contains("NOT AS EXPECTED") && text.contains("200 for birch"), "{text}");
    assert!(error.contains("one school may reach another"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_there_or_has_no_two_schools_fails() {
    let site = gateway().up().await;
    let output = run(&site, &[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("two active tenants"), "{error}");
    crate::pool(&site.api(), "web", &[&Origin::start().await]).await;
    for slug in ["ash", "birch"] {
        school(&site.api(), slug, "web").await;
    }
    for (options, part) in [
        (&["--tenants", "ash,nosuch"][..], "no tenant is called `nosuch`"),
        (&["--tenants", "ash"], "two tenants are needed"),
        (&["--tenants", "ash,ash"], "named twice"),
        (&["--https", "192.0.2.1:443"], "loopback addresses only"),
        (&["--https", "127.0.0.1:1"], "one school may reach another"),
    ] {
        let output = run(&site, options);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(part), "{options:?}: {error}");
    }
    site.api().post("tenants/slug:ash/suspend?wait=applied", json!({"reason": "a test"})).await.expect(200);
    let output = run(&site, &["--tenants", "ash,birch"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("ash is suspended, not active"));
}
