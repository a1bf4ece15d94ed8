//! `plans`.

use axum::extract::{Path, State};

use schoolgate_config::model::Plan;

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer, resource};
use crate::operation::permission::Operator;
use crate::operation::plans::{PlanInput, PlanView};

/// Plans, in alphabetical order.
#[utoipa::path(get, path = "/api/v1/plans", tag = "plans",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("search" = Option<String>, Query, description = "Text in the name"),
    ),
    responses((status = 200, body = ListAnswer<PlanView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    resource::list::<Plan>(&api, &operator, params).await
}

/// Makes a plan.
#[utoipa::path(post, path = "/api/v1/plans", tag = "plans", request_body = PlanInput,
    responses((status = 201, body = PlanView)))]
pub(super) async fn create(State(api): State<Api>, request: WriteRequest) -> Answer {
    resource::create::<Plan>(&api, request).await
}

/// One plan.
#[utoipa::path(get, path = "/api/v1/plans/{plan}", tag = "plans", params(("plan" = String, Path)),
    responses((status = 200, body = PlanView)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, Path(key): Path<String>, params: Params) -> Answer {
    resource::get::<Plan>(&api, &operator, &key, params).await
}

/// Replaces a plan.
#[utoipa::path(put, path = "/api/v1/plans/{plan}", tag = "plans", request_body = PlanInput,
    params(("plan" = String, Path)), responses((status = 200, body = PlanView)))]
pub(super) async fn replace(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::replace::<Plan>(&api, &key, request).await
}

/// Changes some fields of a plan (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/plans/{plan}", tag = "plans", request_body = PlanInput,
    params(("plan" = String, Path)), responses((status = 200, body = PlanView)))]
pub(super) async fn patch(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::patch::<Plan>(&api, &key, request).await
}

/// Removes a plan that nothing needs.
#[utoipa::path(delete, path = "/api/v1/plans/{plan}", tag = "plans", params(("plan" = String, Path)),
    responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, Path(key): Path<String>, request: WriteRequest) -> Answer {
    resource::delete::<Plan>(&api, &key, request).await
}
