//! `certificates`: names that need one, and what they have.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::model::{DomainName, Fingerprint};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::rfc3339;
use schoolgate_store::{CertificateWant, Page};

use super::params::{Params, unreadable_cursor};
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer};
use crate::operation::certificates::{self, CertificateDetail, CertificateInput, RevocationInput};
use crate::operation::permission::{Operator, Subject};

/// A name that needs a certificate, as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CertificateView {
    /// The name: exact, or `*.zone`.
    name: String,
    /// `queued`, `issued` or `failing`.
    state: &'static str,
    /// The certificate it has.
    fingerprint: Option<Fingerprint>,
    /// Who issued that.
    issuer: Option<String>,
    /// Begin of its validity.
    #[schema(format = DateTime)]
    not_before: Option<String>,
    /// End of its validity.
    #[schema(format = DateTime)]
    not_after: Option<String>,
    /// One that was brought for it. While it is valid it serves, and the one above stands by.
    uploaded: Option<Fingerprint>,
    /// Failures since the last success.
    attempts: u32,
    /// When it is looked at again; of an issued one: when it is renewed.
    #[schema(format = DateTime)]
    next_attempt_at: String,
    /// Why the last attempt failed.
    error: Option<String>,
}

fn view(want: CertificateWant, table: &RoutingTable, uploaded: &[(String, Fingerprint)]) -> CertificateView {
    let about = want.fingerprint.as_ref().and_then(|f| table.certificate(f)).map(|c| &c.about);
    // Of several the one that lasts longest, as at a proxy.
    let brought = uploaded.iter().filter(|(name, _)| *name == want.name);
    let uploaded = brought.filter_map(|(_, f)| table.certificate(f)).max_by_key(|c| c.about.not_after);
    CertificateView {
        uploaded: uploaded.map(|certificate| certificate.about.fingerprint),
        state: want.state.as_str(),
        fingerprint: want.fingerprint,
        issuer: about.map(|about| about.issuer.clone()),
        not_before: about.map(|about| rfc3339(about.not_before.saturating_mul(1_000))),
        not_after: about.map(|about| rfc3339(about.not_after.saturating_mul(1_000))),
        attempts: want.attempts,
        next_attempt_at: rfc3339(want.next_attempt_ms),
        error: want.error,
        name: want.name,
    }
}

/// Names that need a certificate, in alphabetical order.
#[utoipa::path(get, path = "/api/v1/certificates", tag = "certificates",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
    ),
    responses((status = 200, body = ListAnswer<CertificateView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let (cursor, limit) = params.paging()?;
    params.finish()?;
    // A name, or a wildcard.
    let is_name = |text: &String| DomainName::parse(text.strip_prefix("*.").unwrap_or(text)).is_ok();
    if !cursor.as_ref().is_none_or(is_name) {
        return Err(unreadable_cursor().into());
    }
    operator.may_everywhere(Subject::Certificates.read())?;
    let wants = api.store.certificate_wants(cursor.as_deref(), limit).await?;
    let next = (wants.len() == limit as usize).then(|| wants.last().map(|last| last.name.clone())).flatten();
    let uploaded = api.store.uploaded_names().await?;
    let head = api.store.head();
    let items = wants.into_iter().map(|want| view(want, &head.table, &uploaded)).collect();
    Ok(ListAnswer::of(Page { items, next }))
}

/// Takes a certificate of your own into service: chain and private key, PEM. While it is valid it goes before those that
/// are issued for its names, which stand by. It leaves when one of its names changes hands.
#[utoipa::path(post, path = "/api/v1/certificates", tag = "certificates", request_body = CertificateInput,
    responses((status = 201, body = CertificateDetail), (status = 409), (status = 422)))]
pub(super) async fn upload(State(api): State<Api>, request: WriteRequest) -> Answer {
    let (mut writing, body) = request.begin(&api).await?;
    let done = certificates::upload(&mut writing.work, &api.keeper, &body).await?;
    writing.finish(done).await
}

/// One certificate, in service or revoked. Never a key.
#[utoipa::path(get, path = "/api/v1/certificates/{fingerprint}", tag = "certificates",
    params(("fingerprint" = String, Path)), responses((status = 200, body = CertificateDetail), (status = 404)))]
pub(super) async fn get(
    State(api): State<Api>,
    operator: Operator,
    Path(text): Path<String>,
    params: Params,
) -> Answer {
    params.finish()?;
    Ok(Json(certificates::get(&api.store, &operator, &text).await?).into_response())
}

/// The certificate and its chain, PEM: what every client is shown.
#[utoipa::path(get, path = "/api/v1/certificates/{fingerprint}/chain", tag = "certificates",
    params(("fingerprint" = String, Path)),
    responses((status = 200, body = String, content_type = "application/pem-certificate-chain"), (status = 404)))]
pub(super) async fn chain(
    State(api): State<Api>,
    operator: Operator,
    Path(text): Path<String>,
    params: Params,
) -> Answer {
    params.finish()?;
    let chain = certificates::chain(&api.store, &operator, &text)?;
    // RFC 8555 section 9.1.
    Ok(([(CONTENT_TYPE, "application/pem-certificate-chain")], chain).into_response())
}

/// Removes a certificate that was brought; those that were issued for its names serve from then on.
#[utoipa::path(delete, path = "/api/v1/certificates/{fingerprint}", tag = "certificates",
    params(("fingerprint" = String, Path)), responses((status = 204), (status = 409)))]
pub(super) async fn delete(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let (mut writing, _) = request.begin(&api).await?;
    let done = certificates::delete(&mut writing.work, &text).await?;
    writing.finish(done).await
}

/// Takes a certificate out of service for good, at once. Names that it was issued for get another; until then their
/// visitors see that they are being set up. A CA that speaks ACME is told.
#[utoipa::path(post, path = "/api/v1/certificates/{fingerprint}/revoke", tag = "certificates",
    request_body = RevocationInput, params(("fingerprint" = String, Path)),
    responses((status = 200, body = CertificateDetail), (status = 404), (status = 422)))]
pub(super) async fn revoke(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let (mut writing, body) = request.begin(&api).await?;
    let done = certificates::revoke(&mut writing.work, &text, &body).await?;
    writing.finish(done).await
}
