//! `schoolgate usage`: what schools used.

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::api::{Api, Connection};
use super::output::{self, Column, Format, text_at};

const POINTS: &[Column] = &[
    ("at (UTC)", "/at"),
    ("requests", "/requests/total"),
    ("api", "/requests/by_class/api"),
    ("page", "/requests/by_class/page"),
    ("static", "/requests/by_class/static"),
    ("4xx", "/requests/by_code/4xx"),
    ("5xx", "/requests/by_code/5xx"),
    ("limited", "/limited"),
    ("bytes in", "/bytes_in"),
    ("bytes out", "/bytes_out"),
    ("peak", "/in_flight_peak"),
    ("p50 ms", "/latency/p50_ms"),
    ("p99 ms", "/latency/p99_ms"),
];
const TENANTS: &[Column] = &[
    ("tenant", "/slug"),
    ("plan", "/plan"),
    ("requests", "/requests"),
    ("5xx", "/errors"),
    ("limited", "/limited"),
    ("bytes in", "/bytes_in"),
    ("bytes out", "/bytes_out"),
    ("peak", "/in_flight_peak"),
    ("users", "/app/users"),
    ("students", "/app/students"),
    ("storage", "/app/storage_bytes"),
    ("id", "/tenant"),
];

/// How long each line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Kept 48 hours
    Minute,
    /// Kept 30 days
    Hour,
    /// Kept 400 days
    Day,
}

impl Step {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// `schoolgate usage`
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// Slug or id of a school; all schools when absent
    tenant: Option<String>,
    /// From when: 2026-11-20T08:00:00Z, or a day (UTC)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when, exclusive; now when absent
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// How long each line of a school is [default: hour]
    #[arg(long, requires = "tenant")]
    step: Option<Step>,
    /// Only these: requests,bytes,limited,in_flight,latency
    #[arg(long, value_name = "LIST", requires = "tenant")]
    metric: Option<String>,
    /// A month of all schools, such as 2026-11 [default: this month]
    #[arg(long, value_name = "MONTH", conflicts_with_all = ["tenant", "from", "to"])]
    month: Option<String>,
    /// Print CSV, for billing
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Shows it.
pub(crate) async fn run(args: &UsageArgs) -> anyhow::Result<()> {
    let api = Api::connect(&args.connection)?;
    let given = [("from", &args.from), ("to", &args.to), ("metric", &args.metric), ("month", &args.month)];
    let mut query: Vec<(&str, String)> =
        given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
    query.extend(args.step.map(|step| ("step", step.as_str().to_owned())));
    let key = args.tenant.as_deref().map(super::tenant::tenant_key);
    let path: Vec<&str> = match &key {
        Some(key) => vec!["tenants", key, "usage"],
        None => vec!["usage"],
    };
    if args.csv {
        query.push(("format", "csv".to_owned()));
        return output::raw(&api.text(&path, &query).await?);
    }
    if key.is_none() {
        let tenants = api.list(&path, &query, None).await?;
        return output::list(api.format, &tenants, TENANTS);
    }
    let usage = api.get(&path, &query).await?;
    match api.format {
        Format::Json => output::json(&usage),
        Format::People => output::line(&render(&usage)?),
    }
}

fn render(usage: &Value) -> anyhow::Result<String> {
    let Some(points) = usage.get("points").and_then(Value::as_array) else {
        bail!("the control API answered something else than usage");
    };
    let at = |pointer| text_at(usage, pointer);
    let mut text = format!("{}, {} to {} ({})", at("/slug"), at("/from"), at("/to"), at("/time_zone"));
    for (title, now, limit) in
        [("users", "/app/users", "/app_limits/users"), ("storage", "/app/storage_bytes", "/app_limits/storage_bytes")]
    {
        if usage.pointer(now).is_some() {
            let of = if at(limit).is_empty() { String::new() } else { format!(" of {}", at(limit)) };
            text.push_str(&format!("\n{title:<9} {}{of}, reported {}", at(now), at("/app/reported_at")));
        }
    }
    text.push_str("\n\n");
    if points.is_empty() {
        text.push_str("nothing was used in this time");
        return Ok(text);
    }
    let mut total = usage.get("totals").cloned().unwrap_or_default();
    total["at"] = "total".into();
    let lines: Vec<Value> = points.iter().cloned().chain([total]).collect();
    // A column that was not asked for is not there.
    let shown: Vec<Column> = POINTS
        .iter()
        .copied()
        .filter(|(_, pointer)| lines.iter().any(|line| line.pointer(pointer).is_some()))
        .collect();
    text.push_str(&output::table(&lines, &shown));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_school_is_shown_with_its_total_and_without_columns_nobody_asked_for() {
        let text = render(&json!({
            "slug": "ash", "from": "2026-11-20T00:00:00.000Z", "to": "2026-11-21T00:00:00.000Z", "time_zone": "UTC",
            "totals": {"requests": {"total": 7, "by_class": {}, "by_code": {}}},
            "points": [{"at": "2026-11-20T08:00:00.000Z", "requests": {"total": 7, "by_class": {}, "by_code": {}}}],
            "app": {"users": 99, "students": 90, "storage_bytes": 5, "reported_at": "2026-11-20T07:00:00.000Z"},
            "app_limits": {"users": 100, "storage_bytes": null},
        }))
        .unwrap();
        for part in ["UTC", "users     99 of 100", "storage   5, reported", "2026-11-20T08:00", "total"] {
            assert!(text.contains(part), "`{part}` is missing in\n{text}");
        }
        assert!(!text.contains("P99"), "{text}");
    }

    #[test]
    fn a_time_without_use_says_so() {
        let text = render(&json!({"slug": "ash", "points": [], "totals": {}, "app": null})).unwrap();
        assert!(text.contains("nothing was used"), "{text}");
    }
}
