//! `plans`.

use axum::extract::{Path, State};

use schoolgate_config::model::{Plan, PlanId};

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer, object};
use crate::operation::Refusal;
use crate::operation::edit::{self, Resource};
use crate::operation::permission::Operator;
use crate::operation::plans::{PlanInput, PlanView};

fn key(text: &str) -> Result<PlanId, Refusal> {
    text.parse().map_err(|_| Refusal::not_found("plan"))
}

/// Plans, in alphabetical order.
#[utoipa::path(get, path = "/api/v1/plans", tag = "plans",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("search" = Option<String>, Query, description = "Text in the name"),
    ),
    responses((status = 200, body = ListAnswer<PlanView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let query = params.list()?;
    params.finish()?;
    let page = edit::list::<Plan>(&api.store, &operator, &query).await?;
    let head = api.store.head();
    let items = page.items.iter().map(|stored| Plan::view(stored, &head.table)).collect();
    Ok(ListAnswer::of(schoolgate_store::Page { items, next: page.next }))
}

/// Makes a plan.
#[utoipa::path(post, path = "/api/v1/plans", tag = "plans", request_body = PlanInput,
    responses((status = 201, body = PlanView)))]
pub(super) async fn create(State(api): State<Api>, request: WriteRequest) -> Answer {
    let (mut writing, body) = request.begin(&api).await?;
    let done = edit::create::<Plan>(&mut writing.work, &body).await?;
    writing.finish(done).await
}

/// One plan.
#[utoipa::path(get, path = "/api/v1/plans/{plan}", tag = "plans", params(("plan" = String, Path)),
    responses((status = 200, body = PlanView)))]
pub(super) async fn get(
    State(api): State<Api>,
    operator: Operator,
    Path(text): Path<String>,
    params: Params,
) -> Answer {
    params.finish()?;
    let found = edit::get::<Plan>(&api.store, &operator, &key(&text)?).await?;
    Ok(object(Plan::view(&found, &api.store.head().table), found.version))
}

/// Replaces a plan.
#[utoipa::path(put, path = "/api/v1/plans/{plan}", tag = "plans", request_body = PlanInput,
    params(("plan" = String, Path)), responses((status = 200, body = PlanView)))]
pub(super) async fn replace(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let key = key(&text)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = edit::replace::<Plan>(&mut writing.work, &key, &body).await?;
    writing.finish(done).await
}

/// Changes some fields of a plan (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/plans/{plan}", tag = "plans", request_body = PlanInput,
    params(("plan" = String, Path)), responses((status = 200, body = PlanView)))]
pub(super) async fn patch(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let key = key(&text)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = edit::patch::<Plan>(&mut writing.work, &key, &body).await?;
    writing.finish(done).await
}

/// Removes a plan that nothing needs.
#[utoipa::path(delete, path = "/api/v1/plans/{plan}", tag = "plans", params(("plan" = String, Path)),
    responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let key = key(&text)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = edit::delete::<Plan>(&mut writing.work, &key).await?;
    writing.finish(done).await
}
