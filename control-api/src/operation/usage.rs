//! What tenants used: which time is asked for, how sums are shown, what the app reports beside them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Month, OffsetDateTime};
use utoipa::ToSchema;

use schoolgate_config::limits::effective_limit;
use schoolgate_config::model::{LimitName, Limits, TenantId};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::rfc3339;
use schoolgate_config::usage::{CodeClass, Latency, RequestClass, Step, Usage, UsagePart};
use schoolgate_store::{AppReport, Store, TotalsQuery, UsageTotal};

use super::Refusal;
use super::document::FieldError;

/// Points in one answer: 3,000, all minutes that are kept.
const MOST_POINTS: i64 = 3_000;

/// Tenants in one report of an instance: 1,000, about 150 KB.
const MOST_REPORTED: usize = 1_000;

/// All times are in it, and days begin in it.
pub(crate) const TIME_ZONE: &str = "UTC";

/// What of usage is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Requests, by class and by code.
    Requests,
    /// Bytes in and out.
    Bytes,
    /// Requests refused for a limit.
    Limited,
    /// The most in flight.
    InFlight,
    /// How long requests took.
    Latency,
}

impl Metric {
    /// Every metric, in the order of their columns.
    pub(crate) const ALL: [Self; 5] = [Self::Requests, Self::Bytes, Self::Limited, Self::InFlight, Self::Latency];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Limited => "limited",
            Self::InFlight => "in_flight",
            Self::Latency => "latency",
        }
    }

    /// The metrics of a list such as `requests,latency`; none given: all.
    ///
    /// # Errors
    /// A sentence that names the one that is not there.
    pub(crate) fn list(text: Option<&str>) -> Result<BTreeSet<Self>, String> {
        let Some(text) = text else { return Ok(Self::ALL.into()) };
        let metric = |name: &str| {
            let found = Self::ALL.into_iter().find(|metric| metric.as_str() == name.trim());
            found.ok_or_else(|| format!("`{name}` is none; choose from {}", Self::ALL.map(Self::as_str).join(", ")))
        };
        text.split(',').map(metric).collect()
    }
}

/// A length of time in whole steps, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) step: Step,
    pub(crate) from_s: i64,
    pub(crate) to_s: i64,
}

/// A moment as it is asked for, seconds since 1970: RFC 3339, or a day, which begins at midnight in UTC.
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn moment(text: &str) -> Result<i64, String> {
    let day = format_description!("[year]-[month]-[day]");
    let at = OffsetDateTime::parse(text, &Rfc3339).map(OffsetDateTime::unix_timestamp);
    at.or_else(|_| Date::parse(text, day).map(|day| day.midnight().assume_utc().unix_timestamp()))
        .map_err(|_| "expected a time such as 2026-11-20T20:15:00Z (RFC 3339), or a day such as 2026-11-20".to_owned())
}

impl Range {
    /// The time that is asked for, widened to whole steps. Without `from`, the last hour of minutes, day of hours or month
    /// of days before `to`; without `to`, until now and this second too.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub(crate) fn new(step: Step, from_s: Option<i64>, to_s: Option<i64>, now_s: i64) -> Result<Self, String> {
        let seconds = step.seconds();
        let to = to_s.unwrap_or(now_s + 1);
        let default = match step {
            Step::Minute => 60,
            Step::Hour => 24,
            Step::Day => 30,
        };
        let from = from_s.unwrap_or_else(|| to.saturating_sub(default * seconds));
        if from >= to {
            return Err("from has to be before to".to_owned());
        }
        // What nobody can have used is not looked through.
        let bounds = (now_s - Step::Day.kept_s() - 86_400, now_s + 86_400);
        let (from, to) = (from.clamp(bounds.0, bounds.1), to.clamp(bounds.0, bounds.1));
        let range = Self { step, from_s: step.floor(from), to_s: step.floor(to + seconds - 1) };
        if (range.to_s - range.from_s) / seconds > MOST_POINTS {
            return Err(format!(
                "this is more than {MOST_POINTS} {}s: ask for less time, or for longer steps",
                step.as_str()
            ));
        }
        Ok(range)
    }

    /// A calendar month such as `2026-11`, in days.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub(crate) fn month(text: &str) -> Result<Self, String> {
        let parse = || {
            let (year, month) = text.split_once('-').filter(|(y, m)| y.len() == 4 && m.len() == 2)?;
            let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
            let first = Date::from_calendar_date(year.parse().ok()?, month, 1).ok()?;
            let days = i64::from(month.length(first.year()));
            Some((first.midnight().assume_utc().unix_timestamp(), days))
        };
        let (from_s, days) = parse().ok_or("expected a month such as 2026-11")?;
        Ok(Self { step: Step::Day, from_s, to_s: from_s + days * Step::Day.seconds() })
    }
}

/// How long requests took, milliseconds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LatencyView {
    /// Half of the requests took at most so long.
    p50_ms: f64,
    /// 90 of 100.
    p90_ms: f64,
    /// 99 of 100.
    p99_ms: f64,
    /// How far these may be off, in percent.
    error_percent: f64,
}

impl LatencyView {
    fn of(latency: &Latency) -> Option<Self> {
        let ms = |q| latency.quantile(q).map(|at| (at.as_secs_f64() * 1e6).round() / 1e3);
        Some(Self { p50_ms: ms(0.5)?, p90_ms: ms(0.9)?, p99_ms: ms(0.99)?, error_percent: Latency::ERROR_PERCENT })
    }
}

/// Requests, by class and by code.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RequestsView {
    /// All of them.
    total: u64,
    /// By what they were for: `api`, `page`, `static`, `websocket`.
    by_class: BTreeMap<&'static str, u64>,
    /// By how they were answered: `2xx`, …; `499` is a client that went away before.
    by_code: BTreeMap<&'static str, u64>,
}

/// What was used in some time; what was not asked for is absent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageView {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<RequestsView>,
    /// Bytes of request bodies.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_in: Option<u64>,
    /// Bytes of answers' bodies.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_out: Option<u64>,
    /// Requests refused for a limit (429).
    #[serde(skip_serializing_if = "Option::is_none")]
    limited: Option<u64>,
    /// The most requests in flight at one time at one proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight_peak: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<LatencyView>,
}

impl UsageView {
    fn of(usage: &Usage, metrics: &BTreeSet<Metric>) -> Self {
        let wanted = |metric| metrics.contains(&metric);
        let counts = &usage.requests;
        Self {
            requests: wanted(Metric::Requests).then(|| RequestsView {
                total: counts.total(),
                by_class: RequestClass::ALL.map(|class| (class.as_str(), counts.of_class(class))).into(),
                by_code: CodeClass::ALL.map(|code| (code.as_str(), counts.of_code(code))).into(),
            }),
            bytes_in: wanted(Metric::Bytes).then_some(usage.bytes_in),
            bytes_out: wanted(Metric::Bytes).then_some(usage.bytes_out),
            limited: wanted(Metric::Limited).then_some(usage.limited),
            in_flight_peak: wanted(Metric::InFlight).then_some(usage.in_flight_peak),
            latency: if wanted(Metric::Latency) { LatencyView::of(&usage.latency) } else { None },
        }
    }
}

/// What was used in one minute, hour or day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PointView {
    /// When it began.
    #[schema(format = DateTime)]
    at: String,
    #[serde(flatten)]
    usage: UsageView,
}

/// What an instance of the app reported.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppView {
    /// People with an account.
    users: u64,
    /// Students.
    students: u64,
    /// Bytes of its data.
    storage_bytes: u64,
    /// The instance that said so.
    instance: String,
    /// When.
    #[schema(format = DateTime)]
    reported_at: String,
}

impl AppView {
    pub(crate) fn of(report: AppReport) -> Self {
        let AppReport { users, students, storage_bytes, instance, reported_at_ms, .. } = report;
        Self { users, students, storage_bytes, instance, reported_at: rfc3339(reported_at_ms) }
    }
}

/// What a tenant used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantUsageView {
    /// Whose.
    tenant: TenantId,
    /// Its slug.
    slug: String,
    /// The time zone of all times here, in which days begin: always `UTC`.
    time_zone: &'static str,
    /// How long each point is.
    step: Step,
    /// From when.
    #[schema(format = DateTime)]
    from: String,
    /// Until when, exclusive.
    #[schema(format = DateTime)]
    to: String,
    /// All points together.
    totals: UsageView,
    /// What was used, oldest first. Times without use are left out.
    points: Vec<PointView>,
    /// What the app last reported; `null` when it never did.
    app: Option<AppView>,
    /// What the tenant's plan, or an override, allows of what the app reports.
    app_limits: AppLimits,
}

/// What a plan allows of what the app reports; `null`: as much as there is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppLimits {
    /// People with an account.
    users: Option<u64>,
    /// Bytes of data.
    storage_bytes: Option<u64>,
}

impl TenantUsageView {
    pub(crate) fn of(
        table: &RoutingTable,
        tenant: (TenantId, &str),
        range: Range,
        metrics: &BTreeSet<Metric>,
        parts: &[UsagePart],
        app: Option<AppReport>,
        now_ms: i64,
    ) -> Self {
        let mut totals = Usage::default();
        parts.iter().for_each(|part| totals.merge(&part.usage));
        let point =
            |part: &UsagePart| PointView { at: rfc3339(part.at_s * 1_000), usage: UsageView::of(&part.usage, metrics) };
        let entry = table.tenant(&tenant.0);
        let limit = |name| {
            // What the app is told in `X-Tenant-Context`: the platform's caps are for what the gateway itself limits.
            let entry = entry?;
            effective_limit(&entry.tenant, &entry.plan, &Limits::default(), name, now_ms).value
        };
        Self {
            tenant: tenant.0,
            slug: tenant.1.to_owned(),
            time_zone: TIME_ZONE,
            step: range.step,
            from: rfc3339(range.from_s * 1_000),
            to: rfc3339(range.to_s * 1_000),
            totals: UsageView::of(&totals, metrics),
            points: parts.iter().map(point).collect(),
            app: app.map(AppView::of),
            app_limits: AppLimits { users: limit(LimitName::Users), storage_bytes: limit(LimitName::StorageBytes) },
        }
    }
}

/// The usage of a tenant as CSV (RFC 4180): a line per point, with the columns of the metrics asked for.
pub(crate) fn tenant_csv(parts: &[UsagePart], metrics: &BTreeSet<Metric>) -> String {
    let mut head = vec!["at".to_owned()];
    for metric in metrics {
        match metric {
            Metric::Requests => {
                head.push("requests".to_owned());
                head.extend(RequestClass::ALL.map(|class| format!("requests_{}", class.as_str())));
                head.extend(CodeClass::ALL.map(|code| format!("requests_{}", code.as_str())));
            }
            Metric::Bytes => head.extend(["bytes_in", "bytes_out"].map(str::to_owned)),
            Metric::Limited => head.push("limited".to_owned()),
            Metric::InFlight => head.push("in_flight_peak".to_owned()),
            Metric::Latency => head.extend(["p50_ms", "p90_ms", "p99_ms"].map(str::to_owned)),
        }
    }
    let mut csv = line(&head);
    for part in parts {
        let (usage, counts) = (&part.usage, &part.usage.requests);
        let mut fields = vec![rfc3339(part.at_s * 1_000)];
        for metric in metrics {
            match metric {
                Metric::Requests => {
                    fields.push(counts.total().to_string());
                    fields.extend(RequestClass::ALL.map(|class| counts.of_class(class).to_string()));
                    fields.extend(CodeClass::ALL.map(|code| counts.of_code(code).to_string()));
                }
                Metric::Bytes => fields.extend([usage.bytes_in, usage.bytes_out].map(|n| n.to_string())),
                Metric::Limited => fields.push(usage.limited.to_string()),
                Metric::InFlight => fields.push(usage.in_flight_peak.to_string()),
                Metric::Latency => fields.extend(match LatencyView::of(&usage.latency) {
                    Some(LatencyView { p50_ms, p90_ms, p99_ms, .. }) => {
                        [p50_ms, p90_ms, p99_ms].map(|ms| ms.to_string())
                    }
                    None => [const { String::new() }; 3],
                }),
            }
        }
        csv.push_str(&line(&fields));
    }
    csv
}

/// What a tenant used in some days, for billing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BilledView {
    /// Whose.
    tenant: TenantId,
    /// Its slug; `null` when the tenant is no more.
    slug: Option<String>,
    /// Its name.
    name: Option<String>,
    /// The operator's own reference.
    external_id: Option<String>,
    /// The plan it is on now.
    plan: Option<String>,
    /// Requests.
    requests: u64,
    /// Requests answered with 5xx.
    errors: u64,
    /// Requests refused for a limit (429).
    limited: u64,
    /// Bytes of request bodies.
    bytes_in: u64,
    /// Bytes of answers' bodies.
    bytes_out: u64,
    /// The most requests in flight at one time at one proxy.
    in_flight_peak: u64,
    /// What the app last reported; `null` when it never did.
    app: Option<AppView>,
}

/// Tenants in the order of their identifiers, those after `after`, with what they used; also those that used nothing, and
/// those that are no more and used something.
pub(crate) async fn billed(
    store: &Store,
    range: Range,
    after: Option<TenantId>,
    limit: u32,
) -> Result<Vec<BilledView>, Refusal> {
    let head = store.head();
    let query = TotalsQuery { from_s: range.from_s, to_s: range.to_s, after, limit };
    let used: BTreeMap<TenantId, UsageTotal> =
        store.usage_totals(&query).await?.into_iter().map(|total| (total.tenant, total)).collect();
    let present = head.table.tenants().map(|entry| entry.tenant.id).filter(|id| after.is_none_or(|after| *id > after));
    let mut ids: Vec<TenantId> = present.chain(used.keys().copied()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(limit as usize);
    let reports = store.app_reports(&ids).await?;
    let mut reports: BTreeMap<TenantId, AppReport> = reports.into_iter().map(|r| (r.tenant, r)).collect();
    let view = |id: TenantId| {
        let tenant = head.table.tenant(&id).map(|entry| &entry.tenant);
        let total = used.get(&id);
        let sum = |of: fn(&UsageTotal) -> u64| total.map(of).unwrap_or_default();
        BilledView {
            tenant: id,
            slug: tenant.map(|t| t.slug.to_string()),
            name: tenant.map(|t| t.name.clone()),
            external_id: tenant.and_then(|t| t.external_id.clone()),
            plan: tenant.map(|t| t.plan.to_string()),
            requests: sum(|t| t.requests),
            errors: sum(|t| t.errors),
            limited: sum(|t| t.limited),
            bytes_in: sum(|t| t.bytes_in),
            bytes_out: sum(|t| t.bytes_out),
            in_flight_peak: sum(|t| t.in_flight_peak),
            app: reports.remove(&id).map(AppView::of),
        }
    };
    Ok(ids.into_iter().map(view).collect())
}

impl BilledView {
    /// Whose it is: where the next part of a list begins.
    pub(crate) const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The first line of the CSV.
    pub(crate) fn csv_head() -> String {
        line(&[
            "from",
            "to",
            "tenant",
            "slug",
            "name",
            "external_id",
            "plan",
            "requests",
            "errors",
            "limited",
            "bytes_in",
            "bytes_out",
            "in_flight_peak",
            "users",
            "students",
            "storage_bytes",
            "reported_at",
        ])
    }

    /// Its line of the CSV.
    pub(crate) fn csv_line(&self, range: Range) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let app = |of: fn(&AppView) -> String| self.app.as_ref().map(of).unwrap_or_default();
        line(&[
            rfc3339(range.from_s * 1_000),
            rfc3339(range.to_s * 1_000),
            self.tenant.to_string(),
            text(&self.slug),
            text(&self.name),
            text(&self.external_id),
            text(&self.plan),
            self.requests.to_string(),
            self.errors.to_string(),
            self.limited.to_string(),
            self.bytes_in.to_string(),
            self.bytes_out.to_string(),
            self.in_flight_peak.to_string(),
            app(|app| app.users.to_string()),
            app(|app| app.students.to_string()),
            app(|app| app.storage_bytes.to_string()),
            app(|app| app.reported_at.clone()),
        ])
    }
}

/// One line of CSV. A field that a spreadsheet would take for a formula is marked as text: names are what people type.
fn line<S: AsRef<str>>(fields: &[S]) -> String {
    let quoted = fields.iter().map(|field| {
        let field = field.as_ref();
        let mark = if field.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
        if mark.is_empty() && !field.contains([',', '"', '\n', '\r']) {
            field.to_owned()
        } else {
            format!("\"{mark}{}\"", field.replace('"', "\"\""))
        }
    });
    quoted.collect::<Vec<_>>().join(",") + "\r\n"
}

/// What an instance of the app reports.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppReportInput {
    /// What the instance calls itself, such as its address.
    instance: String,
    /// The tenants that it serves.
    tenants: Vec<AppTenantInput>,
}

/// What it reports of one tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppTenantInput {
    /// Of whom.
    tenant: TenantId,
    /// People with an account.
    users: u64,
    /// Students.
    students: u64,
    /// Bytes of its data.
    storage_bytes: u64,
}

/// What became of a report.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppReportTaken {
    /// How many tenants were noted.
    taken: usize,
    /// Those that are not here any more, or not the token's: not noted, and not an error, since a school may have left while
    /// its data is still there.
    unknown: Vec<TenantId>,
}

/// Notes what an instance reports. `tenants` are those of its token; empty: all.
///
/// # Errors
/// [`Refusal::Invalid`] names every field that is wrong.
pub(crate) async fn take_report(
    store: &Store,
    tenants: &[TenantId],
    body: &Value,
    now_ms: i64,
) -> Result<AppReportTaken, Refusal> {
    let input: AppReportInput = AppReportInput::deserialize(body)
        .map_err(|e| Refusal::invalid("", "invalid", format!("this is no report: {e}")))?;
    let mut errors = Vec::new();
    let mut wrong = |pointer: String, code: &str, message: String| {
        errors.push(FieldError { pointer, code: code.to_owned(), message });
    };
    if input.instance.is_empty() || input.instance.chars().count() > 200 || input.instance.chars().any(char::is_control)
    {
        wrong("/instance".into(), "invalid", "expected 1 to 200 characters without control characters".into());
    }
    if input.tenants.len() > MOST_REPORTED {
        wrong("/tenants".into(), "too_many", format!("at most {MOST_REPORTED} in one report: send several"));
    }
    let mut seen = BTreeSet::new();
    for (at, reported) in input.tenants.iter().enumerate().take(MOST_REPORTED) {
        let numbers =
            [("users", reported.users), ("students", reported.students), ("storage_bytes", reported.storage_bytes)];
        for (name, _) in numbers.into_iter().filter(|(_, number)| i64::try_from(*number).is_err()) {
            wrong(format!("/tenants/{at}/{name}"), "too_large", "nobody has that many".into());
        }
        if !seen.insert(reported.tenant) {
            wrong(format!("/tenants/{at}/tenant"), "duplicate", "reported twice".into());
        }
    }
    if !errors.is_empty() {
        return Err(Refusal::Invalid(errors));
    }
    let head = store.head();
    let known = |id: &TenantId| head.table.tenant(id).is_some() && (tenants.is_empty() || tenants.contains(id));
    let (known, unknown): (Vec<_>, Vec<_>) = input.tenants.into_iter().partition(|r| known(&r.tenant));
    let reports: Vec<AppReport> = known
        .into_iter()
        .map(|r| AppReport {
            tenant: r.tenant,
            users: r.users,
            students: r.students,
            storage_bytes: r.storage_bytes,
            instance: input.instance.clone(),
            reported_at_ms: now_ms,
        })
        .collect();
    if !reports.is_empty() {
        store.save_app_reports(&reports).await?;
    }
    Ok(AppReportTaken { taken: reports.len(), unknown: unknown.into_iter().map(|r| r.tenant).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20T20:15:30Z.
    const NOW: i64 = 1_795_205_730;

    #[test]
    fn a_time_is_widened_to_whole_steps_and_ends_now_if_nobody_says() {
        let from = moment("2026-11-20T18:59:59Z").expect("a time");
        let range = Range::new(Step::Hour, Some(from), None, NOW).expect("a range");
        assert_eq!(rfc3339(range.from_s * 1_000), "2026-11-20T18:00:00.000Z");
        assert_eq!(rfc3339(range.to_s * 1_000), "2026-11-20T21:00:00.000Z");
        let range = Range::new(Step::Day, None, None, NOW).expect("a range");
        assert_eq!((range.to_s - range.from_s) / 86_400, 31, "thirty whole days and today");
        let minute = NOW - 30;
        let range = Range::new(Step::Minute, None, None, minute).expect("a range");
        assert_eq!((range.from_s, range.to_s), (minute - 3_600, minute + 60), "in its first second a minute has begun");
        let offset = moment("2026-11-20T21:00:00+01:00");
        assert_eq!(offset, moment("2026-11-20T20:00:00Z"));
        assert_eq!(moment("2026-11-20"), moment("2026-11-20T00:00:00Z"));
    }

    #[test]
    fn a_time_that_makes_no_sense_is_refused_with_what_does() {
        assert!(moment("yesterday").expect_err("no time").contains("RFC 3339"));
        assert!(moment("2026-02-30").is_err());
        let at = |text| moment(text).ok();
        let refused = Range::new(Step::Hour, at("2026-11-20"), at("2026-11-20"), NOW).expect_err("empty");
        assert!(refused.contains("before"), "{refused}");
        let refused = Range::new(Step::Minute, at("2026-11-01"), None, NOW).expect_err("long");
        assert!(refused.contains("3000 minutes"), "{refused}");
        assert!(Range::new(Step::Day, at("0001-01-01"), at("9999-12-31"), NOW).is_ok(), "all that is kept");
    }

    #[test]
    fn a_month_has_its_days() {
        let days = |text| Range::month(text).map(|r| (r.to_s - r.from_s) / 86_400);
        assert_eq!([days("2026-11"), days("2028-02"), days("2026-02")], [Ok(30), Ok(29), Ok(28)]);
        for text in ["", "2026", "2026-13", "2026-00", "26-11", "2026-1", "2026-11-01"] {
            assert!(Range::month(text).is_err(), "{text}");
        }
    }

    #[test]
    fn metrics_are_chosen_by_name() {
        assert_eq!(Metric::list(None).map(|all| all.len()), Ok(5));
        assert_eq!(Metric::list(Some("latency, requests")), Ok([Metric::Requests, Metric::Latency].into()));
        assert!(Metric::list(Some("requests,color")).expect_err("unknown").contains("`color`"));
    }

    #[test]
    fn csv_has_a_column_for_each_number_and_quotes_what_people_type() {
        let mut usage = Usage { bytes_in: 4, ..Usage::default() };
        usage.requests.add(RequestClass::Api, CodeClass::Success, 2);
        let part = UsagePart { tenant: TenantId::from_parts(1, 1), at_s: 0, step: Step::Day, usage };
        let csv = tenant_csv(&[part], &Metric::list(Some("requests,bytes,latency")).expect("known"));
        let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines[0].len(), lines[1].len());
        assert_eq!(&lines[0][..3], ["at", "requests", "requests_api"]);
        assert_eq!(&lines[1][..3], ["1970-01-01T00:00:00.000Z", "2", "2"]);
        assert_eq!(&lines[1][lines[1].len() - 5..], ["4", "0", "", "", ""]);
        assert_eq!(line(&["a,b", "say \"x\"", "=1+1", "plain"]), "\"a,b\",\"say \"\"x\"\"\",\"'=1+1\",plain\r\n");
    }
}
