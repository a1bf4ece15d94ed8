//! `routes`.

use axum::extract::{Path, State};

use schoolgate_config::model::{Route, RouteId};

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer, resource};
use crate::operation::permission::Operator;
use crate::operation::routes::{RouteInput, RouteView};
use crate::operation::tenants::TenantKey;

/// Routes, in the order they were made.
#[utoipa::path(get, path = "/api/v1/routes", tag = "routes",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("search" = Option<String>, Query, description = "Text in the name"),
        ("tenant" = Option<String>, Query, description = "Of this tenant: `tnt_…` or a slug"),
        ("pool" = Option<String>, Query, description = "Of this pool"),
    ),
    responses((status = 200, body = ListAnswer<RouteView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let mut query = params.list::<RouteId>()?;
    query.pool = params.parse("pool")?;
    if let Some(tenant) = params.take("tenant")? {
        query.tenant = Some(TenantKey::parse_field(&tenant)?.find(&api.store).await?.value.id);
    }
    params.finish()?;
    resource::find::<Route>(&api, &operator, &query).await
}

/// Makes a route.
#[utoipa::path(post, path = "/api/v1/routes", tag = "routes", request_body = RouteInput,
    responses((status = 201, body = RouteView)))]
pub(super) async fn create(State(api): State<Api>, request: WriteRequest) -> Answer {
    resource::create::<Route>(&api, request).await
}

/// One route.
#[utoipa::path(get, path = "/api/v1/routes/{route}", tag = "routes", params(("route" = String, Path)),
    responses((status = 200, body = RouteView)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, Path(key): Path<String>, params: Params) -> Answer {
    resource::get::<Route>(&api, &operator, &key, params).await
}

/// Replaces a route.
#[utoipa::path(put, path = "/api/v1/routes/{route}", tag = "routes", request_body = RouteInput,
    params(("route" = String, Path)), responses((status = 200, body = RouteView)))]
pub(super) async fn replace(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::replace::<Route>(&api, &key, request).await
}

/// Changes some fields of a route (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/routes/{route}", tag = "routes", request_body = RouteInput,
    params(("route" = String, Path)), responses((status = 200, body = RouteView)))]
pub(super) async fn patch(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::patch::<Route>(&api, &key, request).await
}

/// Removes a route that nothing needs.
#[utoipa::path(delete, path = "/api/v1/routes/{route}", tag = "routes", params(("route" = String, Path)),
    responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::delete::<Route>(&api, &key, request).await
}
