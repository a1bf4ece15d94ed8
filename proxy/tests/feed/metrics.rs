//! What a scrape shows: valid, capped, and adding up.

use std::collections::HashMap;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::feed::FeedAnswer;
use schoolgate_config::model::{PoolId, Revision};
use schoolgate_config::snapshot::Object;
use schoolgate_config::time::SystemClock;
use schoolgate_proxy::live::NodeLive;
use schoolgate_proxy::observe::{Counted, Finished, Metrics, Mismatch, Phases};
use schoolgate_proxy::transport::{HandshakeResult, TlsVersion, TransportObserver};

use crate::world::{Authority, Node, pool, snapshot, tenant_id};

pub(crate) fn scraper(node: &Node, most: usize, pinned: &[&str]) -> Metrics<NodeLive> {
    let pinned: Vec<String> = pinned.iter().map(|slug| (*slug).to_owned()).collect();
    Metrics::new(
        Arc::clone(&node.table),
        Arc::clone(&node.observe),
        Arc::clone(&node.keyring),
        Arc::new(SystemClock),
        most,
        pinned,
    )
}

/// A request of tenant `n` that ended with `status`; 0 is nobody's.
pub(crate) fn request(node: &Node, n: u32, status: u16) {
    let table = node.table.load_full();
    let tenant = table.tenant(&tenant_id(n));
    let id: PoolId = "shared".parse().unwrap();
    let pool = table.pool(&id).unwrap();
    node.observe.request(&Finished {
        request_id: "01HF7YAT00TESTTESTTESTTEST",
        client: IpAddr::from([192, 0, 2, 1]),
        protocol: "HTTP/2",
        tls: Some(TlsVersion::V13),
        method: "GET",
        host: None,
        path: "/",
        status,
        error: None,
        tenant: tenant.map(|entry| (&*entry.tenant, NodeLive::tenant_counters(&entry.live))),
        pool: tenant.map(|_| (&id, NodeLive::pool_counters(&pool.live))),
        backend: None,
        backend_status: None,
        retries: 0,
        revision: Revision(1),
        bytes_in: 3,
        bytes_out: 100,
        phases: Phases {
            decide: Some(Duration::from_micros(40)),
            connect: Some(Duration::from_micros(90)),
            first_byte: None,
            total: Duration::from_millis(7),
        },
        mismatch: (n == 0).then_some(Mismatch::Sni),
        limited: None,
        would_limit: Default::default(),
        unknown_host: n == 0,
    });
}

/// The samples of one family, by their labels.
fn samples(text: &str, family: &str) -> HashMap<String, f64> {
    let lines = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(family)?;
        if !rest.starts_with(['{', ' ']) {
            return None;
        }
        let (labels, value) = rest.rsplit_once(' ')?;
        Some((labels.to_owned(), value.parse().ok()?))
    });
    lines.collect()
}

fn promtool(text: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("promtool is needed: install the Debian package prometheus");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn a_scrape_is_what_prometheus_reads_and_holds_every_promised_name() {
    let dir = tempfile::tempdir().unwrap();
    let (node, authority) = (Node::load(dir.path()).unwrap(), Authority::new());
    let mut first = snapshot(3);
    first.objects.push(pool(&["127.0.0.1:9".parse().unwrap(), "127.0.0.1:9".parse().unwrap()]));
    first.objects.push(Object::Certificate(authority.issue(&["erp.example", "*.zone.example"])));
    node.adoption.adopt(FeedAnswer::Snapshot(first)).unwrap();
    for (tenant, status) in [(1, 200), (1, 418), (2, 0), (3, 503), (0, 404)] {
        request(&node, tenant, status);
    }
    node.observe.handshake(TlsVersion::V13, HandshakeResult::Full);
    let text = scraper(&node, 2, &[]).write();
    promtool(&text);
    for name in [
        "schoolgate_requests_total",
        "schoolgate_request_duration_seconds",
        "schoolgate_tenant_request_duration_seconds",
        "schoolgate_overhead_seconds",
        "schoolgate_requests_in_flight",
        "schoolgate_bytes_total",
        "schoolgate_identity_mismatch_total",
        "schoolgate_unknown_host_total",
        "schoolgate_backend_up",
        "schoolgate_backend_requests_total",
        "schoolgate_retries_total",
        "schoolgate_tls_handshakes_total",
        "schoolgate_certificate_expiry_seconds",
        "schoolgate_certificates",
        "schoolgate_revision",
        "schoolgate_revision_lag",
        "schoolgate_apply_duration_seconds",
        "schoolgate_build_info",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing");
    }
    let requests = samples(&text, "schoolgate_requests_total");
    assert_eq!(requests.values().sum::<f64>(), 5.0, "{requests:?}");
    assert_eq!(requests[r#"{tenant="_none",pool="_none",code="404"}"#], 1.0);
    assert_eq!(samples(&text, "schoolgate_revision")[""], 1.0);
    assert_eq!(samples(&text, "schoolgate_certificates")[r#"{state="valid"}"#], 1.0);
    assert_eq!(samples(&text, "schoolgate_identity_mismatch_total")[r#"{tenant="_none",kind="sni"}"#], 1.0);
    let expiry = samples(&text, "schoolgate_certificate_expiry_seconds");
    assert!(expiry[r#"{domain="*.zone.example"}"#] > 89.0 * 86_400.0, "{expiry:?}");
    assert_eq!(samples(&text, "schoolgate_backend_up").len(), 2, "a backend that is there twice has two lines");
}

#[test]
fn the_busiest_and_the_pinned_have_names_and_the_rest_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::load(dir.path()).unwrap();
    node.adoption.adopt(FeedAnswer::Snapshot(snapshot(500))).unwrap();
    for n in 1..=500 {
        for _ in 0..(if n <= 10 { 20 } else { 1 }) {
            request(&node, n, 200);
        }
    }
    let scraper = scraper(&node, 10, &["school-499"]);
    let requests = samples(&scraper.write(), "schoolgate_requests_total");
    assert_eq!(requests.len(), 12 - 1, "{requests:?}");
    assert!(requests.contains_key(r#"{tenant="school-499",pool="shared",code="200"}"#));
    assert_eq!(requests.values().sum::<f64>(), 490.0 + 200.0);
    let before = requests[r#"{tenant="_other",pool="_other",code="200"}"#];
    for _ in 0..50 {
        request(&node, 400, 200);
    }
    let after = samples(&scraper.write(), "schoolgate_requests_total");
    assert_eq!(after[r#"{tenant="_other",pool="_other",code="200"}"#] - before, 50.0);
}
