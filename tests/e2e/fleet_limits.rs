//! Limits of a fleet: what was used of a quota survives every restart; Redis is shared through, and missed by nobody.

use schoolgate_testkit::{Api, Origin, Redis, Site, eventually};
use serde_json::json;

use crate::{SOON, gateway, pool};

/// A school that may make so many requests a day, and no more.
async fn school_with_quota(api: &Api, origin: &Origin, requests: u64) {
    pool(api, "web", &[origin]).await;
    let quota = json!({"value": requests, "mode": "hard"});
    let plan = json!({"id": "tiny", "name": "Tiny", "limits": {"requests_per_day": quota}});
    api.post("plans", plan).await.expect(201);
    let tenant = json!({"slug": "ash", "name": "Ash", "plan": "tiny", "pool": "web"});
    api.post("tenants?wait=applied", tenant).await.expect(201);
}

async fn counted(api: &Api) -> u64 {
    let usage = api.get("tenants/slug:ash/usage?step=day").await.expect(200);
    usage["totals"]["requests"]["total"].as_u64().expect("a number")
}

async fn statuses(site: &Site, requests: usize) -> Vec<u16> {
    let client = site.client("ash.localhost");
    let mut statuses = Vec::new();
    for _ in 0..requests {
        statuses.push(client.get("/").await.status().as_u16());
    }
    statuses
}

#[tokio::test]
async fn what_was_used_of_a_days_quota_is_known_after_kill_9() {
    let origin = Origin::start().await;
    let mut site = gateway().env("SCHOOLGATE__PROXY__USAGE_FLUSH_S", "0.1").up().await;
    school_with_quota(&site.api(), &origin, 5).await;
    assert_eq!(statuses(&site, 3).await, [200; 3]);
    eventually(SOON, || async { counted(&site.api()).await == 3 }).await;
    site.restart().await;
    assert_eq!(statuses(&site, 3).await, [200, 200, 429], "two of five were left");
}

#[tokio::test]
async fn a_proxy_that_starts_without_its_control_plane_knows_what_was_used() {
    let origin = Origin::start().await;
    let mut site = gateway().env("SCHOOLGATE__PROXY__USAGE_FLUSH_S", "0.1").split().await;
    school_with_quota(&site.api(), &origin, 6).await;
    assert_eq!(statuses(&site, 2).await, [200; 2]);
    eventually(SOON, || async { counted(&site.api()).await == 2 }).await;
    site.control.as_mut().expect("a split site").kill();
    // Handed over to nobody, and kept.
    assert_eq!(statuses(&site, 2).await, [200; 2]);
    let file = site.data().join("proxy/usage.json");
    let kept = || std::fs::read_to_string(&file).unwrap_or_default().contains("\"used\":2");
    eventually(SOON, || async { kept() }).await;
    site.proxy.kill();
    site.start_proxy().await;
    assert_eq!(statuses(&site, 3).await, [200, 200, 429], "two of six were left");
    // And when the control plane is back nothing is counted twice.
    site.start().await;
    eventually(SOON, || async { counted(&site.api()).await >= 7 }).await;
    assert_eq!(counted(&site.api()).await, 7);
    assert_eq!(statuses(&site, 1).await, [429]);
}

#[tokio::test]
async fn limits_are_shared_through_redis_and_its_loss_fails_no_request() {
    let (origin, mut redis) = (Origin::start().await, Redis::start().await);
    let password = redis.password_file();
    let site = gateway()
        .env("SCHOOLGATE__REDIS__URL", &redis.url())
        .env("SCHOOLGATE__REDIS__PASSWORD_FILE", password.to_str().expect("UTF-8"))
        .up()
        .await;
    let api = site.api();
    pool(&api, "web", &[&origin]).await;
    let limits = json!({"requests_per_minute": 6_000, "burst": 100});
    api.post("plans", json!({"id": "fast", "name": "Fast", "limits": limits})).await.expect(201);
    let tenant = json!({"slug": "ash", "name": "Ash", "plan": "fast", "pool": "web"});
    api.post("tenants?wait=applied", tenant).await.expect(201);

    let mode = async || {
        assert!(statuses(&site, 10).await.iter().all(|status| matches!(status, 200 | 429)));
        let nodes = api.get("nodes").await.expect(200);
        nodes["items"][0]["limits"]["mode"].as_str().unwrap_or_default().to_owned()
    };
    eventually(SOON, || async { mode().await == "redis" }).await;
    eventually(SOON, || async {
        mode().await;
        site.metric("schoolgate_limit_slices_total", &[]).await > 0.0
    })
    .await;
    let data = site.data().to_str().expect("UTF-8");
    let status = String::from_utf8(site.run(&["status", "--data-dir", data]).stdout).expect("UTF-8");
    assert!(status.contains("LIMITS") && status.contains("redis"), "{status}");

    redis.kill();
    eventually(SOON, || async { mode().await == "local" }).await;
    let status = String::from_utf8(site.run(&["status", "--data-dir", data]).stdout).expect("UTF-8");
    assert!(status.contains("Redis cannot be reached"), "{status}");
    redis.restart().await;
    eventually(SOON, || async { mode().await == "redis" }).await;
}

#[tokio::test]
async fn a_password_in_the_address_of_redis_is_refused_without_being_shown() {
    let refused = gateway().settings("[redis]\nurl = 'redis://gate:hunter2@127.0.0.1'").try_up().await;
    let error = refused.expect_err("refused");
    assert_eq!(error.exit.and_then(|exit| exit.code()), Some(78));
    assert!(error.log.contains("redis.password_file") && !error.log.contains("hunter2"), "{}", error.log);
}
