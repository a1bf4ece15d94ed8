//! `tenants`, their actions, and their domains.

use axum::extract::{Path, State};

use schoolgate_config::model::{DomainName, Tenant, TenantId};

use super::params::Params;
use super::problem::Problem;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer, object, resource};
use crate::operation::domains::DomainView;
use crate::operation::edit::Resource;
use crate::operation::maintenance::MaintenanceInput;
use crate::operation::permission::Operator;
use crate::operation::tenants::{self, Action, Reason, TenantInput, TenantKey, TenantView};

/// Tenants, in the order they were made.
#[utoipa::path(get, path = "/api/v1/tenants", tag = "tenants",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("search" = Option<String>, Query, description = "Text in slug, name or external id"),
        ("state" = Option<String>, Query, description = "In this state"),
        ("plan" = Option<String>, Query, description = "On this plan"),
        ("pool" = Option<String>, Query, description = "On this pool"),
    ),
    responses((status = 200, body = ListAnswer<TenantView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let mut query = params.list::<TenantId>()?;
    query.plan = params.parse("plan")?;
    query.pool = params.parse("pool")?;
    if let Some(state) = params.take("state")? {
        let state = serde_json::from_value(state.into());
        query.state = Some(state.map_err(|e| Problem::bad_request(format!("the parameter state: {e}")))?);
    }
    params.finish()?;
    Ok(resource::shown(&api, tenants::list(&api.store, &operator, &query).await?))
}

/// Makes a tenant.
#[utoipa::path(post, path = "/api/v1/tenants", tag = "tenants", request_body = TenantInput,
    responses((status = 201, body = TenantView)))]
pub(super) async fn create(State(api): State<Api>, request: WriteRequest) -> Answer {
    resource::create::<Tenant>(&api, request).await
}

/// Makes a tenant: the path that older scripts use.
#[utoipa::path(post, path = "/api/v1/tenants/create", tag = "tenants", request_body = TenantInput,
    responses((status = 201, body = TenantView)))]
pub(super) async fn create_alias(state: State<Api>, request: WriteRequest) -> Answer {
    create(state, request).await
}

/// One tenant, by `tnt_…`, `slug:greenhill` or `external:4711`.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 200, body = TenantView)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, Path(key): Path<String>, params: Params) -> Answer {
    params.finish()?;
    let found = tenants::get(&api.store, &operator, &TenantKey::parse(&key)?).await?;
    Ok(object(&Tenant::view(&found, &api.store.head().table), found.version))
}

/// Replaces a tenant.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}", tag = "tenants", request_body = TenantInput,
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 200, body = TenantView)))]
pub(super) async fn replace(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    let key = TenantKey::parse(&key)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = tenants::replace(&mut writing.work, &key, &body).await?;
    writing.finish(done).await
}

/// Changes some fields of a tenant (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/tenants/{tenant}", tag = "tenants", request_body = TenantInput,
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 200, body = TenantView)))]
pub(super) async fn patch(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    let key = TenantKey::parse(&key)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = tenants::patch(&mut writing.work, &key, &body).await?;
    writing.finish(done).await
}

/// Removes a tenant with its domains and routes.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    let key = TenantKey::parse(&key)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = tenants::delete(&mut writing.work, &key).await?;
    writing.finish(done).await
}

async fn act(api: Api, key: String, request: WriteRequest, action: Action) -> Answer {
    let key = TenantKey::parse(&key)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = tenants::act(&mut writing.work, &key, action, &body).await?;
    writing.finish(done).await
}

/// Refuses a tenant's visitors with 403 `TENANT_SUSPENDED`.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/suspend", tag = "tenants", request_body = Option<Reason>,
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 200, body = TenantView)))]
pub(super) async fn suspend(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    act(api, key, request, Action::Suspend).await
}

/// Serves a suspended tenant, or one in maintenance, again.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/resume", tag = "tenants", request_body = Option<Reason>,
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 200, body = TenantView)))]
pub(super) async fn resume(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    act(api, key, request, Action::Resume).await
}

/// Answers a tenant's visitors with 503 `TENANT_MAINTENANCE`: at once, or from `starts_at` on; until `ends_at`, or until
/// it is resumed.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/maintenance", tag = "tenants",
    request_body = Option<MaintenanceInput>,
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 200, body = TenantView)))]
pub(super) async fn maintenance(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    act(api, key, request, Action::Maintenance).await
}

/// Stops serving a tenant and keeps what is known of it; from outside it reads as unknown.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/archive", tag = "tenants", request_body = Option<Reason>,
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 200, body = TenantView)))]
pub(super) async fn archive(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    act(api, key, request, Action::Archive).await
}

/// Serves an archived tenant again.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/restore", tag = "tenants", request_body = Option<Reason>,
    params(("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`")),
    responses((status = 200, body = TenantView)))]
pub(super) async fn restore(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    act(api, key, request, Action::Restore).await
}

/// The domains of a tenant.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/domains", tag = "tenants",
    params(
        ("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`"),
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("search" = Option<String>, Query, description = "Text in the name"),
    ),
    responses((status = 200, body = ListAnswer<DomainView>)))]
pub(super) async fn domains(
    State(api): State<Api>,
    operator: Operator,
    Path(key): Path<String>,
    mut params: Params,
) -> Answer {
    let mut query = params.list::<DomainName>()?;
    params.finish()?;
    let tenant = tenants::get(&api.store, &operator, &TenantKey::parse(&key)?).await?;
    query.tenant = Some(tenant.value.id);
    Ok(ListAnswer::of(api.reading().list(&operator, query).await?))
}
