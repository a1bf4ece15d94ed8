//! Limits, where requests meet them: on both ways through the gateway, and however a request ends.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, Response};
use schoolgate_testkit::{Http, Origin, eventually};
use serde_json::{Value, json};

use crate::site::{Site, given, object, route, tenant};

const PATIENCE: Duration = Duration::from_secs(10);

/// A plan of its own for Greenhill.
fn on(plan: Value) -> [schoolgate_config::snapshot::Object; 2] {
    let mut whole = json!({"id": "tiny", "name": "Tiny"});
    whole.as_object_mut().unwrap().extend(plan.as_object().unwrap().clone());
    [object::<schoolgate_config::model::Plan>(whole), tenant("greenhill", json!({"plan": "tiny"}))]
}

async fn error(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap_or_default();
    (status, body["error"].as_str().unwrap_or_default().to_owned())
}

fn header(answer: &Response, name: &str) -> String {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// Asks over a connection of its own.
async fn get(site: &Site, path: &str) -> Response {
    site.greenhill().get(path).await
}

async fn post(site: &Site, kind: &str, bytes: usize) -> Response {
    let request = site.greenhill().request(Method::POST, "/").header("content-type", kind);
    request.body("x".repeat(bytes)).send().await.unwrap()
}

/// A request that takes a while, begun.
async fn hold(site: &Site, path: &'static str) -> tokio::task::JoinHandle<Response> {
    let visitor = site.greenhill();
    eventually(PATIENCE, || async { site.in_flight() == 0 }).await;
    let held = tokio::spawn(async move { visitor.get(path).await });
    eventually(PATIENCE, || async { site.in_flight() == 1 }).await;
    held
}

async fn start(plan: Value) -> (Origin, Site) {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    site.change(on(plan));
    (origin, site)
}

#[tokio::test]
async fn above_its_rate_a_school_is_told_when_to_come_back_and_its_neighbour_is_not_concerned() {
    let (_origin, site) = start(json!({"limits": {"requests_per_minute": 60, "burst": 2}})).await;
    let first = site.greenhill().get("/").await;
    assert_eq!(header(&first, "ratelimit-policy"), r#""minute";q=60;w=60"#);
    assert_eq!(header(&first, "ratelimit"), r#""minute";r=1;t=1"#);
    let answers = join_all((0..4).map(|_| get(&site, "/"))).await;
    let refused = answers.into_iter().find(|answer| answer.status() == 429).expect("above the rate");
    let wait: u64 = header(&refused, "retry-after").parse().expect("seconds");
    assert!(header(&refused, "ratelimit").starts_with(r#""minute";r=0;t="#));
    assert_eq!(error(refused).await, (429, "RATE_LIMITED".to_owned()));
    assert_eq!(site.visitor("riverside.school.test", Http::Two).get("/").await.status(), 200);
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(site.greenhill().get("/").await.status(), 200, "waiting that long lets it through");
}

#[tokio::test]
async fn a_quota_warns_then_refuses_and_static_files_do_not_count() {
    let (_origin, site) = start(json!({"limits": {"requests_per_day": {"value": 5, "mode": "hard"}}})).await;
    site.change([route(json!({"match": {"path_prefix": "/assets/"}, "action": {"class": "static"}}))]);
    for _ in 0..7 {
        assert_eq!(site.greenhill().get("/assets/app.css").await.status(), 200);
    }
    let mut warnings = Vec::new();
    for _ in 0..5 {
        warnings.push(header(&site.greenhill().get("/").await, "x-quota-warning"));
    }
    assert_eq!(warnings[..3], ["", "", ""]);
    assert_eq!(warnings[3..], ["requests_per_day;used=4;limit=5", "requests_per_day;used=5;limit=5"]);
    let refused = site.greenhill().get("/").await;
    let wait: u64 = header(&refused, "retry-after").parse().expect("seconds");
    assert!((1..=86_400).contains(&wait), "until midnight");
    assert_eq!(error(refused).await, (429, "QUOTA_EXCEEDED".to_owned()));
}

#[tokio::test]
async fn what_is_in_shadow_passes_and_bodies_are_bounded_by_kind() {
    let limits = json!({"requests_per_minute": 1, "burst": 1, "body_bytes": 10, "upload_bytes": 100});
    let (_origin, site) = start(json!({"limits": limits.clone(), "mode": "shadow"})).await;
    for _ in 0..3 {
        assert_eq!(post(&site, "text/plain", 19).await.status(), 200);
    }
    let mut enforced = limits;
    enforced.as_object_mut().unwrap().remove("requests_per_minute");
    site.change(on(json!({"limits": enforced})));
    assert_eq!(error(post(&site, "text/plain", 19).await).await.1, "BODY_TOO_LARGE");
    let form = "multipart/form-data; boundary=x";
    assert_eq!(post(&site, form, 100).await.status(), 200);
    assert_eq!(post(&site, form, 101).await.status(), 413);
}

/// The number that are in progress, as a limit of one shows it: a second request gets in when none is.
#[tokio::test]
async fn however_requests_end_none_stays_in_progress() {
    let origin = Origin::start().await;
    for url in [origin.url(), origin.h2c_url()] {
        let site = given([url]).start().await;
        site.change(on(json!({"limits": {"in_flight": 4, "websockets": 2}})));
        for http in [Http::One, Http::Two] {
            let visitor = site.visitor("greenhill.school.test", http);
            // Clients that go away in the middle, backends that break off, and some that come to their end.
            let paths = ["/delay/60000", "/delay/5", "/status/500"];
            let storm = (0..60_usize).map(|n| {
                let request = visitor.try_get(paths[n % paths.len()]);
                let patience = Duration::from_millis(20 + 7 * (n as u64 % 9));
                async move { tokio::time::timeout(patience, request).await.is_ok() }
            });
            join_all(storm).await;
        }
        eventually(PATIENCE, || async { site.in_flight() == 0 }).await;
        let again = join_all((0..4).map(|_| get(&site, "/delay/200"))).await;
        assert!(again.iter().all(|answer| answer.status() == 200), "all four places are free");
        let five = join_all((0..5).map(|_| get(&site, "/delay/500"))).await;
        let refused: Vec<_> = five.into_iter().filter(|answer| answer.status() != 200).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(error(refused.into_iter().next().unwrap()).await, (429, "CONCURRENCY_LIMITED".to_owned()));
    }
}

#[tokio::test]
async fn a_request_that_changes_its_way_is_counted_once() {
    let origin = Origin::start().await;
    let site = given([origin.h2c_url()]).start().await;
    site.change(on(json!({"limits": {"requests_per_day": {"value": 4, "mode": "hard"}}})));
    let visitor = site.visitor("greenhill.school.test", Http::One);
    for _ in 0..4 {
        assert_eq!(visitor.get("/").await.status(), 200);
    }
    assert_eq!(visitor.get("/").await.status(), 429);
}

#[tokio::test]
async fn websockets_are_counted_for_their_life_and_not_as_requests() {
    let (_origin, site) = start(json!({"limits": {"in_flight": 1, "websockets": 1}})).await;
    let socket = site.raw("greenhill.school.test").await.websocket("greenhill.school.test", "/ws").await.unwrap();
    assert_eq!(site.greenhill().get("/").await.status(), 200, "a WebSocket is no request in progress");
    let second = site.raw("greenhill.school.test").await.websocket("greenhill.school.test", "/ws").await;
    assert!(second.is_err(), "one is the most");
    drop(socket);
    eventually(PATIENCE, || async {
        site.raw("greenhill.school.test").await.websocket("greenhill.school.test", "/ws").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_full_pool_serves_its_tenants_in_turn_and_says_when_it_is_busy() {
    let origin = Origin::start().await;
    let pool = json!({"max_in_flight": 1, "queue": {"wait_ms": 5_000, "length": 3, "priority_in_flight": 1}});
    let site = given([origin.url()]).pool(pool).start().await;
    let held = hold(&site, "/delay/600").await;
    let noisy = (0..6).map(|_| get(&site, "/"));
    let (noisy, login) = tokio::join!(join_all(noisy), get(&site, "/login"));
    assert_eq!(login.status(), 200);
    let busy: Vec<_> = noisy.into_iter().filter(|answer| answer.status() != 200).collect();
    assert_eq!(busy.len(), 3, "three waited, three were too many");
    assert_eq!(header(&busy[0], "retry-after"), "1");
    assert_eq!(error(busy.into_iter().next().unwrap()).await, (503, "POOL_BUSY".to_owned()));
    assert_eq!(held.await.unwrap().status(), 200);
    eventually(PATIENCE, || async { site.in_flight() == 0 }).await;
}

#[tokio::test]
async fn who_goes_away_while_it_waits_leaves_no_place_taken() {
    let origin = Origin::start().await;
    let pool = json!({"max_in_flight": 1, "queue": {"wait_ms": 30_000}});
    let site = given([origin.url()]).pool(pool).start().await;
    for http in [Http::One, Http::Two] {
        let held = hold(&site, "/delay/400").await;
        let visitor = site.visitor("greenhill.school.test", http);
        let gone = tokio::time::timeout(Duration::from_millis(100), visitor.get("/")).await;
        assert!(gone.is_err(), "it waited");
        drop(visitor);
        assert_eq!(held.await.unwrap().status(), 200);
        eventually(PATIENCE, || async { site.in_flight() == 0 }).await;
        assert_eq!(site.greenhill().get("/").await.status(), 200);
    }
}
