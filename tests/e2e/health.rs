//! How soon a change of a backend's health is seen everywhere.

use std::time::{Duration, Instant};

use schoolgate_testkit::{Origin, Site, until};
use serde_json::{Value, json};

use crate::{SOON, gateway, school};

/// From the proxy's finding to the operator's eyes.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// A pool whose one backend is checked every 100 ms.
async fn checked(site: &Site, origin: &Origin) {
    let check =
        json!({ "path": "/healthz", "interval_ms": 100, "timeout_ms": 500, "healthy_after": 1, "unhealthy_after": 1 });
    let body = json!({ "id": "web", "backends": [{ "address": origin.url() }], "health_check": check });
    site.api().post("pools", body).await.expect(201);
    school(&site.api(), "ash", "web").await;
    let seen = site.api();
    until(SOON, || async { (state(&seen.get("status").await.expect(200)) == "up").then_some(()) }).await;
}

fn state(status: &Value) -> String {
    status.pointer("/backends/0/seen/0/state").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The latest event of a kind, when it happened.
async fn event(site: &Site, kind: &str) -> Option<()> {
    let events = site.api().get("events").await.expect(200);
    events["items"].as_array().expect("items").iter().any(|event| event["kind"] == kind).then_some(())
}

/// A change is seen in the metrics first; from there the time runs.
async fn is_seen_everywhere(site: &Site, up: f64, as_state: &str, kind: &str) {
    until(SOON, || async {
        (site.metric("schoolgate_backend_up", &["pool=\"web\""]).await.total_cmp(&up).is_eq()).then_some(())
    })
    .await;
    let found = Instant::now();
    let api = site.api();
    until(SEEN_WITHIN, || async { event(site, kind).await }).await;
    until(SEEN_WITHIN, || async { (state(&api.get("status").await.expect(200)) == as_state).then_some(()) }).await;
    assert!(found.elapsed() <= SEEN_WITHIN, "{as_state} after {:?}", found.elapsed());
    let data = site.control_data().display().to_string();
    let shown = site.run(&["status", "--data-dir", &data]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains(as_state), "{text}{}", String::from_utf8_lossy(&shown.stderr));
}

/// What the checks themselves take, their interval times their threshold, comes on top: nobody knows before.
async fn a_change_is_seen_within_a_second(site: Site) {
    let origin = Origin::named("one").await;
    checked(&site, &origin).await;
    origin.set_healthy(false);
    is_seen_everywhere(&site, 0.0, "unhealthy", "backend.unhealthy").await;
    origin.set_healthy(true);
    is_seen_everywhere(&site, 1.0, "up", "backend.up").await;
}

#[tokio::test]
async fn a_change_of_health_is_seen_within_a_second() {
    a_change_is_seen_within_a_second(gateway().up().await).await;
}

#[tokio::test]
async fn a_change_of_health_at_another_process_is_seen_within_a_second() {
    a_change_is_seen_within_a_second(gateway().split().await).await;
}
