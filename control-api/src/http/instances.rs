//! Instances that register themselves as backends.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use http::HeaderMap;

use schoolgate_config::model::BackendId;

use super::auth::Instance;
use super::write::{read_json, wait_applied};
use super::{Answer, Api};
use crate::operation::Refusal;
use crate::operation::instances::{self, FarewellView, InstanceInput, InstanceView};

/// Time that proxies have to learn that an instance goes: 4 s. It waits for that, and does not wait for ever.
const FAREWELL_WITHIN: Duration = Duration::from_secs(4);

/// An instance says where it listens: a backend of its pool from then on, as long as it says so every few seconds.
#[utoipa::path(post, path = "/internal/v1/backends", tag = "internal", request_body = InstanceInput,
    responses((status = 200, body = InstanceView)))]
pub(super) async fn register(
    State(api): State<Api>,
    Instance(caller): Instance,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let body = read_json(&headers, body).await?;
    Ok(Json(instances::register(&api.store, &caller, &api.platform.instances, &body).await?).into_response())
}

/// An instance says goodbye. Answered when every live proxy knows, so that nothing new comes.
#[utoipa::path(delete, path = "/internal/v1/backends/{backend}", tag = "internal",
    params(("backend" = String, Path)), responses((status = 200, body = FarewellView)))]
pub(super) async fn leave(State(api): State<Api>, Instance(caller): Instance, Path(backend): Path<String>) -> Answer {
    let backend = backend.parse::<BackendId>().map_err(|_| Refusal::not_found("instance"))?;
    let (mut view, change) = instances::leave(&api.store, &caller, backend).await?;
    view.applied = match change {
        Some(change) => wait_applied(&api, change, &[], FAREWELL_WITHIN).await?.applied,
        None => true,
    };
    Ok(Json(view).into_response())
}
