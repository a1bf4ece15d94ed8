//! What Prometheus asks a control process.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use http::Method;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_store::{Store, WantState};

use crate::acme_metrics::{AcmeFacts, AcmeMetrics};
use crate::endings::{Stage, endings};
use crate::publish::{FeedServer, Publisher};

/// The metrics of one control process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    revision: IntGauge,
    unpublished: IntGauge,
    tenants: IntGauge,
    domains: IntGauge,
    certificates: IntGaugeVec,
    endings: IntGaugeVec,
    acme: AcmeMetrics,
    nodes: IntGaugeVec,
    lag: IntGaugeVec,
    /// Gauges are set and read in one go.
    scrape: Mutex<()>,
}

impl Metrics {
    /// All metrics, at zero.
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let named = |name: &str, help: &str| Opts::new(name, help);
        let requests = IntCounterVec::new(
            named("schoolgate_control_requests_total", "Requests to the control API."),
            &["method", "route", "code"],
        );
        let duration = HistogramVec::new(
            HistogramOpts::new("schoolgate_control_request_duration_seconds", "Time to answer, without long polls.")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0]),
            &["method"],
        );
        let revision = IntGauge::new("schoolgate_revision", "The last published revision.");
        let unpublished =
            IntGauge::new("schoolgate_control_unpublished_changes", "Committed changes that are not published.");
        let tenants = IntGauge::new("schoolgate_control_tenants", "Tenants.");
        let domains = IntGauge::new("schoolgate_control_domains", "Domains.");
        let certificates =
            IntGaugeVec::new(named("schoolgate_certificates", "Names that need a certificate."), &["state"]);
        let endings = IntGaugeVec::new(
            named("schoolgate_certificates_ending", "Names whose certificate is near its end and not renewed."),
            &["stage"],
        );
        let nodes = IntGaugeVec::new(named("schoolgate_control_nodes", "Proxies heard of."), &["state"]);
        let lag = IntGaugeVec::new(named("schoolgate_revision_lag", "Revisions a live proxy is behind."), &["node"]);
        let build = IntGaugeVec::new(named("schoolgate_build_info", "The release; always 1."), &["version", "role"]);
        let build = register(&registry, build);
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), "control"]).set(1);
        Self {
            requests: register(&registry, requests),
            duration: register(&registry, duration),
            revision: register(&registry, revision),
            unpublished: register(&registry, unpublished),
            tenants: register(&registry, tenants),
            domains: register(&registry, domains),
            certificates: register(&registry, certificates),
            endings: register(&registry, endings),
            acme: AcmeMetrics::new(&registry),
            nodes: register(&registry, nodes),
            lag: register(&registry, lag),
            registry,
            scrape: Mutex::new(()),
        }
    }

    /// Counts a request. `route` is the pattern of the path, never the path.
    pub(crate) fn request(&self, method: &Method, route: &str, code: u16, took: Duration) {
        let method = match method.as_str() {
            known @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD") => known,
            _ => "other",
        };
        self.requests.with_label_values(&[method, route, &code.to_string()]).inc();
        if route != "/internal/v1/feed" {
            self.duration.with_label_values(&[method]).observe(took.as_secs_f64());
        }
    }

    /// Everything as text.
    pub(crate) async fn gather(&self, store: &Store, publisher: &Publisher, feed: &FeedServer) -> Vec<u8> {
        // A scrape should say what is known, even while the store does not answer.
        let certificates = store.certificate_counts().await.unwrap_or_default();
        let acme = AcmeFacts::read(store).await;
        let status = publisher.status();
        let nodes = feed.nodes();
        let head = store.head();
        let ending = endings(&head.table, SystemClock.unix_s());
        let _scrape = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.revision.set(signed(status.revision.0));
        self.unpublished.set(signed(status.committed_change.saturating_sub(status.published_change)));
        self.tenants.set(signed(head.table.tenant_count() as u64));
        self.domains.set(signed(head.table.domain_count() as u64));
        for state in [WantState::Queued, WantState::Issued, WantState::Failing] {
            let count = certificates.iter().find(|(s, _)| *s == state).map_or(0, |(_, count)| *count);
            self.certificates.with_label_values(&[state.as_str()]).set(signed(count));
        }
        for stage in Stage::ALL {
            let count = ending.iter().filter(|ending| ending.stage == stage).count() as u64;
            self.endings.with_label_values(&[stage.as_str()]).set(signed(count));
        }
        self.acme.set(&acme);
        let live = nodes.iter().filter(|node| node.live).count() as u64;
        self.nodes.with_label_values(&["live"]).set(signed(live));
        self.nodes.with_label_values(&["silent"]).set(signed(nodes.len() as u64 - live));
        self.lag.reset();
        for node in nodes.iter().filter(|node| node.live) {
            if let Some(report) = &node.report {
                let lag = status.revision.0.saturating_sub(report.serving.0);
                self.lag.with_label_values(&[node.node.as_str()]).set(signed(lag));
            }
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!("metrics cannot be written: {error}");
        }
        text
    }
}

pub(crate) fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("names and labels are written above and valid");
    registry.register(Box::new(collector.clone())).expect("every name is registered once");
    collector
}
