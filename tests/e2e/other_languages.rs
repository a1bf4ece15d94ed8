//! Backends in Node and Python behind the gateway: `backend-app/examples`, as they are documented.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use ring::hmac;
use schoolgate_testkit::{Client, Http, Site};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::context_signer::{ContextSigner, unsigned};
use crate::{SOON, gateway, school};

/// An example that runs; it dies with the test.
struct Example {
    address: SocketAddr,
    _child: Child,
}

impl Example {
    /// Starts `program script` for the pool `web` of this site.
    async fn start(program: &Path, script: &str, site: &Site) -> Self {
        let keys = format!("http://{}/.well-known/schoolgate/jwks.json", site.control_addr());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("backend-app/examples").join(script);
        let mut child = Command::new(program)
            .arg(&script)
            .args([keys.as_str(), "web", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("{} does not start: {e}; `tests/run` says what is needed", program.display()));
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = timeout(SOON, lines.next_line()).await.expect("in time").expect("text");
        let line = line.unwrap_or_else(|| panic!("{} ended; its standard error says why", script.display()));
        let address = line.rsplit(' ').next().and_then(|text| text.parse().ok());
        Self { address: address.unwrap_or_else(|| panic!("no address in {line:?}")), _child: child }
    }
}

/// Node, as the machine has it.
fn node() -> PathBuf {
    PathBuf::from("node")
}

/// The Python that `tests/run` made with `cryptography` in it, or else the machine's.
fn python() -> PathBuf {
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python").join("bin/python3");
    if made.exists() { made } else { PathBuf::from("python3") }
}

#[tokio::test]
async fn a_node_backend_serves_what_passed_the_gateway_and_nothing_else() {
    serves_what_passed_the_gateway(&node(), "node/verify.mjs").await;
}

#[tokio::test]
async fn a_python_backend_serves_what_passed_the_gateway_and_nothing_else() {
    serves_what_passed_the_gateway(&python(), "python/verify.py").await;
}

async fn serves_what_passed_the_gateway(program: &Path, script: &str) {
    let site = gateway().up().await;
    let example = Example::start(program, script, &site).await;
    let backends = json!([{"address": format!("http://{}", example.address)}]);
    site.api().post("pools", json!({"id": "web", "backends": backends})).await.expect(201);
    let ash = school(&site.api(), "ash", "web").await;
    school(&site.api(), "birch", "web").await;
    for http in [Http::One, Http::Two] {
        let answer = site.client_with("ash.localhost", http).get_json("/").await;
        assert_eq!((&answer["tenant_id"], &answer["slug"]), (&ash["id"], &json!("ash")), "{answer}");
    }
    assert_eq!(site.client("birch.localhost").get_json("/").await["slug"], "birch");

    let direct = Client::plain(example.address);
    let ask = async |contexts: &[&str]| {
        let mut request = direct.request(Method::GET, "/").header("x-tenant-id", "ash");
        for context in contexts {
            request = request.header("x-tenant-context", *context);
        }
        request.send().await.expect("an answer").status().as_u16()
    };
    let signer = ContextSigner::of(&site).await;
    let (header, claims) = (signer.header(), signer.claims("ash", "web", 0));
    let good = signer.sign(&header, &claims);
    assert_eq!(ask(&[&good]).await, 200, "the harness signs as the gateway does");
    assert_eq!(ask(&[]).await, 401, "none");
    assert_eq!(ask(&[&good, &good]).await, 401, "two");

    let with = |change: Value| {
        let mut claims = claims.clone();
        claims.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        signer.sign(&header, &claims)
    };
    let birch = signer.sign(&header, &signer.claims("birch", "web", 0));
    let (_, signature) = good.rsplit_once('.').expect("three parts");
    let (signed_for_birch, _) = birch.rsplit_once('.').expect("three parts");
    let none = unsigned(&json!({"alg": "none", "kid": signer.kid}), &claims);
    let hs256 = unsigned(&json!({"alg": "HS256", "kid": signer.kid}), &claims);
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &signer.public), hs256.as_bytes());
    let now_s = claims["iat"].as_i64().expect("a time");
    for (what, token) in [
        ("no token", "a.b.c".to_owned()),
        ("JSON that is no object", format!("{0}.{0}.AA", URL_SAFE_NO_PAD.encode("1"))),
        ("expired", signer.sign(&header, &signer.claims("ash", "web", 3_600))),
        ("just expired", with(json!({"exp": now_s - 6}))),
        ("no time to expire", with(json!({"exp": null}))),
        ("a word for a time", with(json!({"exp": "never"}))),
        ("not valid yet", with(json!({"nbf": now_s + 600}))),
        ("issued in the future", with(json!({"iat": now_s + 600, "exp": now_s + 660}))),
        ("for another pool", signer.sign(&header, &signer.claims("ash", "other", 0))),
        ("for several pools", with(json!({"aud": ["web", "other"]}))),
        ("of another issuer", with(json!({"iss": "somebody"}))),
        ("a path for a tenant", with(json!({"tenant_id": "../../etc", "sub": "../../etc"}))),
        ("two tenants", with(json!({"sub": "tnt_00000000000000000000000000"}))),
        ("claims of another under this signature", format!("{signed_for_birch}.{signature}")),
        ("a signature cut short", good[..good.len() - 4].to_owned()),
        ("no signature", format!("{none}.AA")),
        ("the public key as a shared secret", format!("{hs256}.{}", URL_SAFE_NO_PAD.encode(mac.as_ref()))),
        ("an unknown extension", signer.sign(&json!({"alg": "EdDSA", "kid": signer.kid, "crit": ["b64"]}), &claims)),
        ("no key id", signer.sign(&json!({"alg": "EdDSA"}), &claims)),
        ("an invented key id", signer.sign(&json!({"alg": "EdDSA", "kid": "ctx-invented"}), &claims)),
    ] {
        assert_eq!(ask(&[&token]).await, 401, "{what}");
    }
    assert_eq!(ask(&[&good]).await, 200, "and goes on");
}
