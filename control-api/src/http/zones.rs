//! `zones`.

use axum::extract::{Path, State};

use schoolgate_config::model::Zone;

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer, resource};
use crate::operation::permission::Operator;
use crate::operation::zones::{ZoneInput, ZoneView};

/// Zones of the platform, in alphabetical order.
#[utoipa::path(get, path = "/api/v1/zones", tag = "zones",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("search" = Option<String>, Query, description = "Text in the name"),
    ),
    responses((status = 200, body = ListAnswer<ZoneView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    resource::list::<Zone>(&api, &operator, params).await
}

/// Makes a zone.
#[utoipa::path(post, path = "/api/v1/zones", tag = "zones", request_body = ZoneInput,
    responses((status = 201, body = ZoneView)))]
pub(super) async fn create(State(api): State<Api>, request: WriteRequest) -> Answer {
    resource::create::<Zone>(&api, request).await
}

/// One zone.
#[utoipa::path(get, path = "/api/v1/zones/{zone}", tag = "zones", params(("zone" = String, Path)),
    responses((status = 200, body = ZoneView)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, Path(key): Path<String>, params: Params) -> Answer {
    resource::get::<Zone>(&api, &operator, &key, params).await
}

/// Replaces a zone.
#[utoipa::path(put, path = "/api/v1/zones/{zone}", tag = "zones", request_body = ZoneInput,
    params(("zone" = String, Path)), responses((status = 200, body = ZoneView)))]
pub(super) async fn replace(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::replace::<Zone>(&api, &key, request).await
}

/// Changes some fields of a zone (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/zones/{zone}", tag = "zones", request_body = ZoneInput,
    params(("zone" = String, Path)), responses((status = 200, body = ZoneView)))]
pub(super) async fn patch(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::patch::<Zone>(&api, &key, request).await
}

/// Removes a zone that nothing needs.
#[utoipa::path(delete, path = "/api/v1/zones/{zone}", tag = "zones", params(("zone" = String, Path)),
    responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::delete::<Zone>(&api, &key, request).await
}
