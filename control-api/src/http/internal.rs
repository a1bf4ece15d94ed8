//! What proxies ask: the feed, and the place to report to.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use schoolgate_config::feed::{NodeReport, ReportTaken, RequestAnswers, RequestQuestions};
use schoolgate_config::model::{NodeId, Revision, TenantId};
use schoolgate_config::usage::{QuotaKind, QuotaUse, UsageFlush, UsageTaken};

use super::auth::Node;
use super::params::Params;
use super::problem::Problem;
use super::write::read_json;
use super::{Answer, Api};

/// What came after a revision; an empty body when nothing did.
#[utoipa::path(get, path = "/internal/v1/feed", tag = "internal",
    params(
        ("node" = String, Query, description = "Who asks"),
        ("after" = u64, Query, description = "The revision that the proxy holds"),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for a later one, at most 60000"),
    ),
    responses((status = 200, content_type = "application/vnd.schoolgate.feed")))]
pub(super) async fn feed(State(api): State<Api>, _: Node, mut params: Params) -> Answer {
    let missing = |name: &str| Problem::bad_request(format!("the parameter {name} is needed"));
    let node = params.parse::<NodeId>("node")?.ok_or_else(|| missing("node"))?;
    let after = params.parse::<u64>("after")?.map(Revision).ok_or_else(|| missing("after"))?;
    let wait = Duration::from_millis(params.parse::<u64>("wait_ms")?.unwrap_or(0).min(60_000));
    params.finish()?;
    let bytes = tokio::select! {
        bytes = api.feed.next_bytes(&node, after, wait) => bytes,
        // Nothing came: the proxy asks again, and another control process answers.
        () = api.stop.cancelled() => bytes::Bytes::new(),
    };
    Ok(([(CONTENT_TYPE, "application/vnd.schoolgate.feed")], bytes).into_response())
}

/// Takes what a proxy says of itself.
#[utoipa::path(post, path = "/internal/v1/nodes/{node}/report", tag = "internal", request_body = NodeReport,
    params(("node" = String, Path)), responses((status = 200, body = ReportTaken)))]
pub(super) async fn report(
    State(api): State<Api>,
    _: Node,
    Path(node): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    // Reports come from proxies of this release or the next: unknown fields are theirs to have.
    let report: NodeReport = read_as("report", &headers, body).await?;
    if report.node.as_str() != node {
        return Err(Problem::bad_request("the report is of another node than the path").into());
    }
    Ok(Json(api.feed.report(report)).into_response())
}

/// What the fleet has used of quotas in days and months that last: what a proxy that starts begins with.
#[utoipa::path(get, path = "/internal/v1/quotas", tag = "internal",
    params(
        ("tenant" = Option<String>, Query, description = "Where the next part begins: of the last one given"),
        ("quota" = Option<String>, Query, description = "`requests_per_day` or `bytes_per_month`, of the last one given"),
        ("period" = Option<u16>, Query, description = "Of the last one given"),
    ),
    responses((status = 200, body = Vec<QuotaUse>)))]
pub(super) async fn quotas(State(api): State<Api>, _: Node, mut params: Params) -> Answer {
    let (tenant, period) = (params.parse::<TenantId>("tenant")?, params.parse::<u16>("period")?);
    let quota = params.take("quota")?;
    params.finish()?;
    let after = match (tenant, quota, period) {
        (None, None, None) => None,
        (Some(tenant), Some(quota), Some(period)) => {
            let known = QuotaKind::ALL.into_iter().find(|known| known.as_str() == quota);
            let quota = known.ok_or_else(|| Problem::bad_request("the parameter quota names none"))?;
            Some(QuotaUse { tenant, quota, period, used: 0 })
        }
        _ => return Err(Problem::bad_request("the parameters tenant, quota and period go together").into()),
    };
    Ok(Json(api.feed.quotas(after.as_ref()).await?).into_response())
}

/// Counts what tenants used at a proxy, each flush once: one that is sent again is known by its number.
#[utoipa::path(post, path = "/internal/v1/nodes/{node}/usage", tag = "internal", request_body = UsageFlush,
    params(("node" = String, Path)), responses((status = 200, body = UsageTaken)))]
pub(super) async fn usage(
    State(api): State<Api>,
    _: Node,
    Path(node): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let node = node_of(&node)?;
    let flush: UsageFlush = read_as("flush of usage", &headers, body).await?;
    // A proxy sends on what it had not sent under an earlier name, so this need not be the node that sends.
    if flush.parts.len() > UsageFlush::MOST_PARTS || flush.quotas.len() > UsageFlush::MOST_QUOTAS {
        let message = format!("{node} sends a flush with more than {} parts", UsageFlush::MOST_PARTS);
        return Err(Problem::bad_request(message).into());
    }
    Ok(Json(api.feed.count_usage(&flush).await?).into_response())
}

/// Requests that a proxy is asked for; none when nobody asked in time.
#[utoipa::path(get, path = "/internal/v1/nodes/{node}/questions", tag = "internal",
    params(
        ("node" = String, Path),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for a question, at most 60000"),
    ),
    responses((status = 200, body = RequestQuestions)))]
pub(super) async fn questions(State(api): State<Api>, _: Node, Path(node): Path<String>, mut params: Params) -> Answer {
    let wait = Duration::from_millis(params.parse::<u64>("wait_ms")?.unwrap_or(0).min(60_000));
    params.finish()?;
    let node = node_of(&node)?;
    let requests = tokio::select! {
        requests = api.feed.questions(&node, wait) => requests,
        () = api.stop.cancelled() => Vec::new(),
    };
    Ok(Json(RequestQuestions { requests }).into_response())
}

/// Takes what a proxy knows of the requests it was asked for.
#[utoipa::path(post, path = "/internal/v1/nodes/{node}/answers", tag = "internal", request_body = RequestAnswers,
    params(("node" = String, Path)), responses((status = 204)))]
pub(super) async fn answers(
    State(api): State<Api>,
    _: Node,
    Path(node): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let node = node_of(&node)?;
    let RequestAnswers { answers } = read_as("list of answers", &headers, body).await?;
    api.feed.answer(&node, answers);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The body as what `what` names it.
async fn read_as<T: DeserializeOwned>(what: &str, headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let value = read_json(headers, body).await?;
    serde_json::from_value(value).map_err(|e| Problem::bad_request(format!("the body is no {what}: {e}")))
}

fn node_of(text: &str) -> Result<NodeId, Problem> {
    text.parse().map_err(|_| Problem::bad_request("the path names no node"))
}
