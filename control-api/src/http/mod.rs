//! HTTP in and out; nothing is decided here.

pub(crate) mod auth;
pub(crate) mod envelope;
pub(crate) mod openapi;
mod operations;
pub(crate) mod params;
pub(crate) mod precondition;
pub(crate) mod problem;
pub(crate) mod resource;
pub(crate) mod router;
pub(crate) mod write;

mod acme;
mod audit;
mod certificates;
mod context_keys;
mod domains;
mod events;
mod explain;
mod health;
mod instances;
mod internal;
mod limits;
mod maintenance;
mod nodes;
mod plans;
mod pools;
mod public;
mod revisions;
mod routes;
mod sealing;
mod selftest;
mod status;
mod tenants;
mod token_issuers;
mod tokens;
mod unknown_hosts;
mod usage;
mod zones;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::ETAG;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use schoolgate_config::seal::Keeper;
use schoolgate_config::time::Clock;
use schoolgate_store::{Page, Store};

use crate::background::{DomainChecks, KeyRefresher};
use crate::context_keys::ContextKeys;
use crate::metrics::Metrics;
use crate::operation::Platform;
use crate::operation::domains::Reading;
use crate::publish::{FeedServer, Publisher};
use problem::Problem;
use public::Visitors;
use write::Turns;

/// What every handler is given.
pub(crate) struct Parts {
    /// The truth.
    pub(crate) store: Store,
    /// Makes revisions of it.
    pub(crate) publisher: Publisher,
    /// Hands them to proxies.
    pub(crate) feed: FeedServer,
    /// Reads the keys of issuers of tokens.
    pub(crate) keys: KeyRefresher,
    /// What the settings say.
    pub(crate) platform: Arc<Platform>,
    /// Looks at the DNS of domains.
    pub(crate) domain_checks: DomainChecks,
    /// Whether a certificate comes within the time that a caller waits.
    pub(crate) issues_at_once: bool,
    /// Seals private keys.
    pub(crate) keeper: Arc<Keeper>,
    /// How the keys of `X-Tenant-Context` take turns.
    pub(crate) context_keys: ContextKeys,
    /// What Prometheus asks for.
    pub(crate) metrics: Metrics,
    /// Callers of the public endpoint.
    pub(crate) visitors: Visitors,
    /// Requests with an Idempotency-Key.
    pub(crate) turns: Turns,
    /// Where the gateway that lives with this control plane serves HTTPS.
    pub(crate) gateway: Arc<OnceLock<SocketAddr>>,
    /// Tells the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Cancelled when the server stops: whoever waits answers.
    pub(crate) stop: CancellationToken,
}

/// What every handler is given; a clone is a reference.
#[derive(Clone)]
pub(crate) struct Api(Arc<Parts>);

impl Api {
    /// Shares the parts.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Domains as they are now.
    fn reading(&self) -> Reading<'_> {
        Reading { store: &self.store, platform: &self.platform, now_ms: self.clock.unix_ms() }
    }
}

impl std::ops::Deref for Api {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// An answer that ends a request early: a problem, or the answer given to the same request before.
pub(crate) struct Stop(pub(crate) Box<Response>);

impl<P: Into<Problem>> From<P> for Stop {
    fn from(problem: P) -> Self {
        Self(Box::new(problem.into().into_response()))
    }
}
impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// What a handler gives.
pub(crate) type Answer = Result<Response, Stop>;

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListAnswer<T> {
    /// The objects.
    items: Vec<T>,
    /// Give this as `cursor` for the next part; `null` at the end.
    next: Option<String>,
}

impl<T: Serialize> ListAnswer<T> {
    /// A page of a list as an answer.
    pub(crate) fn of(page: Page<T>) -> Response {
        Json(Self { items: page.items, next: page.next }).into_response()
    }

    /// A list that is never long.
    pub(crate) fn whole(items: Vec<T>) -> Response {
        Json(Self { items, next: None }).into_response()
    }
}

/// One object with its ETag.
pub(crate) fn object(view: &Value, version: u64) -> Response {
    let mut response = Json(view).into_response();
    let etag = HeaderValue::try_from(etag(version, view)).expect("digits in quotes are a header value");
    response.headers_mut().insert(ETAG, etag);
    response
}

/// The ETag of an object: its version, and a hash of what is shown of it. What is shown can change without a new
/// version: a domain gets its certificate, a new zone gives a tenant another name.
pub(crate) fn etag(version: u64, view: &Value) -> String {
    let hash = digest(&SHA256, view.to_string().as_bytes());
    format!("\"{version}-{}\"", hex::encode(&hash.as_ref()[..8]))
}
