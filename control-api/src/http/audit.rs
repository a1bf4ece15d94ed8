//! `audit`: who did what, in a chain that shows what was taken out.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::time::rfc3339;
use schoolgate_store::{AuditEntry, AuditQuery, Page};

use super::params::Params;
use super::{Answer, Api, ListAnswer};
use crate::operation::permission::{Operator, Subject};

/// One line of the audit as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditView {
    /// The number of the change.
    number: u64,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Who.
    actor: String,
    /// The way they came.
    via: String,
    /// The request.
    request_id: Option<String>,
    /// The address.
    client_ip: Option<String>,
    /// What was done, such as `tenant.suspend`.
    action: String,
    /// To what, such as `tenant tnt_…`.
    object: String,
    /// More about it.
    summary: Value,
    /// The hash of the line before.
    previous_hash: String,
    /// The hash of this line.
    hash: String,
}

impl From<AuditEntry> for AuditView {
    fn from(entry: AuditEntry) -> Self {
        Self {
            number: entry.number,
            at: rfc3339(entry.at_ms),
            actor: entry.actor,
            via: entry.via,
            request_id: entry.request_id,
            client_ip: entry.client_ip,
            action: entry.action,
            object: entry.object,
            summary: entry.summary,
            previous_hash: entry.previous_hash,
            hash: entry.hash,
        }
    }
}

/// Lines of the audit, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit",
    params(
        ("cursor" = Option<u64>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("object" = Option<String>, Query, description = "About this object, such as `tenant tnt_…`"),
        ("actor" = Option<String>, Query, description = "Of this actor"),
    ),
    responses((status = 200, body = ListAnswer<AuditView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let before = match params.parse::<u64>("cursor")? {
        Some(cursor) => Some(cursor),
        None => params.parse::<u64>("after")?,
    };
    let (_, limit) = params.paging()?;
    let query = AuditQuery { before, limit, object: params.take("object")?, actor: params.take("actor")? };
    params.finish()?;
    operator.may_everywhere(Subject::Audit.read())?;
    let lines = api.store.audit(&query).await?;
    let next = (lines.len() == limit as usize).then(|| lines.last().map(|last| last.number.to_string())).flatten();
    Ok(ListAnswer::of(Page { items: lines.into_iter().map(AuditView::from).collect(), next }))
}

/// Whether the chain of the audit holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditCheck {
    /// Whether every line follows from the one before.
    intact: bool,
    /// How many lines there are, when it is intact.
    lines: Option<u64>,
    /// Where it breaks.
    broken: Option<String>,
}

/// Checks the chain of the audit from its first line.
#[utoipa::path(get, path = "/api/v1/audit/verify", tag = "audit", responses((status = 200, body = AuditCheck)))]
pub(super) async fn verify(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    params.finish()?;
    operator.may_everywhere(Subject::Audit.read())?;
    let check = match api.store.verify_audit().await? {
        Ok(lines) => AuditCheck { intact: true, lines: Some(lines), broken: None },
        Err(broken) => AuditCheck { intact: false, lines: None, broken: Some(broken.to_string()) },
    };
    Ok(Json(check).into_response())
}
