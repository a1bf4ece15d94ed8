//! What every kind of object that an operator writes whole has: list, create, read, replace, patch, delete.
//!
//! A handler of a kind is its line in the OpenAPI document and a call of these.

use axum::response::Response;

use schoolgate_store::{ListQuery, Page, Stored};

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer, object};
use crate::operation::Refusal;
use crate::operation::edit::{self, Resource};
use crate::operation::permission::Operator;

/// The key in a path.
///
/// # Errors
/// [`Refusal::NotFound`]: what is no key names nothing.
pub(super) fn key<R: Resource>(text: &str) -> Result<R::Key, Refusal> {
    text.parse().map_err(|_| Refusal::not_found(R::KIND.as_str()))
}

/// A part of a list as the API shows it.
pub(super) fn shown<R: Resource>(api: &Api, page: Page<Stored<R>>) -> Response {
    let head = api.store.head();
    let items = page.items.iter().map(|stored| R::view(stored, &head.table)).collect();
    ListAnswer::of(Page { items, next: page.next })
}

/// Lists what a query asks for.
pub(super) async fn find<R: Resource>(api: &Api, operator: &Operator, query: &ListQuery) -> Answer {
    Ok(shown(api, edit::list::<R>(&api.store, operator, query).await?))
}

/// Lists.
pub(super) async fn list<R: Resource>(api: &Api, operator: &Operator, mut params: Params) -> Answer {
    let query = params.list::<R::Key>()?;
    params.finish()?;
    find::<R>(api, operator, &query).await
}

/// Makes one.
pub(super) async fn create<R: Resource>(api: &Api, request: WriteRequest) -> Answer {
    let (mut writing, body) = request.begin(api).await?;
    let done = edit::create::<R>(&mut writing.work, &body).await?;
    writing.finish(done).await
}

/// Shows one.
pub(super) async fn get<R: Resource>(api: &Api, operator: &Operator, text: &str, params: Params) -> Answer {
    params.finish()?;
    let found = edit::get::<R>(&api.store, operator, &key::<R>(text)?).await?;
    Ok(object(&R::view(&found, &api.store.head().table), found.version))
}

/// Replaces one.
pub(super) async fn replace<R: Resource>(api: &Api, text: &str, request: WriteRequest) -> Answer {
    let key = key::<R>(text)?;
    let (mut writing, body) = request.begin(api).await?;
    let done = edit::replace::<R>(&mut writing.work, &key, &body).await?;
    writing.finish(done).await
}

/// Changes some fields of one (RFC 7396).
pub(super) async fn patch<R: Resource>(api: &Api, text: &str, request: WriteRequest) -> Answer {
    let key = key::<R>(text)?;
    let (mut writing, body) = request.begin(api).await?;
    let done = edit::patch::<R>(&mut writing.work, &key, &body).await?;
    writing.finish(done).await
}

/// Removes one.
pub(super) async fn delete<R: Resource>(api: &Api, text: &str, request: WriteRequest) -> Answer {
    let key = key::<R>(text)?;
    let (mut writing, _) = request.begin(api).await?;
    let done = edit::delete::<R>(&mut writing.work, &key).await?;
    writing.finish(done).await
}
