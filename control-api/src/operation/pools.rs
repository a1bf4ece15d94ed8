//! Pools.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{
    Backend, BackendAddress, BackendId, BackendState, Balance, Ejection, HealthCheck, HealthCheckForm, Pool, PoolId,
    PoolKind, PoolTimeouts, ProbeKind, QueueRules, Retry, ShardSize, StickyCookie, UpstreamTls, Weight,
};
use schoolgate_config::table::RoutingTable;
use schoolgate_store::Stored;

use super::Stamp;
use super::client_certificate::ClientCertificateView;
use super::document::{Errors, Place, readable};
use super::edit::{Preset, Resource};
use super::permission::Subject;

/// What of a pool an operator sets.
#[derive(Debug, ToSchema)]
pub(crate) struct PoolInput {
    /// Its name; it cannot be changed.
    id: PoolId,
    /// Whether many tenants live on it.
    #[serde(default)]
    kind: PoolKind,
    /// Where requests can go.
    #[serde(default)]
    backends: Vec<BackendInput>,
    /// How one is chosen.
    #[serde(default)]
    balance: Balance,
    /// The cookie of `sticky`.
    #[serde(default)]
    sticky: StickyCookie,
    /// Each tenant uses so many of the backends; `null`: all of them.
    shard_size: Option<ShardSize>,
    /// Seconds in which the share of a backend that is new, or well again, grows to its weight; 0: at once.
    #[serde(default)]
    slow_start_s: u32,
    /// Active checks; `null` means none. A new pool that says nothing gets checks that connect.
    health_check: Option<HealthCheckForm>,
    /// When real failures take a backend out.
    #[serde(default)]
    ejection: Ejection,
    /// How long each phase may take.
    #[serde(default)]
    timeouts: PoolTimeouts,
    /// What may be tried again.
    #[serde(default)]
    retry: Retry,
    /// Requests at its backends at the same time, per proxy; absent: any number.
    max_in_flight: Option<u32>,
    /// How requests wait when there are as many.
    #[serde(default)]
    queue: QueueRules,
    /// Seconds in which what a backend has in flight may finish when it is drained, disabled or removed; what is there
    /// longer, a WebSocket too, is cut.
    #[serde(default = "Pool::default_drain_s")]
    drain_s: u32,
    /// How `https://` backends are spoken to. A client certificate is set at `pools/{id}/client-certificate`.
    #[serde(default)]
    upstream_tls: UpstreamTls,
}
readable!(PoolInput {
    id,
    kind = PoolKind::default(),
    backends = Vec::new(),
    balance = Balance::default(),
    sticky = StickyCookie::default(),
    shard_size,
    slow_start_s = 0,
    health_check,
    ejection = Ejection::default(),
    timeouts = PoolTimeouts::default(),
    retry = Retry::default(),
    max_in_flight,
    queue = QueueRules::default(),
    drain_s = Pool::DRAIN_S,
    upstream_tls = UpstreamTls::default(),
});

/// What of a backend an operator sets.
#[derive(Debug, ToSchema)]
pub(crate) struct BackendInput {
    /// One that the pool has; a new backend gets its identity from us.
    id: Option<BackendId>,
    /// Where it listens.
    address: BackendAddress,
    /// Its share of requests beside the others'.
    #[serde(default)]
    weight: Weight,
    /// Whether it takes new requests.
    #[serde(default)]
    state: BackendState,
}
readable!(BackendInput { id, address, weight = Weight::default(), state = BackendState::default() });

impl BackendInput {
    /// The backend meant. One at an address that the pool has keeps its identity, and so what nodes know of it.
    pub(super) fn into_backend(self, before: &[Backend], at: &Place, errors: &mut Errors) -> Backend {
        let known = before.iter().find(|backend| match self.id {
            Some(id) => backend.id == id,
            None => backend.address == self.address,
        });
        match (self.id, known) {
            (Some(_), None) => errors.add(&at.member("id"), "not_found", "the pool has no such backend"),
            (Some(_), Some(known)) if known.address != self.address => {
                errors.add(&at.member("address"), "read_only", "an address cannot be changed: add another backend");
            }
            _ => {}
        }
        Backend {
            id: known.map_or_else(BackendId::generate, |backend| backend.id),
            address: self.address,
            weight: self.weight,
            state: self.state,
        }
    }
}

/// A pool as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PoolView {
    #[serde(flatten)]
    pool: Pool,
    /// What is shown to backends that ask who we are; set at `pools/{id}/client-certificate`.
    client_certificate: Option<ClientCertificateView>,
    #[serde(flatten)]
    stamp: Stamp,
}

impl PoolView {
    fn of(stored: &Stored<Pool>) -> Self {
        let mut pool = stored.value.clone();
        let client_certificate = pool.client_certificate.take().map(|set| ClientCertificateView::of(&set));
        Self { pool, client_certificate, stamp: Stamp::of(stored) }
    }
}

impl Resource for Pool {
    type Input = PoolInput;
    const SUBJECT: Subject = Subject::Pools;
    const COLLECTION: &'static str = "pools";
    const KEY: &'static str = "id";
    const READ_ONLY: &'static [&'static str] =
        &["client_certificate", "maintenance", "version", "created_at", "updated_at"];

    fn assemble(input: PoolInput, before: Option<&Self>, _: &RoutingTable, errors: &mut Errors) -> Self {
        if before.is_some_and(|pool| pool.id != input.id) {
            errors.add_at("/id", "read_only", "a pool cannot be renamed: make another and move its tenants");
        }
        check_ranges(&input, errors);
        check_probe(&input, before, errors);
        check_authorities(&input, errors);
        let known = before.map_or(&[][..], |pool| &pool.backends);
        let mut addresses = HashSet::new();
        let mut backends = Vec::with_capacity(input.backends.len());
        for (i, backend) in input.backends.into_iter().enumerate() {
            let at = Place::root().member("backends").element(i);
            if !addresses.insert(backend.address.clone()) {
                errors.add(&at.member("address"), "duplicate", format!("{} is listed twice", backend.address));
            }
            backends.push(backend.into_backend(known, &at, errors));
        }
        Self {
            id: input.id,
            kind: input.kind,
            backends,
            balance: input.balance,
            sticky: input.sticky,
            shard_size: input.shard_size,
            slow_start_s: input.slow_start_s,
            health_check: input.health_check.map(HealthCheck::from),
            ejection: input.ejection,
            timeouts: input.timeouts,
            retry: input.retry,
            max_in_flight: input.max_in_flight,
            queue: input.queue,
            upstream_tls: input.upstream_tls,
            client_certificate: before.and_then(|pool| pool.client_certificate.clone()),
            drain_s: input.drain_s,
            maintenance: before.and_then(|pool| pool.maintenance.clone()),
        }
    }

    fn document(&self) -> Value {
        let mut pool = self.clone();
        let certificate = pool.client_certificate.take();
        let mut document = super::json(&pool);
        if let Some(set) = certificate {
            document["client_certificate"] = super::json(&ClientCertificateView::of(&set));
        }
        document
    }

    fn view(stored: &Stored<Self>, _: &RoutingTable) -> Value {
        let mut view = super::json(&PoolView::of(stored));
        if stored.value.health_check.is_none() {
            // Said, because a document that says nothing gets the default.
            view["health_check"] = Value::Null;
        }
        view
    }

    fn presets() -> &'static [Preset] {
        // Without any check a backend that died is asked, and fails a request, again and again.
        &[("health_check", || super::json(&HealthCheck::connects()))]
    }
}

/// Milliseconds in an hour: longer, and a wait is no timeout but a leak.
const HOUR_MS: u64 = 3_600_000;

fn check_ranges(input: &PoolInput, errors: &mut Errors) {
    for (i, path) in input.queue.priority_paths.iter().enumerate() {
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
            errors.add_at(&format!("/queue/priority_paths/{i}"), "invalid", "expected a path such as /login");
        }
    }
    // An hour of slow start is a canary; that is what routes are for.
    let mut within = |pointer: &str, found: u64, least: u64, most: u64| {
        if !(least..=most).contains(&found) {
            errors.add_at(pointer, "out_of_range", format!("expected {least} to {most}"));
        }
    };
    for (field, ms) in [
        ("connect_ms", input.timeouts.connect_ms),
        ("read_ms", input.timeouts.read_ms),
        ("write_ms", input.timeouts.write_ms),
        ("idle_ms", input.timeouts.idle_ms),
    ] {
        within(&format!("/timeouts/{field}"), ms, 1, HOUR_MS);
    }
    for (field, ms) in [("first_byte_ms", input.timeouts.first_byte_ms), ("total_ms", input.timeouts.total_ms)] {
        within(&format!("/timeouts/{field}"), ms.unwrap_or(1), 1, HOUR_MS);
    }
    within("/slow_start_s", input.slow_start_s.into(), 0, 3_600);
    within("/sticky/max_age_s", input.sticky.max_age_s.into(), 0, StickyCookie::MOST_S.into());
    within("/retry/buffer_bytes", input.retry.buffer_bytes.into(), 0, Retry::MOST_BUFFER.into());
    within("/ejection/panic_percent", input.ejection.panic_percent.into(), 0, 100);
    within("/retry/attempts", input.retry.attempts.into(), 0, 3);
    within("/retry/budget_percent", input.retry.budget_percent.into(), 0, 100);
    within("/ejection/max_percent", input.ejection.max_percent.into(), 0, 100);
    within("/ejection/base_ms", input.ejection.base_ms, 1, HOUR_MS);
    within("/queue/wait_ms", input.queue.wait_ms, 0, 60_000);
    // Each that waits holds a connection and some kilobytes.
    within("/queue/length", input.queue.length.into(), 0, 100_000);
    within("/queue/priority_in_flight", input.queue.priority_in_flight.into(), 0, 1_000);
    if let Some(most) = input.max_in_flight {
        within("/max_in_flight", most.into(), 1, 1_000_000);
    }
    let Some(check) = &input.health_check else { return };
    // Ten checks a second of every backend from every node is already a load of its own.
    within("/health_check/interval_ms", check.interval_ms, 100, HOUR_MS);
    within("/health_check/timeout_ms", check.timeout_ms, 1, 60_000);
    within("/health_check/healthy_after", check.healthy_after.into(), 1, 100);
    within("/health_check/unhealthy_after", check.unhealthy_after.into(), 1, 100);
    if let Some((first, last)) = check.expect {
        within("/health_check/expect/0", first.into(), 100, 599);
        within("/health_check/expect/1", last.into(), first.into(), 599);
    }
    if check.path.as_ref().is_some_and(|path| !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic())) {
        errors.add_at("/health_check/path", "invalid", "expected a path such as /healthz");
    }
}

/// A field of a check that belongs to another kind is a mistake. What a patch to that kind leaves standing of before is
/// none.
fn check_probe(input: &PoolInput, before: Option<&Pool>, errors: &mut Errors) {
    let Some(check) = &input.health_check else { return };
    let left = before.and_then(|pool| pool.health_check.clone()).map(HealthCheckForm::from).unwrap_or_default();
    let asks = check.kind == ProbeKind::Http;
    let grpc = check.kind == ProbeKind::Grpc;
    let fields = [
        ("path", !asks && check.path.is_some() && check.path != left.path, "http"),
        ("expect", !asks && check.expect.is_some() && check.expect != left.expect, "http"),
        ("expect_body", !asks && check.expect_body.is_some() && check.expect_body != left.expect_body, "http"),
        ("service", !grpc && check.service.is_some() && check.service != left.service, "grpc"),
    ];
    for (field, wrong, kind) in fields {
        if wrong {
            let message = format!("this is of checks of kind {kind}: leave it out, or use kind {kind}");
            errors.add_at(&format!("/health_check/{field}"), "invalid", message);
        }
    }
    for (field, text) in [("expect_body", &check.expect_body), ("service", &check.service)] {
        if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > 256) {
            errors.add_at(&format!("/health_check/{field}"), "invalid", "expected 1 to 256 bytes");
        }
    }
}

/// What is trusted must be certificates of authorities, and read as such.
fn check_authorities(input: &PoolInput, errors: &mut Errors) {
    let Some(ca) = &input.upstream_tls.ca else { return };
    let mut roots = rustls::RootCertStore::empty();
    for (n, der) in ca.der().iter().enumerate() {
        if let Err(error) = roots.add(der.as_slice().into()) {
            let message = format!("certificate {} cannot be trusted as an authority: {error}", n + 1);
            errors.add_at("/upstream_tls/ca", "invalid", message);
        }
    }
}
