//! Totals of the node: through the `prometheus` crate where labels come from enums, and as the wholes that tenants' and
//! pools' counters are parts of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{Finished, PoolCounters, TenantCounters};
use schoolgate_config::model::Revision;

use crate::transport::{ConnectionRefusal, Flood, HandshakeResult, HeadFault, TlsVersion, TransportObserver};

/// Bounds of what the gateway itself adds, seconds: 50 µs to 100 ms.
const OVERHEAD_BOUNDS: [f64; 9] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.1];
/// Bounds of an adoption, seconds: a delta takes a millisecond, a first snapshot of 100,000 domains a second.
const APPLY_BOUNDS: [f64; 10] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The totals of this node.
pub(crate) struct NodeMetrics {
    registry: Registry,
    /// All requests that had a tenant.
    pub(super) tenants: TenantCounters,
    /// All that had none.
    pub(super) nobody: TenantCounters,
    /// All that were forwarded.
    pub(super) pools: PoolCounters,
    in_flight: AtomicU64,
    offered: AtomicU64,
    pub(super) panics: IntCounter,
    pub(super) usage_lost: IntCounter,
    unknown_hosts: IntCounter,
    decide: Histogram,
    connect: Histogram,
    connections: IntGauge,
    refused: [IntCounter; ConnectionRefusal::ALL.len()],
    heads_refused: [IntCounter; HeadFault::ALL.len()],
    floods: [IntCounter; Flood::ALL.len()],
    handshakes: [[IntCounter; HandshakeResult::ALL.len()]; TlsVersion::ALL.len()],
    revision: IntGauge,
    revision_lag: IntGauge,
    pub(super) apply_duration: Histogram,
    pub(super) revisions_refused: IntCounter,
}

/// Registers what is made from constants, so that nothing can be wrong with it at run time.
fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("names and bounds are constants of this file");
    registry.register(Box::new(collector.clone())).expect("no name is registered twice");
    collector
}

impl NodeMetrics {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let counter = |name: &str, help: &str| register(r, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| register(r, IntGauge::new(name, help));
        let overhead = register(
            r,
            HistogramVec::new(
                HistogramOpts::new(
                    "schoolgate_overhead_seconds",
                    "Time the gateway takes of a request: decide = from its head to knowing where it goes, connect = to get a backend connection.",
                )
                .buckets(OVERHEAD_BOUNDS.to_vec()),
                &["phase"],
            ),
        );
        let handshakes = register(
            r,
            IntCounterVec::new(
                Opts::new("schoolgate_tls_handshakes_total", "TLS handshakes by version and how they ended."),
                &["version", "result"],
            ),
        );
        let refused = register(
            r,
            IntCounterVec::new(
                Opts::new("schoolgate_connections_refused_total", "Connections closed at once, and why."),
                &["reason"],
            ),
        );
        let heads = register(
            r,
            IntCounterVec::new(
                Opts::new(
                    "schoolgate_request_heads_refused_total",
                    "Request heads answered before they became requests, by status.",
                ),
                &["code"],
            ),
        );
        let floods = register(
            r,
            IntCounterVec::new(
                Opts::new("schoolgate_h2_floods_total", "HTTP/2 connections ended for too many frames of a kind."),
                &["kind"],
            ),
        );
        let build = register(
            r,
            prometheus::IntGaugeVec::new(
                Opts::new("schoolgate_build_info", "Always 1; the release is its label."),
                &["version"],
            ),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            tenants: TenantCounters::default(),
            nobody: TenantCounters::default(),
            pools: PoolCounters::default(),
            in_flight: AtomicU64::new(0),
            offered: AtomicU64::new(0),
            panics: counter("schoolgate_panics_total", "Panics caught while serving a request; each is a bug."),
            usage_lost: counter(
                "schoolgate_usage_lost_requests_total",
                "Requests whose usage was given up: the control plane did not take it for too long.",
            ),
            unknown_hosts: counter("schoolgate_unknown_host_total", "Requests for a host that no tenant has."),
            decide: overhead.with_label_values(&["decide"]),
            connect: overhead.with_label_values(&["connect"]),
            connections: gauge("schoolgate_connections", "Downstream connections open."),
            refused: ConnectionRefusal::ALL.map(|why| refused.with_label_values(&[why.as_str()])),
            heads_refused: HeadFault::ALL.map(|fault| heads.with_label_values(&[fault.status().to_string().as_str()])),
            floods: Flood::ALL.map(|flood| floods.with_label_values(&[flood.as_str()])),
            handshakes: TlsVersion::ALL.map(|version| {
                HandshakeResult::ALL.map(|result| handshakes.with_label_values(&[version.as_str(), result.as_str()]))
            }),
            revision: gauge("schoolgate_revision", "The revision that is served."),
            revision_lag: gauge(
                "schoolgate_revision_lag",
                "Revisions the feed is ahead of what is served; above 0 for long means that one was refused.",
            ),
            apply_duration: register(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "schoolgate_apply_duration_seconds",
                        "Time to verify, compile, write to disk and swap in what the feed brought.",
                    )
                    .buckets(APPLY_BOUNDS.to_vec()),
                ),
            ),
            revisions_refused: counter("schoolgate_revisions_refused_total", "Revisions that were refused."),
            registry,
        }
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn request(&self, request: &Finished<'_>) {
        if let Some(decide) = request.phases.decide {
            self.decide.observe(seconds(decide));
        }
        if let Some(connect) = request.phases.connect {
            self.connect.observe(seconds(connect));
        }
        if request.unknown_host {
            self.unknown_hosts.inc();
        }
    }

    pub(super) fn offered(&self, revision: Option<Revision>) {
        if let Some(revision) = revision {
            self.offered.store(revision.0, Ordering::Relaxed);
        }
        self.renew_lag();
    }

    pub(super) fn serving(&self, revision: Revision) {
        self.revision.set(i64::try_from(revision.0).unwrap_or(i64::MAX));
        self.renew_lag();
    }

    fn renew_lag(&self) {
        let offered = i64::try_from(self.offered.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        self.revision_lag.set((offered - self.revision.get()).max(0));
    }

    /// Downstream connections open.
    pub(super) fn connections(&self) -> u64 {
        u64::try_from(self.connections.get()).unwrap_or(0)
    }

    /// The families of the `prometheus` crate, as text.
    pub(super) fn write(&self, out: &mut String) {
        let families = self.registry.gather();
        let written = prometheus::TextEncoder::new().encode_utf8(&families, out);
        debug_assert!(written.is_ok(), "families with constant names always encode");
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

impl TransportObserver for NodeMetrics {
    fn connection_opened(&self) {
        self.connections.inc();
    }
    fn connection_closed(&self) {
        self.connections.dec();
    }
    fn connection_refused(&self, why: ConnectionRefusal) {
        self.refused[why as usize].inc();
    }
    fn handshake(&self, version: TlsVersion, result: HandshakeResult) {
        self.handshakes[version as usize][result as usize].inc();
    }
    fn head_refused(&self, fault: HeadFault) {
        self.heads_refused[fault as usize].inc();
    }
    fn flooded(&self, flood: Flood) {
        self.floods[flood as usize].inc();
    }
}

impl TransportObserver for super::Observe {
    fn connection_opened(&self) {
        self.node.connection_opened();
    }
    fn connection_closed(&self) {
        self.node.connection_closed();
    }
    fn connection_refused(&self, why: ConnectionRefusal) {
        self.node.connection_refused(why);
    }
    fn handshake(&self, version: TlsVersion, result: HandshakeResult) {
        self.node.handshake(version, result);
    }
    fn head_refused(&self, fault: HeadFault) {
        self.node.head_refused(fault);
    }
    fn flooded(&self, flood: Flood) {
        self.node.flooded(flood);
    }
    fn unknown_name(&self, name: &str) {
        self.unknown_hosts.asked_for(name, self.clock.unix_ms());
    }
}
