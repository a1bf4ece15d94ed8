//! Limits of a tenant, and overrides of them.

use std::sync::Arc;

use schoolgate_config::calendar::Calendar;
use schoolgate_config::model::TenantId;
use schoolgate_config::time::{Clock, SystemClock, rfc3339};
use schoolgate_config::usage::{CodeClass, QuotaKind, QuotaUse, RequestClass, Step, Usage, UsageFlush, UsagePart};
use schoolgate_control_api::OverrideTurns;
use schoolgate_testkit::eventually;
use serde_json::{Value, json};

use crate::site::{Site, WAIT, problem};

fn row<'a>(limits: &'a Value, name: &str) -> &'a Value {
    let rows = limits["limits"].as_array().expect("rows");
    rows.iter().find(|row| row["limit"] == name).expect("every limit has a row")
}

#[tokio::test]
async fn limits_say_where_each_comes_from() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let exam = json!({"value": 3000, "reason": "results day", "expires_at": "2100-01-01T00:00:00Z"});
    let put = site.api.put("tenants/slug:greenhill/overrides/requests_per_minute", exam.clone()).await.expect(200);
    assert_eq!((&put["value"], &put["from"], &put["plan"]), (&json!(3000), &json!("override"), &json!(100)));
    let limits = site.api.get("tenants/slug:greenhill/limits").await.expect(200);
    assert_eq!((&limits["plan"], &limits["time_zone"]), (&json!("basic"), &json!("UTC")));
    assert_eq!(limits["changes_at"], "2100-01-01T00:00:00.000Z");
    assert_eq!(row(&limits, "requests_per_minute"), &put);
    assert_eq!(row(&limits, "in_flight")["from"], "plan");
    assert_eq!(row(&limits, "upload_bytes")["value"], Value::Null);
    assert_eq!(row(&limits, "custom_domains")["used"], 0);
    assert_eq!(row(&limits, "requests_per_day")["quota"], "soft");

    // The override is the tenant's, and survives it being written whole.
    let body = json!({"slug": "greenhill", "name": "Other", "time_zone": "europe/berlin"});
    let tenant = site.api.put("tenants/slug:greenhill", body).await.expect(200);
    assert_eq!(
        (&tenant["time_zone"], &tenant["overrides"]["requests_per_minute"]["value"]),
        (&json!("Europe/Berlin"), &json!(3000))
    );

    assert_eq!(site.api.delete("tenants/slug:greenhill/overrides/requests_per_minute").await.status, 204);
    let limits = site.api.get("tenants/slug:greenhill/limits").await.expect(200);
    assert_eq!(row(&limits, "requests_per_minute")["value"], 100);
    problem(site.api.delete("tenants/slug:greenhill/overrides/requests_per_minute").await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn a_bad_override_is_told_with_everything_that_is_wrong() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let path = "tenants/slug:greenhill/overrides/requests_per_minute";
    let wrong = json!({"value": 0, "reason": "", "expires_at": "tomorrow", "until": 1});
    let answer = problem(site.api.put(path, wrong).await, 422, "VALIDATION_FAILED");
    let mut pointers: Vec<_> =
        answer["errors"].as_array().expect("errors").iter().map(|e| e["pointer"].clone()).collect();
    pointers.sort_by_key(ToString::to_string);
    assert_eq!(pointers, ["/expires_at", "/reason", "/until"]);
    let over = json!({"value": 1, "reason": "late", "expires_at": "2001-01-01T00:00:00Z"});
    let answer = problem(site.api.put(path, over).await, 422, "VALIDATION_FAILED");
    assert_eq!(answer["errors"][0]["pointer"], "/expires_at");
    let unknown = site.api.put("tenants/slug:greenhill/overrides/rpm", json!({"value": 1, "reason": "x"})).await;
    assert!(problem(unknown, 404, "NOT_FOUND").to_string().contains("requests_per_minute"));
}

#[tokio::test]
async fn a_smaller_plan_previews_who_would_be_above_it() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.api.patch("plans/basic", json!({"limits": {"custom_domains": 2}})).await.expect(200);
    for name in ["one.greenhill.test", "two.greenhill.test"] {
        site.api.post("domains", json!({"name": name, "tenant": "greenhill"})).await.expect(201);
    }
    let fits = site.api.patch("plans/basic?dry_run=true", json!({"limits": {"custom_domains": 2}})).await.expect(200);
    assert_eq!(fits.get("above_limits"), None);
    let plan = site.api.patch("plans/basic?dry_run=true", json!({"limits": {"custom_domains": 1}})).await.expect(200);
    let above = &plan["above_limits"];
    assert_eq!(above["total"], 1);
    let first = &above["tenants"][0];
    assert_eq!((&first["slug"], &first["used"], &first["value"]), (&json!("greenhill"), &json!(2), &json!(1)));
    let plan = site.api.post("plans", json!({"id": "none", "limits": {"custom_domains": 0}})).await.expect(201);
    let moved = json!({"plan": plan["id"]});
    let moved = site.api.patch("tenants/slug:greenhill?dry_run=true", moved).await.expect(200);
    assert_eq!(moved["above_limits"]["tenants"][0]["value"], 0);
}

#[tokio::test]
async fn an_override_ends_by_itself_and_an_event_says_so() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let turns = OverrideTurns::new(site.store.clone(), Arc::new(SystemClock));
    let now_ms = SystemClock.unix_ms();
    let (begins, ends) = (rfc3339(now_ms + 300), rfc3339(now_ms + 1_500));
    let exam = json!({"value": 3000, "reason": "results day", "starts_at": begins, "expires_at": ends});
    site.api.put("tenants/slug:greenhill/overrides/requests_per_minute", exam).await.expect(200);
    let background = tokio::spawn(turns.run("here".to_owned(), std::future::pending()));
    let told = async || {
        let events = site.api.get("events?kind=override").await.expect(200);
        events["items"].as_array().expect("items").clone()
    };
    eventually(WAIT, || async { told().await.len() == 2 }).await;
    let (ended, began) = (told().await[0].clone(), told().await[1].clone());
    assert_eq!((&ended["kind"], &began["kind"]), (&json!("override.ended"), &json!("override.began")));
    assert_eq!((&ended["tenant"], &ended["at"]), (&tenant["id"], &json!(ends)));
    assert_eq!(
        (&ended["detail"]["limit"], &ended["detail"]["plan_value"]),
        (&json!("requests_per_minute"), &json!(100))
    );
    let limits = site.api.get("tenants/slug:greenhill/limits").await.expect(200);
    let row = row(&limits, "requests_per_minute");
    assert_eq!((&row["value"], &row["from"], &row["override_holds"]), (&json!(100), &json!("plan"), &json!(false)));
    assert_eq!(limits["changes_at"], Value::Null);
    background.abort();
}

/// What a proxy says that a school used a minute ago: so many requests, at one time, of its day.
fn used(tenant: &str, requests: u64) -> UsageFlush {
    let tenant: TenantId = tenant.parse().expect("a tenant's");
    let now_ms = SystemClock.unix_ms();
    let mut usage = Usage { in_flight_peak: 30, ..Usage::default() };
    usage.requests.add(RequestClass::Api, CodeClass::Success, requests);
    let calendar = Calendar::at(&Default::default(), now_ms);
    let quota = |quota, period, used| QuotaUse { tenant, quota, period, used };
    UsageFlush {
        node: "n1".parse().expect("a name"),
        boot: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("a ULID"),
        number: 1,
        parts: vec![UsagePart { tenant, at_s: now_ms / 1_000 - 60, step: Step::Minute, usage }],
        quotas: vec![
            quota(QuotaKind::RequestsPerDay, calendar.day.number, 700),
            quota(QuotaKind::BytesPerMonth, calendar.month.number, 5_000),
        ],
    }
}

#[tokio::test]
async fn a_preview_names_everything_that_a_school_uses_more_of() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let quiet = site.tenant("quiet").await;
    let id = tenant["id"].as_str().expect("an id");
    site.publisher.feed().count_usage(&used(id, 90)).await.expect("counted");
    let token = std::fs::read_to_string(site.data.join("instance.token")).expect("the instances' token");
    let counted = json!({"tenant": id, "users": 80, "students": 60, "storage_bytes": 9_000});
    let report = json!({"instance": "127.0.0.1:8701", "tenants": [counted]});
    site.api.with_token(token.trim()).post("/internal/v1/usage", report).await.expect(200);

    let preview = async |limits: Value| {
        let plan = site.api.patch("plans/basic?dry_run=true", json!({ "limits": limits })).await.expect(200);
        plan["above_limits"].clone()
    };
    let named = |above: &Value| -> Vec<(String, u64, u64, String)> {
        let rows = above["tenants"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(rows.iter().all(|row| row["slug"] == "greenhill"), "{above}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        rows.iter()
            .map(|r| (text(&r["limit"]), number(&r["value"]), number(&r["used"]), text(&r["measured"])))
            .collect()
    };
    let above = preview(json!({
        "users": 79, "storage_bytes": 8_999, "requests_per_day": {"value": 699, "mode": "hard"},
        "bytes_per_month": {"value": 4_999, "mode": "hard"}, "requests_per_minute": 89, "in_flight": 29,
    }))
    .await;
    let row = |limit: &str, value, used, measured: &str| (limit.to_owned(), value, used, measured.to_owned());
    let wanted = [
        row("users", 79, 80, "reported"),
        row("storage_bytes", 8_999, 9_000, "reported"),
        row("requests_per_day", 699, 700, "today"),
        row("bytes_per_month", 4_999, 5_000, "this_month"),
        row("requests_per_minute", 89, 90, "busiest_minute"),
        row("in_flight", 29, 30, "at_one_time"),
    ];
    assert_eq!(named(&above), wanted);
    assert_eq!(above["total"], 1, "{} is not above anything", quiet["slug"]);
    let just_fits = preview(json!({
        "users": 80, "storage_bytes": 9_000, "requests_per_day": {"value": 700, "mode": "hard"},
        "bytes_per_month": {"value": 5_000, "mode": "hard"}, "requests_per_minute": 90, "in_flight": 30,
    }))
    .await;
    assert_eq!(just_fits, Value::Null);

    // An override that ends, and a school that moves to another plan.
    let low = json!({"value": 10, "reason": "unpaid"});
    let put = site.api.put("tenants/slug:greenhill/overrides/users?dry_run=true", low).await.expect(200);
    assert_eq!(named(&put["above_limits"])[0], row("users", 10, 80, "reported"));
    site.api.post("plans", json!({"id": "tiny", "limits": {"requests_per_minute": 60}})).await.expect(201);
    let moved = site.api.patch("tenants/slug:greenhill?dry_run=true", json!({"plan": "tiny"})).await.expect(200);
    assert_eq!(named(&moved["above_limits"]), [row("requests_per_minute", 60, 90, "busiest_minute")]);
}

#[tokio::test]
async fn a_plan_says_on_which_kind_of_pool_its_tenants_belong() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let answer = site.api.patch("tenants/slug:greenhill", json!({"plan": "premium"})).await;
    let answer = problem(answer, 422, "VALIDATION_FAILED");
    assert_eq!(
        (&answer["errors"][0]["pointer"], &answer["errors"][0]["code"]),
        (&json!("/pool"), &json!("wrong_pool_kind"))
    );
    site.api.post("pools", json!({"id": "own", "kind": "dedicated"})).await.expect(201);
    let moved = site.api.patch("tenants/slug:greenhill", json!({"plan": "premium", "pool": "own"})).await.expect(200);
    assert_eq!(moved["pool"], "own");
}

#[tokio::test]
async fn plans_pools_and_routes_refuse_limits_that_make_no_sense() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let classes: serde_json::Map<String, Value> = (0..9).map(|n| (format!("c{n}"), json!(1))).collect();
    let refused = async |path: &str, body: Value, pointer: &str| {
        let answer = problem(site.api.post(path, body).await, 422, "VALIDATION_FAILED");
        assert!(answer["errors"].as_array().expect("errors").iter().any(|e| e["pointer"] == pointer), "{answer}");
    };
    refused("plans", json!({"id": "p", "limits": {"classes": classes}}), "/limits/classes").await;
    refused("plans", json!({"id": "p", "limits": {"shadow": ["rpm"]}}), "/limits/shadow/0").await;
    refused("plans", json!({"id": "p", "mode": "maybe"}), "/mode").await;
    refused("plans", json!({"id": "p", "weight": 0}), "/weight").await;
    refused("pools", json!({"id": "p", "max_in_flight": 0}), "/max_in_flight").await;
    refused("pools", json!({"id": "p", "queue": {"priority_paths": ["login"]}}), "/queue/priority_paths/0").await;
    refused("routes", json!({"action": {"class": "cheap"}}), "/action/class").await;
    refused("tenants", json!({"slug": "b", "name": "B", "time_zone": "Berlin"}), "/time_zone").await;
}
