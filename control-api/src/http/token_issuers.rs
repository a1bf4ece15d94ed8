//! `token-issuers`.

use axum::extract::{Path, State};
use http::StatusCode;

use schoolgate_config::model::TokenIssuer;
use schoolgate_store::{Aggregate, KeyFetch, Page, Stored};

use super::params::Params;
use super::problem::Problem;
use super::resource::key;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer, Stop, object};
use crate::background::{KeySourceError, RefreshRefusal};
use crate::operation::edit;
use crate::operation::json;
use crate::operation::permission::{Operator, Subject};
use crate::operation::tenants::TenantKey;
use crate::operation::token_issuers::{self, TokenIssuerInput, TokenIssuerView};
use crate::operation::{Done, Refusal};

/// Issuers of tokens that name schools, in alphabetical order.
#[utoipa::path(get, path = "/api/v1/token-issuers", tag = "token-issuers",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("search" = Option<String>, Query, description = "Text in the name"),
        ("tenant" = Option<String>, Query, description = "Those that speak for this tenant only: `tnt_…` or a slug"),
    ),
    responses((status = 200, body = ListAnswer<TokenIssuerView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let mut query = params.list::<schoolgate_config::model::IssuerId>()?;
    let tenant = params.take("tenant")?;
    params.finish()?;
    if let Some(tenant) = tenant {
        query.tenant = Some(TenantKey::parse_field(&tenant)?.find(&api.store).await?.value.id);
    }
    let page = edit::list::<TokenIssuer>(&api.store, &operator, &query).await?;
    let fetches = api.store.key_fetches().await?;
    let items = page.items.iter().map(|stored| shown(&api, stored, &fetches)).collect();
    Ok(ListAnswer::of(Page { items, next: page.next }))
}

fn shown(api: &Api, stored: &Stored<TokenIssuer>, fetches: &[KeyFetch]) -> TokenIssuerView {
    let fetch = fetches.iter().find(|fetch| fetch.issuer == stored.value.id);
    token_issuers::view(stored, fetch, &api.store.head().table)
}

/// Makes an issuer. Keys that are to be fetched are not there yet when this answers.
#[utoipa::path(post, path = "/api/v1/token-issuers", tag = "token-issuers", request_body = TokenIssuerInput,
    responses((status = 201, body = TokenIssuerView)))]
pub(super) async fn create(State(api): State<Api>, request: WriteRequest) -> Answer {
    super::resource::create::<TokenIssuer>(&api, request).await
}

/// One issuer, with its keys and how reading them went.
#[utoipa::path(get, path = "/api/v1/token-issuers/{issuer}", tag = "token-issuers", params(("issuer" = String, Path)),
    responses((status = 200, body = TokenIssuerView)))]
pub(super) async fn get(
    State(api): State<Api>,
    operator: Operator,
    Path(text): Path<String>,
    params: Params,
) -> Answer {
    params.finish()?;
    let found = edit::get::<TokenIssuer>(&api.store, &operator, &key::<TokenIssuer>(&text)?).await?;
    let fetches = api.store.key_fetches().await?;
    Ok(object(&json(&shown(&api, &found, &fetches)), found.version))
}

/// Replaces an issuer. With a new source of keys, those it has stay until the source has answered.
#[utoipa::path(put, path = "/api/v1/token-issuers/{issuer}", tag = "token-issuers", request_body = TokenIssuerInput,
    params(("issuer" = String, Path)), responses((status = 200, body = TokenIssuerView)))]
pub(super) async fn replace(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let key = key::<TokenIssuer>(&text)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = edit::replace::<TokenIssuer>(&mut writing.work, &key, &body).await?;
    writing.finish(with_fetch(&api, done).await?).await
}

/// Changes some fields of an issuer (RFC 7396). With a new source of keys, those it has stay until the source has answered.
#[utoipa::path(patch, path = "/api/v1/token-issuers/{issuer}", tag = "token-issuers", request_body = TokenIssuerInput,
    params(("issuer" = String, Path)), responses((status = 200, body = TokenIssuerView)))]
pub(super) async fn patch(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let key = key::<TokenIssuer>(&text)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = edit::patch::<TokenIssuer>(&mut writing.work, &key, &body).await?;
    writing.finish(with_fetch(&api, done).await?).await
}

/// Removes an issuer: its tokens are a stranger's from then on.
#[utoipa::path(delete, path = "/api/v1/token-issuers/{issuer}", tag = "token-issuers",
    params(("issuer" = String, Path)), responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    super::resource::delete::<TokenIssuer>(&api, &text, request).await
}

/// Reads an issuer's keys now; at most every ten seconds.
#[utoipa::path(post, path = "/api/v1/token-issuers/{issuer}/refresh", tag = "token-issuers",
    params(("issuer" = String, Path)), responses((status = 200, body = TokenIssuerView)))]
pub(super) async fn refresh(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    request.operator.may_everywhere(Subject::TokenIssuers.write())?;
    let key = key::<TokenIssuer>(&text)?;
    let found = api.store.get::<TokenIssuer>(&key).await?;
    let issuer = found.ok_or_else(|| Refusal::not_found(&TokenIssuer::object_key(&key).to_string()))?.value;
    // Before the transaction: nobody else's write waits for somebody's server.
    let keys = api.keys.read_now(&issuer).await?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = token_issuers::refresh(&mut writing.work, &key, &issuer.source, keys).await?;
    writing.finish(with_fetch(&api, done).await?).await
}

/// What was written, with how reading the keys went.
async fn with_fetch(api: &Api, mut done: Done) -> Result<Done, Stop> {
    let fetches = api.store.key_fetches().await?;
    if let Some(fetch) = fetches.iter().find(|fetch| done.object["id"] == fetch.issuer.as_str()) {
        token_issuers::show_fetch(&mut done.object, fetch);
    }
    Ok(done)
}

impl From<RefreshRefusal> for Problem {
    fn from(refusal: RefreshRefusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            RefreshRefusal::Inline(_) => Self::new(StatusCode::CONFLICT, "KEYS_GIVEN", message),
            RefreshRefusal::TooSoon { after_s, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", message).retry_after(after_s)
            }
            RefreshRefusal::Source {
                source: error @ (KeySourceError::Unreadable { .. } | KeySourceError::NotAFile { .. }),
                ..
            } => Self::new(StatusCode::CONFLICT, error.code(), message),
            RefreshRefusal::Source { source: error, .. } => Self::new(StatusCode::BAD_GATEWAY, error.code(), message),
            RefreshRefusal::Store(error) => error.into(),
        }
    }
}
