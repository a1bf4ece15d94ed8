//! `operations`, and the action that begins one.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;

use schoolgate_store::{OperationId, OperationQuery, Page};

use super::params::{Params, unreadable_cursor};
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer};
use crate::operation::Refusal;
use crate::operation::json;
use crate::operation::operations::{self, MigrateInput, OperationView};
use crate::operation::permission::Operator;
use crate::operation::tenants::TenantKey;

fn key(text: &str) -> Result<OperationId, Refusal> {
    text.parse().map_err(|_| Refusal::not_found("operation"))
}

/// Moves a tenant to another plan, another pool, or both, share by share, while its visitors go on. Goes back by itself
/// when the new pool fails them.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/migrate", tag = "operations", request_body = MigrateInput,
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 202, body = OperationView)))]
pub(super) async fn migrate(State(api): State<Api>, Path(tenant): Path<String>, request: WriteRequest) -> Answer {
    let tenant = TenantKey::parse(&tenant)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = operations::migrate(&mut writing.work, &tenant, &body).await?;
    writing.finish(done).await
}

/// Operations, the latest first.
#[utoipa::path(get, path = "/api/v1/operations", tag = "operations",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("tenant" = Option<String>, Query, description = "Of this tenant: `tnt_…` or a slug"),
        ("state" = Option<String>, Query, description = "`running`, `reverting`, `succeeded`, `reverted` or `failed`"),
    ),
    responses((status = 200, body = ListAnswer<OperationView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let (cursor, limit) = params.paging()?;
    let before = cursor.map(|text| text.parse().map_err(|_| unreadable_cursor())).transpose()?;
    let mut query = OperationQuery { before, limit, ..OperationQuery::default() };
    query.state = params.parse("state")?;
    if let Some(tenant) = params.take("tenant")? {
        query.tenant = Some(TenantKey::parse_field(&tenant)?.find(&api.store).await?.value.id);
    }
    params.finish()?;
    let (views, next) = operations::list(&api.store, &operator, &query).await?;
    Ok(ListAnswer::of(Page { items: views.iter().map(json).collect(), next }))
}

/// One operation.
#[utoipa::path(get, path = "/api/v1/operations/{operation}", tag = "operations",
    params(("operation" = String, Path)), responses((status = 200, body = OperationView)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, Path(id): Path<String>, params: Params) -> Answer {
    params.finish()?;
    Ok(Json(operations::get(&api.store, &operator, key(&id)?).await?).into_response())
}

/// Asks for an operation to be undone. What it changed goes back as it was, which takes a moment: look at the operation.
#[utoipa::path(post, path = "/api/v1/operations/{operation}/cancel", tag = "operations",
    params(("operation" = String, Path)), responses((status = 200, body = OperationView)))]
pub(super) async fn cancel(State(api): State<Api>, Path(id): Path<String>, request: WriteRequest) -> Answer {
    let id = key(&id)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = operations::cancel(&mut writing.work, id).await?;
    writing.finish(done).await
}
