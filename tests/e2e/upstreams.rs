//! Backends over TLS, chosen by tenant or cookie, watched, and fed with more than memory holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::Method;
use schoolgate_testkit::{Api, Authority, Http, Mood, Origin, Site, eventually};
use serde_json::{Value, json};

use crate::{SOON, gateway, school};

/// A gateway whose school `ash` lives on a pool of this body.
async fn gateway_on(pool: Value) -> Site {
    let site = gateway().up().await;
    site.api().post("pools", pool).await.expect(201);
    unlimited_school(&site.api(), "ash", "web").await;
    site
}

/// A school that no limit of a plan refuses anything.
pub(crate) async fn unlimited_school(api: &Api, slug: &str, pool: &str) {
    if api.get("plans/wide").await.status == 404 {
        api.post("plans", json!({"id": "wide", "limits": {"body_bytes": 1_u64 << 40}})).await.expect(201);
    }
    school(api, slug, pool).await;
    api.patch(&format!("tenants/slug:{slug}?wait=applied"), json!({"plan": "wide"})).await.expect(200);
}

/// A pool `web` of these origins, as it is when nothing else is said.
fn web(origins: &[&Origin]) -> Value {
    let backends: Vec<_> = origins.iter().map(|origin| json!({"address": origin.url()})).collect();
    json!({"id": "web", "backends": backends})
}

#[tokio::test]
async fn a_backend_over_tls_is_verified_and_shown_who_we_are() {
    let (ours, other) = (Authority::new(), Authority::new());
    let origin = Origin::builder().tls(&ours.identity(&["app.internal"]), Some(ours.pem())).start().await;
    let tls = |ca: &Authority, sni: Option<&str>| json!({"ca": ca.pem(), "sni": sni});
    let site = gateway_on(json!({
        "id": "web",
        "backends": [{"address": origin.https_url()}],
        "upstream_tls": tls(&ours, Some("app.internal")),
        "health_check": null,
    }))
    .await;
    let api = site.api();
    let client = site.client("ash.localhost");
    let refused = client.get("/").await;
    assert_eq!(refused.status(), 502, "the backend wants to know who we are");

    let me = ours.identity(&["gateway.internal"]);
    let stranger = other.identity(&["gateway.internal"]);
    let wrong = json!({"certificate": me.certificate, "key": stranger.key});
    let refused = api.put("pools/web/client-certificate", wrong).await.expect(422);
    assert_eq!(refused["errors"][0]["pointer"], "/key");
    let set = api
        .put("pools/web/client-certificate?wait=applied", json!({"certificate": me.certificate, "key": me.key}))
        .await;
    assert!(!set.text.contains("PRIVATE") && !set.text.contains("sealed"), "{}", set.text);
    assert_eq!(set.expect(200)["client_certificate"]["set"], true);
    for (http, method) in [(Http::One, Method::GET), (Http::Two, Method::GET), (Http::Two, Method::POST)] {
        let request = site.client_with("ash.localhost", http).request(method, "/").body("hello");
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{http:?}");
        assert_eq!(answer.json::<Value>().await.expect("JSON")["version"], "HTTP/2.0", "agreed by ALPN");
    }
    let mut socket =
        site.tls("ash.localhost").await.expect("TLS").websocket("ash.localhost", "/ws").await.expect("101");
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    socket.send(Message::text("over TLS")).await.expect("sent");
    let back = tokio::time::timeout(SOON, socket.next()).await.expect("in time").expect("open").expect("a message");
    assert_eq!(back, Message::text("over TLS"));

    // What was documented stays: a replaced pool keeps its certificate, and shows no key.
    let shown = api.get("pools/web").await;
    assert!(!shown.text.contains("sealed"), "{}", shown.text);
    let audit = api.get("audit").await;
    assert!(!audit.text.contains("wrapped") && !audit.text.contains("PRIVATE"), "no key is in the audit");

    for (change, why) in [
        (tls(&other, Some("app.internal")), "another authority"),
        (tls(&ours, Some("other.internal")), "another name"),
        (tls(&ours, None), "its address is not in its certificate"),
    ] {
        api.patch("pools/web?wait=applied", json!({"upstream_tls": change})).await.expect(200);
        assert_eq!(client.get("/").await.status(), 502, "{why}");
    }
    api.patch("pools/web?wait=applied", json!({"upstream_tls": tls(&ours, Some("app.internal"))})).await.expect(200);
    assert_eq!(client.get("/").await.status(), 200);
    api.patch("pools/web?wait=applied", json!({"health_check": {"kind": "http", "interval_ms": 100}}))
        .await
        .expect(200);
    eventually(SOON, || async { origin.health_checks() > 1 }).await;
    assert_eq!(site.metric("schoolgate_backend_up", &["pool=\"web\""]).await, 1.0, "checks go over TLS, too");
    api.delete("pools/web/client-certificate?wait=applied").await;
    eventually(SOON, || async { site.metric("schoolgate_backend_up", &["pool=\"web\""]).await == 0.0 }).await;
}

#[tokio::test]
async fn a_cookie_leads_a_visitor_back_until_its_backend_is_gone() {
    let (one, two, three) = (Origin::named("one").await, Origin::named("two").await, Origin::named("three").await);
    let backends: Vec<_> = [&one, &two, &three].iter().map(|o| json!({"address": o.url()})).collect();
    let site = gateway_on(json!({
        "id": "web", "balance": "sticky", "sticky": {"max_age_s": 600}, "backends": backends,
    }))
    .await;
    unlimited_school(&site.api(), "birch", "web").await;
    let client = site.client("ash.localhost");
    let first = client.get("/").await;
    let name = first.headers()["x-origin"].clone();
    let cookie = first.headers()["set-cookie"].to_str().expect("ASCII").to_owned();
    for attribute in ["__Host-schoolgate=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age=600"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let pair = cookie.split(';').next().expect("a pair").to_owned();
    let with = async |host: &str, pair: &str| {
        site.client(host).request(Method::GET, "/").header("cookie", pair).send().await.expect("an answer")
    };
    for _ in 0..12 {
        let answer = with("ash.localhost", &pair).await;
        assert_eq!(answer.headers()["x-origin"], name);
        assert!(!answer.headers().contains_key("set-cookie"), "what is good is not written again");
    }
    let other = if pair.as_bytes()[30] == b'A' { "B" } else { "A" };
    let tampered = format!("{}{other}{}", &pair[..30], &pair[31..]);
    for (host, pair) in [("ash.localhost", &tampered), ("birch.localhost", &pair)] {
        let answer = with(host, pair).await;
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().contains_key("set-cookie"), "{host}: it counts as none");
    }
    let gone = [&one, &two, &three].into_iter().find(|o| name == o.name()).expect("one of them");
    gone.die().await;
    let moved = with("ash.localhost", &pair).await;
    assert_eq!(moved.status(), 200);
    assert_ne!(moved.headers()["x-origin"], name);
    assert!(moved.headers().contains_key("set-cookie"));
}

#[tokio::test]
async fn a_tenant_stays_on_its_backend_with_tenant_hash() {
    let (one, two, three) = (Origin::named("one").await, Origin::named("two").await, Origin::named("three").await);
    let backends: Vec<_> = [&one, &two, &three].iter().map(|o| json!({"address": o.url()})).collect();
    let site = gateway_on(json!({"id": "web", "balance": "tenant_hash", "backends": backends})).await;
    let client = site.client("ash.localhost");
    let own = client.get("/").await.headers()["x-origin"].clone();
    for _ in 0..10 {
        assert_eq!(client.get("/").await.headers()["x-origin"], own);
    }
}

#[tokio::test]
async fn one_schools_failures_take_no_backend_from_another() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let site = gateway_on(web(&[&one, &two])).await;
    unlimited_school(&site.api(), "birch", "web").await;
    let (bad, good) = (site.client("ash.localhost"), site.client("birch.localhost"));
    for _ in 0..40 {
        assert_eq!(bad.get("/status/503").await.status(), 503, "an application's own answer is passed on");
    }
    assert_eq!(site.metric("schoolgate_backend_up", &["pool=\"web\""]).await, 2.0);
    let before = (one.requests(), two.requests());
    for _ in 0..40 {
        assert_eq!(good.get("/").await.status(), 200);
    }
    let served = (one.requests() - before.0, two.requests() - before.1);
    assert!(served.0 > 4 && served.1 > 4, "both serve the other school: {served:?}");
    for client in [&bad, &good].into_iter().cycle().take(80) {
        client.get("/status/503").await;
    }
    assert!(site.metric("schoolgate_backend_up", &["pool=\"web\""]).await < 2.0, "two schools are no coincidence");
}

#[tokio::test]
async fn a_change_of_health_is_seen_everywhere_within_a_second() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let backends = json!([{"address": one.url()}, {"address": two.url()}]);
    let check = json!({"interval_ms": 100, "timeout_ms": 2000, "healthy_after": 1, "unhealthy_after": 1});
    let site = gateway_on(json!({"id": "web", "backends": backends, "health_check": check})).await;
    let api = site.api();
    let up = async || site.metric("schoolgate_backend_up", &["pool=\"web\""]).await;
    let status = async || api.get("status").await.expect(200)["backends"][0]["seen"][0]["state"].clone();
    let events = async |kind: &str| {
        let list = api.get(&format!("events?kind={kind}")).await.expect(200);
        list["items"].as_array().expect("a list").len()
    };
    for (healthy, state, kind) in [(false, "unhealthy", "backend.unhealthy"), (true, "up", "backend.up")] {
        eventually(SOON, || async { status().await.is_string() }).await;
        let before = events(kind).await;
        one.set_healthy(healthy);
        eventually(SOON, || async { up().await == if healthy { 2.0 } else { 1.0 } }).await;
        let seen = Instant::now();
        eventually(SOON, || async { status().await == state && events(kind).await == before + 1 }).await;
        // The proxy knows, and the control plane a moment later; the machine of a test may be busy.
        assert!(seen.elapsed() < Duration::from_secs(3), "{:?}", seen.elapsed());
    }
    let list = api.get("events?kind=backend.unhealthy").await.expect(200);
    assert!(list["items"][0]["summary"].as_str().is_some_and(|s| s.contains("answered 503")), "{list}");
}

#[tokio::test]
async fn garbage_and_two_lengths_from_one_backend_are_mended_by_another() {
    let (bad, good) = (Origin::named("bad").await, Origin::named("good").await);
    let site = gateway_on(web(&[&bad, &good])).await;
    let client = site.client("ash.localhost");
    for mood in [Mood::Garbage, Mood::TwoLengths, Mood::Reset] {
        bad.set_mood(mood);
        for _ in 0..12 {
            let answer = client.get("/").await;
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["x-origin"]),
                (200, &"good".parse().unwrap()),
                "{mood:?}"
            );
        }
        bad.set_mood(Mood::Well);
    }
    bad.set_mood(Mood::Truncated);
    good.die().await;
    eventually(SOON, || async {
        // A part of an answer is never taken for a whole one.
        match client.try_get("/").await {
            Ok(answer) if answer.status() == 200 => answer.bytes().await.is_err(),
            _ => false,
        }
    })
    .await;
}

#[tokio::test]
async fn a_hanging_backend_costs_an_idempotent_request_its_patience_and_no_more() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let backends = json!([{"address": one.url()}, {"address": two.url()}]);
    let timeouts = json!({"first_byte_ms": 400});
    let site = gateway_on(json!({"id": "web", "backends": backends, "timeouts": timeouts})).await;
    one.set_mood(Mood::Hang);
    let client = site.client("ash.localhost");
    for _ in 0..10 {
        assert_eq!(client.get("/").await.headers()["x-origin"], "two");
    }
    let total = json!({"timeouts": {"total_ms": 500, "first_byte_ms": 5000}});
    two.set_mood(Mood::Hang);
    site.api().patch("pools/web?wait=applied", total).await.expect(200);
    let began = Instant::now();
    assert_eq!(client.get("/").await.status(), 504);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

/// MiB that go through in each direction.
const FLOOD_MIB: u64 = 512;

#[tokio::test]
async fn bodies_larger_than_memory_allows_stream_both_ways() {
    let origin = Origin::start().await;
    let site = gateway_on(web(&[&origin])).await;
    let client = site.client_with("ash.localhost", Http::One);
    client.get("/flow/1000000").await.bytes().await.expect("whole");
    let before = rss_kib(&site);
    let most = Arc::new(AtomicU64::new(0));
    let watching = {
        let (most, pid) = (Arc::clone(&most), site.proxy.pid().expect("it runs"));
        tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(50));
            loop {
                every.tick().await;
                most.fetch_max(rss_of(pid), Ordering::Relaxed);
            }
        })
    };
    let bytes = FLOOD_MIB << 20;
    let mut down = client.get(&format!("/flow/{bytes}")).await.bytes_stream();
    let mut received = 0;
    while let Some(piece) = down.next().await {
        received += piece.expect("whole").len() as u64;
    }
    assert_eq!(received, bytes);
    let piece: &'static [u8] = Box::leak(vec![b'y'; 1 << 20].into_boxed_slice());
    let pieces = futures_util::stream::iter((0..FLOOD_MIB).map(move |_| Ok::<_, std::io::Error>(piece)));
    let up = client.request(Method::POST, "/sink").body(reqwest::Body::wrap_stream(pieces)).send().await;
    assert_eq!(up.expect("an answer").text().await.expect("whole"), bytes.to_string());
    watching.abort();
    let grew = most.load(Ordering::Relaxed).saturating_sub(before) / 1024;
    assert!(grew < 64, "the gateway grew by {grew} MiB while {FLOOD_MIB} MiB went each way");
}

pub(crate) fn rss_kib(site: &Site) -> u64 {
    rss_of(site.proxy.pid().expect("it runs"))
}

fn rss_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
