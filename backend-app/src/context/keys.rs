//! The gateway's public keys: fetched, kept in memory, and on disk for a start without the control plane.
//!
//! They are read again as often as the source asks for (`Cache-Control: max-age`). A token with an unknown key id makes us
//! look at once, at most once in 5 s however many ask. While the source is gone, the keys
//! we have go on counting.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use ulid::Ulid;

use crate::options::KeySource;

/// Shortest time between two looks at the source: 5 s, so that tokens with invented key ids cannot make us a load on it.
const REFETCH_INTERVAL: Duration = Duration::from_secs(5);

/// How often keys are read again unasked, unless the source wants it sooner (`Cache-Control: max-age`): 5 min. A key that
/// was withdrawn counts for no longer than this.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// Time for one fetch: 2 s. Requests with an unknown key id wait for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest JWKS read, in bytes: 64 KiB, some 500 keys; the gateway has two or three.
const MAX_JWKS: usize = 64 * 1024;

/// Ed25519 public keys by key id.
type Keys = HashMap<String, [u8; 32]>;

/// The keys that count, and where to look for more.
pub(crate) struct KeyRing {
    keys: ArcSwap<Keys>,
    source: KeySource,
    kept: PathBuf,
    client: Client<HttpConnector, Body>,
    /// When the source was last asked on behalf of a request. Held while asking: who comes meanwhile waits for the answer.
    asked: Mutex<Option<Instant>>,
    /// How long the source allows what it gave to be kept.
    fresh_for: ArcSwap<Duration>,
}

/// What the source gave.
struct Fetched {
    json: Bytes,
    keys: Keys,
    fresh_for: Duration,
}

/// Why the source gave no keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the keys could not be read")]
    Read(#[source] io::Error),
    #[error("the keys could not be fetched")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the source of keys answered {0}")]
    Status(StatusCode),
    #[error("the source of keys did not answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    #[error("the answer is not a JWKS")]
    Json(#[source] serde_json::Error),
    #[error("the JWKS has no Ed25519 key")]
    Empty,
}

impl KeyRing {
    /// Reads the keys from `source`, or else those kept in `data_dir` by an earlier start, or else begins with none.
    pub(crate) async fn load(source: KeySource, data_dir: &Path) -> Self {
        let ring = Self {
            keys: ArcSwap::default(),
            source,
            kept: data_dir.join("keys").join("jwks.json"),
            client: Client::builder(TokioExecutor::new()).build_http(),
            asked: Mutex::new(None),
            fresh_for: ArcSwap::from_pointee(REFRESH_INTERVAL),
        };
        if !ring.refresh().await {
            match fs::read(&ring.kept).map_err(FetchError::Read).and_then(|json| parse(&json)) {
                Ok(keys) => {
                    warn!("{} keys from the last fetch, kept in {}, are in use", keys.len(), ring.kept.display());
                    ring.keys.store(Arc::new(keys));
                }
                Err(_) => warn!("no keys yet: until {} answers, no request can be verified", ring.source),
            }
        }
        ring
    }

    /// Whether any request can be verified.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.load().is_empty()
    }

    /// The key with this id, if we have it.
    pub(super) fn get(&self, key_id: &str) -> Option<DecodingKey> {
        self.keys.load().get(key_id).map(|point| DecodingKey::from_ed_der(point))
    }

    /// The key with this id, after asking the source again if it was not asked within [`REFETCH_INTERVAL`].
    pub(super) async fn seek(&self, key_id: &str) -> Option<DecodingKey> {
        self.ask(|ring| ring.get(key_id).is_some()).await;
        self.get(key_id)
    }

    /// Asks the source if there are no keys at all, no more often than [`Self::seek`].
    pub(crate) async fn seek_any(&self) {
        self.ask(|ring| !ring.is_empty()).await;
    }

    async fn ask(&self, satisfied: impl Fn(&Self) -> bool) {
        let mut asked = self.asked.lock().await;
        if satisfied(self) || asked.is_some_and(|at| at.elapsed() < REFETCH_INTERVAL) {
            return;
        }
        self.refresh().await;
        *asked = Some(Instant::now());
    }

    /// Reads the source again and again: as often as it asks for, and sooner while it does not answer.
    pub(crate) async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(**self.fresh_for.load()).await;
            while !self.refresh().await {
                tokio::time::sleep(REFETCH_INTERVAL).await;
            }
        }
    }

    /// Reads the source once. Returns whether it had keys; if not, those we have stay.
    async fn refresh(&self) -> bool {
        match self.fetch().await {
            Ok(Fetched { json, keys, fresh_for }) => {
                self.fresh_for.store(Arc::new(fresh_for));
                let changed = *self.keys.load_full() != keys;
                if changed {
                    info!("{} keys of the gateway from {}", keys.len(), self.source);
                    self.keys.store(Arc::new(keys));
                    self.keep(&json);
                }
                true
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "no keys from {}: {error}; those known stay in use", self.source);
                false
            }
        }
    }

    async fn fetch(&self) -> Result<Fetched, FetchError> {
        let (json, fresh_for) = match &self.source {
            KeySource::File(path) => {
                let json = tokio::fs::read(path).await.map_err(FetchError::Read)?;
                (Bytes::from(json), REFRESH_INTERVAL)
            }
            KeySource::Url(url) => {
                timeout(FETCH_TIMEOUT, self.download(url)).await.map_err(|_| FetchError::Timeout)??
            }
        };
        let keys = parse(&json)?;
        Ok(Fetched { json, keys, fresh_for })
    }

    async fn download(&self, url: &str) -> Result<(Bytes, Duration), FetchError> {
        let request = Request::get(url).body(Body::empty()).map_err(|error| FetchError::Http(error.into()))?;
        let answer = self.client.request(request).await.map_err(|error| FetchError::Http(error.into()))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let fresh_for = fresh_for(answer.headers());
        let body = Limited::new(answer.into_body(), MAX_JWKS).collect().await.map_err(FetchError::Http)?;
        Ok((body.to_bytes(), fresh_for))
    }

    /// Keeps what was fetched for a start without the source. Instances share the file: each writes its own and renames it.
    fn keep(&self, json: &[u8]) {
        let fresh = self.kept.with_extension(format!("{}.new", Ulid::generate()));
        let written = fs::create_dir_all(self.kept.parent().unwrap_or(Path::new(".")))
            .and_then(|()| fs::write(&fresh, json))
            .and_then(|()| fs::rename(&fresh, &self.kept));
        if let Err(error) = written {
            warn!("the keys could not be kept in {}: {error}", self.kept.display());
        }
    }
}

/// How long an answer may be kept (RFC 9111 section 5.2.2.1): 1 s at least, [`REFRESH_INTERVAL`] at most.
fn fresh_for(headers: &HeaderMap) -> Duration {
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut directives = directives.flat_map(|line| line.split(',')).map(str::trim);
    let max_age = directives.find_map(|directive| directive.strip_prefix("max-age=")?.parse().ok());
    max_age.map_or(REFRESH_INTERVAL, Duration::from_secs).clamp(Duration::from_secs(1), REFRESH_INTERVAL)
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    kid: String,
    x: String,
    #[serde(rename = "use")]
    usage: Option<String>,
}

/// The Ed25519 keys of a JWKS. Others are passed over: a set may hold keys for other purposes.
fn parse(json: &[u8]) -> Result<Keys, FetchError> {
    let jwks: Jwks = serde_json::from_slice(json).map_err(FetchError::Json)?;
    let ed25519 = jwks.keys.into_iter().filter_map(|key| {
        let key: Jwk = serde_json::from_value(key).ok()?;
        let signs = key.usage.as_deref().is_none_or(|usage| usage == "sig");
        let point = URL_SAFE_NO_PAD.decode(&key.x).ok()?.try_into().ok()?;
        let usable = key.kty == "OKP" && key.crv == "Ed25519" && signs && !key.kid.is_empty();
        usable.then_some((key.kid, point))
    });
    let keys: Keys = ed25519.collect();
    if keys.is_empty() { Err(FetchError::Empty) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ed25519_signing_keys_count() {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let jwks = format!(
            r#"{{"keys":[
                {{"kty":"OKP","crv":"Ed25519","kid":"good","x":"{x}","alg":"EdDSA","use":"sig"}},
                {{"kty":"OKP","crv":"Ed25519","kid":"short","x":"AAAA"}},
                {{"kty":"OKP","crv":"Ed25519","kid":"for-encryption","x":"{x}","use":"enc"}},
                {{"kty":"oct","kid":"secret","k":"{x}"}},
                {{"kty":"EC","crv":"P-256","kid":"ec","x":"{x}","y":"{x}"}}]}}"#
        );
        let keys = parse(jwks.as_bytes()).unwrap();
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["good"]);
    }

    #[test]
    fn keys_are_kept_as_long_as_their_source_allows_within_bounds() {
        let kept = |value: &'static str| {
            fresh_for(&HeaderMap::from_iter([(CACHE_CONTROL, axum::http::HeaderValue::from_static(value))])).as_secs()
        };
        assert_eq!(kept("public, max-age=60"), 60);
        assert_eq!(kept("max-age=0"), 1);
        assert_eq!(kept("max-age=86400"), 300);
        assert_eq!(kept("no-store"), 300);
        assert_eq!(fresh_for(&HeaderMap::new()), REFRESH_INTERVAL);
    }

    #[test]
    fn a_set_without_usable_keys_is_refused() {
        assert!(matches!(parse(br#"{"keys":[]}"#), Err(FetchError::Empty)));
        assert!(matches!(parse(b"<html>"), Err(FetchError::Json(_))));
    }
}
