//! `maintenance` of the platform.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api};
use crate::operation::maintenance::{self, MaintenanceInput, PlatformMaintenance};
use crate::operation::permission::Operator;

/// Maintenance of the platform, under way or to come.
#[utoipa::path(get, path = "/api/v1/maintenance", tag = "maintenance",
    responses((status = 200, body = PlatformMaintenance)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    params.finish()?;
    let head = api.store.head();
    Ok(Json(maintenance::of_platform(&operator, &head.table, api.clock.unix_ms())?).into_response())
}

/// Answers visitors of all tenants with 503 `TENANT_MAINTENANCE`: at once, or from `starts_at` on; until `ends_at`, or until
/// it is deleted. Public routes are served all the same.
#[utoipa::path(put, path = "/api/v1/maintenance", tag = "maintenance", request_body = Option<MaintenanceInput>,
    responses((status = 200, body = PlatformMaintenance)))]
pub(super) async fn put(State(api): State<Api>, request: WriteRequest) -> Answer {
    let (mut writing, body) = request.begin(&api).await?;
    let done = maintenance::begin_everywhere(&mut writing.work, &body).await?;
    writing.finish(done).await
}

/// Serves visitors of all tenants again, and forgets a window that has not begun.
#[utoipa::path(delete, path = "/api/v1/maintenance", tag = "maintenance", responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, request: WriteRequest) -> Answer {
    let (mut writing, _) = request.begin(&api).await?;
    let done = maintenance::end_everywhere(&mut writing.work).await?;
    writing.finish(done).await
}
