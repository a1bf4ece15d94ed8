//! `context-keys`: the keys that sign `X-Tenant-Context`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer};
use crate::operation::context_keys::{self, ContextKeyView};
use crate::operation::permission::Operator;

/// The keys, oldest first. Never a private half.
#[utoipa::path(get, path = "/api/v1/context-keys", tag = "context-keys",
    responses((status = 200, body = ListAnswer<ContextKeyView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    params.finish()?;
    Ok(ListAnswer::whole(context_keys::list(&api.store, &operator, &api.context_keys)?))
}

/// One key.
#[utoipa::path(get, path = "/api/v1/context-keys/{kid}", tag = "context-keys", params(("kid" = String, Path)),
    responses((status = 200, body = ContextKeyView), (status = 404)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, Path(kid): Path<String>, params: Params) -> Answer {
    params.finish()?;
    Ok(Json(context_keys::get(&api.store, &operator, &api.context_keys, &kid)?).into_response())
}

/// Makes and publishes the next key. It signs by itself when every backend can know it, and the one before leaves when
/// the last token it signed is dead.
#[utoipa::path(post, path = "/api/v1/context-keys/rotate", tag = "context-keys",
    responses((status = 201, body = ContextKeyView), (status = 409)))]
pub(super) async fn rotate(State(api): State<Api>, request: WriteRequest) -> Answer {
    let (mut writing, body) = request.begin(&api).await?;
    let done = context_keys::rotate(&mut writing.work, &api.context_keys, &body).await?;
    writing.finish(done).await
}
