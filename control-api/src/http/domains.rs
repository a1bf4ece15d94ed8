//! `domains`.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use schoolgate_config::model::DomainName;

use super::params::Params;
use super::problem::Problem;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer, object};
use crate::background::CheckRefusal;
use crate::operation::domains::instructions::Instructions;
use crate::operation::domains::transfer::{self, TransferAnswer, TransferInput};
use crate::operation::domains::{self, DomainInput, DomainPatch, DomainView};
use crate::operation::json;
use crate::operation::permission::{Operator, Subject};
use crate::operation::tenants::TenantKey;

pub(super) fn name(text: &str) -> Result<DomainName, Problem> {
    let unknown = |_| Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such domain");
    DomainName::parse(text).map_err(unknown)
}

/// Domains, in alphabetical order.
#[utoipa::path(get, path = "/api/v1/domains", tag = "domains",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("search" = Option<String>, Query, description = "Text in the name"),
        ("tenant" = Option<String>, Query, description = "Of this tenant: `tnt_…` or a slug"),
    ),
    responses((status = 200, body = ListAnswer<DomainView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let mut query = params.list::<DomainName>()?;
    let tenant = params.take("tenant")?;
    params.finish()?;
    if let Some(tenant) = tenant {
        query.tenant = Some(TenantKey::parse_field(&tenant)?.find(&api.store).await?.value.id);
    }
    Ok(ListAnswer::of(api.reading().list(&operator, query).await?))
}

/// Adds a domain to a tenant.
#[utoipa::path(post, path = "/api/v1/domains", tag = "domains", request_body = DomainInput,
    responses((status = 201, body = DomainView)))]
pub(super) async fn create(State(api): State<Api>, request: WriteRequest) -> Answer {
    let (mut writing, body) = request.begin(&api).await?;
    let done = domains::create(&mut writing.work, &body).await?;
    writing.finish(done).await
}

/// One domain: whether it is ready, and what is in the way.
#[utoipa::path(get, path = "/api/v1/domains/{name}", tag = "domains", params(("name" = String, Path)),
    responses((status = 200, body = DomainView)))]
pub(super) async fn get(
    State(api): State<Api>,
    operator: Operator,
    Path(text): Path<String>,
    params: Params,
) -> Answer {
    params.finish()?;
    let (version, view) = api.reading().get(&operator, &name(&text)?).await?;
    Ok(object(&json(&view), version))
}

/// Changes a domain.
#[utoipa::path(patch, path = "/api/v1/domains/{name}", tag = "domains", request_body = DomainPatch,
    params(("name" = String, Path)), responses((status = 200, body = DomainView)))]
pub(super) async fn patch(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let name = name(&text)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = domains::patch(&mut writing.work, &name, &body).await?;
    writing.finish(done).await
}

/// Removes a domain and its certificate.
#[utoipa::path(delete, path = "/api/v1/domains/{name}", tag = "domains", params(("name" = String, Path)),
    responses((status = 204)))]
pub(super) async fn delete(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let name = name(&text)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = domains::delete(&mut writing.work, &name).await?;
    writing.finish(done).await
}

/// Makes a domain the main name of its tenant.
#[utoipa::path(post, path = "/api/v1/domains/{name}/make-primary", tag = "domains", params(("name" = String, Path)),
    responses((status = 200, body = DomainView)))]
pub(super) async fn make_primary(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let name = name(&text)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = domains::make_primary(&mut writing.work, &name).await?;
    writing.finish(done).await
}

/// Looks at a domain's DNS now, and shows what is in the way; at most every ten seconds.
#[utoipa::path(post, path = "/api/v1/domains/{name}/check", tag = "domains", params(("name" = String, Path)),
    responses((status = 200, body = DomainView)))]
pub(super) async fn check(
    State(api): State<Api>,
    operator: Operator,
    Path(text): Path<String>,
    params: Params,
) -> Answer {
    params.finish()?;
    let name = name(&text)?;
    let tenant = api.reading().owner(&operator, &name).await?;
    operator.may_with(Subject::Domains.write(), tenant)?;
    api.domain_checks.check_now(&name).await?;
    let (version, view) = api.reading().get(&operator, &name).await?;
    Ok(object(&json(&view), version))
}

/// Looks for the proof of a domain's ownership now: the same as `check`.
#[utoipa::path(post, path = "/api/v1/domains/{name}/verify", tag = "domains", params(("name" = String, Path)),
    responses((status = 200, body = DomainView)))]
pub(super) async fn verify(state: State<Api>, operator: Operator, path: Path<String>, params: Params) -> Answer {
    check(state, operator, path, params).await
}

/// What the people of a domain's DNS are told to set: as JSON, as lines of a BIND zone file, or as a letter.
#[utoipa::path(get, path = "/api/v1/domains/{name}/instructions", tag = "domains",
    params(
        ("name" = String, Path),
        ("format" = Option<String>, Query, description = "`json` (if not given), `bind` or `text`"),
    ),
    responses((status = 200, body = Instructions)))]
pub(super) async fn instructions(
    State(api): State<Api>,
    operator: Operator,
    Path(text): Path<String>,
    mut params: Params,
) -> Answer {
    let format = params.take("format")?;
    params.finish()?;
    let instructions = api.reading().instructions(&operator, &name(&text)?).await?;
    let text = match format.as_deref() {
        None | Some("json") => return Ok(axum::Json(instructions).into_response()),
        Some("bind") => instructions.bind(),
        Some("text") => instructions.letter(),
        Some(_) => return Err(Problem::bad_request("the parameter format: expected json, bind or text").into()),
    };
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// Asks for another tenant's domain: gives the record that proves it. A working domain moves three days after the proof.
#[utoipa::path(post, path = "/api/v1/domains/{name}/transfer", tag = "domains", request_body = TransferInput,
    params(("name" = String, Path)), responses((status = 200, body = TransferAnswer)))]
pub(super) async fn transfer(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let name = name(&text)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = transfer::request(&mut writing.work, &name, &body).await?;
    writing.finish(done).await
}

/// Withdraws the request for a domain.
#[utoipa::path(delete, path = "/api/v1/domains/{name}/transfer", tag = "domains", params(("name" = String, Path)),
    responses((status = 204)))]
pub(super) async fn withdraw_transfer(
    State(api): State<Api>,
    Path(text): Path<String>,
    request: WriteRequest,
) -> Answer {
    let name = name(&text)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = transfer::withdraw(&mut writing.work, &name).await?;
    writing.finish(done).await
}

impl From<CheckRefusal> for Problem {
    fn from(refusal: CheckRefusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            CheckRefusal::TooSoon { after_s, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", message).retry_after(after_s)
            }
            CheckRefusal::Refused(refusal) => refusal.into(),
        }
    }
}
