//! `usage`: what tenants used, of one and of all; and the reports of instances of the app.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};

use schoolgate_config::model::TenantId;
use schoolgate_config::usage::Step;
use schoolgate_store::{Page, UsageQuery};

use super::auth::Instance;
use super::params::Params;
use super::problem::Problem;
use super::write::read_json;
use super::{Answer, Api, ListAnswer};
use crate::operation::permission::{Operator, Subject};
use crate::operation::tenants::{self, TenantKey};
use crate::operation::usage::{
    self, AppReportInput, AppReportTaken, BilledView, Metric, Range, TenantUsageView, moment, tenant_csv,
};

/// Tenants read at once for a CSV of all.
const PIECE: u32 = 10_000;

/// In which form an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
}

impl Format {
    /// By the parameter `format`, or by `Accept`.
    fn wanted(params: &mut Params, headers: &HeaderMap) -> Result<Self, Problem> {
        match params.take("format")?.as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("json") => Ok(Self::Json),
            Some(_) => Err(Problem::bad_request("the parameter format: expected csv or json")),
            None => {
                let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
                Ok(if accept.contains("text/csv") { Self::Csv } else { Self::Json })
            }
        }
    }
}

/// A CSV that browsers save under a name.
fn csv(name: &str, text: String) -> Response {
    let disposition = format!("attachment; filename=\"{name}.csv\"");
    ([(CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, disposition)], text).into_response()
}

fn time(params: &mut Params, name: &str) -> Result<Option<i64>, Problem> {
    let Some(text) = params.take(name)? else { return Ok(None) };
    moment(&text).map(Some).map_err(|e| Problem::bad_request(format!("the parameter {name}: {e}")))
}

/// What a tenant used, minute by minute (48 hours), hour by hour (30 days) or day by day (400 days), in UTC; as CSV with
/// `format=csv` or `Accept: text/csv`.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/usage", tag = "usage",
    params(
        ("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`"),
        ("from" = Option<String>, Query, description = "RFC 3339, or a day; the last hour of minutes, day of hours or 30 days if not given"),
        ("to" = Option<String>, Query, description = "RFC 3339, or a day, exclusive; now if not given"),
        ("step" = Option<String>, Query, description = "`minute`, `hour` (if not given) or `day`"),
        ("metric" = Option<String>, Query, description = "Some of `requests,bytes,limited,in_flight,latency`; all if not given"),
        ("format" = Option<String>, Query, description = "`json` or `csv`"),
    ),
    responses((status = 200, body = TenantUsageView)))]
pub(super) async fn tenant(
    State(api): State<Api>,
    operator: Operator,
    Path(key): Path<String>,
    headers: HeaderMap,
    mut params: Params,
) -> Answer {
    let format = Format::wanted(&mut params, &headers)?;
    let step = params.parse::<Step>("step")?.unwrap_or(Step::Hour);
    let (from, to) = (time(&mut params, "from")?, time(&mut params, "to")?);
    let metrics = Metric::list(params.take("metric")?.as_deref());
    let metrics = metrics.map_err(|e| Problem::bad_request(format!("the parameter metric: {e}")))?;
    params.finish()?;
    let range = Range::new(step, from, to, api.clock.unix_s())
        .map_err(|e| Problem::bad_request(format!("the parameters from and to: {e}")))?;
    let tenant = tenants::get(&api.store, &operator, &TenantKey::parse(&key)?).await?.value;
    let query = UsageQuery { tenant: tenant.id, step, from_s: range.from_s, to_s: range.to_s };
    let parts = api.store.usage(&query).await?;
    if format == Format::Csv {
        return Ok(csv(&format!("usage-{}", tenant.slug), tenant_csv(&parts, &metrics)));
    }
    let app = api.store.app_reports(&[tenant.id]).await?.pop();
    let head = api.store.head();
    let whose = (tenant.id, tenant.slug.as_str());
    Ok(Json(TenantUsageView::of(&head.table, whose, range, &metrics, &parts, app, api.clock.unix_ms())).into_response())
}

/// What every tenant used in a month or in some days (UTC), for billing; as CSV with `format=csv` or `Accept: text/csv`,
/// and then whole.
#[utoipa::path(get, path = "/api/v1/usage", tag = "usage",
    params(
        ("month" = Option<String>, Query, description = "Such as `2026-11`; this month if neither this nor `from` is given"),
        ("from" = Option<String>, Query, description = "RFC 3339, or a day; whole days are summed"),
        ("to" = Option<String>, Query, description = "RFC 3339, or a day, exclusive; now if not given"),
        ("format" = Option<String>, Query, description = "`json` or `csv`"),
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
    ),
    responses((status = 200, body = ListAnswer<BilledView>)))]
pub(super) async fn all(State(api): State<Api>, operator: Operator, headers: HeaderMap, mut params: Params) -> Answer {
    let format = Format::wanted(&mut params, &headers)?;
    let month = params.take("month")?;
    let (from, to) = (time(&mut params, "from")?, time(&mut params, "to")?);
    let (cursor, limit) = params.paging()?;
    params.finish()?;
    operator.may_everywhere(Subject::Tenants.read())?;
    let after = cursor.map(|text| text.parse::<TenantId>().map_err(|_| super::params::unreadable_cursor()));
    let after = after.transpose()?;
    let range = range(month.as_deref(), from, to, api.clock.unix_s()).map_err(Problem::bad_request)?;
    if format == Format::Json {
        let items = usage::billed(&api.store, range, after, limit).await?;
        let next = items.last().filter(|_| items.len() == limit as usize).map(|last| last.tenant().to_string());
        return Ok(ListAnswer::of(Page { items, next }));
    }
    let (mut text, mut after) = (BilledView::csv_head(), after);
    loop {
        let piece = usage::billed(&api.store, range, after, PIECE).await?;
        piece.iter().for_each(|billed| text.push_str(&billed.csv_line(range)));
        after = piece.last().map(BilledView::tenant);
        if piece.len() < PIECE as usize {
            break;
        }
    }
    Ok(csv("usage", text))
}

fn range(month: Option<&str>, from: Option<i64>, to: Option<i64>, now_s: i64) -> Result<Range, String> {
    match (month, from, to) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err("give month, or from and to, not both".to_owned()),
        (Some(month), None, None) => Range::month(month).map_err(|e| format!("the parameter month: {e}")),
        (None, None, None) => {
            let now = schoolgate_config::time::rfc3339(now_s * 1_000);
            Range::month(now.get(..7).unwrap_or_default())
        }
        (None, from, to) => {
            Range::new(Step::Day, from, to, now_s).map_err(|e| format!("the parameters from and to: {e}"))
        }
    }
}

/// Takes what an instance of the app counted of the tenants it serves: people with an account, students, storage.
#[utoipa::path(post, path = "/internal/v1/usage", tag = "internal", request_body = AppReportInput,
    responses((status = 200, body = AppReportTaken)))]
pub(super) async fn report(
    State(api): State<Api>,
    Instance(caller): Instance,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let body = read_json(&headers, body).await?;
    Ok(Json(usage::take_report(&api.store, &caller.token.tenants, &body, api.clock.unix_ms()).await?).into_response())
}
