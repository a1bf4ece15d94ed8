//! `nodes`: the proxies, as the control plane knows them.

use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::feed::{BackendReport, MissingKey, RefusedRevision, SharedLimits};
use schoolgate_config::model::{KeyId, NodeId, Revision};
use schoolgate_config::time::rfc3339;

use super::params::Params;
use super::{Answer, Api, ListAnswer, object};
use crate::operation::permission::{Operator, Subject};
use crate::operation::{Refusal, json};
use crate::publish::NodeStatus;

/// A proxy as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeView {
    /// Its name.
    id: NodeId,
    /// Whether it was heard of within the last ten seconds.
    live: bool,
    /// When it was last heard of.
    #[schema(format = DateTime)]
    seen_at: String,
    /// What it serves; `null` when it has not said yet.
    serving: Option<Revision>,
    /// How many revisions it is behind.
    lag: Option<u64>,
    /// A revision it refused after the one it serves, and why.
    refused: Option<RefusedRevision>,
    /// Its release.
    version: Option<String>,
    /// When it started.
    #[schema(format = DateTime)]
    started_at: Option<String>,
    /// Certificates it can serve.
    certificates: Option<u64>,
    /// Connections open towards it.
    connections: Option<u64>,
    /// Requests in flight.
    requests_in_flight: Option<u64>,
    /// The `kid` of the context key it signs with.
    context_key: Option<KeyId>,
    /// How it finds its backends.
    backends: Vec<BackendReport>,
    /// Issuers whose tokens name keys that it does not have.
    missing_keys: Vec<MissingKey>,
    /// How it shares the limits of tenants with the other proxies.
    limits: Option<SharedLimits>,
    /// Things an operator should know.
    notices: Vec<String>,
}

impl NodeView {
    /// How the API shows a proxy, beside the last published revision.
    pub(crate) fn of(status: NodeStatus, published: Revision) -> Self {
        let NodeStatus { node, live, seen_at_ms, report, mut notices } = status;
        let lag = report.as_ref().map(|report| published.0.saturating_sub(report.serving.0));
        let mut view = Self {
            id: node,
            live,
            seen_at: rfc3339(seen_at_ms),
            serving: None,
            lag,
            refused: None,
            version: None,
            started_at: None,
            certificates: None,
            connections: None,
            requests_in_flight: None,
            context_key: None,
            backends: Vec::new(),
            missing_keys: Vec::new(),
            limits: None,
            notices: Vec::new(),
        };
        if let Some(report) = report {
            view.serving = Some(report.serving);
            view.refused = report.refused;
            view.version = Some(report.version);
            view.started_at = Some(rfc3339(report.started_at_ms));
            view.certificates = Some(report.certificates);
            view.connections = Some(report.connections);
            view.requests_in_flight = Some(report.requests_in_flight);
            view.context_key = report.context_key;
            view.backends = report.backends;
            view.missing_keys = report.missing_keys;
            view.limits = report.limits;
            notices.extend(report.notices);
        }
        view.notices = notices;
        view
    }
}

/// Proxies, by name.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", responses((status = 200, body = ListAnswer<NodeView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    params.finish()?;
    operator.may_everywhere(Subject::Nodes.read())?;
    let published = api.publisher.revision();
    Ok(ListAnswer::whole(api.feed.nodes().into_iter().map(|node| NodeView::of(node, published)).collect()))
}

/// One proxy.
#[utoipa::path(get, path = "/api/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = NodeView)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, Path(id): Path<String>, params: Params) -> Answer {
    params.finish()?;
    operator.may_everywhere(Subject::Nodes.read())?;
    let node = id.parse::<NodeId>().ok().and_then(|id| api.feed.node(&id));
    let node = node.ok_or_else(|| Refusal::not_found("node"))?;
    let version = node.report.as_ref().map_or(0, |report| report.serving.0);
    Ok(object(&json(&NodeView::of(node, api.publisher.revision())), version))
}
