//! What others can see: an access line per request, metrics, and the node's status.
//!
//! The request path calls [`Observe`], which counts on plain atomics and never waits. Everything else happens when it is
//! asked for: a scrape ([`Metrics`]) or a look at the status listener ([`status`]).

mod access_log;
mod busiest;
mod canary;
mod counters;
mod crossings;
mod metrics;
mod missing_keys;
mod node;
mod quota_events;
mod recorder;
pub mod status;
mod unknown_hosts;
mod usage;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use schoolgate_config::feed::{self, CanaryReport, MissingKey, QuotaEvent, UnknownHost};
use schoolgate_config::identity::{Happened, RecordedRequest};
use schoolgate_config::model::{BackendAddress, BackendId, IssuerId, Pool, PoolId, Revision, Tenant, TenantId};
use schoolgate_config::table::Live;
use schoolgate_config::time::Clock;
use schoolgate_config::usage::RequestClass;

pub use access_log::AccessLogTarget;
pub(crate) use canary::{CanaryCounters, InShare, ShareSide};
pub use counters::{BackendCounters, Mismatch, PoolCounters, TenantCounters};
pub use crossings::CrossTenantAttempt;
pub use metrics::Metrics;

use crate::limit::{Layer, Layers};
use crate::transport::{Budget, TlsVersion};
use access_log::AccessLog;
use crossings::Crossings;
use missing_keys::MissingKeys;
use node::NodeMetrics;
use quota_events::QuotaEvents;
use recorder::Recorder;
use unknown_hosts::UnknownHosts;
pub(crate) use usage::gather;

/// How long the parts of a request took, from the request head.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phases {
    /// Until we knew where it goes.
    pub decide: Option<Duration>,
    /// To get a connection to the backend, reused or new.
    pub connect: Option<Duration>,
    /// Until the first byte of the backend's answer.
    pub first_byte: Option<Duration>,
    /// Until the last byte of the answer.
    pub total: Duration,
}

/// A request at its end.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// Our identifier of the request.
    pub request_id: &'a str,
    /// The client.
    pub client: IpAddr,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// `None` on the plain listener.
    pub tls: Option<TlsVersion>,
    /// The method.
    pub method: &'a str,
    /// The host, normalised if it could be.
    pub host: Option<&'a str>,
    /// The path without the query.
    pub path: &'a str,
    /// The status answered; 0 when the client went away before.
    pub status: u16,
    /// The code of our own answer.
    pub error: Option<&'static str>,
    /// For whom.
    pub tenant: Option<(&'a Tenant, &'a TenantCounters)>,
    /// The pool it was forwarded to.
    pub pool: Option<(&'a PoolId, &'a PoolCounters)>,
    /// The last backend asked. Earlier ones are counted by [`BackendCounters::failed`] when they fail.
    pub backend: Option<(&'a BackendAddress, &'a BackendCounters)>,
    /// What the last backend answered; `None` when it did not.
    pub backend_status: Option<u16>,
    /// Attempts beyond the first.
    pub retries: u32,
    /// The revision it was served by.
    pub revision: Revision,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// How long its parts took.
    pub phases: Phases,
    /// Whether identifiers disagreed.
    pub mismatch: Option<Mismatch>,
    /// Whether no tenant has its host.
    pub unknown_host: bool,
    /// The layer of limits that refused it.
    pub limited: Option<Layer>,
    /// Those that would have, were they not in shadow.
    pub would_limit: Layers,
}

impl Finished<'_> {
    /// What came of it, as it is kept.
    pub(crate) fn happened(&self) -> Happened {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Happened {
            status: self.status,
            error: self.error.map(str::to_owned),
            tenant: self.tenant.map(|(tenant, _)| tenant.slug.to_string()),
            pool: self.pool.map(|(pool, _)| pool.to_string()),
            backend: self.backend.map(|(address, _)| address.to_string()),
            backend_status: self.backend_status,
            retries: self.retries,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            decide_us: self.phases.decide.map(micros),
            connect_us: self.phases.connect.map(micros),
            first_byte_us: self.phases.first_byte.map(micros),
            total_us: micros(self.phases.total),
        }
    }
}

/// How this node finds a backend now.
#[derive(Debug, Clone)]
pub struct BackendView {
    /// Identity.
    pub id: BackendId,
    /// Address.
    pub address: BackendAddress,
    /// What may be done with it.
    pub state: BackendCondition,
    /// Whether an active check has said so.
    pub checked: bool,
    /// Why it is not up.
    pub reason: Option<String>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Its counters.
    pub counters: Arc<BackendCounters>,
}

/// Whether a backend takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendCondition {
    /// Yes.
    Up,
    /// Failed active checks.
    Unhealthy,
    /// Failed real requests.
    Ejected,
    /// Finishes what is in flight.
    Draining,
    /// Switched off.
    Disabled,
}

impl BackendCondition {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Up, Self::Unhealthy, Self::Ejected, Self::Draining, Self::Disabled];

    /// As in a [`schoolgate_config::feed::BackendReport`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// What this node keeps beside tenants and pools, as far as it can be seen.
pub trait Counted: Live {
    /// The counters beside a tenant.
    fn tenant_counters(tenant: &Self::Tenant) -> &TenantCounters;
    /// The counters beside a pool.
    fn pool_counters(pool: &Self::Pool) -> &PoolCounters;
    /// How much of its quotas a tenant has used at `now_ms` (milliseconds since 1970), 1 being all of it.
    fn quotas_used(tenant: &Self::Tenant, now_ms: i64) -> Vec<(&'static str, f64)>;
    /// WebSockets of a tenant now.
    fn websockets(tenant: &Self::Tenant) -> u32;
    /// Requests that wait for a pool now.
    fn waiting(pool: &Self::Pool) -> u32;
    /// What became of a tenant's requests while it has a canary.
    fn canary(tenant: &Tenant, live: &Self::Tenant) -> Option<CanaryReport>;
    /// The backends of a pool, in its order.
    fn backends(definition: &Pool, pool: &Self::Pool) -> Vec<BackendView>;
}

/// Counts and logs; one per node, shared by its workers.
pub struct Observe {
    pub(crate) node: NodeMetrics,
    unknown_hosts: UnknownHosts,
    crossings: Crossings,
    missing_keys: MissingKeys,
    quota_events: QuotaEvents,
    recorder: Recorder,
    log: AccessLog,
    clock: Arc<dyn Clock>,
    /// What the edge holds for its clients, once there is an edge.
    budget: OnceLock<Arc<Budget>>,
}

impl std::fmt::Debug for Observe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observe")
    }
}

impl Observe {
    /// Waits until the access log holds every request that has ended, or the time is over. Blocks.
    pub fn flush(&self, within: std::time::Duration) {
        self.log.flush(within);
    }

    /// Opens the access log and starts all counters at zero.
    ///
    /// # Errors
    /// The access log cannot be opened.
    pub fn new(access_log: AccessLogTarget, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let log = AccessLog::start(access_log)?;
        Ok(Self {
            node: NodeMetrics::new(),
            unknown_hosts: UnknownHosts::default(),
            crossings: Crossings::default(),
            missing_keys: MissingKeys::default(),
            quota_events: QuotaEvents::default(),
            recorder: Recorder::default(),
            log,
            clock,
            budget: OnceLock::new(),
        })
    }

    /// Counts and logs nothing that outlives it; for tests and benches.
    pub fn off() -> Self {
        let clock = Arc::new(schoolgate_config::time::SystemClock);
        Self {
            node: NodeMetrics::new(),
            unknown_hosts: UnknownHosts::default(),
            crossings: Crossings::default(),
            missing_keys: MissingKeys::default(),
            quota_events: QuotaEvents::default(),
            recorder: Recorder::default(),
            log: AccessLog::off(),
            clock,
            budget: OnceLock::new(),
        }
    }

    /// A request of a tenant is in flight. Whoever says so says [`Self::end`] too.
    pub fn begin(&self, tenant: &TenantCounters) {
        self.node.begin();
        tenant.begin();
    }

    /// A request that was in flight no longer is.
    pub fn end(&self, tenant: &TenantCounters) {
        self.node.end();
        tenant.end();
    }

    /// Requests of tenants in flight now.
    pub fn in_flight(&self) -> u64 {
        self.node.in_flight()
    }

    /// A request ended.
    pub fn request(&self, request: &Finished<'_>) {
        let Finished { status, bytes_in, bytes_out, phases, .. } = *request;
        // Node first, tenant second: a scrape reads the other way round and so never sees a part above its whole.
        let whole = if request.tenant.is_some() { &self.node.tenants } else { &self.node.nobody };
        whole.request(status, bytes_in, bytes_out, phases.total);
        if let Some((_, counters)) = request.tenant {
            counters.request(status, bytes_in, bytes_out, phases.total);
            counters.used(RequestClass::of(request.method, request.path, status), status, phases.total);
        }
        if let Some((_, counters)) = request.pool {
            self.node.pools.request(phases.total);
            counters.request(phases.total);
        }
        if let Some((_, counters)) = request.backend {
            match request.backend_status {
                Some(status) => counters.answered(status),
                None => counters.failed(),
            }
        }
        if let Some(kind) = request.mismatch {
            whole.mismatch(kind);
            if let Some((_, counters)) = request.tenant {
                counters.mismatch(kind);
            }
        }
        if request.limited.is_some() || !request.would_limit.is_empty() {
            for counters in std::iter::once(whole).chain(request.tenant.map(|(_, counters)| counters)) {
                counters.limited(request.limited, request.would_limit);
            }
        }
        self.node.request(request);
        let now_ms = self.clock.unix_ms();
        if let Some(host) = request.host.filter(|_| request.unknown_host) {
            self.unknown_hosts.asked_for(host, now_ms);
        }
        self.log.write(request, now_ms);
    }

    /// Whether a request that has ended is to be [kept](Self::record): errors always, successes sampled.
    pub fn keeps(&self, request: &Finished<'_>) -> bool {
        let sampler = request.tenant.map_or(&self.recorder.nobody, |(_, counters)| &counters.sampler);
        recorder::is_error(request.status) || sampler.takes(self.clock.unix_ms())
    }

    /// Keeps a request that has ended, so that it can be explained.
    pub fn record(&self, tenant: Option<TenantId>, request: RecordedRequest) {
        self.recorder.keep(tenant, request);
    }

    /// A request by its identifier, if it is kept.
    pub fn recorded(&self, request_id: &str) -> Option<RecordedRequest> {
        self.recorder.find(request_id)
    }

    /// A request named two tenants and was refused.
    pub fn cross_tenant_attempt(&self, attempt: CrossTenantAttempt) {
        self.crossings.add(attempt);
    }

    /// The latest requests that named two tenants, the last first.
    pub fn cross_tenant_attempts(&self) -> Vec<CrossTenantAttempt> {
        self.crossings.latest()
    }

    /// The latest of them in the form of a report.
    pub(crate) fn reported_attempts(&self) -> Vec<feed::CrossTenantAttempt> {
        self.crossings.latest().into_iter().take(feed::CrossTenantAttempt::MOST).map(Into::into).collect()
    }

    /// A quota has reached a level for the first time in its period here.
    pub(crate) fn quota_reached(&self, event: QuotaEvent) {
        self.quota_events.add(event);
    }

    /// The latest of them, the last first.
    pub(crate) fn quota_events(&self) -> Vec<QuotaEvent> {
        self.quota_events.latest()
    }

    /// A token that says it is of this issuer names a key that the issuer's table entry does not have.
    pub(crate) fn key_missing(&self, issuer: &IssuerId, token: &[u8]) {
        self.missing_keys.named_by(issuer, token, self.clock.unix_ms());
    }

    /// Issuers whose tokens name keys that are not there.
    pub(crate) fn missing_keys(&self) -> Vec<MissingKey> {
        self.missing_keys.all()
    }

    /// A retry goes to another backend of this pool.
    pub fn retried(&self, pool: &PoolCounters) {
        self.node.pools.retried();
        pool.retried();
    }

    /// A panic was caught while serving a request.
    pub fn panicked(&self) {
        self.node.panics.inc();
    }

    /// Hosts that clients ask for and no tenant has, the most wanted first.
    pub fn unknown_hosts(&self) -> Vec<UnknownHost> {
        self.unknown_hosts.most_wanted()
    }

    /// Downstream connections open now.
    pub fn connections(&self) -> u64 {
        self.node.connections()
    }

    /// What the feed has beyond what is served is the lag.
    pub(crate) fn offered(&self, revision: Option<Revision>) {
        self.node.offered(revision);
    }

    /// A revision is in service.
    pub(crate) fn serving(&self, revision: Revision) {
        self.node.serving(revision);
    }

    /// Something the feed brought was put into service.
    pub(crate) fn adopted(&self, took: Duration) {
        self.node.apply_duration.observe(took.as_secs_f64());
    }

    /// Something the feed brought was refused.
    pub(crate) fn refused(&self) {
        self.node.revisions_refused.inc();
    }

    /// From now on this is what the edge holds for its clients.
    pub(crate) fn watch(&self, budget: &Arc<Budget>) {
        let _ = self.budget.set(Arc::clone(budget));
    }

    /// Bytes that the edge holds for its clients.
    fn buffered_bytes(&self) -> usize {
        self.budget.get().map_or(0, |budget| budget.held())
    }

    /// Requests whose usage waited for the control plane for so long that it was given up.
    pub(crate) fn usage_lost(&self, requests: u64) {
        self.node.usage_lost.inc_by(requests);
    }

    /// Access lines that were not written.
    pub fn lines_dropped(&self) -> u64 {
        self.log.dropped()
    }
}
