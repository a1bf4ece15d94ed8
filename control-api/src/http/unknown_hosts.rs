//! `unknown-hosts`: hosts that clients ask for and no tenant has.

use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::model::DomainName;

use super::params::Params;
use super::problem::Problem;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer};
use crate::operation::domains::DomainView;
use crate::operation::permission::{Operator, Subject};
use crate::operation::unknown_hosts::{self, Shown, UnknownHostView};

/// Hosts in one answer: 1,000. Each node reports its hundred most wanted.
const MOST: usize = 1_000;

/// Whose a host becomes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdoptInput {
    /// The tenant: `tnt_…` or a slug.
    tenant: String,
    /// Whether it becomes the tenant's main name.
    #[serde(default)]
    primary: bool,
}

/// An ignored host.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IgnoredView {
    /// Its name.
    name: DomainName,
    /// Always `true`.
    ignored: bool,
    /// Since when.
    #[schema(format = DateTime)]
    ignored_at: String,
    /// Who said so.
    ignored_by: String,
}

fn name(text: &str) -> Result<DomainName, Problem> {
    let refused = |e| Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", format!("no host can have this name: {e}"));
    DomainName::parse(text).map_err(refused)
}

/// Hosts that clients ask for and no tenant has, the most wanted first, as all nodes have seen them.
#[utoipa::path(get, path = "/api/v1/unknown-hosts", tag = "unknown-hosts",
    params(("ignored" = Option<bool>, Query, description = "`true` shows those too that somebody ignores")),
    responses((status = 200, body = ListAnswer<UnknownHostView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let shown = if params.parse::<bool>("ignored")?.unwrap_or(false) { Shown::All } else { Shown::Heeded };
    params.finish()?;
    operator.may_everywhere(Subject::Domains.read())?;
    let ignored = api.store.ignored_hosts().await?;
    let nodes = api.feed.nodes();
    let seen = nodes.iter().filter_map(|node| Some((&node.node, node.report.as_ref()?)));
    let seen = seen.flat_map(|(node, report)| report.unknown_hosts.iter().map(move |host| (node, host)));
    let mut hosts = unknown_hosts::merged(seen, &ignored, shown, &api.store.head().table);
    hosts.truncate(MOST);
    Ok(ListAnswer::whole(hosts))
}

/// Gives a host to a tenant: makes the domain.
#[utoipa::path(post, path = "/api/v1/unknown-hosts/{name}/adopt", tag = "unknown-hosts", request_body = AdoptInput,
    params(("name" = String, Path)), responses((status = 201, body = DomainView)))]
pub(super) async fn adopt(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let name = name(&text)?;
    let (mut writing, body) = request.begin(&api).await?;
    let done = unknown_hosts::adopt(&mut writing.work, &name, body).await?;
    writing.finish(done).await
}

/// Takes a host off the list.
#[utoipa::path(post, path = "/api/v1/unknown-hosts/{name}/ignore", tag = "unknown-hosts",
    params(("name" = String, Path)), responses((status = 200, body = IgnoredView)))]
pub(super) async fn ignore(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let name = name(&text)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = unknown_hosts::ignore(&mut writing.work, &name).await?;
    writing.finish(done).await
}

/// Puts an ignored host on the list again.
#[utoipa::path(delete, path = "/api/v1/unknown-hosts/{name}/ignore", tag = "unknown-hosts",
    params(("name" = String, Path)), responses((status = 204)))]
pub(super) async fn heed(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let name = name(&text)?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = unknown_hosts::heed(&mut writing.work, &name).await?;
    writing.finish(done).await
}
