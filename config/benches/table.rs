//! What a request and a change cost at 10, 1,000 and 100,000 tenants (each with one domain), and with up to 1,000 routes.
//!
//! `cargo bench -p schoolgate-config`. The promise (DESIGN.md section 13): at most 5 % of a request more at 100,000
//! tenants than at 10, and a delta whose cost follows the change. Baselines are in `tests/load/README.md`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use schoolgate_config::identity::{RequestFacts, decide};
use schoolgate_config::model::*;
use schoolgate_config::seal::Keeper;
use schoolgate_config::snapshot::{
    Change, Delta, Object, Snapshot, decode_delta, decode_snapshot, encode_delta, encode_snapshot, share_chains,
};
use schoolgate_config::table::{NoLive, RoutingTable};

fn tenant(n: u32) -> Tenant {
    serde_json::from_value(serde_json::json!({
        "id": TenantId::from_parts(1, u128::from(n)), "slug": format!("school-{n}"), "name": format!("School {n}"),
        "state": "active", "plan": "basic", "pool": "shared",
    }))
    .expect("a tenant")
}

fn domain(n: u32) -> Domain {
    Domain {
        name: format!("erp.school-{n}.example").parse().expect("a name"),
        tenant: TenantId::from_parts(1, u128::from(n)),
        primary: true,
        ownership: Ownership::Proven,
        routing: Routing::Here,
        token: "0123456789abcdef".to_owned(),
    }
}

fn table(tenants: u32) -> RoutingTable {
    let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
    let pool: Pool = serde_json::from_value(serde_json::json!({"id": "shared"})).expect("a pool");
    let zone: Zone = serde_json::from_value(serde_json::json!({"name": "schools.example"})).expect("a zone");
    objects.extend([pool.into(), zone.into()]);
    objects.extend((0..tenants).map(|n| tenant(n).into()));
    objects.extend((0..tenants).map(|n| domain(n).into()));
    RoutingTable::from_snapshot(&Snapshot { revision: Revision(1), objects }, &NoLive, None).expect("holds together")
}

fn benches(c: &mut Criterion) {
    for tenants in [10, 1_000, 100_000] {
        let table = table(tenants);
        let domains: Vec<String> =
            (0..1_000).map(|n| format!("erp.school-{}.example:8443", n * 7919 % tenants)).collect();
        let zoned: Vec<String> = (0..1_000).map(|n| format!("school-{}.schools.example", n * 7919 % tenants)).collect();
        for (name, hosts) in [("decide/domain", &domains), ("decide/zone", &zoned)] {
            let mut next = 0;
            c.bench_with_input(BenchmarkId::new(name, tenants), hosts, |b, hosts| {
                b.iter(|| {
                    next = (next + 1) % hosts.len();
                    let sni = hosts[next].split(':').next();
                    let request = RequestFacts {
                        secure: true,
                        sni,
                        authority: Some(&hosts[next]),
                        client: [192, 0, 2, 1].into(),
                        method: "GET",
                        path: "/api/students",
                        query: Some("page=2"),
                        headers: &(),
                        token: &(),
                        now_ms: 0,
                        chance: 0,
                    };
                    black_box(decide(&table, &request).is_ok())
                });
            });
        }
        c.bench_with_input(BenchmarkId::new("delta/one_domain", tenants), &table, |b, table| {
            let changes = vec![Change::Put(domain(0).into())];
            let delta = Delta { from: Revision(1), to: Revision(2), changes };
            b.iter(|| black_box(table.apply(&delta, &NoLive).expect("holds together")));
        });
    }
    let delta = Delta {
        from: Revision(1),
        to: Revision(2),
        changes: vec![Change::Put(tenant(1).into()), Change::Put(domain(1).into())],
    };
    let bytes = encode_delta(&delta);
    c.bench_function("delta/decode", |b| b.iter(|| black_box(decode_delta(&bytes).expect("whole"))));
}

/// What finding a route costs at 1 to 1,000 routes of one scope: every path ends at the last of them, which has no path,
/// because none of the others is for it (`/nothing/here`), or at one of them (`/app-7/…`).
fn routes(c: &mut Criterion) {
    let zone_host = "school-1.schools.example";
    for routes in [1_u32, 10, 100, 1_000] {
        let changes = (0..routes).map(|n| {
            let route = serde_json::json!({
                "id": RouteId::from_parts(1, u128::from(n)), "match": {"path_prefix": format!("/app-{n}/api/")},
                "action": {"pool": "shared"},
            });
            let route: Route = serde_json::from_value(route).expect("a route");
            Change::Put(route.into())
        });
        let table = table(10).with_changes(Revision(2), &changes.collect::<Vec<_>>(), &NoLive).expect("holds together");
        for (name, path) in [("route/found", "/app-0/api/students"), ("route/none", "/nothing/here")] {
            let request = RequestFacts {
                secure: true,
                sni: Some(zone_host),
                authority: Some(zone_host),
                client: [192, 0, 2, 1].into(),
                method: "GET",
                path,
                query: None,
                headers: &(),
                token: &(),
                now_ms: 0,
                chance: 0,
            };
            c.bench_with_input(BenchmarkId::new(name, routes), &request, |b, request| {
                b.iter(|| black_box(decide(&table, request).is_ok()));
            });
        }
    }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1_024
}

/// What a certificate costs in a table that was read in parts, as a proxy reads it from disk: a leaf of 900 bytes below
/// two intermediates of 1,200 that all have in common.
#[expect(clippy::print_stderr, reason = "a figure that Criterion has no form for")]
fn memory(_: &mut Criterion) {
    const MANY: u32 = 100_000;
    const PART: u32 = 4_096;
    let keeper = Keeper::new(&[7; 32]);
    let part = |from: u32| {
        let certificate = |n: u32| {
            let leaf = n.to_le_bytes().repeat(225);
            let fingerprint = Fingerprint::of(&leaf);
            let names = vec![format!("erp.school-{n}.example")];
            let about = CertificateRef { fingerprint, names, not_before: 0, not_after: 1, issuer: "acme".to_owned() };
            let chain = [leaf, vec![1; 1_200], vec![2; 1_200]].map(Der::from).into();
            let key = keeper.seal(Certificate::KEY_PURPOSE, &fingerprint.to_string(), &[0; 138]);
            Object::from(Certificate { about, chain, key })
        };
        let objects = (from..MANY.min(from + PART)).map(certificate).collect();
        encode_snapshot(&Snapshot { revision: Revision(1), objects })
    };
    let before = resident();
    let read = (0..MANY).step_by(PART as usize).flat_map(|from| decode_snapshot(&part(from)).expect("whole").objects);
    let mut objects: Vec<Object> = read.collect();
    share_chains(&mut objects);
    let snapshot = Snapshot { revision: Revision(1), objects };
    let table = RoutingTable::from_snapshot(&snapshot, &NoLive, None).expect("holds together");
    drop(snapshot);
    let bytes = (resident() - before) / u64::from(MANY);
    eprintln!("table/memory of a certificate: {bytes} bytes, measured over {MANY}");
    drop(black_box(table));
}

criterion_group!(table_benches, memory, benches, routes);
criterion_main!(table_benches);
