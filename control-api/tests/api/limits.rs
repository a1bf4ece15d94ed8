//! Limits of a tenant, and overrides of them.

use serde_json::{Value, json};

use crate::site::{Site, problem};

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
