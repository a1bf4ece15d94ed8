//! Every route of the app in one list, and what all of them pass.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::error;

use crate::api::{classes, live, students, whoami};
use crate::context::Verifier;
use crate::context::admission::admit;
use crate::context::keys::KeyRing;
use crate::pages;
use crate::problem::{Problem, render};
use crate::store::Schools;

/// What handlers share: nothing that another instance would miss.
pub(crate) struct App {
    pub(crate) schools: Arc<Schools>,
    pub(crate) keys: Arc<KeyRing>,
    /// The address this instance listens on; how people tell instances apart.
    pub(crate) instance: String,
    /// Cancelled when the instance stops.
    pub(crate) stopping: CancellationToken,
    /// Open WebSockets, which outlive their request.
    pub(crate) sockets: TaskTracker,
}

/// The app. Only the two probes are outside [`admit`]; what does not exist is inside, so a stranger cannot map the app.
pub(crate) fn router(app: Arc<App>, verifier: Arc<Verifier>) -> Router {
    let school = Router::new()
        .route("/", get(pages::home::show))
        .route("/students", get(pages::students::show).post(pages::students::enrol))
        .route("/classes", get(pages::classes::show))
        .route("/theme.css", get(pages::theme::css))
        .route("/assets/app.css", get(pages::asset::css))
        .route("/assets/favicon.svg", get(pages::asset::favicon))
        .route("/api/students", get(students::list).post(students::create))
        .route("/api/students/{id}", get(students::get))
        .route("/api/classes", get(classes::list))
        .route("/api/live", get(live::open))
        .route("/whoami", get(whoami::show))
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(verifier, admit));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback_service(school.with_state(Arc::clone(&app)))
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(render))
        .with_state(app)
}

/// The process answers.
async fn healthz() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// Requests can be verified, and the instance is not stopping.
async fn readyz(State(app): State<Arc<App>>) -> Response {
    if app.keys.is_empty() {
        app.keys.seek_any().await;
    }
    let keys = !app.keys.is_empty();
    let accepting = !app.stopping.is_cancelled();
    let (status, word) =
        if keys && accepting { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    (status, Json(json!({"status": word, "keys": keys, "accepting": accepting}))).into_response()
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    error!("a request made the app panic: {}", text.unwrap_or("no text"));
    Problem::internal().into_response()
}
