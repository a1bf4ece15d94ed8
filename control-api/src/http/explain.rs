//! `explain`: why a request goes where it goes, by the code that decides it.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::identity::{DescribedRequest, Explanation, RecordedRequest, explain, explain_recorded};
use schoolgate_config::model::{NodeId, Revision};

use super::params::Params;
use super::problem::Problem;
use super::write::read_json;
use super::{Answer, Api, Stop};
use crate::operation::Refusal;
use crate::operation::permission::{Operator, Subject};
use crate::publish::{Found, PastError};

/// Time that proxies have to say whether they know a request: 5 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Characters of a request's identifier.
const REQUEST_ID: usize = 26;

/// What is to be explained: `request` or `request_id`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainQuestion {
    /// A request, described.
    #[schema(value_type = Option<DescribedRequest>)]
    request: Option<Value>,
    /// A real request, by the `X-Request-ID` of its answer.
    request_id: Option<String>,
    /// By which revision; the newest if not given. A real request is explained by the one that decided it.
    #[schema(value_type = Option<u64>)]
    at_revision: Option<Revision>,
}

/// Why a request goes where it goes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainAnswer {
    #[serde(flatten)]
    explanation: Explanation,
    /// Of a real request: what was kept of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<Recorded>,
}

/// A real request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Recorded {
    /// The proxy that served it.
    #[schema(value_type = String)]
    node: NodeId,
    /// What the decision read of it, and what really happened.
    request: RecordedRequest,
}

/// Every step of the decision on a request, described or real.
#[utoipa::path(post, path = "/api/v1/explain", tag = "explain", request_body = ExplainQuestion,
    responses((status = 200, body = ExplainAnswer)))]
pub(super) async fn post(
    State(api): State<Api>,
    operator: Operator,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    params.finish()?;
    operator.may_everywhere(Subject::Revisions.read())?;
    let value = read_json(&headers, body).await?;
    let invalid = |pointer: &str, message: String| Refusal::invalid(pointer, "invalid", message);
    let question: ExplainQuestion = serde_json::from_value(value).map_err(|e| invalid("", e.to_string()))?;
    let answer = match (question.request, question.request_id, question.at_revision) {
        (Some(request), None, at) => {
            let request: DescribedRequest =
                serde_json::from_value(request).map_err(|e| invalid("/request", e.to_string()))?;
            let table = match at {
                Some(revision) => api.publisher.table_at(revision).await?,
                None => api.publisher.table(),
            };
            let now = api.clock.unix_ms().div_euclid(1_000);
            let explanation =
                explain(&table, &request, now).with_limits(&table, &api.platform.caps, api.clock.unix_ms());
            ExplainAnswer { explanation, recorded: None }
        }
        (None, Some(id), None) => real(&api, &id).await?,
        (None, Some(_), Some(_)) => {
            let message = "a real request is explained by the revision that decided it".to_owned();
            return Err(invalid("/at_revision", message).into());
        }
        (None, None, _) => return Err(invalid("/request", "give `request` or `request_id`".to_owned()).into()),
        (Some(_), Some(_), _) => {
            return Err(invalid("/request_id", "give `request` or `request_id`, not both".to_owned()).into());
        }
    };
    Ok(Json(answer).into_response())
}

/// Explains a request that a proxy served.
async fn real(api: &Api, id: &str) -> Result<ExplainAnswer, Stop> {
    let id = id.trim();
    if id.len() != REQUEST_ID || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let message = "expected the X-Request-ID of an answer: 26 letters and digits";
        return Err(Refusal::invalid("/request_id", "invalid", message).into());
    }
    let id = id.to_ascii_uppercase();
    let found = tokio::select! {
        found = api.feed.find_request(&id, ANSWER_WITHIN) => found,
        () = api.stop.cancelled() => Found::Busy,
    };
    let (node, request) = match found {
        Found::Request { node, request } => (node, *request),
        Found::Nowhere { silent } => return Err(not_kept(&silent).into()),
        Found::Busy => {
            let message = "too many requests are being looked for; try again";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message).retry_after(1).into());
        }
    };
    let explanation = match request.undecided() {
        Some(explanation) => explanation,
        None => {
            let table = api.publisher.table_at(request.revision).await?;
            explain_recorded(&*table, &request).with_limits(&table, &api.platform.caps, request.at_ms)
        }
    };
    Ok(ExplainAnswer { explanation, recorded: Some(Recorded { node, request }) })
}

fn not_kept(silent: &[NodeId]) -> Problem {
    let kept = "errors are kept until newer ones of the same school push them out, successes are sampled";
    if silent.is_empty() {
        return Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", format!("no proxy has this request: {kept}"));
    }
    let names: Vec<_> = silent.iter().take(5).map(NodeId::as_str).collect();
    let message = format!("not found, but {} did not answer within {} s", names.join(", "), ANSWER_WITHIN.as_secs());
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "NODE_SILENT", message)
}

impl From<PastError> for Problem {
    fn from(error: PastError) -> Self {
        let message = error.to_string();
        match error {
            PastError::NotYet { .. } => Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message),
            PastError::Gone(_) => Self::new(StatusCode::GONE, "REVISION_GONE", message),
            PastError::Unusable { .. } => Self::new(StatusCode::GONE, "REVISION_GONE", message),
            PastError::Store(error) => error.into(),
        }
    }
}
