//! Pools: a backend that dies costs no idempotent request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use reqwest::Method;
use schoolgate_testkit::{Mood, Origin, eventually, until};
use serde_json::json;

use crate::{SOON, gateway_with, school};

#[tokio::test]
async fn a_backend_killed_under_load_fails_no_idempotent_request() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let site = gateway().up().await;
    crate::pool(&site.api(), "web", &[&one, &two]).await;
    crate::upstreams::unlimited_school(&site.api(), "ash", "web").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (good, bad) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (client, stop, good, bad) = (site.client("ash.localhost"), stop.clone(), good.clone(), bad.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let ok = client.try_get("/").await.is_ok_and(|r| r.status() == 200);
                    if ok { &good } else { &bad }.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let at_least = async |more: u64| {
        let target = good.load(Ordering::Relaxed) + more;
        eventually(SOON, || async { good.load(Ordering::Relaxed) + bad.load(Ordering::Relaxed) >= target }).await;
    };
    for _ in 0..3 {
        at_least(200).await;
        one.die().await;
        at_least(400).await;
        one.come_back().await;
        let before = one.requests();
        eventually(SOON, || async { one.requests() > before }).await;
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("no panic");
    }
    assert_eq!(bad.load(Ordering::Relaxed), 0, "of {} requests", good.load(Ordering::Relaxed));
}

#[tokio::test]
async fn without_a_backend_the_answer_is_503_and_it_heals_by_itself() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let client = site.client("ash.localhost");
    assert_eq!(client.get("/").await.status(), 200);
    origin.die().await;
    // The pool was made without a word about checks.
    let refused = until(SOON, || async {
        let answer = client.try_get("/").await.ok().filter(|answer| answer.status() == 503)?;
        answer.json::<serde_json::Value>().await.ok()
    })
    .await;
    assert_eq!(refused["error"], "NO_BACKEND");
    let api = site.api();
    eventually(SOON, || async {
        api.get("status").await.expect(200)["backends"][0]["seen"][0]["state"] == "unhealthy"
    })
    .await;
    origin.come_back().await;
    eventually(SOON, || async { client.try_get("/").await.is_ok_and(|r| r.status() == 200) }).await;
}

#[tokio::test]
async fn a_request_that_is_not_idempotent_is_sent_once() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let site = gateway_with(&[&one, &two]).await;
    one.set_mood(Mood::Close);
    two.set_mood(Mood::Close);
    let answer =
        site.client("ash.localhost").request(Method::POST, "/pay").body("once").send().await.expect("an answer");
    assert_eq!(answer.status(), 502);
    assert_eq!(one.requests() + two.requests(), 1);
}

#[tokio::test]
async fn an_unhealthy_backend_gets_no_requests() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let site = gateway_with(&[&one]).await;
    let body = json!({
        "id": "checked",
        "backends": [{"address": one.url()}, {"address": two.url()}],
        "health_check": {"path": "/healthz", "interval_ms": 100, "timeout_ms": 500, "healthy_after": 1, "unhealthy_after": 1},
    });
    site.api().post("pools", body).await.expect(201);
    school(&site.api(), "birch", "checked").await;
    one.set_healthy(false);
    let labels = ["pool=\"checked\""];
    eventually(SOON, || async { site.metric("schoolgate_backend_up", &labels).await == 1.0 }).await;
    one.forget();
    let before = one.requests();
    let client = site.client("birch.localhost");
    for _ in 0..20 {
        assert_eq!(client.get_json("/").await["origin"], "two");
    }
    assert_eq!(one.requests(), before);
    one.set_healthy(true);
    eventually(SOON, || async { client.get_json("/").await["origin"] == "one" }).await;
}

#[tokio::test]
async fn a_drained_backend_finishes_what_it_has_and_gets_nothing_new() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let site = gateway_with(&[&one]).await;
    let client = site.client("ash.localhost");
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.get("/delay/1500").await.status() }
    });
    eventually(SOON, || async { one.in_flight() == 1 }).await;
    let api = site.api();
    api.post("pools/web/backends?wait=applied", json!({"address": two.url()})).await.expect(201);
    let pool = api.get("pools/web").await.expect(200);
    let id = pool["backends"][0]["id"].as_str().expect("an id").to_owned();
    api.post(&format!("pools/web/backends/{id}/drain?wait=applied"), json!({})).await.expect(200);
    for _ in 0..10 {
        assert_eq!(client.get_json("/").await["origin"], "two");
    }
    assert_eq!(slow.await.expect("no panic"), 200);
}

#[tokio::test]
async fn idle_connections_to_a_backend_are_used_again_but_not_for_another_tenant() {
    let origin = Origin::start().await;
    let site = gateway().settings("[proxy]\nworkers = 1").up().await;
    crate::pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    school(&site.api(), "birch", "web").await;
    let before = origin.connections();
    for _ in 0..5 {
        assert_eq!(site.client("ash.localhost").get("/").await.status(), 200);
    }
    let of_ash = origin.connections() - before;
    assert!(of_ash <= 2, "five requests of one tenant took {of_ash} connections");
    assert_eq!(site.client("birch.localhost").get("/").await.status(), 200);
    assert!(origin.connections() - before > of_ash, "another tenant must not get a used connection");
}

use crate::gateway;
