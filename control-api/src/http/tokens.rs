//! `tokens`.

use axum::extract::{Path, State};

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer};
use crate::operation::permission::Operator;
use crate::operation::tokens::{self, TokenInput, TokenView};

/// Tokens, oldest first, without their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", responses((status = 200, body = ListAnswer<TokenView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    params.finish()?;
    Ok(ListAnswer::whole(tokens::list(&api.store, &operator).await?))
}

/// Makes a token. Its secret is in this answer, and never again.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenInput,
    responses((status = 201, body = TokenView)))]
pub(super) async fn create(State(api): State<Api>, request: WriteRequest) -> Answer {
    let (mut writing, body) = request.without_key()?.begin(&api).await?;
    let done = tokens::create(&mut writing.work, &body).await?;
    writing.finish(done).await
}

/// Removes a token: what it opened is closed at once.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, Path(id): Path<String>, request: WriteRequest) -> Answer {
    let (mut writing, _) = request.begin(&api).await?;
    let done = tokens::delete(&mut writing.work, &id).await?;
    writing.finish(done).await
}
