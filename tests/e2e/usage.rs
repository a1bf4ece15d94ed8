//! What schools used: gathered by proxies, counted once by the control plane, whatever happens on the way.

use schoolgate_testkit::{Api, Origin, Site, eventually};
use serde_json::Value;

use crate::{SOON, gateway, pool, school};

/// Flushes often, so that a test need not wait.
const OFTEN: (&str, &str) = ("SCHOOLGATE__PROXY__USAGE_FLUSH_S", "0.1");

async fn split(origin: &Origin) -> Site {
    let site = gateway().env(OFTEN.0, OFTEN.1).split().await;
    pool(&site.api(), "web", &[origin]).await;
    school(&site.api(), "ash", "web").await;
    site
}

async fn usage(api: &Api) -> Value {
    api.get("tenants/slug:ash/usage?step=day").await.expect(200)
}

/// Requests that the control plane has counted.
async fn counted(api: &Api) -> u64 {
    usage(api).await["totals"]["requests"]["total"].as_u64().expect("a number")
}

async fn visit(site: &Site, times: usize) {
    let client = site.client("ash.localhost");
    for _ in 0..times {
        assert_eq!(client.get("/").await.status(), 200);
    }
}

#[tokio::test]
async fn what_a_school_used_is_shown_by_class_and_code_and_exported_for_billing() {
    let origin = Origin::start().await;
    let site = gateway().env(OFTEN.0, OFTEN.1).up().await;
    let api = site.api();
    pool(&api, "web", &[&origin]).await;
    school(&api, "ash", "web").await;
    let client = site.client("ash.localhost");
    for path in ["/", "/api/students", "/api/students", "/logo.png"] {
        assert_eq!(client.get(path).await.status(), 200);
    }
    assert_eq!(client.get("/a%00b").await.status(), 400);
    eventually(SOON, || async { counted(&api).await >= 4 }).await;
    let found = usage(&api).await;
    let (totals, points) = (&found["totals"], found["points"].as_array().expect("points"));
    assert_eq!(found["time_zone"], "UTC");
    assert_eq!(totals["requests"]["by_class"]["api"], 2, "{found}");
    assert_eq!(totals["requests"]["by_class"]["static"], 1, "{found}");
    assert_eq!(totals["requests"]["by_code"]["2xx"], 4, "{found}");
    assert!(totals["bytes_out"].as_u64() > Some(0) && totals["in_flight_peak"].as_u64() >= Some(1), "{found}");
    assert!(totals["latency"]["p50_ms"].as_f64() > Some(0.0), "{found}");
    assert!(!points.is_empty() && points[0]["at"].as_str().is_some_and(|at| at.ends_with("T00:00:00.000Z")), "{found}");

    let data = site.data().to_str().expect("UTF-8");
    let month = site.run(&["usage", "--csv", "--data-dir", data]);
    let text = String::from_utf8(month.stdout).expect("UTF-8");
    let ash = text.lines().find(|line| line.contains(",ash,")).unwrap_or_else(|| panic!("no line of ash in {text}"));
    assert!(ash.contains(",custom,4,0,0,"), "{ash}");
    let lines = site.run(&["usage", "ash", "--step", "minute", "--data-dir", data]);
    let text = String::from_utf8(lines.stdout).expect("UTF-8");
    assert!(text.contains("REQUESTS") && text.contains("total"), "{text}");
}

#[tokio::test]
async fn a_flush_whose_answer_is_lost_is_counted_once() {
    let origin = Origin::start().await;
    let site = split(&origin).await;
    let (api, link) = (site.api(), site.control_link.as_ref().expect("a split site"));
    visit(&site, 3).await;
    eventually(SOON, || async { counted(&api).await == 3 }).await;
    link.mute();
    visit(&site, 4).await;
    // It arrived and was counted; the proxy does not know, and sends it again when the path is back.
    eventually(SOON, || async { counted(&api).await == 7 }).await;
    link.cut();
    link.pass();
    visit(&site, 2).await;
    eventually(SOON, || async { counted(&api).await >= 9 }).await;
    assert_eq!(counted(&api).await, 9);
}

#[tokio::test]
async fn a_proxy_killed_while_the_control_plane_was_away_has_what_it_counted_on_disk() {
    let origin = Origin::start().await;
    let mut site = split(&origin).await;
    visit(&site, 2).await;
    eventually(SOON, || async { counted(&site.api()).await == 2 }).await;
    site.control.as_mut().expect("a split site").kill();
    visit(&site, 5).await;
    let file = site.data().join("proxy/usage.json");
    let kept = || {
        let flushes: Value = serde_json::from_slice(&std::fs::read(&file).unwrap_or_default()).unwrap_or_default();
        let parts = flushes.as_array().into_iter().flatten().flat_map(|f| f["parts"].as_array().into_iter().flatten());
        parts.filter_map(|part| part["usage"]["requests"]["page"]["2xx"].as_u64()).sum::<u64>()
    };
    eventually(SOON, || async { kept() == 5 }).await;
    site.proxy.kill();
    site.start().await;
    let api = site.api();
    visit(&site, 1).await;
    eventually(SOON, || async { counted(&api).await >= 8 }).await;
    assert_eq!(counted(&api).await, 8);
    eventually(SOON, || async { !file.exists() }).await;
}

#[tokio::test]
async fn a_proxy_that_stops_hands_over_what_it_counted_last() {
    let origin = Origin::start().await;
    let mut site = gateway().env("SCHOOLGATE__PROXY__USAGE_FLUSH_S", "60").split().await;
    pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    visit(&site, 3).await;
    assert!(site.proxy.stop().await.success());
    assert_eq!(counted(&site.api()).await, 3);
    // Killed, it may lose what it had not handed over, and nothing is counted twice when it is back.
    site.start_proxy().await;
    visit(&site, 2).await;
    site.proxy.kill();
    site.start_proxy().await;
    assert!(site.proxy.stop().await.success());
    assert_eq!(counted(&site.api()).await, 3);
}

#[tokio::test]
async fn usage_is_not_taken_from_strangers() {
    let origin = Origin::start().await;
    let site = split(&origin).await;
    let body = serde_json::json!({"node": "node-1", "boot": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "number": 1, "parts": []});
    for token in ["", "sgn_wrong", &site.token()] {
        let answer = site.api().with_token(token).post("/internal/v1/nodes/node-1/usage", body.clone()).await;
        assert_eq!(answer.status, 401, "{token}");
    }
}

#[tokio::test]
async fn what_the_school_app_counts_is_shown_beside_the_rest() {
    let site = Site::builder(env!("CARGO_BIN_EXE_schoolgate")).demo().up().await;
    let api = site.api();
    let school = site.client("greenhill.localhost");
    assert_eq!(school.get("/students").await.status(), 200);
    let app = async || api.get("tenants/slug:greenhill/usage").await.expect(200)["app"].clone();
    eventually(SOON, || async { app().await["students"] == 8 }).await;
    let student = serde_json::json!({"given_name": "Asha", "family_name": "Juma"});
    assert_eq!(
        school.request(reqwest::Method::POST, "/api/students").json(&student).send().await.unwrap().status(),
        201
    );
    eventually(SOON, || async { app().await["users"] == 9 }).await;
    let shown = app().await;
    assert!(shown["storage_bytes"].as_u64() > Some(4_096) && shown["reported_at"].is_string(), "{shown}");
    // The token that instances report with is in a file that only its owner reads, and on no command line.
    let token = std::fs::read_to_string(site.data().join("instance.token")).expect("the instances' token");
    let lines = std::fs::read_dir("/proc").expect("Linux").flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()
    });
    for line in lines {
        assert!(!line.contains(token.trim()), "{line}");
    }
}
