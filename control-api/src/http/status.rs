//! `status`: the whole gateway on one page.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::model::{BackendId, BackendState, NodeId, PoolId};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::{Clock, SystemClock, rfc3339};

use super::nodes::NodeView;
use super::params::Params;
use super::{Answer, Api};
use crate::endings::{Ending, Stage, endings};
use crate::operation::domains;
use crate::operation::permission::{Operator, Subject};
use crate::publish::{NodeStatus, PublisherStatus};

/// The whole gateway.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusView {
    /// The release of the control plane.
    version: &'static str,
    /// How publishing is.
    #[serde(flatten)]
    publisher: PublisherStatus,
    /// How many tenants are in each state.
    tenants: BTreeMap<&'static str, u64>,
    /// How many domains have which ownership.
    domains: BTreeMap<&'static str, u64>,
    /// How many names have a certificate in which state.
    certificates: BTreeMap<&'static str, u64>,
    /// Names whose certificate is near its end and was not renewed, the first to end first; at most 20.
    certificates_ending: Vec<EndingView>,
    /// The proxies.
    nodes: Vec<NodeView>,
    /// The backends, as configured and as the proxies find them.
    backends: Vec<BackendStatus>,
}

/// A name whose certificate is near its end.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndingView {
    /// The name, or `*.zone`.
    name: String,
    /// How near: within a week, some days, a day; or ended.
    stage: Stage,
    /// When it ends.
    #[schema(format = DateTime)]
    ends_at: String,
}

impl EndingView {
    /// Names shown; the metrics count all.
    const SHOWN: usize = 20;

    fn all(table: &RoutingTable) -> Vec<Self> {
        let shown = endings(table, SystemClock.unix_s()).into_iter().take(Self::SHOWN);
        shown
            .map(|Ending { name, stage, not_after, .. }| Self {
                name,
                stage,
                ends_at: rfc3339(not_after.saturating_mul(1_000)),
            })
            .collect()
    }
}

/// A backend, as configured and as the proxies find it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackendStatus {
    /// Its pool.
    pool: PoolId,
    /// Its identity.
    id: BackendId,
    /// Its address.
    address: String,
    /// What is configured.
    state: BackendState,
    /// What live proxies find.
    seen: Vec<BackendSeen>,
}

/// How one proxy finds a backend.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackendSeen {
    /// The proxy.
    node: NodeId,
    /// `up`, `unhealthy`, `ejected`, `draining` or `disabled`.
    state: String,
    /// Requests in flight to it.
    in_flight: u64,
    /// Why it is not up.
    reason: Option<String>,
}

/// The whole gateway: publishing, certificates, proxies, backends.
#[utoipa::path(get, path = "/api/v1/status", tag = "nodes", responses((status = 200, body = StatusView)))]
pub(super) async fn get(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    params.finish()?;
    operator.may_everywhere(Subject::Nodes.read())?;
    let publisher = api.publisher.status();
    let nodes = api.feed.nodes();
    let certificates = api.store.certificate_counts().await?;
    let head = api.store.head();
    let mut tenants = BTreeMap::new();
    for entry in head.table.tenants() {
        *tenants.entry(entry.tenant.state.as_str()).or_default() += 1;
    }
    let status = StatusView {
        version: env!("CARGO_PKG_VERSION"),
        tenants,
        domains: domains::counts(&head.table),
        certificates: certificates.into_iter().map(|(state, count)| (state.as_str(), count)).collect(),
        certificates_ending: EndingView::all(&head.table),
        backends: backends(&head.table, &nodes),
        nodes: nodes.into_iter().map(|node| NodeView::of(node, publisher.revision)).collect(),
        publisher,
    };
    Ok(Json(status).into_response())
}

fn backends(table: &RoutingTable, nodes: &[NodeStatus]) -> Vec<BackendStatus> {
    let mut seen: BTreeMap<(String, String), Vec<BackendSeen>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.live) {
        for report in node.report.iter().flat_map(|report| &report.backends) {
            seen.entry((report.pool.clone(), report.backend.clone())).or_default().push(BackendSeen {
                node: node.node.clone(),
                state: report.state.clone(),
                in_flight: report.in_flight,
                reason: report.reason.clone(),
            });
        }
    }
    let mut pools: Vec<_> = table.pools().map(|entry| &entry.pool).collect();
    pools.sort_by(|a, b| a.id.cmp(&b.id));
    let mut backends = Vec::new();
    for pool in pools {
        for backend in &pool.backends {
            backends.push(BackendStatus {
                pool: pool.id.clone(),
                id: backend.id,
                address: backend.address.to_string(),
                state: backend.state,
                seen: seen.remove(&(pool.id.to_string(), backend.id.to_string())).unwrap_or_default(),
            });
        }
    }
    backends
}
