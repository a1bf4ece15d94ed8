//! Limits: what an operator sets is what visitors meet, and an override ends by itself.

use std::time::Duration;

use schoolgate_config::model::Timestamp;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_testkit::{Origin, Site, eventually};
use serde_json::{Value, json};

use crate::{SOON, gateway, gateway_with, pool, school};

/// Puts `ash` on a plan with these limits.
async fn limit(site: &Site, limits: Value) {
    site.api().post("plans", json!({"id": "tiny", "limits": limits})).await.expect(201);
    site.api().patch("tenants/slug:ash?wait=applied", json!({"plan": "tiny"})).await.expect(200);
}

async fn policy(site: &Site) -> String {
    let answer = site.client("ash.localhost").get("/").await;
    answer.headers().get("ratelimit-policy").map(|v| v.to_str().expect("ASCII").to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_school_above_its_limits_is_refused_counted_and_logged() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    limit(&site, json!({"requests_per_minute": 60, "burst": 2, "requests_per_day": {"value": 1000, "mode": "hard"}}))
        .await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(site.client("ash.localhost").get("/").await);
    }
    let refused = answers.iter().filter(|answer| answer.status() == 429).count();
    assert!(refused >= 1, "eight at once are above a burst of two");
    let last = answers.iter().find(|answer| answer.status() == 429).expect("refused");
    assert!(last.headers().contains_key("retry-after") && last.headers().contains_key("ratelimit"));
    let layer = ["tenant=\"ash\"", "layer=\"rate\"", "mode=\"enforce\""];
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let refused = refused as f64;
    eventually(SOON, || async { site.metric("schoolgate_limited_total", &layer).await == refused }).await;
    let used = site.metric("schoolgate_quota_used_ratio", &["tenant=\"ash\"", "quota=\"requests_per_day\""]).await;
    assert!((used - (8.0 - refused) / 1_000.0).abs() < 1e-9, "refused ones use nothing up: {used}");
}

#[tokio::test]
async fn an_override_holds_for_its_while_and_ends_by_itself() {
    let origin = Origin::start().await;
    let site = gateway().settings("[platform.caps]\nrequests_per_minute = 5000").up().await;
    pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    limit(&site, json!({"requests_per_minute": 600})).await;
    assert_eq!(policy(&site).await, r#""minute";q=600;w=60"#);
    let expires_at = Timestamp::from_unix_ms(SystemClock.unix_ms() + 4_000).to_string();
    let exam = json!({"value": 900, "reason": "exam week", "expires_at": expires_at});
    let put = site.api().put("tenants/slug:ash/overrides/requests_per_minute?wait=applied", exam).await.expect(200);
    assert_eq!((&put["value"], &put["from"]), (&json!(900), &json!("override")));
    assert_eq!(policy(&site).await, r#""minute";q=900;w=60"#);
    eventually(Duration::from_secs(15), || async { policy(&site).await == r#""minute";q=600;w=60"# }).await;
    let limits = site.api().get("tenants/slug:ash/limits").await.expect(200);
    let row = limits["limits"].as_array().expect("rows").iter().find(|r| r["limit"] == "requests_per_minute");
    let row = row.expect("the limit");
    assert_eq!((&row["value"], &row["from"], &row["override_holds"]), (&json!(600), &json!("plan"), &json!(false)));

    let much = json!({"value": 9000, "reason": "results day"});
    site.api().put("tenants/slug:ash/overrides/requests_per_minute?wait=applied", much).await.expect(200);
    assert_eq!(policy(&site).await, r#""minute";q=5000;w=60"#, "the platform's cap is above an override");

    let data = site.data().display().to_string();
    let run = |args: &[&str]| {
        let output = site.run(&[args, &["--data-dir", &data]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(run(&["limits", "show", "ash"]).contains("platform_cap"));
    run(&["limits", "override", "ash", "requests_per_minute", "700", "--reason", "open day", "--wait"]);
    assert_eq!(policy(&site).await, r#""minute";q=700;w=60"#);
    run(&["limits", "clear", "ash", "requests_per_minute", "--wait"]);
    assert_eq!(policy(&site).await, r#""minute";q=600;w=60"#);
}
