//! Every metric of the data plane, as Prometheus reads it (text format 0.0.4).
//!
//! Families with a tenant, pool, backend or domain label are written here, from the counters beside the objects of the
//! table; each is capped. Totals of the node come from [`super::node`].

use std::collections::{HashMap, HashSet};
use std::fmt::{Display, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use schoolgate_config::model::{Certificate, LimitMode, PoolId, Revision, TenantId};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::Clock;
use tokio::time::Instant;

use super::busiest::{Busiest, Candidate};
use super::counters::{
    CODE_CELLS, Mismatch, POOL_BOUNDS, TENANT_BOUNDS, WAIT_BOUNDS, code_label, pool_row, tenant_row,
};
use super::{BackendCondition, BackendView, Counted, Observe};
use crate::limit::Layer;
use crate::tls::Keyring;

/// Pools with metrics of their own: 500. Dedicated pools grow with the tenants, so they are capped as tenants are.
const POOLS: usize = 500;
/// Backends with metrics of their own: 2,000, those of the pools that have.
const BACKENDS: usize = 2_000;
/// A certificate is `expiring` in its last 14 days: well after renewal should have happened (two thirds of its life).
const EXPIRING_S: i64 = 14 * 86_400;
/// The label of what is summed.
const OTHER: &str = "_other";
/// The label of requests that had no tenant. No slug or pool begins with an underscore.
const NONE: &str = "_none";

/// Writes the metrics of a node.
pub struct Metrics<L: Counted> {
    table: Arc<ArcSwap<RoutingTable<L>>>,
    observe: Arc<Observe>,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    tenants_most: usize,
    pinned: HashSet<String>,
    /// Who is shown by name. One scrape at a time: the second would rank on the first's traces.
    places: Mutex<Places>,
}

struct Places {
    tenants: Busiest<TenantId, { tenant_row::WIDTH }>,
    pools: Busiest<PoolId, { pool_row::WIDTH }>,
    certificates: Certificates,
}

/// When certificates expire, as of one revision: to look at 100,000 of them for every scrape would be its main cost.
#[derive(Default)]
struct Certificates {
    revision: Revision,
    /// Every end of validity, seconds since 1970, sorted.
    ends: Vec<i64>,
    /// The names whose certificates end first.
    soonest: Vec<(i64, String)>,
}

impl<L: Counted> Metrics<L> {
    /// Writes what `observe` counted and what hangs on `table`; `tenants_most` tenants by name, and those `pinned`.
    pub fn new(
        table: Arc<ArcSwap<RoutingTable<L>>>,
        observe: Arc<Observe>,
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
        tenants_most: usize,
        pinned: impl IntoIterator<Item = String>,
    ) -> Self {
        let places = Places {
            tenants: Busiest::new(tenants_most),
            pools: Busiest::new(POOLS),
            certificates: Certificates::default(),
        };
        let pinned = pinned.into_iter().collect();
        Self { table, observe, keyring, clock, tenants_most, pinned, places: Mutex::new(places) }
    }

    /// All metrics as text. Takes some milliseconds of CPU: not for a request's thread.
    pub fn write(&self) -> String {
        let mut out = String::with_capacity(256 * 1024);
        let table = self.table.load_full();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_tenants(&table, &mut places.tenants, &mut out);
        self.write_pools(&table, &mut places.pools, &mut out);
        self.write_certificates(&table, &mut places.certificates, &mut out);
        drop(places);
        Family::counter("schoolgate_access_log_dropped_total", "Access lines lost: the log was too slow, or full.")
            .start(&mut out)
            .line(&[], self.observe.lines_dropped());
        Family::gauge("schoolgate_buffered_bytes", "Bytes held for clients that are slow to send or to read.")
            .start(&mut out)
            .line(&[], self.observe.buffered_bytes());
        Family::gauge("schoolgate_tenants", "Tenants in the table.").start(&mut out).line(&[], table.tenant_count());
        Family::gauge("schoolgate_domains", "Domains in the table.").start(&mut out).line(&[], table.domain_count());
        self.observe.node.write(&mut out);
        out
    }

    fn write_tenants(
        &self,
        table: &RoutingTable<L>,
        places: &mut Busiest<TenantId, { tenant_row::WIDTH }>,
        out: &mut String,
    ) {
        let mut in_flight_of_others = 0;
        let candidates: Vec<Candidate<'_, TenantId>> = table
            .tenants()
            .map(|entry| {
                let counters = L::tenant_counters(&entry.live);
                in_flight_of_others += counters.in_flight();
                Candidate {
                    key: entry.tenant.id,
                    rank: &counters.rank,
                    requests: counters.requests(),
                    pinned: !self.pinned.is_empty() && self.pinned.contains(entry.tenant.slug.as_str()),
                }
            })
            .collect();
        let row = |id: &TenantId| table.tenant(id).map(|entry| L::tenant_counters(&entry.live).row.read());
        places.rank(&candidates, Instant::now(), row);

        let mut shown: Vec<Shown<{ tenant_row::WIDTH }>> = Vec::new();
        let (mut quotas, mut websockets, now_ms) = (Vec::new(), Vec::new(), self.clock.unix_ms());
        let mut owned = [0; tenant_row::WIDTH];
        for id in places.keys() {
            let Some(entry) = table.tenant(&id) else { continue };
            let counters = L::tenant_counters(&entry.live);
            let Some(row) = places.own(&id, || counters.row.read()) else { continue };
            add(&mut owned, &row);
            let in_flight = counters.in_flight();
            in_flight_of_others = in_flight_of_others.saturating_sub(in_flight);
            let name = entry.tenant.slug.as_str().to_owned();
            for (quota, used) in L::quotas_used(&entry.live, now_ms) {
                quotas.push((name.clone(), quota, used));
            }
            let open = L::websockets(&entry.live);
            if open > 0 {
                websockets.push((name.clone(), open));
            }
            shown.push(Shown { name, pool: entry.tenant.pool.as_str().to_owned(), row, in_flight });
        }
        shown.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // The whole is read after its parts: see `Observe::request`.
        let whole = self.observe.node.tenants.row.read();
        if let Some(row) = places.other(whole, owned) {
            shown.push(Shown { name: OTHER.to_owned(), pool: OTHER.to_owned(), row, in_flight: in_flight_of_others });
        }
        let nobody = self.observe.node.nobody.row.read();
        shown.push(Shown { name: NONE.to_owned(), pool: NONE.to_owned(), row: nobody, in_flight: 0 });
        write_tenant_families(&shown, out);
        quotas.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        websockets.sort_unstable();
        let mut family =
            Family::gauge("schoolgate_quota_used_ratio", "How much of a quota is used in its period; 1 is all of it.")
                .start(out);
        for (name, quota, used) in &quotas {
            family.line(&[("tenant", name), ("quota", quota)], format_args!("{used:.6}"));
        }
        let mut family = Family::gauge("schoolgate_websockets", "WebSockets open.").start(out);
        for (name, open) in &websockets {
            family.line(&[("tenant", name)], open);
        }
    }

    fn write_pools(
        &self,
        table: &RoutingTable<L>,
        places: &mut Busiest<PoolId, { pool_row::WIDTH }>,
        out: &mut String,
    ) {
        let few_pools = table.pools().nth(POOLS).is_none();
        let candidates: Vec<Candidate<'_, PoolId>> = table
            .pools()
            .map(|entry| {
                let counters = L::pool_counters(&entry.live);
                // Pinned, while there is room: a pool that gets no requests may be the one that is broken.
                let pinned = few_pools;
                Candidate { key: entry.pool.id.clone(), rank: &counters.rank, requests: counters.requests(), pinned }
            })
            .collect();
        let row = |id: &PoolId| table.pool(id).map(|entry| L::pool_counters(&entry.live).row.read());
        places.rank(&candidates, Instant::now(), row);

        let mut shown: Vec<Shown<{ pool_row::WIDTH }>> = Vec::new();
        let mut backends: Vec<(String, BackendView)> = Vec::new();
        let mut waiting: Vec<(String, u32)> = Vec::new();
        let mut owned = [0; pool_row::WIDTH];
        let mut ids = places.keys();
        ids.sort_unstable();
        for id in ids {
            let Some(entry) = table.pool(&id) else { continue };
            let counters = L::pool_counters(&entry.live);
            let Some(row) = places.own(&id, || counters.row.read()) else { continue };
            add(&mut owned, &row);
            let name = entry.pool.id.as_str().to_owned();
            for backend in L::backends(&entry.pool, &entry.live) {
                if backends.len() < BACKENDS {
                    backends.push((name.clone(), backend));
                }
            }
            waiting.push((name.clone(), L::waiting(&entry.live)));
            shown.push(Shown { pool: name.clone(), name, row, in_flight: 0 });
        }
        if let Some(row) = places.other(self.observe.node.pools.row.read(), owned) {
            shown.push(Shown { name: OTHER.to_owned(), pool: OTHER.to_owned(), row, in_flight: 0 });
        }
        write_pool_families(&shown, out);
        let mut family =
            Family::gauge("schoolgate_queue_waiting", "Requests that wait for a pool that is full.").start(out);
        for (name, waiting) in &waiting {
            family.line(&[("pool", name)], waiting);
        }
        write_backend_families(&backends, out);
    }

    fn write_certificates(&self, table: &RoutingTable<L>, known: &mut Certificates, out: &mut String) {
        if known.revision != table.revision() {
            *known = Certificates::of(table, self.tenants_most);
        }
        let now = self.clock.unix_s();
        let expired = known.ends.partition_point(|end| *end <= now);
        let expiring = known.ends.partition_point(|end| *end <= now + EXPIRING_S) - expired;
        let held = self.keyring.len();
        let mut family =
            Family::gauge("schoolgate_certificates", "Certificates by state; unusable ones cannot be served.")
                .start(out);
        family.line(&[("state", "valid")], known.ends.len() - expired - expiring);
        family.line(&[("state", "expiring")], expiring);
        family.line(&[("state", "expired")], expired);
        family.line(&[("state", "unusable")], known.ends.len().saturating_sub(held));
        let mut family = Family::gauge(
            "schoolgate_certificate_expiry_seconds",
            "Seconds until the certificate of a domain ends, of those that end first; negative once it has.",
        )
        .start(out);
        for (end, name) in &known.soonest {
            family.line(&[("domain", name)], end - now);
        }
    }
}

impl Certificates {
    fn of<L: Counted>(table: &RoutingTable<L>, most: usize) -> Self {
        let mut by_end: Vec<(i64, &Arc<Certificate>)> =
            table.certificates().map(|certificate| (certificate.about.not_after, certificate)).collect();
        by_end.sort_unstable_by_key(|(end, _)| *end);
        let ends = by_end.iter().map(|(end, _)| *end).collect();
        let mut names: HashMap<&str, i64> = HashMap::new();
        for (end, certificate) in &by_end {
            if names.len() >= most {
                break;
            }
            for name in certificate.about.names.iter().take(most - names.len()) {
                // Sorted, so the last one said is the one that lasts longest.
                names.insert(name, *end);
            }
        }
        let mut soonest: Vec<(i64, String)> = names.into_iter().map(|(name, end)| (end, name.to_owned())).collect();
        soonest.sort_unstable();
        Self { revision: table.revision(), ends, soonest }
    }
}

/// A row that is shown, and its labels.
struct Shown<const W: usize> {
    name: String,
    pool: String,
    row: [u64; W],
    in_flight: u64,
}

fn add<const W: usize>(sum: &mut [u64; W], row: &[u64; W]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += value;
    }
}

fn write_tenant_families(shown: &[Shown<{ tenant_row::WIDTH }>], out: &mut String) {
    let codes: [_; CODE_CELLS] = std::array::from_fn(code_label);
    let mut family = Family::counter(
        "schoolgate_requests_total",
        "Requests by tenant, its pool, and status; 499 when the client went away before an answer.",
    )
    .start(out);
    for Shown { name, pool, row, .. } in shown {
        for (place, code) in codes.iter().enumerate().filter(|(place, _)| row[*place] > 0) {
            family.line(&[("tenant", name), ("pool", pool), ("code", code)], row[place]);
        }
    }
    let mut family = Family::gauge("schoolgate_requests_in_flight", "Requests begun and not finished.").start(out);
    for Shown { name, in_flight, .. } in shown.iter().filter(|s| s.name != NONE) {
        family.line(&[("tenant", name)], in_flight);
    }
    let mut family =
        Family::counter("schoolgate_bytes_total", "Bytes of request bodies (in) and response bodies (out).").start(out);
    for Shown { name, row, .. } in shown {
        family.line(&[("tenant", name), ("direction", "in")], row[tenant_row::BYTES_IN]);
        family.line(&[("tenant", name), ("direction", "out")], row[tenant_row::BYTES_OUT]);
    }
    let mut family = Family::counter(
        "schoolgate_identity_mismatch_total",
        "Requests whose identifiers named different tenants, by the identifier that disagreed.",
    )
    .start(out);
    for Shown { name, row, .. } in shown {
        for kind in Mismatch::ALL {
            let count = row[tenant_row::MISMATCHES + kind as usize];
            if count > 0 || name == NONE {
                family.line(&[("tenant", name), ("kind", kind.as_str())], count);
            }
        }
    }
    let mut family = Family::counter(
        "schoolgate_limited_total",
        "Requests above a limit, by its layer: refused (enforce), or let through and only counted (shadow).",
    )
    .start(out);
    for Shown { name, row, .. } in shown.iter().filter(|s| s.name != NONE) {
        let enforced = Layer::ALL.iter().map(|layer| (layer, LimitMode::Enforce, tenant_row::LIMITED));
        let shadow = Layer::SHADOWED.iter().map(|layer| (layer, LimitMode::Shadow, tenant_row::WOULD_LIMIT));
        for (layer, mode, at) in enforced.chain(shadow) {
            let count = row[at + *layer as usize];
            if count > 0 {
                family.line(&[("tenant", name), ("layer", layer.as_str()), ("mode", mode.as_str())], count);
            }
        }
    }
    let mut family = Family::histogram(
        "schoolgate_tenant_request_duration_seconds",
        "Time from a request's head to the end of its answer, by tenant.",
    )
    .start(out);
    for Shown { name, row, .. } in shown {
        let counts = &row[tenant_row::BUCKETS..tenant_row::SUM];
        family.buckets(&[("tenant", name)], &TENANT_BOUNDS, counts, row[tenant_row::SUM]);
    }
}

fn write_pool_families(shown: &[Shown<{ pool_row::WIDTH }>], out: &mut String) {
    let mut family = Family::histogram(
        "schoolgate_request_duration_seconds",
        "Time from a request's head to the end of its answer, by the pool it was forwarded to.",
    )
    .start(out);
    for Shown { name, row, .. } in shown {
        family.buckets(&[("pool", name)], &POOL_BOUNDS, &row[..pool_row::SUM], row[pool_row::SUM]);
    }
    let mut family = Family::counter("schoolgate_retries_total", "Requests tried again on another backend.").start(out);
    for Shown { name, row, .. } in shown {
        family.line(&[("pool", name)], row[pool_row::RETRIES]);
    }
    let mut family = Family::histogram(
        "schoolgate_queue_wait_seconds",
        "Time that requests waited for a pool that was full, whether they came in or not.",
    )
    .start(out);
    for Shown { name, row, .. } in shown {
        let waits = &row[pool_row::WAITS..pool_row::WAITS_SUM];
        if waits.iter().any(|count| *count > 0) {
            family.buckets(&[("pool", name)], &WAIT_BOUNDS, waits, row[pool_row::WAITS_SUM]);
        }
    }
}

fn write_backend_families(backends: &[(String, BackendView)], out: &mut String) {
    // A backend is known by its address; if a pool has one twice, the second also shows its identity.
    let mut taken = HashSet::new();
    let labels: Vec<String> = backends
        .iter()
        .map(|(pool, backend)| {
            let address = backend.address.to_string();
            if taken.insert((pool.as_str(), address.clone())) { address } else { format!("{address} {}", backend.id) }
        })
        .collect();
    let mut family = Family::gauge("schoolgate_backend_up", "1 if a backend takes new requests, else 0.").start(out);
    for ((pool, backend), label) in backends.iter().zip(&labels) {
        family.line(&[("pool", pool), ("backend", label)], u8::from(backend.state == BackendCondition::Up));
    }
    let mut family = Family::gauge("schoolgate_backend_requests_in_flight", "Requests at a backend now.").start(out);
    for ((pool, backend), label) in backends.iter().zip(&labels) {
        family.line(&[("pool", pool), ("backend", label)], backend.in_flight);
    }
    let mut family = Family::counter(
        "schoolgate_backend_requests_total",
        "Attempts by backend and the status it answered; error when it did not answer.",
    )
    .start(out);
    for ((pool, backend), label) in backends.iter().zip(&labels) {
        let (codes, failed) = backend.counters.read();
        for (place, count) in codes.iter().enumerate().filter(|(_, count)| **count > 0) {
            family.line(&[("pool", pool), ("backend", label), ("code", &code_label(place))], count);
        }
        family.line(&[("pool", pool), ("backend", label), ("code", "error")], failed);
    }
}

/// The head of a metric family.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
}

impl Family {
    const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "counter" }
    }

    const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "gauge" }
    }

    const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "histogram" }
    }

    fn start<'a>(&self, out: &'a mut String) -> Lines<'a> {
        let Self { name, help, kind } = self;
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Lines { name, out }
    }
}

/// Writes the lines of a family. Writing to a `String` cannot fail, so results are dropped.
struct Lines<'a> {
    name: &'static str,
    out: &'a mut String,
}

impl Lines<'_> {
    fn line(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.sample("", labels, None, value);
    }

    /// A histogram from counts per bucket (the last one without bound) and a sum in microseconds.
    fn buckets(&mut self, labels: &[(&str, &str)], bounds: &[u64], counts: &[u64], sum_us: u64) {
        let mut below = 0;
        for (at, count) in counts.iter().enumerate() {
            below += count;
            let bound = bounds.get(at).map_or(f64::INFINITY, |micros| seconds(*micros));
            self.sample("_bucket", labels, Some(bound), below);
        }
        self.sample("_sum", labels, None, seconds(sum_us));
        self.sample("_count", labels, None, below);
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], below: Option<f64>, value: impl Display) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let mut separator = '{';
        for (label, text) in labels {
            self.out.push(separator);
            separator = ',';
            self.out.push_str(label);
            self.out.push_str("=\"");
            escape(text, self.out);
            self.out.push('"');
        }
        if let Some(bound) = below {
            self.out.push(separator);
            separator = ',';
            let _ =
                if bound.is_finite() { write!(self.out, "le=\"{bound}\"") } else { self.out.write_str("le=\"+Inf\"") };
        }
        if separator == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sum of microseconds is exact up to 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Label values may hold anything but these three unescaped.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}
