//! What the limits cost a request: rate, quota and concurrency together, at 100,000 tenants of which each request takes
//! another, so that nothing of it is in a cache.
//!
//! Baseline, on the 2-core machine the README names: 0.69 µs, and 0.91 µs with what the client is told. At most 1 µs is what the
//! product promises.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use schoolgate_config::model::{Plan, Pool, Revision, Tenant};
use schoolgate_config::snapshot::{Object, Snapshot};
use schoolgate_config::table::{RoutingTable, TenantEntry};
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_proxy::limit::{Ask, Counts, Kind, Limiter, TenantLimits};
use schoolgate_proxy::live::NodeLive;
use serde_json::{from_value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TENANTS: u64 = 100_000;

fn table(limiter: &Arc<Limiter>) -> RoutingTable<NodeLive> {
    let plan = json!({"id": "load", "name": "Load", "limits": {
        "requests_per_minute": 1_000_000_000, "requests_per_day": {"value": 1_000_000_000, "mode": "hard"},
        "bytes_per_month": {"value": 1_000_000_000_000_u64, "mode": "hard"}, "in_flight": 1_000, "websockets": 1_000,
    }});
    let plan: Plan = from_value(plan).expect("a plan");
    let pool: Pool = from_value(json!({"id": "shared"})).expect("a pool");
    let mut objects = vec![Object::from(plan), Object::from(pool)];
    objects.extend((0..TENANTS).map(|n| {
        let id = schoolgate_config::model::TenantId::from_parts(n, u128::from(n));
        let tenant = json!({
            "id": id, "slug": format!("s{n}"), "name": "S", "state": "active", "plan": "load", "pool": "shared",
        });
        Object::from(from_value::<Tenant>(tenant).expect("a tenant"))
    }));
    let live = NodeLive::new(Default::default(), limiter.clone());
    RoutingTable::from_snapshot(&Snapshot { revision: Revision(1), objects }, &live, None).expect("holds together")
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1_024
}

/// What is kept of the limits of a tenant at rest, beside three pointers in its live part and nine counters.
#[expect(clippy::print_stderr, reason = "a figure that Criterion has no form for")]
fn memory() {
    const MANY: u64 = 1_000_000;
    let before = resident();
    let kept: Vec<Arc<TenantLimits>> = (0..MANY).map(|_| Arc::default()).collect();
    let bytes = (resident() - before) / MANY - size_of::<Arc<TenantLimits>>() as u64;
    eprintln!("limits/memory of a tenant at rest: {bytes} bytes, measured over {MANY}");
    drop(black_box(kept));
}

fn limits(c: &mut Criterion) {
    memory();
    let limiter = Arc::<Limiter>::default();
    let table = table(&limiter);
    let tenants: Vec<Arc<TenantEntry<NodeLive>>> = table.tenants().cloned().collect();
    let now_ms = SystemClock.unix_ms();
    let admit = |entry: &TenantEntry<NodeLive>, now: Instant| {
        let live = &entry.live;
        let enforced = live.enforced(&limiter, entry, now_ms);
        limiter.admit(&Ask {
            limits: &live.limits,
            enforced: &enforced,
            tenant: 1,
            calendar: live.today.at(now_ms),
            now_ns: limiter.now_ns(now),
            now_ms,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            class: None,
            kind: Kind::Request,
            counts: Counts::Yes,
        })
    };
    // Every tenant has had a request: what is measured is not the first.
    let now = Instant::now();
    assert!(tenants.iter().all(|entry| admit(entry, now).is_ok()));
    let mut at = 0;
    let mut another = || {
        at = (at + 7_919) % tenants.len();
        &tenants[at]
    };
    c.bench_function("limits/no limits (another tenant)", |b| b.iter(|| black_box(&another().tenant.slug)));
    c.bench_function("limits/rate, quota and concurrency", |b| {
        b.iter(|| black_box(admit(another(), now).is_ok()));
    });
    c.bench_function("limits/the same, and what the client is told", |b| {
        let mut headers = HeaderMap::with_capacity(8);
        b.iter(|| {
            if let Ok(passed) = admit(another(), now) {
                passed.told.set(&mut headers);
            }
            black_box(&headers);
        });
    });
}

criterion_group!(benches, limits);
criterion_main!(benches);
