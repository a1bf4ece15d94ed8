//! `usage`: what is asked for, what comes back, and what instances of the app report.

use schoolgate_config::model::TenantId;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_config::usage::{CodeClass, RequestClass, Step, Usage, UsageFlush, UsagePart};
use schoolgate_testkit::Api;
use serde_json::{Value, json};

use crate::site::{Site, pointers, problem};

fn id(tenant: &Value) -> TenantId {
    tenant["id"].as_str().expect("an id").parse().expect("a tenant's")
}

/// Requests of a tenant in one second, as a proxy flushes them.
async fn use_up(site: &Site, number: u64, tenant: TenantId, requests: u64, at_s: i64) {
    let mut usage = Usage { bytes_out: 100 * requests, ..Usage::default() };
    usage.requests.add(RequestClass::Api, CodeClass::Success, requests);
    usage.latency.add(20, requests);
    let part = UsagePart { tenant, at_s, step: Step::Minute, usage };
    let flush = UsageFlush {
        node: "n1".parse().expect("a name"),
        boot: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("a ULID"),
        number,
        parts: vec![part],
        quotas: Vec::new(),
    };
    site.publisher.feed().count_usage(&flush).await.expect("counts");
}

/// The API for an instance of the app.
fn instance(site: &Site) -> Api {
    let token = std::fs::read_to_string(site.data.join("instance.token")).expect("the instances' token");
    site.api.with_token(token.trim())
}

#[tokio::test]
async fn usage_of_a_tenant_is_narrowed_by_time_step_and_metric() {
    let (site, tenant) = Site::with_tenant("ash").await;
    let now_s = SystemClock.unix_s();
    for number in [1, 2, 2] {
        use_up(&site, number, id(&tenant), 5, now_s).await;
    }
    for step in ["minute", "hour", "day"] {
        let usage = site.api.get(&format!("tenants/slug:ash/usage?step={step}")).await.expect(200);
        assert_eq!(usage["totals"]["requests"]["total"], 10, "{step}: {usage}");
        assert_eq!(usage["points"].as_array().map(Vec::len), Some(1), "{usage}");
    }
    let usage = site.api.get("tenants/slug:ash/usage?metric=bytes").await.expect(200);
    assert_eq!(usage["totals"], json!({"bytes_in": 0, "bytes_out": 1_000}));
    let usage = site.api.get("tenants/slug:ash/usage?step=day&to=2020-01-02").await.expect(200);
    assert_eq!(usage["points"], json!([]), "nothing is kept of then");
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_what_can() {
    let (site, _) = Site::with_tenant("ash").await;
    for (query, word) in [
        ("step=week", "minute, hour or day"),
        ("from=yesterday", "RFC 3339"),
        ("from=2026-11-20&to=2026-11-19", "before"),
        ("metric=color", "`color`"),
        ("format=xml", "csv or json"),
        ("colour=1", "colour"),
    ] {
        let refused = problem(site.api.get(&format!("tenants/slug:ash/usage?{query}")).await, 400, "BAD_REQUEST");
        assert!(refused["message"].as_str().is_some_and(|m| m.contains(word)), "{query}: {refused}");
    }
    for query in ["month=2026-13", "month=2026-11&from=2026-11-01", "cursor=x", "limit=0"] {
        problem(site.api.get(&format!("usage?{query}")).await, 400, "BAD_REQUEST");
    }
    problem(site.api.get("tenants/slug:oak/usage").await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn usage_of_all_tenants_comes_in_parts_as_json_and_whole_as_csv() {
    let (site, ash) = Site::with_tenant("ash").await;
    let oak = site.tenant("oak").await;
    let now_s = SystemClock.unix_s();
    use_up(&site, 1, id(&ash), 5, now_s).await;
    let gone = TenantId::from_parts(1, 1);
    use_up(&site, 2, gone, 2, now_s).await;
    let first = site.api.get("usage?limit=2").await.expect(200);
    let next = first["next"].as_str().expect("more");
    let rest = site.api.get(&format!("usage?limit=2&cursor={next}")).await.expect(200);
    let items = [first["items"].as_array().expect("items").clone(), rest["items"].as_array().expect("items").clone()];
    let mut found: Vec<_> = items.concat().iter().map(|i| (i["slug"].clone(), i["requests"].as_u64())).collect();
    found.sort_by_key(|(slug, _)| slug.to_string());
    assert_eq!(found, [(json!("ash"), Some(5)), (json!("oak"), Some(0)), (Value::Null, Some(2))]);

    let request = site.api.request(reqwest::Method::GET, "usage").header("accept", "text/csv");
    let answer = Api::send(request).await;
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    let lines: Vec<&str> = answer.text.lines().collect();
    assert_eq!(lines.len(), 4, "{}", answer.text);
    assert!(lines.iter().any(|line| line.contains(&format!("{},oak,", id(&oak)))), "{}", answer.text);
    let csv = site.api.get("tenants/slug:ash/usage?format=csv&metric=requests").await;
    assert!(csv.text.starts_with("at,requests,requests_api,"), "{}", csv.text);
}

#[tokio::test]
async fn a_viewer_of_one_tenant_sees_its_usage_only() {
    let (site, ash) = Site::with_tenant("ash").await;
    site.tenant("oak").await;
    let viewer = json!({"name": "ash", "role": "tenant-viewer", "tenants": [ash["id"]]});
    let viewer = site.api_of(viewer).await;
    viewer.get("tenants/slug:ash/usage").await.expect(200);
    problem(viewer.get("tenants/slug:oak/usage").await, 403, "FORBIDDEN");
    problem(viewer.get("usage").await, 403, "FORBIDDEN");
}

#[tokio::test]
async fn what_an_instance_reports_is_shown_beside_the_rest() {
    let (site, ash) = Site::with_tenant("ash").await;
    assert_eq!(site.api.get("tenants/slug:ash/usage").await.expect(200)["app"], Value::Null);
    let gone = TenantId::from_parts(1, 1);
    let of =
        |tenant: Value, users: u64| json!({"tenant": tenant, "users": users, "students": 7, "storage_bytes": 4096});
    let body = json!({"instance": "127.0.0.1:8701", "tenants": [of(ash["id"].clone(), 9), of(json!(gone), 1)]});
    let taken = instance(&site).post("/internal/v1/usage", body).await.expect(200);
    assert_eq!(taken, json!({"taken": 1, "unknown": [gone]}));
    let usage = site.api.get("tenants/slug:ash/usage").await.expect(200);
    assert_eq!((&usage["app"]["users"], &usage["app"]["students"]), (&json!(9), &json!(7)), "{usage}");
    assert!(usage["app"]["reported_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{usage}");
    assert_eq!(usage["app_limits"]["users"], 100, "{usage}");
}

#[tokio::test]
async fn a_report_is_checked_and_taken_from_instances_only() {
    let (site, ash) = Site::with_tenant("ash").await;
    let api = instance(&site);
    let of = |users: Value| json!({"tenant": ash["id"], "users": users, "students": 0, "storage_bytes": 0});
    let twice = json!({"instance": "", "tenants": [of(json!(u64::MAX)), of(json!(1))]});
    let refused = problem(api.post("/internal/v1/usage", twice).await, 422, "VALIDATION_FAILED");
    assert_eq!(pointers(&refused), ["/instance", "/tenants/0/users", "/tenants/1/tenant"]);
    for body in [json!({}), json!([]), json!({"instance": "a", "tenants": [of(json!(-1))]})] {
        problem(api.post("/internal/v1/usage", body).await, 422, "VALIDATION_FAILED");
    }
    let body = json!({"instance": "a", "tenants": [of(json!(1))]});
    problem(site.api.post("/internal/v1/usage", body.clone()).await, 401, "INVALID_TOKEN_FORMAT");
    let node = std::fs::read_to_string(site.data.join("node.token")).expect("the nodes' token");
    problem(site.api.with_token(node.trim()).post("/internal/v1/usage", body).await, 401, "INVALID_TOKEN_FORMAT");
    // And an instance's token opens nothing else.
    problem(api.get("tenants").await, 401, "INVALID_TOKEN_FORMAT");
    problem(api.get("/internal/v1/feed?node=x&after=0").await, 401, "INVALID_TOKEN_FORMAT");
}
