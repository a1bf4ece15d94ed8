//! What a supervisor, Prometheus and a backend ask: without a token, and without anything secret in the answer.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::json;

use super::problem::Problem;
use super::{Answer, Api};
use crate::jwks::jwks;

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200)))]
pub(super) async fn healthz() -> Answer {
    Ok(Json(json!({ "status": "ok" })).into_response())
}

/// Whether the process can do its work: the store answers, and what is committed gets published.
#[utoipa::path(get, path = "/readyz", tag = "health", responses((status = 200), (status = 503)))]
pub(super) async fn readyz(State(api): State<Api>) -> Answer {
    if api.stop.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "STOPPING", "the process is stopping").into());
    }
    api.store.last_revision().await?;
    let status = api.publisher.status();
    if status.unpublished.is_some() {
        let message = "committed changes are not published; see /api/v1/status";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "UNPUBLISHED", message).into());
    }
    Ok(Json(json!({ "status": "ok", "revision": status.revision })).into_response())
}

/// What Prometheus scrapes.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, content_type = "text/plain")))]
pub(super) async fn metrics(State(api): State<Api>) -> Answer {
    let text = api.metrics.gather(&api.store, &api.publisher, &api.feed).await;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// The public keys that verify `X-Tenant-Context` (RFC 7517). `Cache-Control` says how long they may be kept: a new key
/// is here for longer than that before it signs.
#[utoipa::path(get, path = "/.well-known/schoolgate/jwks.json", tag = "health", responses((status = 200)))]
pub(super) async fn keys(State(api): State<Api>) -> Answer {
    let cache = [(CACHE_CONTROL, api.context_keys.cache_control())];
    Ok((cache, Json(jwks(&api.store.head().table))).into_response())
}
