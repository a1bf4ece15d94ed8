//! `certificates`: names that need one, and what they have.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::model::{DomainName, Fingerprint};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::rfc3339;
use schoolgate_store::{CertificateWant, Page};

use super::params::{Params, unreadable_cursor};
use super::{Answer, Api, ListAnswer};
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
    /// Failures since the last success.
    attempts: u32,
    /// When it is looked at again; of an issued one: when it is renewed.
    #[schema(format = DateTime)]
    next_attempt_at: String,
    /// Why the last attempt failed.
    error: Option<String>,
}

fn view(want: CertificateWant, table: &RoutingTable) -> CertificateView {
    let about = want.fingerprint.as_ref().and_then(|f| table.certificate(f)).map(|c| &c.about);
    CertificateView {
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
    let head = api.store.head();
    let items = wants.into_iter().map(|want| view(want, &head.table)).collect();
    Ok(ListAnswer::of(Page { items, next }))
}
