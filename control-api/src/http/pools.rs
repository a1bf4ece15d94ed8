//! `pools`.

use axum::extract::{Path, State};

use schoolgate_config::model::{BackendId, BackendState, Pool, PoolId};

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer, object};
use crate::operation::Refusal;
use crate::operation::backends::{self, BackendPatch, BackendView};
use crate::operation::edit::{self, Resource};
use crate::operation::json;
use crate::operation::permission::Operator;
use crate::operation::pools::{BackendInput, PoolInput, PoolView};

fn key(text: &str) -> Result<PoolId, Refusal> {
    text.parse().map_err(|_| Refusal::not_found("pool"))
}

/// Pools with their backends, in alphabetical order.
#[utoipa::path(get, path = "/api/v1/pools", tag = "pools",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("search" = Option<String>, Query, description = "Text in the name"),
    ),
    responses((status = 200, body = ListAnswer<PoolView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let query = params.list()?;
    params.finish()?;
    let page = edit::list::<Pool>(&api.store, &operator, &query).await?;
    let head = api.store.head();
    let items = page.items.iter().map(|stored| Pool::view(stored, &head.table)).collect();
    Ok(ListAnswer::of(schoolgate_store::Page { items, next: page.next }))
}

/// Makes a pool.
#[utoipa::path(post, path = "/api/v1/pools", tag = "pools", request_body = PoolInput,
    responses((status = 201, body = PoolView)))]
pub(super) async fn create(State(api): State<Api>, request: WriteRequest) -> Answer {
    let (mut writing, body) = request.begin(&api).await?;
    let done = edit::create::<Pool>(&mut writing.work, &body).await?;
    writing.finish(done).await
}

/// One pool.
#[utoipa::path(get, path = "/api/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path)),
    responses((status = 200, body = PoolView)))]
pub(super) async fn get(
    State(api): State<Api>,
    operator: Operator,
    Path(text): Path<String>,
    params: Params,
) -> Answer {
    params.finish()?;
    let found = edit::get::<Pool>(&api.store, &operator, &key(&text)?).await?;
    Ok(object(Pool::view(&found, &api.store.head().table), found.version))
}

/// Replaces a pool.
#[utoipa::path(put, path = "/api/v1/pools/{pool}", tag = "pools", request_body = PoolInput,
    params(("pool" = String, Path)), responses((status = 200, body = PoolView)))]
pub(super) async fn replace(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let key = key(&text)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = edit::replace::<Pool>(&mut writing.work, &key, &body).await?;
    writing.finish(done).await
}

/// Changes some fields of a pool (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/pools/{pool}", tag = "pools", request_body = PoolInput,
    params(("pool" = String, Path)), responses((status = 200, body = PoolView)))]
pub(super) async fn patch(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let key = key(&text)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = edit::patch::<Pool>(&mut writing.work, &key, &body).await?;
    writing.finish(done).await
}

/// Removes a pool that nothing needs.
#[utoipa::path(delete, path = "/api/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path)),
    responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let key = key(&text)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = edit::delete::<Pool>(&mut writing.work, &key).await?;
    writing.finish(done).await
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
    let (_, views) = backends::list(&api.store, &operator, &key(&pool)?).await?;
    Ok(ListAnswer::whole(views))
}

/// Adds a backend to a pool.
#[utoipa::path(post, path = "/api/v1/pools/{pool}/backends", tag = "pools", request_body = BackendInput,
    params(("pool" = String, Path)), responses((status = 201, body = BackendView)))]
pub(super) async fn add_backend(State(api): State<Api>, Path(pool): Path<String>, request: WriteRequest) -> Answer {
    let pool = key(&pool)?;
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
    let (pool, view) = backends::get(&api.store, &operator, &key(&pool)?, backend(&id)?).await?;
    Ok(object(json(&view), pool.version))
}

/// Changes weight or state of a backend.
#[utoipa::path(patch, path = "/api/v1/pools/{pool}/backends/{backend}", tag = "pools", request_body = BackendPatch,
    params(("pool" = String, Path), ("backend" = String, Path)), responses((status = 200, body = BackendView)))]
pub(super) async fn patch_backend(
    State(api): State<Api>,
    Path((pool, id)): Path<(String, String)>,
    request: WriteRequest,
) -> Answer {
    let (pool, id) = (key(&pool)?, backend(&id)?);
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
    let (pool, id) = (key(&pool)?, backend(&id)?);
    let (mut writing, _) = request.begin(&api).await?;
    let done = backends::remove(&mut writing.work, &pool, id).await?;
    writing.finish(done).await
}

/// Gives a backend no new requests; those in flight finish.
#[utoipa::path(post, path = "/api/v1/pools/{pool}/backends/{backend}/drain", tag = "pools",
    params(("pool" = String, Path), ("backend" = String, Path)), responses((status = 200, body = BackendView)))]
pub(super) async fn drain(
    State(api): State<Api>,
    Path((pool, id)): Path<(String, String)>,
    request: WriteRequest,
) -> Answer {
    let (pool, id) = (key(&pool)?, backend(&id)?);
    let (mut writing, _) = request.begin(&api).await?;
    let done = backends::set_state(&mut writing.work, &pool, id, BackendState::Draining).await?;
    writing.finish(done).await
}

/// Gives a backend new requests again.
#[utoipa::path(post, path = "/api/v1/pools/{pool}/backends/{backend}/undrain", tag = "pools",
    params(("pool" = String, Path), ("backend" = String, Path)), responses((status = 200, body = BackendView)))]
pub(super) async fn undrain(
    State(api): State<Api>,
    Path((pool, id)): Path<(String, String)>,
    request: WriteRequest,
) -> Answer {
    let (pool, id) = (key(&pool)?, backend(&id)?);
    let (mut writing, _) = request.begin(&api).await?;
    let done = backends::set_state(&mut writing.work, &pool, id, BackendState::Active).await?;
    writing.finish(done).await
}
