//! `sealing-keys`: the key-encryption key.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api};
use crate::operation::permission::Operator;
use crate::operation::sealing::{self, SealingView};

/// Which key seals, and how far a rotation is. Never a key.
#[utoipa::path(get, path = "/api/v1/sealing-keys", tag = "sealing-keys",
    responses((status = 200, body = SealingView)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    params.finish()?;
    Ok(Json(sealing::get(&api.store, &api.feed, &api.keeper, &operator).await?).into_response())
}

/// Begins a rotation. It goes on by itself: a new key reaches every proxy, everything is wrapped anew under it, and the
/// key before goes. Nobody is restarted, and no handshake fails.
#[utoipa::path(post, path = "/api/v1/sealing-keys/rotate", tag = "sealing-keys",
    responses((status = 200, body = SealingView), (status = 409)))]
pub(super) async fn rotate(State(api): State<Api>, request: WriteRequest) -> Answer {
    let (mut writing, body) = request.begin(&api).await?;
    let done = sealing::rotate(&mut writing.work, &api.feed, &api.keeper, &body).await?;
    writing.finish(done).await
}
