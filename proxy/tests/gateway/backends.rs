use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use schoolgate_config::model::Pool;
use schoolgate_testkit::Http;
use schoolgate_testkit::eventually;
use schoolgate_testkit::{Mood, Origin};
use serde_json::json;

use crate::site::{Site, given, object, pool};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn requests_are_spread_over_the_backends() {
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    for balance in ["least_request", "round_robin"] {
        let site = given([first.url(), second.url()]).pool(json!({"balance": balance})).start().await;
        first.forget();
        let before = (first.requests(), second.requests());
        for _ in 0..40 {
            site.greenhill().get("/").await;
        }
        let served = (first.requests() - before.0, second.requests() - before.1);
        assert!(served.0 >= 8 && served.1 >= 8, "{balance}: {served:?}");
    }
}

#[tokio::test]
async fn no_idempotent_request_fails_when_a_backend_dies_under_load() {
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    survives(&first, given([first.url(), second.url()]).start().await).await;
}

#[tokio::test]
async fn nor_when_the_backends_speak_http_2() {
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    survives(&first, given([first.h2c_url(), second.h2c_url()]).start().await).await;
}

async fn survives(first: &Origin, site: Site) {
    let site = Arc::new(site);
    let done = Arc::new(AtomicU64::new(0));
    let mut load = Vec::new();
    for http in [Http::One, Http::Two].repeat(8) {
        let (site, done) = (site.clone(), done.clone());
        load.push(tokio::spawn(async move {
            let visitor = site.visitor("greenhill.school.test", http);
            let mut failed = Vec::new();
            for _ in 0..150 {
                let answer = visitor.get("/delay/2").await;
                if answer.status() != 200 {
                    failed.push(answer.text().await.unwrap_or_default());
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            failed
        }));
    }
    let reached = |n: u64| {
        let done = &done;
        eventually(Duration::from_secs(60), move || async move { done.load(Ordering::Relaxed) >= n })
    };
    reached(300).await;
    first.die().await;
    reached(1_200).await;
    first.come_back().await;
    for task in load {
        let failed = task.await.unwrap();
        assert!(failed.is_empty(), "{failed:?}");
    }
    eventually(PATIENCE, || async { site.in_flight() == 0 }).await;
}

#[tokio::test]
async fn what_was_not_sent_is_tried_elsewhere_whatever_the_method() {
    let (dead, alive) = (Origin::named("dead").await, Origin::named("alive").await);
    let site = given([dead.url(), alive.url()]).start().await;
    dead.refuse().await;
    for _ in 0..20 {
        let answer = site.greenhill().request(Method::POST, "/").body("hello").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let echo: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(echo["body_bytes"], 5);
    }
    assert_eq!(site.backends(), ["ejected", "up"]);
}

#[tokio::test]
async fn without_any_rules_one_backend_of_three_is_enough() {
    let origins = [Origin::named("a").await, Origin::named("b").await, Origin::named("c").await];
    let site = given(origins.iter().map(Origin::url)).start().await;
    let visitors = [Http::One, Http::Two].map(|http| site.visitor("greenhill.school.test", http));
    origins[0].die().await;
    origins[2].die().await;
    // More than the budget of retries holds at first: what refuses connections has to rest, the second one too.
    for n in 0..600 {
        assert_eq!(visitors[n % 2].get("/").await.status(), 200, "request {n}");
    }
    assert_eq!(site.backends(), ["ejected", "up", "ejected"]);
}

#[tokio::test]
async fn what_a_backend_may_have_begun_is_tried_elsewhere_only_if_idempotent() {
    let (bad, good) = (Origin::named("bad").await, Origin::named("good").await);
    bad.set_mood(Mood::Close);
    let rules = json!({"ejection": {"consecutive_failures": 0}});
    let site = given([bad.url(), good.url()]).pool(rules).start().await;
    let mut posts = Vec::new();
    for _ in 0..20 {
        assert_eq!(site.greenhill().get("/").await.status(), 200);
        let post = site.greenhill().request(Method::POST, "/").body("x").send().await.unwrap();
        posts.push(post.status().as_u16());
    }
    assert!(posts.contains(&200) && posts.contains(&502), "{posts:?}");
    let (ok, failed) = (posts.iter().filter(|s| **s == 200).count(), posts.iter().filter(|s| **s == 502).count());
    let count = |origin: &Origin| origin.seen().iter().filter(|r| r.method == "POST").count();
    assert_eq!((count(&good), count(&bad)), (ok, failed), "every POST was sent once");
}

#[tokio::test]
async fn a_pool_of_one_says_what_happened() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).pool(json!({"timeouts": {"read_ms": 300}})).start().await;
    assert_eq!(site.greenhill().get_json("/close").await["error"], "UPSTREAM_ERROR");
    assert_eq!(site.greenhill().get_json("/delay/3000").await["error"], "UPSTREAM_TIMEOUT");
    origin.die().await;
    let answer = site.greenhill().get("/").await;
    assert_eq!(answer.status(), 502);
    origin.come_back().await;
    assert_eq!(site.greenhill().get("/").await.status(), 200, "the only backend is never ejected");
}

#[tokio::test]
async fn a_broken_answer_does_not_look_whole() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    for http in [Http::One, Http::Two] {
        let answer = site.visitor("greenhill.school.test", http).get("/cut/1000").await;
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.is_err(), "{http:?}");
    }
}

#[tokio::test]
async fn a_backend_that_fails_its_checks_gets_no_requests_until_it_passes_them() {
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    let check = json!({"health_check": {"interval_ms": 50, "timeout_ms": 500}});
    let site = given([first.url(), second.url()]).pool(check).start().await;
    first.set_healthy(false);
    eventually(PATIENCE, || async { site.backends() == ["unhealthy", "up"] }).await;
    let before = first.requests();
    for _ in 0..10 {
        assert_eq!(site.greenhill().get("/").await.status(), 200);
    }
    assert_eq!(first.requests(), before);
    second.set_healthy(false);
    eventually(PATIENCE, || async { site.backends() == ["unhealthy", "unhealthy"] }).await;
    let answer = site.greenhill().get("/").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("NO_BACKEND"));
    first.set_healthy(true);
    eventually(PATIENCE, || async { site.backends() == ["up", "unhealthy"] }).await;
    assert_eq!(site.greenhill().get("/").await.headers()["x-origin"], "first");
}

#[tokio::test]
async fn a_backend_that_drains_gets_no_new_requests_and_a_changed_pool_keeps_what_is_known() {
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    let check = json!({"health_check": {"interval_ms": 50, "timeout_ms": 500}});
    let site = given([first.url(), second.url()]).pool(check.clone()).start().await;
    second.set_healthy(false);
    eventually(PATIENCE, || async { site.backends() == ["up", "unhealthy"] }).await;
    let mut changed = pool("shared", [first.url(), second.url()]);
    changed.as_object_mut().unwrap().extend(check.as_object().unwrap().clone());
    changed["backends"][0]["state"] = json!("draining");
    site.change([object::<Pool>(changed)]);
    assert_eq!(site.backends(), ["draining", "unhealthy"]);
    assert_eq!(site.greenhill().get("/").await.status(), 503);
    second.set_healthy(true);
    eventually(PATIENCE, || async { site.backends() == ["draining", "up"] }).await;
    assert_eq!(site.greenhill().get("/").await.headers()["x-origin"], "second");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_in_flight() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    for http in [Http::One, Http::Two] {
        let visitor = site.visitor("greenhill.school.test", http);
        let waiting = tokio::spawn(async move { visitor.get("/delay/20000").await.status() });
        eventually(PATIENCE, || async { origin.in_flight() == 1 && site.in_flight() == 1 }).await;
        waiting.abort();
        eventually(PATIENCE, || async { site.in_flight() == 0 && origin.in_flight() == 0 }).await;
    }
}
