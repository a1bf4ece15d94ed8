//! `revisions`: what was published, from which changes, and who serves it.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::model::{NodeId, Revision};
use schoolgate_config::time::rfc3339;
use schoolgate_store::{CommittedChanges, Page, RevisionRecord};

use super::params::{Params, unreadable_cursor};
use super::write::PlannedChange;
use super::{Answer, Api, ListAnswer};
use crate::operation::Refusal;
use crate::operation::permission::{Operator, Subject};

/// A published revision as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionView {
    /// Its number.
    revision: Revision,
    /// When it was published.
    #[schema(format = DateTime)]
    created_at: String,
    /// The first change in it.
    change_from: u64,
    /// The last change in it.
    change_to: u64,
    /// How many objects it changes.
    objects: u64,
    /// Who made the changes.
    actors: Vec<String>,
}

impl From<RevisionRecord> for RevisionView {
    fn from(record: RevisionRecord) -> Self {
        Self {
            revision: record.revision,
            created_at: rfc3339(record.created_at_ms),
            change_from: record.change_from,
            change_to: record.change_to,
            objects: record.objects,
            actors: record.actors,
        }
    }
}

/// A revision with its changes and with who serves it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionDetail {
    #[serde(flatten)]
    about: RevisionView,
    /// The changes in it, oldest first.
    changes: Vec<ChangeView>,
    /// Live proxies, and whether they serve this revision or a later one.
    nodes: Vec<Serving>,
}

/// One committed change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangeView {
    /// Its number.
    number: u64,
    /// Who made it.
    actor: String,
    /// What was done.
    action: String,
    /// To what.
    object: String,
    /// The objects made, replaced and removed.
    objects: Vec<PlannedChange>,
}

impl From<CommittedChanges> for ChangeView {
    fn from(change: CommittedChanges) -> Self {
        Self {
            number: change.number,
            actor: change.actor,
            action: change.action,
            object: change.object,
            objects: change.changes.iter().map(PlannedChange::of).collect(),
        }
    }
}

/// Whether a proxy serves a revision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Serving {
    /// The proxy.
    node: NodeId,
    /// What it serves.
    serving: Option<Revision>,
    /// Whether that is this revision or a later one.
    applied: bool,
}

/// Published revisions, newest first.
#[utoipa::path(get, path = "/api/v1/revisions", tag = "revisions",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
    ),
    responses((status = 200, body = ListAnswer<RevisionView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let (cursor, limit) = params.paging()?;
    params.finish()?;
    operator.may_everywhere(Subject::Revisions.read())?;
    let before = cursor.map(|text| text.parse().map(Revision)).transpose();
    let before = before.map_err(|_| unreadable_cursor())?;
    let records = api.store.revisions(before, limit).await?;
    let next =
        (records.len() == limit as usize).then(|| records.last().map(|last| last.revision.to_string())).flatten();
    Ok(ListAnswer::of(Page { items: records.into_iter().map(RevisionView::from).collect(), next }))
}

/// One revision: its changes, and which proxies serve it.
#[utoipa::path(get, path = "/api/v1/revisions/{revision}", tag = "revisions", params(("revision" = u64, Path)),
    responses((status = 200, body = RevisionDetail)))]
pub(super) async fn get(
    State(api): State<Api>,
    operator: Operator,
    Path(text): Path<String>,
    params: Params,
) -> Answer {
    params.finish()?;
    operator.may_everywhere(Subject::Revisions.read())?;
    let missing = || Refusal::not_found("revision");
    let revision = Revision(text.parse().map_err(|_| missing())?);
    let record = api.store.revision(revision).await?.ok_or_else(missing)?;
    let changes = api.store.changes_of(&record).await?;
    let nodes = api.feed.nodes().into_iter().filter(|node| node.live).map(|node| {
        let serving = node.report.map(|report| report.serving);
        Serving { node: node.node, serving, applied: serving.is_some_and(|serving| serving >= revision) }
    });
    let detail = RevisionDetail {
        about: record.into(),
        changes: changes.into_iter().map(ChangeView::from).collect(),
        nodes: nodes.collect(),
    };
    Ok(Json(detail).into_response())
}
