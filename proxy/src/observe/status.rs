//! The private listener: is the process alive, is it ready, what does it count, what does it serve.
//!
//! `GET /healthz`, `/readyz`, `/metrics`, `/status` and `/events`. It is for the machine's own network: no token is asked for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use schoolgate_config::feed::NodeReport;
use schoolgate_config::model::Revision;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Counted, CrossTenantAttempt, Metrics};
use crate::feed::report::{Following, NodeView};

/// Connections at once: 64. A scraper and a few people need one each.
const CONNECTIONS: usize = 64;
/// Time for a request head, and between requests: 30 s.
const HEAD: Duration = Duration::from_secs(30);

/// What is shown.
pub struct StatusParts<L: Counted> {
    /// How the node is.
    pub view: Arc<NodeView<L>>,
    /// What it counts.
    pub metrics: Arc<Metrics<L>>,
    /// Cancelled once the node is stopping: it still serves, and wants no more requests.
    pub draining: CancellationToken,
}

impl<L: Counted> StatusParts<L> {
    fn not_ready(&self) -> Option<&'static str> {
        if self.draining.is_cancelled() {
            return Some("stopping: requests in flight are finished, send no more\n");
        }
        let revision = self.view.table.load().revision();
        (revision == Revision::NONE).then_some("no table is loaded: the control plane has not answered yet\n")
    }
}

/// The answer of `/status`.
#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    report: NodeReport,
    ready: bool,
    tenants: usize,
    domains: usize,
    feed: Following,
}

/// The answer of `/events`: the latest attempts at another tenant that this node refused, the last first.
#[derive(Serialize)]
struct Events {
    items: Vec<CrossTenantAttempt>,
}

/// Serves until told to stop.
pub async fn run<L: Counted>(listener: Arc<TcpListener>, parts: Arc<StatusParts<L>>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        let (Ok(place), Ok((tcp, _))) = accepted else {
            // Out of descriptors, most likely: they do not come back by asking faster.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let parts = Arc::clone(&parts);
        let stop = stop.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&parts)));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(tcp), service);
            tokio::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                debug!("status connection: {error}");
            }
            drop(place);
        });
    }
}

async fn answer<L: Counted>(
    request: Request<Incoming>,
    parts: Arc<StatusParts<L>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(answer);
    }
    Ok(match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" => match parts.not_ready() {
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            None => text(StatusCode::OK, "ready\n"),
        },
        "/metrics" => {
            // Some milliseconds of work at many tenants.
            match tokio::task::spawn_blocking(move || parts.metrics.write() + &parts.view.sharing.metrics()).await {
                Ok(written) => body(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", written),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n"),
            }
        }
        "/status" => {
            let table = parts.view.table.load_full();
            let status = Status {
                report: parts.view.report(),
                ready: parts.not_ready().is_none(),
                tenants: table.tenant_count(),
                domains: table.domain_count(),
                feed: parts.view.standing.following(),
            };
            match serde_json::to_string_pretty(&status) {
                Ok(json) => body(StatusCode::OK, "application/json", json),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the status cannot be written\n"),
            }
        }
        "/events" => {
            match serde_json::to_string_pretty(&Events { items: parts.view.observe.cross_tenant_attempts() }) {
                Ok(json) => body(StatusCode::OK, "application/json", json),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the events cannot be written\n"),
            }
        }
        _ => text(StatusCode::NOT_FOUND, "try /healthz, /readyz, /metrics, /status or /events\n"),
    })
}

fn text(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    body(status, "text/plain; charset=utf-8", words)
}

fn body(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(bytes.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
