//! Certificates from a CA that speaks ACME: Pebble, over real sockets.

use std::time::Duration;

use schoolgate_testkit::{Api, Client, Origin, Pebble, Site, SiteBuilder, TlsConn, eventually, until};
use serde_json::{Value, json};

use crate::{gateway, pool, school};

/// An order is some requests and some polls; the machine may be busy.
const ISSUED_WITHIN: Duration = Duration::from_secs(60);

/// A gateway that takes its certificates from Pebble, and a school on one origin.
async fn gateway_at(pebble: &mut Pebble, origin: &Origin, more: &str) -> Site {
    start(gateway().settings(&pebble.settings()).settings(more), pebble, origin).await
}

async fn start(gateway: SiteBuilder, pebble: &mut Pebble, origin: &Origin) -> Site {
    let site = gateway.up().await;
    pebble.start(site.http(), site.https()).await;
    pool(&site.api(), "web", &[origin]).await;
    school(&site.api(), "greenhill", "web").await;
    site
}

async fn add_domain(api: &Api, name: &str) {
    api.post("domains", json!({"name": name, "tenant": "greenhill"})).await.expect(201);
}

async fn certificate_state(api: &Api, name: &str) -> String {
    let domain = api.get(&format!("domains/{name}")).await.expect(200);
    domain["certificate"].as_str().unwrap_or_default().to_owned()
}

async fn issued(api: &Api, name: &str) {
    eventually(ISSUED_WITHIN, || async { certificate_state(api, name).await == "issued" }).await;
}

/// Waits until visitors get a certificate that verifies under this root.
async fn serves_under(site: &Site, root: &str, name: &str) {
    eventually(ISSUED_WITHIN, || async { TlsConn::connect(site.https(), name, &["http/1.1"], root).await.is_ok() })
        .await;
}

async fn entry(api: &Api, name: &str) -> Option<Value> {
    let queue = api.get("acme/queue").await.expect(200);
    queue["items"].as_array()?.iter().find(|item| item["name"] == name).cloned()
}

#[tokio::test]
async fn a_name_gets_its_certificate_over_http_and_serves_it() {
    let origin = Origin::start().await;
    let mut pebble = Pebble::builder().build();
    let site = gateway_at(&mut pebble, &origin, "").await;
    let api = site.api();
    add_domain(&api, "erp.greenhill.test").await;
    issued(&api, "erp.greenhill.test").await;
    let root = pebble.root().await;
    serves_under(&site, &root, "erp.greenhill.test").await;
    let visitor = Client::builder(site.https()).base("https://erp.greenhill.test").ca(root).build();
    assert_eq!(visitor.get("/").await.status(), 200);
    assert_eq!(pebble.orders(), 1);
    assert!(site.tls("greenhill.localhost").await.is_ok(), "names of this machine keep the internal CA");
}

#[tokio::test]
async fn a_name_gets_its_certificate_in_a_handshake_beside_http2() {
    let origin = Origin::start().await;
    let mut pebble = Pebble::builder().build();
    let site = gateway_at(&mut pebble, &origin, "challenge = \"tls-alpn-01\"").await;
    add_domain(&site.api(), "erp.greenhill.test").await;
    issued(&site.api(), "erp.greenhill.test").await;
    let root = pebble.root().await;
    serves_under(&site, &root, "erp.greenhill.test").await;
    let h2 =
        TlsConn::connect(site.https(), "erp.greenhill.test", &["h2", "http/1.1"], &root).await.expect("a handshake");
    assert_eq!(h2.alpn().as_deref(), Some("h2"));
    assert!(!pebble.log().contains("validate w/ HTTP"), "that way was used");
    assert_eq!(pebble.orders(), 1);
}

#[tokio::test]
async fn an_account_is_bound_and_one_in_seven_nonces_is_rejected() {
    let origin = Origin::start().await;
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let mut pebble = Pebble::builder().binding("kid-1", key).rejecting_nonces(15).build();
    let keys = tempfile::tempdir().expect("a temporary directory");
    let file = keys.path().join("eab");
    std::fs::write(&file, format!("{key}\n")).expect("written");
    let eab = format!(
        "contact = [\"mailto:it@platform.test\"]\neab = {{ kid = \"kid-1\", key_file = \"{}\" }}",
        file.display()
    );
    let site = gateway_at(&mut pebble, &origin, &eab).await;
    let names: Vec<String> = (0..5).map(|n| format!("erp{n}.greenhill.test")).collect();
    for name in &names {
        add_domain(&site.api(), name).await;
    }
    for name in &names {
        issued(&site.api(), name).await;
    }
    assert_eq!(pebble.orders(), names.len(), "a rejected nonce costs no order");
}

#[tokio::test]
async fn what_the_ca_refuses_is_shown_and_holds_up_nobody_else() {
    let origin = Origin::start().await;
    let mut pebble = Pebble::builder().blocking("blocked.greenhill.test").build();
    let site = gateway_at(&mut pebble, &origin, "").await;
    let api = site.api();
    add_domain(&api, "blocked.greenhill.test").await;
    add_domain(&api, "erp.greenhill.test").await;
    issued(&api, "erp.greenhill.test").await;
    let entry = until(ISSUED_WITHIN, || async {
        entry(&api, "blocked.greenhill.test").await.filter(|entry| entry["reason"] == "rejected_by_ca")
    })
    .await;
    assert_eq!(
        (&entry["who_acts"], &entry["attempts"], &entry["state"]),
        (&json!("school"), &json!(1), &json!("waiting"))
    );
    assert!(entry["message"].as_str().is_some_and(|text| text.contains("pebble")), "{entry}");

    let budget = api.get("acme/budget").await.expect(200);
    let authority = &budget["items"][0];
    assert_eq!((&authority["ca"], &authority["state"]), (&json!("pebble"), &json!("open")));
    assert!(authority["account"].as_str().is_some_and(|url| url.starts_with("https://127.0.0.1")), "{authority}");
    let orders =
        authority["limits"].as_array().expect("limits").iter().find(|l| l["limit"] == "orders").expect("orders");
    assert_eq!((&orders["capacity"], &orders["remaining"]), (&json!(240), &json!(238)));
    let metrics = Client::plain(site.control_addr()).get("/metrics").await.text().await.expect("a body");
    for sample in [
        "schoolgate_acme_orders_total{ca=\"pebble\",result=\"issued\"} 1",
        "schoolgate_acme_orders_total{ca=\"pebble\",result=\"rejected_by_ca\"} 1",
        "schoolgate_acme_breaker_open{ca=\"pebble\"} 0",
        "schoolgate_acme_queue_depth{class=\"retry\"} 1",
        "schoolgate_certificate_expiry_seconds{domain=\"erp.greenhill.test\"}",
        "schoolgate_acme_budget_remaining{ca=\"pebble\",limit=\"orders\"} 238",
    ] {
        assert!(metrics.contains(sample), "{sample} is not in\n{metrics}");
    }

    api.post("domains/erp.greenhill.test/retry-certificate", json!(null)).await.expect(200);
    eventually(ISSUED_WITHIN, || async { pebble.orders() == 2 }).await;
    api.post("domains/nobody.test/retry-certificate", json!(null)).await.expect(404);
}

#[tokio::test]
async fn a_ca_that_lost_its_memory_is_met_again() {
    let origin = Origin::start().await;
    let mut pebble = Pebble::builder().build();
    let site = gateway_at(&mut pebble, &origin, "").await;
    add_domain(&site.api(), "erp.greenhill.test").await;
    issued(&site.api(), "erp.greenhill.test").await;
    pebble.kill();
    add_domain(&site.api(), "app.greenhill.test").await;
    pebble.start_again().await;
    issued(&site.api(), "app.greenhill.test").await;
    assert!(site.tls("greenhill.localhost").await.is_ok());
}

#[tokio::test]
async fn a_control_plane_that_is_killed_finishes_the_order_it_had_begun() {
    let origin = Origin::start().await;
    let mut pebble = Pebble::builder().build();
    // Apart: a proxy that is killed as well refuses the CA's look, which ends an order.
    let mut site = gateway().settings(&pebble.settings()).split().await;
    pebble.start(site.http(), site.https()).await;
    pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "greenhill", "web").await;
    add_domain(&site.api(), "erp.greenhill.test").await;
    let api = site.api();
    until(ISSUED_WITHIN, || async {
        // Anywhere in the middle, or just after it. An order that the CA has and we have not yet heard of is lost by a
        // crash: RFC 8555 has no way to ask for it.
        let step = entry(&api, "erp.greenhill.test").await.map(|entry| entry["state"].clone());
        let is_placed = step.is_some_and(|step| step != "waiting" && step != "prepared");
        (is_placed || certificate_state(&api, "erp.greenhill.test").await == "issued").then_some(())
    })
    .await;
    site.control.as_mut().expect("a control plane apart").kill();
    site.start().await;
    issued(&site.api(), "erp.greenhill.test").await;
    serves_under(&site, &pebble.root().await, "erp.greenhill.test").await;
    assert_eq!(pebble.orders(), 1, "the order was finished, not placed again");
}

#[tokio::test]
async fn a_ca_is_not_asked_before_the_operator_agrees_to_its_terms() {
    let settings = "[acme]\nissuer = \"acme\"\ndirectory = \"https://127.0.0.1:1/dir\"\n";
    let refused = gateway().settings(settings).try_up().await.expect_err("it does not start");
    assert!(refused.log.contains("acme.terms_agreed"), "{}", refused.log);
}

#[tokio::test]
async fn nobody_outside_can_have_a_certificate_ordered() {
    let origin = Origin::start().await;
    let mut pebble = Pebble::builder().build();
    let site = gateway_at(&mut pebble, &origin, "").await;
    for name in ["stranger.test", "a.greenhill.test", "www.www.greenhill.test"] {
        assert!(site.tls(name).await.is_err(), "{name} has no certificate");
        let answer = site.plain_client(name).get("/.well-known/acme-challenge/abcdefghijklmnopqrstuvwxyz").await;
        assert_eq!(answer.status(), 404, "{name}");
    }
    add_domain(&site.api(), "erp.greenhill.test").await;
    issued(&site.api(), "erp.greenhill.test").await;
    assert_eq!(pebble.orders(), 1);
}

#[tokio::test]
async fn of_two_control_processes_one_orders() {
    let origin = Origin::start().await;
    let mut pebble = Pebble::builder().build();
    let site = gateway().settings(&pebble.settings()).split().await;
    pebble.start(site.http(), site.https()).await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("schoolgate.toml");
    std::fs::write(&config, pebble.settings()).expect("written");
    let log = std::fs::File::create(dir.path().join("second.log")).expect("a log");
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_schoolgate"))
        .args(["control", "--control", "127.0.0.1:0", "--data-dir", &text(&dir.path().join("data"))])
        .args(["--config", &text(&config)])
        .env("SCHOOLGATE__STORE__URL", format!("sqlite://{}", text(&site.control_data().join("control.db"))))
        .env("SCHOOLGATE__KEYS__FILE", text(&site.control_data().join("keys/kek")))
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the binary starts");
    let log = || std::fs::read_to_string(dir.path().join("second.log")).unwrap_or_default();
    eventually(ISSUED_WITHIN, || async { log().contains("another process holds the lease certificates") }).await;

    let api = site.api();
    pool(&api, "web", &[&origin]).await;
    school(&api, "greenhill", "web").await;
    let names: Vec<String> = (0..5).map(|n| format!("erp{n}.greenhill.test")).collect();
    for name in &names {
        add_domain(&api, name).await;
    }
    for name in &names {
        issued(&api, name).await;
    }
    assert_eq!(pebble.orders(), names.len());
    second.kill().expect("it can be killed");
    second.wait().expect("it ends");
    assert!(!log().contains("certificate issued"), "{}", log());
}
