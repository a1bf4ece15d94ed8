//! What surrounds every request: its identity, its deadline, its last resort, its metric.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use schoolgate_config::time::new_ulid;

use super::Api;
use super::precondition::is_known;
use super::problem::Problem;

/// Time a request may take: 90 s, above the longest wait that a caller can ask for.
const DEADLINE: Duration = Duration::from_secs(90);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The network.
    Network(SocketAddr),
    /// The Unix socket: somebody whom the system lets open it.
    Socket,
}

impl Peer {
    /// The address, if it has one.
    pub(crate) fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Network(address) => Some(address.ip().to_canonical()),
            Self::Socket => None,
        }
    }
}

/// The identity of a request: a ULID, in the answer and in the log.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Runs a request.
pub(crate) async fn envelope(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let id = new_ulid().to_string();
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    request.extensions_mut().insert(RequestId(id.clone()));
    let asked =
        (method == Method::GET && request.headers().contains_key(IF_NONE_MATCH)).then(|| request.headers().clone());
    let route = request.extensions().get::<MatchedPath>().map(|matched| matched.as_str().to_owned());
    let run = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match tokio::time::timeout(DEADLINE, run).await {
        Ok(Ok(response)) => response,
        // The panic hook has logged where; a handler shares nothing that it could leave half-written.
        Ok(Err(_)) => Problem::internal().into_response(),
        Err(_) => Problem::of_status(StatusCode::REQUEST_TIMEOUT).into_response(),
    };
    if let (Some(headers), StatusCode::OK, Some(etag)) = (asked, response.status(), response.headers().get(ETAG))
        && is_known(&headers, etag)
    {
        response = (StatusCode::NOT_MODIFIED, [(ETAG, etag.clone())]).into_response();
    }
    let status = response.status();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = with_headers_of(problem.answer(&id), &response);
    } else if (status.is_client_error() || status.is_server_error()) && !is_ours(&response) {
        response = with_headers_of(Problem::of_status(status).answer(&id), &response);
    }
    response.headers_mut().insert(X_REQUEST_ID, HeaderValue::try_from(&id).expect("a ULID is letters and digits"));
    // What may be kept says so itself.
    let cache_control = response.headers_mut().entry(http::header::CACHE_CONTROL);
    cache_control.or_insert(HeaderValue::from_static("no-store"));
    response.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let took = began.elapsed();
    api.metrics.request(&method, route.as_deref().unwrap_or("_none"), status.as_u16(), took);
    tracing::debug!(
        request.id = %id,
        status = status.as_u16(),
        took_ms = took.as_secs_f64() * 1_000.0,
        "{method} {path}: {}",
        status.as_u16()
    );
    response
}

/// Whether an error has a body of ours already.
fn is_ours(response: &Response) -> bool {
    let content_type = response.headers().get(http::header::CONTENT_TYPE);
    content_type.is_some_and(|value| {
        let value = value.as_bytes();
        value == b"application/problem+json" || value == b"application/json"
    })
}

/// Headers that say more than a body: which methods a path takes.
fn with_headers_of(mut problem: Response, response: &Response) -> Response {
    if let Some(allow) = response.headers().get(http::header::ALLOW) {
        problem.headers_mut().insert(http::header::ALLOW, allow.clone());
    }
    problem
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use schoolgate_config::time::SystemClock;
    use schoolgate_store::{OpenMode, Store};
    use tower::ServiceExt;

    use super::*;
    use crate::background::{DomainChecks, KeyRefresher, PlatformFacts};
    use crate::http::Parts;
    use crate::metrics::Metrics;
    use crate::publish::Publisher;

    #[tokio::test]
    async fn a_panic_is_answered_without_its_insides() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open(&url, OpenMode::Create).await.expect("a store");
        let publisher = Publisher::load(store.clone()).await.expect("loaded");
        let keys = KeyRefresher::new(store.clone(), publisher.feed(), std::sync::Arc::new(SystemClock));
        let checker = schoolgate_dns::Checker::new(schoolgate_dns::CheckerOptions {
            resolvers: Vec::new(),
            authoritative_port: 53,
            probe: schoolgate_dns::ProbeOptions::default(),
        });
        let domain_checks =
            DomainChecks::new(store.clone(), checker, PlatformFacts::default(), std::sync::Arc::new(SystemClock));
        let keeper = std::sync::Arc::new(schoolgate_config::seal::Keeper::new(&[7; 32]));
        let api = Api::new(Parts {
            keys,
            domain_checks,
            store,
            feed: publisher.feed(),
            publisher,
            platform: Default::default(),
            issues_at_once: false,
            context_keys: crate::ContextKeys::new(keeper.clone(), &Default::default()),
            keeper,
            metrics: Metrics::new(),
            visitors: Default::default(),
            turns: Default::default(),
            gateway: Default::default(),
            clock: std::sync::Arc::new(SystemClock),
            stop: Default::default(),
        });
        async fn fail() -> StatusCode {
            panic!("the secret is 42")
        }
        let layer = axum::middleware::from_fn_with_state(api.clone(), envelope);
        let router = Router::new().route("/fail", get(fail)).layer(layer).with_state(api);
        let request = Request::builder().uri("/fail").body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("INTERNAL_ERROR") && !text.contains("secret"), "{text}");
    }
}
