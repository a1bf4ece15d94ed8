//! What the tests stand on: a gateway that signs, instances that run, a client that asks.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use schoolgate_backend_app::{AppError, KeySource, Listen, Options, Server};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const GREENHILL: &str = "tnt_01JD0000000000000000000001";
pub(crate) const RIVERSIDE: &str = "tnt_01JD0000000000000000000002";

/// A key pair of a gateway.
pub(crate) struct Gateway {
    key: Ed25519KeyPair,
    key_id: String,
}

impl Gateway {
    pub(crate) fn new(key_id: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { key: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(), key_id: key_id.to_owned() }
    }

    pub(crate) fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": self.key_id, "x": x, "alg": "EdDSA", "use": "sig"}]})
            .to_string()
    }

    /// A token with these claims, as the gateway would sign it.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({"alg": "EdDSA", "typ": "JWT", "kid": self.key_id}), claims)
    }

    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// What the gateway says about Greenhill.
pub(crate) fn claims() -> Value {
    let now = now();
    json!({
        "iss": "schoolgate", "aud": "shared", "sub": GREENHILL, "iat": now, "exp": now + 60,
        "tenant_id": GREENHILL, "slug": "greenhill", "name": "Greenhill Academy", "plan": "basic", "isolation": "database",
        "features": ["advanced_reporting"],
        "limits": {"users": 100, "requests_per_day": {"value": 1000, "mode": "soft"}, "body_bytes": 10_485_760},
        "theme": {"primary_color": "#1f6f43"},
    })
}

/// The same with some claims replaced (or, when null, absent).
pub(crate) fn claims_with(replaced: Value) -> Value {
    let mut claims = claims();
    for (name, value) in replaced.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

pub(crate) fn riverside() -> Value {
    claims_with(json!({"sub": RIVERSIDE, "tenant_id": RIVERSIDE, "slug": "riverside", "name": "Riverside School"}))
}

pub(crate) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// A host with a data directory, and a gateway whose keys are in a file of it.
pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    dir: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self { gateway: Gateway::new("k1"), dir: tempfile::tempdir().unwrap() };
        std::fs::write(site.keys_file(), site.gateway.jwks()).unwrap();
        site
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn keys_file(&self) -> PathBuf {
        self.dir.path().join("jwks.json")
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            listen: Listen::Tcp("127.0.0.1:0".parse().unwrap()),
            audiences: vec!["shared".to_owned()],
            keys: KeySource::File(self.keys_file()),
            data_dir: self.data_dir().join("data"),
            issuer: "schoolgate".to_owned(),
            report_url: None,
            report_token_file: None,
            register: None,
            register_token_file: None,
            advertise: None,
            max_open_schools: 8,
        }
    }

    pub(crate) async fn instance(&self) -> Instance {
        Instance::start(self.options()).await
    }

    /// A request of Greenhill.
    pub(crate) fn greenhill(&self) -> String {
        self.gateway.sign(&claims())
    }
}

/// A running instance.
pub(crate) struct Instance {
    pub(crate) address: Listen,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), AppError>>,
    client: Client<HttpConnector, Body>,
}

impl Instance {
    pub(crate) async fn start(options: Options) -> Self {
        let server = Server::bind(options).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        Self {
            address: server.addr().clone(),
            stop,
            serving: tokio::spawn(server.serve(async {
                stopped.await.ok();
            })),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Asks it to stop; returns what is left to wait for.
    pub(crate) fn stop(self) -> JoinHandle<Result<(), AppError>> {
        self.stop.send(()).unwrap();
        self.serving
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.client.request(request).await.unwrap();
        let (head, body) = answer.into_parts();
        Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    pub(crate) fn request(&self, method: Method, path: &str, token: Option<&str>) -> axum::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        match token {
            Some(token) => request.header("X-Tenant-Context", token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(self.request(Method::GET, path, Some(token)).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn get_unsigned(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path, None).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, json: &Value) -> Answer {
        let request = self.request(Method::POST, path, Some(token)).header("Content-Type", "application/json");
        self.send(request.body(Body::from(json.to_string())).unwrap()).await
    }

    pub(crate) async fn post_form(&self, path: &str, token: &str, form: &[(&str, &str)]) -> Answer {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request =
            self.request(Method::POST, path, Some(token)).header("Content-Type", "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(form)).unwrap()).await
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and error code of a problem document.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        (self.status.as_u16(), self.json()["error"].as_str().unwrap().to_owned())
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    for _ in 0..500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never happened that {what}");
}
