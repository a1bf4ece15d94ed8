//! The whole proxy on real sockets, with a feed that says what the test tells it to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::feed::FeedAnswer;
use schoolgate_config::settings::Settings;
use schoolgate_config::snapshot::{Change, Object};
use schoolgate_proxy::feed::SnapshotFeed;
use schoolgate_proxy::server::{ProxyError, ProxyHandle, ProxyOptions, ProxyServer};
use schoolgate_testkit::{Client, Origin, eventually, until};

use crate::world::{Authority, DeadFeed, ScriptedFeed, delta, domain, keeper, pool, snapshot};

const SOON: Duration = Duration::from_secs(10);
const NAME: &str = "erp.school.example";

fn options(dir: &Path, feed: Arc<dyn SnapshotFeed>) -> ProxyOptions {
    let mut settings = Settings::default();
    settings.data.dir = dir.to_owned();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    (settings.proxy.http, settings.proxy.https, settings.proxy.status) = (any, any, any);
    settings.proxy.workers = 2;
    ProxyOptions::new(&settings, keeper(), feed).unwrap()
}

async fn stop(proxy: ProxyHandle) {
    assert!(proxy.stop(SOON).await, "the proxy did not drain");
}

fn visitor(proxy: &ProxyHandle, authority: &Authority) -> Client {
    let https = proxy.addresses().https;
    Client::builder(https).base(format!("https://{NAME}:{}", https.port())).ca(&authority.pem).build()
}

#[tokio::test]
async fn a_school_is_served_and_after_a_restart_without_a_feed_it_still_is() {
    let (dir, authority, origin) = (tempfile::tempdir().unwrap(), Authority::new(), Origin::start().await);
    let feed = ScriptedFeed::new();
    let proxy = ProxyServer::start(options(dir.path(), feed.clone())).await.unwrap();
    let status = Client::plain(proxy.addresses().status);
    assert_eq!(status.get("/healthz").await.status(), 200);
    assert_eq!(status.get("/readyz").await.status(), 503);

    let mut first = snapshot(1);
    first.objects.extend([pool(&[origin.addr()]), domain(NAME, 1), Object::Certificate(authority.issue(&[NAME]))]);
    feed.say(FeedAnswer::Snapshot(first));
    eventually(SOON, || async { status.get("/readyz").await.status() == 200 }).await;
    let client = visitor(&proxy, &authority);
    assert_eq!(client.get("/grades").await.status(), 200);
    assert_eq!(origin.last().header("x-tenant-slug"), Some("school-1"));
    assert!(origin.last().header("x-tenant-context").is_some(), "no signed context");

    let shown = status.get_json("/status").await;
    assert_eq!((&shown["serving"], &shown["ready"]), (&1.into(), &true.into()), "{shown}");
    assert_eq!(shown["backends"][0]["state"], "up", "{shown}");
    let count = |text: &str| {
        text.contains(r#"schoolgate_requests_total{tenant="school-1",pool="shared",code="200"} 1"#).then_some(())
    };
    until(SOON, || async { count(&status.get("/metrics").await.text().await.unwrap()) }).await;
    stop(proxy).await;

    let line = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.lines().next().expect("a line")).unwrap();
    assert_eq!((&line["tenant"], &line["path"]), (&"school-1".into(), &"/grades".into()), "{line}");
    assert_eq!((&line["status"], &line["pool"]), (&200.into(), &"shared".into()), "{line}");

    let proxy = ProxyServer::start(options(dir.path(), Arc::new(DeadFeed))).await.unwrap();
    assert_eq!(visitor(&proxy, &authority).get("/grades").await.status(), 200);
    let shown = until(SOON, || async {
        let shown = Client::plain(proxy.addresses().status).get_json("/status").await;
        shown["feed"]["error"].is_string().then_some(shown)
    })
    .await;
    assert_eq!(shown["feed"]["connected"], false);
    stop(proxy).await;
}

#[tokio::test]
async fn a_domain_that_the_feed_brings_is_served_on_connections_that_were_open_before() {
    let (dir, authority, origin) = (tempfile::tempdir().unwrap(), Authority::new(), Origin::start().await);
    let feed = ScriptedFeed::new();
    let proxy = ProxyServer::start(options(dir.path(), feed.clone())).await.unwrap();
    let mut first = snapshot(1);
    first.objects.push(pool(&[origin.addr()]));
    feed.say(FeedAnswer::Snapshot(first));
    let certificate = Object::Certificate(authority.issue(&[NAME]));
    feed.say(FeedAnswer::Deltas(vec![delta(2, vec![Change::Put(certificate)])]));
    eventually(SOON, || async { proxy.report().certificates == 1 }).await;
    let client = visitor(&proxy, &authority);
    assert_eq!(client.get("/").await.status(), 404);
    feed.say(FeedAnswer::Deltas(vec![delta(3, vec![Change::Put(domain(NAME, 1))])]));
    eventually(SOON, || async { client.get("/").await.status() == 200 }).await;
    stop(proxy).await;
}

#[tokio::test]
async fn a_damaged_last_good_state_is_told_and_mended_by_the_feed() {
    let dir = tempfile::tempdir().unwrap();
    let feed = ScriptedFeed::new();
    feed.say(FeedAnswer::Snapshot(snapshot(1)));
    let proxy = ProxyServer::start(options(dir.path(), feed.clone())).await.unwrap();
    eventually(SOON, || async { proxy.report().serving.0 == 1 }).await;
    stop(proxy).await;
    let base = dir.path().join("proxy/last-good/base");
    let mut bytes = std::fs::read(&base).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&base, bytes).unwrap();

    let feed = ScriptedFeed::new();
    let proxy = ProxyServer::start(options(dir.path(), feed.clone())).await.unwrap();
    let report = proxy.report();
    assert_eq!(report.serving.0, 0);
    assert!(report.notices.iter().any(|notice| notice.contains("set aside")), "{:?}", report.notices);
    feed.say(FeedAnswer::Snapshot(snapshot(1)));
    eventually(SOON, || async { proxy.report().serving.0 == 1 }).await;
    eventually(SOON, || async { feed.report().is_some_and(|r| r.serving.0 == 1 && !r.notices.is_empty()) }).await;
    stop(proxy).await;
}

#[tokio::test]
async fn an_address_in_use_is_named_with_the_flag_that_changes_it() {
    let (dir, taken) = (tempfile::tempdir().unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    for flag in ["--http", "--https", "--status"] {
        let mut options = options(dir.path(), Arc::new(DeadFeed));
        let address = taken.local_addr().unwrap();
        match flag {
            "--http" => options.http = address,
            "--https" => options.https = address,
            _ => options.status = address,
        }
        let error = ProxyServer::start(options).await.unwrap_err();
        assert!(matches!(error, ProxyError::Listen { .. }), "{error:?}");
        let words = error.to_string();
        assert!(words.contains(&address.to_string()) && words.contains(&format!("{flag} ")), "{words}");
    }
}

#[tokio::test]
async fn the_status_listener_answers_what_it_knows_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = ProxyServer::start(options(dir.path(), Arc::new(DeadFeed))).await.unwrap();
    let status = Client::plain(proxy.addresses().status);
    assert_eq!(status.get("/").await.status(), 404);
    let posted = status.request(http::Method::POST, "/metrics").send().await.unwrap();
    assert_eq!(posted.status(), 405);
    assert_eq!(status.get("/metrics").await.status(), 200);
    stop(proxy).await;
}

#[tokio::test]
async fn a_proxy_that_is_stopping_finishes_what_is_in_flight_and_says_that_it_wants_no_more() {
    let (dir, authority, origin) = (tempfile::tempdir().unwrap(), Authority::new(), Origin::start().await);
    let feed = ScriptedFeed::new();
    let mut first = snapshot(1);
    first.objects.extend([pool(&[origin.addr()]), domain(NAME, 1), Object::Certificate(authority.issue(&[NAME]))]);
    feed.say(FeedAnswer::Snapshot(first));
    let proxy = ProxyServer::start(options(dir.path(), feed)).await.unwrap();
    eventually(SOON, || async { proxy.report().serving.0 == 1 }).await;
    let status = Client::plain(proxy.addresses().status);
    let client = visitor(&proxy, &authority);
    let slow = tokio::spawn(async move { client.get("/delay/1000").await.status() });
    eventually(SOON, || async { origin.in_flight() == 1 }).await;
    let stopping = tokio::spawn(stop(proxy));
    eventually(SOON, || async { status.get("/readyz").await.status() == 503 }).await;
    assert_eq!(status.get("/healthz").await.status(), 200);
    assert_eq!(slow.await.unwrap(), 200);
    stopping.await.unwrap();
}
