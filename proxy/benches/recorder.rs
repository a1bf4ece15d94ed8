//! What it costs a request that it can be explained later: asking whether it is kept, and keeping one in so many.
//!
//! Of a flood of successes one in 64 is kept, and at most ten a second beside it; of errors each one.
//!
//! Baseline, on the 2-core machine the README names: 52 ns to ask, 270 ns to keep one.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use schoolgate_config::identity::{Happened, RecordedRequest, RecordedToken};
use schoolgate_config::model::{Revision, TenantId};
use schoolgate_proxy::limit::Layers;
use schoolgate_proxy::observe::{Finished, Observe, Phases};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn finished(status: u16) -> Finished<'static> {
    Finished {
        request_id: "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        client: [203, 0, 113, 9].into(),
        protocol: "HTTP/2",
        tls: None,
        method: "GET",
        host: Some("greenhill.schools.example"),
        path: "/students",
        status,
        error: None,
        tenant: None,
        pool: None,
        backend: None,
        backend_status: Some(status),
        retries: 0,
        revision: Revision(1),
        bytes_in: 0,
        bytes_out: 1_024,
        phases: Phases::default(),
        mismatch: None,
        unknown_host: false,
        limited: None,
        would_limit: Layers::default(),
    }
}

/// As the gateway makes it: every text is copied.
fn recorded() -> RecordedRequest {
    RecordedRequest {
        request_id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned(),
        at_ms: 1_800_000_000_000,
        revision: Revision(1),
        client_ip: [203, 0, 113, 9].into(),
        tls: true,
        sni: Some("greenhill.schools.example".to_owned()),
        host: Some("greenhill.schools.example".to_owned()),
        method: "GET".to_owned(),
        path: "/students".to_owned(),
        tenant_query: None,
        tenant_ids: Vec::new(),
        tenant_slugs: Vec::new(),
        fields: ["host", "accept", "user-agent", "cookie"].map(str::to_owned).to_vec(),
        conditions: Vec::new(),
        cookies: Vec::new(),
        chance: 0,
        token: RecordedToken::Absent,
        happened: Happened { status: 200, ..Happened::default() },
    }
}

fn recorder(c: &mut Criterion) {
    let observe = Arc::new(Observe::off());
    let success = finished(200);
    // The bucket is empty after the first few: from then on it is a look and a die.
    c.bench_function("recorder/is a success of a flood kept", |b| b.iter(|| black_box(observe.keeps(&success))));
    let tenant = Some(TenantId::from_parts(1, 1));
    c.bench_function("recorder/keep one", |b| {
        b.iter(|| observe.record(tenant, recorded()));
    });
}

criterion_group!(benches, recorder);
criterion_main!(benches);
