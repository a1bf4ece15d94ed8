//! `tenants/{tenant}/limits` and `tenants/{tenant}/overrides`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;

use schoolgate_config::limits::EffectiveLimit;

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api};
use crate::operation::limits::{self, LimitsView, OverrideInput};
use crate::operation::permission::Operator;
use crate::operation::tenants::TenantKey;

/// Every limit of a tenant: what holds now, and whether it comes from the plan, an override or the platform's cap.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/limits", tag = "tenants",
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 200, body = LimitsView)))]
pub(super) async fn show(
    State(api): State<Api>,
    operator: Operator,
    Path(key): Path<String>,
    params: Params,
) -> Answer {
    params.finish()?;
    let key = TenantKey::parse(&key)?;
    let view = limits::show(&api.store, &api.platform.caps, &operator, &key, api.clock.unix_ms()).await?;
    Ok(Json(view).into_response())
}

/// Puts a value in the place of a limit for a while: an exam week, a results day. It ends by itself.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/overrides/{limit}", tag = "tenants", request_body = OverrideInput,
    params(
        ("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`"),
        ("limit" = String, Path, description = "The limit, such as `requests_per_minute`"),
    ),
    responses((status = 200, body = EffectiveLimit)))]
pub(super) async fn put(
    State(api): State<Api>,
    Path((key, limit)): Path<(String, String)>,
    request: WriteRequest,
) -> Answer {
    let key = TenantKey::parse(&key)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = limits::put(&mut writing.work, &key, &limit, &body).await?;
    writing.finish(done).await
}

/// Takes an override away: the plan's limit holds again.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/overrides/{limit}", tag = "tenants",
    params(
        ("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`"),
        ("limit" = String, Path, description = "The limit, such as `requests_per_minute`"),
    ),
    responses((status = 204)))]
pub(super) async fn clear(
    State(api): State<Api>,
    Path((key, limit)): Path<(String, String)>,
    request: WriteRequest,
) -> Answer {
    let key = TenantKey::parse(&key)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = limits::clear(&mut writing.work, &key, &limit).await?;
    writing.finish(done).await
}
