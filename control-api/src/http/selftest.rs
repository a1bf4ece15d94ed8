//! `selftest`: tricks played on the running gateway.

use std::net::SocketAddr;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::params::Params;
use super::problem::Problem;
use super::write::read_json;
use super::{Answer, Api};
use crate::operation::Refusal;
use crate::operation::permission::{Operator, Subject};
use crate::selftest::{self, IsolationReport, TokenOfB};

/// What is to be tested.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IsolationOptions {
    /// Two tenants, by id or slug; the two active ones that were made first if not given.
    #[serde(default)]
    tenants: Vec<String>,
    /// Where the gateway serves HTTPS on this machine; needed where the control plane runs without it.
    #[schema(value_type = Option<String>)]
    https: Option<SocketAddr>,
    /// A token (JWT) that is good for the second tenant, for the tricks that need one. It goes to the gateway and nowhere
    /// else: it is neither kept nor shown.
    token: Option<String>,
}

/// Plays every known trick by which one school could reach another on the running gateway.
#[utoipa::path(post, path = "/api/v1/selftest/isolation", tag = "selftest", request_body = IsolationOptions,
    responses((status = 200, body = IsolationReport)))]
pub(super) async fn isolation(
    State(api): State<Api>,
    operator: Operator,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    params.finish()?;
    operator.may_everywhere(Subject::Nodes.write())?;
    let options = match read_json(&headers, body).await? {
        Value::Null => IsolationOptions::default(),
        value => serde_json::from_value(value).map_err(|e| Refusal::invalid("", "invalid", e.to_string()))?,
    };
    let https = options.https.or_else(|| api.gateway.get().copied()).ok_or_else(|| {
        Refusal::invalid("/https", "required", "no gateway runs in this process: say where it serves HTTPS")
    })?;
    if !https.ip().to_canonical().is_loopback() {
        // Else it would be a way to send requests from here to anybody.
        let message = format!("{https} is not on this machine: the self-test goes to loopback addresses only");
        return Err(Refusal::invalid("/https", "not_loopback", message).into());
    }
    let table = api.publisher.table();
    let (a, b) = selftest::pick(&table, &options.tenants)
        .map_err(|error| Refusal::invalid("/tenants", "no_subjects", error.to_string()))?;
    let now = api.clock.unix_ms().div_euclid(1_000);
    let token = options.token.map(|token| TokenOfB::check(&table, &token, &a, &b, now)).transpose();
    let token = token.map_err(|error| Refusal::invalid("/token", "proves_nothing", error.to_string()))?;
    drop(table);
    let report = tokio::select! {
        report = selftest::run(https, a, b, token) => report,
        () = api.stop.cancelled() => {
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "STOPPING", "the control plane is stopping").into());
        }
    };
    Ok(Json(report).into_response())
}
