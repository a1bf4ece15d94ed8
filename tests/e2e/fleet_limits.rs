//! Limits of a fleet: what was used of a quota survives every restart; Redis is shared through, and missed by nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use schoolgate_testkit::{Api, Authority, Client, Origin, Redis, Site, eventually};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

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

/// Requests of a day that a proxy has on disk: those that nobody took, and what it heard of all before.
fn on_disk(site: &Site) -> u64 {
    let read = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(site.data().join("proxy").join(name)).unwrap_or_default();
        match serde_json::from_str(&text).unwrap_or_default() {
            Value::Array(flushes) => flushes,
            state => vec![state],
        }
    };
    let uses = ["usage.json", "fleet.json"].into_iter().flat_map(read).map(|part| part["quotas"].clone());
    let uses = uses.flat_map(|quotas| quotas.as_array().cloned().unwrap_or_default());
    uses.filter(|used| used["quota"] == "requests_per_day").filter_map(|used| used["used"].as_u64()).sum()
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
    // The answer to the first two may have been lost with the control plane: then they are kept too.
    eventually(SOON, || async { on_disk(&site) == 4 }).await;
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

/// Requests of one visitor of each proxy, at an even pace that waits for no answer.
#[derive(Debug, Default)]
struct Traffic {
    passed: AtomicU64,
    refused: AtomicU64,
    /// Neither: what must not be.
    other: AtomicU64,
}

impl Traffic {
    /// Goes on until the test is over.
    fn start(visitors: Vec<(Client, u64)>) -> Arc<Self> {
        let traffic = Arc::<Self>::default();
        for (client, per_second) in visitors {
            let traffic = traffic.clone();
            tokio::spawn(async move {
                let mut turn = interval(Duration::from_micros(1_000_000 / per_second));
                turn.set_missed_tick_behavior(MissedTickBehavior::Burst);
                loop {
                    turn.tick().await;
                    let (client, traffic) = (client.clone(), traffic.clone());
                    tokio::spawn(async move {
                        let count = match client.try_get("/").await.map(|answer| answer.status().as_u16()) {
                            Ok(200) => &traffic.passed,
                            Ok(429) => &traffic.refused,
                            _ => &traffic.other,
                        };
                        count.fetch_add(1, Relaxed);
                    });
                }
            });
        }
        traffic
    }

    /// How many were let through in some time, and how many a limit lets through in it.
    async fn over(&self, time: Duration, per_second: f64) -> (f64, f64) {
        let since = self.mark();
        sleep(time).await;
        self.since(since, per_second)
    }

    fn mark(&self) -> (u64, Instant) {
        (self.passed.load(Relaxed), Instant::now())
    }

    fn since(&self, (passed, began): (u64, Instant), per_second: f64) -> (f64, f64) {
        ((self.passed.load(Relaxed) - passed) as f64, began.elapsed().as_secs_f64() * per_second)
    }
}

#[tokio::test]
async fn four_proxies_let_through_what_one_would_and_redis_is_missed_by_no_request() {
    let (origin, mut redis) = (Origin::start().await, Redis::start().await);
    let password = redis.password_file();
    let site = gateway()
        .env("SCHOOLGATE__REDIS__URL", &redis.url())
        .env("SCHOOLGATE__REDIS__PASSWORD_FILE", password.to_str().expect("UTF-8"))
        .split()
        .await;
    let others =
        [site.another_proxy("node-2").await, site.another_proxy("node-3").await, site.another_proxy("node-4").await];
    let api = site.api();
    pool(&api, "web", &[&origin]).await;
    // 20 a second, and one second of them at once.
    let (per_second, limits) = (20.0, json!({"requests_per_minute": 1_200, "burst": 20}));
    api.post("plans", json!({"id": "fleet", "name": "Fleet", "limits": limits})).await.expect(201);
    let tenant = json!({"slug": "ash", "name": "Ash", "plan": "fleet", "pool": "web"});
    api.post("tenants?wait=applied&timeout=60", tenant).await.expect(201);

    let all_are = async |mode: &str| {
        let nodes = api.get("nodes").await.expect(200);
        let nodes = nodes["items"].as_array().expect("items").clone();
        nodes.len() == 4 && nodes.iter().all(|node| node["limits"]["mode"] == mode && node["limits"]["live_nodes"] == 4)
    };
    eventually(2 * SOON, || async { all_are("redis").await }).await;
    let mut visitors = vec![(site.client("ash.localhost"), 40)];
    visitors.extend(others.iter().zip([12, 6, 3]).map(|(proxy, rate)| (site.client_of(proxy, "ash.localhost"), rate)));
    let traffic = Traffic::start(visitors);

    // The bursts of the beginning are over when as many were let through, and some were refused.
    eventually(SOON, || async { traffic.refused.load(Relaxed) > 40 && traffic.passed.load(Relaxed) > 60 }).await;
    let (passed, limit) = traffic.over(Duration::from_secs(12), per_second).await;
    assert!((passed - limit).abs() <= limit * 0.05, "uneven, through Redis: {passed} of {limit}");

    let away = traffic.mark();
    redis.kill();
    eventually(SOON, || async { all_are("share").await }).await;
    let (passed, limit) = traffic.over(Duration::from_secs(8), per_second).await;
    // A quarter each, and the third and the fourth ask for less than that or a little more.
    assert!((passed - limit).abs() <= limit * 0.25, "by shares: {passed} of {limit}");

    redis.restart().await;
    eventually(SOON, || async { all_are("redis").await }).await;
    sleep(Duration::from_secs(4)).await;
    let (passed, limit) = traffic.since(away, per_second);
    // The bursts of three shares that had rested, at its loss; none at its return.
    assert!(passed <= limit * 1.05 + 15.0, "over its loss and return: {passed} of {limit}");
    let (passed, limit) = traffic.over(Duration::from_secs(8), per_second).await;
    assert!((passed - limit).abs() <= limit * 0.05, "through Redis again: {passed} of {limit}");
    assert_eq!(traffic.other.load(Relaxed), 0, "every request was let through or told to wait");
}

#[tokio::test]
async fn redis_is_spoken_to_by_tls_and_a_wrong_password_or_authority_is_told() {
    let (right, wrong) = (Authority::new(), Authority::new());
    let redis = Redis::with_tls(&right).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (ca, password) = (dir.path().join("ca.pem"), dir.path().join("password"));
    std::fs::write(&ca, right.pem()).expect("written");
    std::fs::copy(redis.password_file(), &password).expect("copied");
    let site = gateway()
        .env("SCHOOLGATE__REDIS__URL", &redis.tls_url())
        .env("SCHOOLGATE__REDIS__ROOT_CA_FILE", ca.to_str().expect("UTF-8"))
        .env("SCHOOLGATE__REDIS__PASSWORD_FILE", password.to_str().expect("UTF-8"))
        .up()
        .await;
    let api = site.api();
    let sharing = async || api.get("nodes").await.expect(200)["items"][0]["limits"].clone();
    eventually(SOON, || async { sharing().await["mode"] == "redis" }).await;
    // Whoever has a connection keeps it: who is thrown out reads both files again.
    let thrown_out = || redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let data = site.data().to_str().expect("UTF-8");
    let status = || String::from_utf8(site.run(&["status", "--data-dir", data]).stdout).expect("UTF-8");

    std::fs::write(&password, "guessed-4711\n").expect("written");
    thrown_out();
    eventually(SOON, || async { sharing().await["mode"] == "local" }).await;
    eventually(SOON, || async { status().contains("Redis refuses this node") }).await;
    let right_one = std::fs::read_to_string(redis.password_file()).expect("read");
    assert!([right_one.trim(), "guessed-4711"].iter().all(|secret| !site.log().contains(secret)), "it is in the log");

    std::fs::copy(redis.password_file(), &password).expect("copied");
    eventually(SOON, || async { sharing().await["mode"] == "redis" }).await;
    std::fs::write(&ca, wrong.pem()).expect("written");
    thrown_out();
    eventually(SOON, || async { status().contains("redis.root_ca_file") }).await;
    assert!(site.log().contains("redis.root_ca_file"), "{}", site.log());

    std::fs::write(&ca, right.pem()).expect("written");
    eventually(SOON, || async { sharing().await["mode"] == "redis" }).await;
}

#[tokio::test]
async fn a_password_in_the_address_of_redis_is_refused_without_being_shown() {
    let refused = gateway().settings("[redis]\nurl = 'redis://gate:hunter2@127.0.0.1'").try_up().await;
    let error = refused.expect_err("refused");
    assert_eq!(error.exit.and_then(|exit| exit.code()), Some(78));
    assert!(error.log.contains("redis.password_file") && !error.log.contains("hunter2"), "{}", error.log);
}
