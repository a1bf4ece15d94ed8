//! `pools`.

use axum::extract::{Path, State};

use schoolgate_config::model::{BackendId, BackendState, Pool};

use super::params::Params;
use super::resource::{self, key};
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer, object};
use crate::operation::Refusal;
use crate::operation::backends::{self, BackendPatch, BackendView};
use crate::operation::client_certificate::{self, ClientCertificateInput};
use crate::operation::json;
use crate::operation::maintenance::{self, MaintenanceInput};
use crate::operation::permission::Operator;
use crate::operation::pools::{BackendInput, PoolInput, PoolView};

/// Pools with their backends, in alphabetical order.
#[utoipa::path(get, path = "/api/v1/pools", tag = "pools",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("search" = Option<String>, Query, description = "Text in the name"),
    ),
    responses((status = 200, body = ListAnswer<PoolView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    resource::list::<Pool>(&api, &operator, params).await
}

/// Makes a pool.
#[utoipa::path(post, path = "/api/v1/pools", tag = "pools", request_body = PoolInput,
    responses((status = 201, body = PoolView)))]
pub(super) async fn create(State(api): State<Api>, request: WriteRequest) -> Answer {
    resource::create::<Pool>(&api, request).await
}

/// One pool.
#[utoipa::path(get, path = "/api/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path)),
    responses((status = 200, body = PoolView)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, Path(key): Path<String>, params: Params) -> Answer {
    resource::get::<Pool>(&api, &operator, &key, params).await
}

/// Replaces a pool.
#[utoipa::path(put, path = "/api/v1/pools/{pool}", tag = "pools", request_body = PoolInput,
    params(("pool" = String, Path)), responses((status = 200, body = PoolView)))]
pub(super) async fn replace(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::replace::<Pool>(&api, &key, request).await
}

/// Changes some fields of a pool (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/pools/{pool}", tag = "pools", request_body = PoolInput,
    params(("pool" = String, Path)), responses((status = 200, body = PoolView)))]
pub(super) async fn patch(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::patch::<Pool>(&api, &key, request).await
}

/// Removes a pool that nothing needs.
#[utoipa::path(delete, path = "/api/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path)),
    responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::delete::<Pool>(&api, &key, request).await
}

fn backend(text: &str) -> Result<BackendId, Refusal> {
    text.parse().map_err(|_| Refusal::not_found("backend"))
}

/// The backends of a pool.
#[utoipa::path(get, path = "/api/v1/pools/{pool}/backends", tag = "pools", params(("pool" = String, Path)),
    responses((status = 200, body = ListAnswer<BackendView>)))]
pub(super) async fn backends(
    State(api): State<Api>,
    operator: Operator,
    Path(pool): Path<String>,
    params: Params,
) -> Answer {
    params.finish()?;
    let (_, views) = backends::list(&api.store, &operator, &key::<Pool>(&pool)?).await?;
    Ok(ListAnswer::whole(views))
}

/// Adds a backend to a pool.
#[utoipa::path(post, path = "/api/v1/pools/{pool}/backends", tag = "pools", request_body = BackendInput,
    params(("pool" = String, Path)), responses((status = 201, body = BackendView)))]
pub(super) async fn add_backend(State(api): State<Api>, Path(pool): Path<String>, request: WriteRequest) -> Answer {
    let pool = key::<Pool>(&pool)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = backends::add(&mut writing.work, &pool, &body).await?;
    writing.finish(done).await
}

/// One backend.
#[utoipa::path(get, path = "/api/v1/pools/{pool}/backends/{backend}", tag = "pools",
    params(("pool" = String, Path), ("backend" = String, Path)), responses((status = 200, body = BackendView)))]
pub(super) async fn get_backend(
    State(api): State<Api>,
    operator: Operator,
    Path((pool, id)): Path<(String, String)>,
    params: Params,
) -> Answer {
    params.finish()?;
    let (pool, view) = backends::get(&api.store, &operator, &key::<Pool>(&pool)?, backend(&id)?).await?;
    Ok(object(&json(&view), pool.version))
}

/// Changes weight or state of a backend.
#[utoipa::path(patch, path = "/api/v1/pools/{pool}/backends/{backend}", tag = "pools", request_body = BackendPatch,
    params(("pool" = String, Path), ("backend" = String, Path)), responses((status = 200, body = BackendView)))]
pub(super) async fn patch_backend(
    State(api): State<Api>,
    Path((pool, id)): Path<(String, String)>,
    request: WriteRequest,
) -> Answer {
    let (pool, id) = (key::<Pool>(&pool)?, backend(&id)?);
    let (mut writing, body) = request.begin(&api).await?;
    let done = backends::patch(&mut writing.work, &pool, id, &body).await?;
    writing.finish(done).await
}

/// Takes a backend out of its pool.
#[utoipa::path(delete, path = "/api/v1/pools/{pool}/backends/{backend}", tag = "pools",
    params(("pool" = String, Path), ("backend" = String, Path)), responses((status = 204)))]
pub(super) async fn remove_backend(
    State(api): State<Api>,
    Path((pool, id)): Path<(String, String)>,
    request: WriteRequest,
) -> Answer {
    let (pool, id) = (key::<Pool>(&pool)?, backend(&id)?);
    let (mut writing, _) = request.begin(&api).await?;
    let done = backends::remove(&mut writing.work, &pool, id).await?;
    writing.finish(done).await
}

/// Gives a backend no new requests; those in flight finish.
#[utoipa::path(post, path = "/api/v1/pools/{pool}/backends/{backend}/drain", tag = "pools",
    params(("pool" = String, Path), ("backend" = String, Path)), responses((status = 200, body = BackendView)))]
pub(super) async fn drain(State(api): State<Api>, Path(path): Path<(String, String)>, request: WriteRequest) -> Answer {
    put_into(&api, &path, request, BackendState::Draining).await
}

/// Gives a backend new requests again.
#[utoipa::path(post, path = "/api/v1/pools/{pool}/backends/{backend}/undrain", tag = "pools",
    params(("pool" = String, Path), ("backend" = String, Path)), responses((status = 200, body = BackendView)))]
pub(super) async fn undrain(
    State(api): State<Api>,
    Path(path): Path<(String, String)>,
    request: WriteRequest,
) -> Answer {
    put_into(&api, &path, request, BackendState::Active).await
}

/// Answers visitors of all tenants on a pool with 503 `TENANT_MAINTENANCE`: at once, or from `starts_at` on; until
/// `ends_at`, or until it is resumed.
#[utoipa::path(post, path = "/api/v1/pools/{pool}/maintenance", tag = "pools", request_body = Option<MaintenanceInput>,
    params(("pool" = String, Path)), responses((status = 200, body = PoolView)))]
pub(super) async fn maintenance(State(api): State<Api>, Path(pool): Path<String>, request: WriteRequest) -> Answer {
    let pool = key::<Pool>(&pool)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = maintenance::begin(&mut writing.work, &pool, &body).await?;
    writing.finish(done).await
}

/// Serves visitors of a pool's tenants again, and forgets a window that has not begun.
#[utoipa::path(post, path = "/api/v1/pools/{pool}/resume", tag = "pools",
    params(("pool" = String, Path)), responses((status = 200, body = PoolView)))]
pub(super) async fn resume(State(api): State<Api>, Path(pool): Path<String>, request: WriteRequest) -> Answer {
    let pool = key::<Pool>(&pool)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = maintenance::end(&mut writing.work, &pool).await?;
    writing.finish(done).await
}

async fn put_into(api: &Api, (pool, id): &(String, String), request: WriteRequest, state: BackendState) -> Answer {
    let (pool, id) = (key::<Pool>(pool)?, backend(id)?);
    let (mut writing, _) = request.begin(api).await?;
    let done = backends::set_state(&mut writing.work, &pool, id, state).await?;
    writing.finish(done).await
}

/// Sets what a pool shows to backends that ask who we are. The key is sealed, and never shown again.
#[utoipa::path(put, path = "/api/v1/pools/{pool}/client-certificate", tag = "pools",
    request_body = ClientCertificateInput, params(("pool" = String, Path)), responses((status = 200, body = PoolView)))]
pub(super) async fn put_client_certificate(
    State(api): State<Api>,
    Path(pool): Path<String>,
    request: WriteRequest,
) -> Answer {
    let pool = key::<Pool>(&pool)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = client_certificate::put(&mut writing.work, api.context_keys.keeper(), &pool, &body).await?;
    writing.finish(done).await
}

/// Shows nothing to backends any more.
#[utoipa::path(delete, path = "/api/v1/pools/{pool}/client-certificate", tag = "pools", params(("pool" = String, Path)),
    responses((status = 200, body = PoolView), (status = 404)))]
pub(super) async fn remove_client_certificate(
    State(api): State<Api>,
    Path(pool): Path<String>,
    request: WriteRequest,
) -> Answer {
    let pool = key::<Pool>(&pool)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = client_certificate::delete(&mut writing.work, &pool).await?;
    writing.finish(done).await
}
