//! Time of a change: a tenant is moved to another pool through the control API while the proxy serves; how long until
//! a request lands there. One control process and one proxy, as in a fleet; the proxy's core is its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use serde_json::{Value, json};

use crate::api::Api;
use crate::client::{Loaded, TlsStream, get};
use crate::fleet::{Size, host, limits};
use crate::process::Running;
use crate::report::{Report, quantile};
use crate::run::Bench;
use crate::server::Server;

const SIZES: [Size; 3] = [
    Size { tenants: 1_000, domains: 1_000 },
    Size { tenants: 10_000, domains: 10_000 },
    Size { tenants: 10_000, domains: 100_000 },
];
/// For a quick run.
const QUICK: [Size; 1] = [Size { tenants: 50, domains: 100 }];
/// Connections that fill the store.
const FILLERS: usize = 8;
/// Requests per second beside the changes.
const BESIDE: u32 = 500;

pub(crate) fn change(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("change");
    let sizes: &[Size] = if bench.options.quick { &QUICK } else { &SIZES };
    for size in sizes {
        at(bench, *size, report).with_context(|| format!("{} domains", size.domains))?;
    }
    Ok(())
}

fn at(bench: &Bench, size: Size, report: &mut Report) -> anyhow::Result<()> {
    let samples = if bench.options.quick { 10 } else { 100 };
    let domains = size.domains;
    let (_a, origin_a) = bench.another_origin("a")?;
    let (_b, origin_b) = bench.another_origin("b")?;
    let schoolgate = bench.schoolgate()?;
    let name = format!("control-{domains}");
    let (_control, api) = schoolgate.start_control(&name, bench.options.load_cpu)?;
    let data = schoolgate.data(&name);
    let token = read(&data.join("admin.token"))?;

    let filling = Instant::now();
    fill(api, &token, size, [origin_a, origin_b])?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = (size.tenants + domains) as f64 / filling.elapsed().as_secs_f64();
    report.single("change", &format!("objects created through the API, up to {domains} domains"), "1/s", rate);

    let server = schoolgate.start_proxy(
        &format!("proxy-{domains}"),
        bench.options.proxy_cpu,
        &[format!("http://{api}")],
        &data.join("node.token"),
        &data.join("keys/kek"),
    )?;
    until_served(&server, domains - 1)?;

    let mut admin = Api::connect(api, &token)?;
    // The tenant of the first name never changes.
    let beside = |seconds: u64| {
        let (addr, seconds) = (format!("--addr={}", server.https), format!("--seconds={seconds}"));
        let rate = format!("--rate={BESIDE}");
        bench.start_client(&["load", &addr, &rate, "--connections=20", &seconds].map(str::to_owned))
    };
    let finished = |mut client: Running| -> anyhow::Result<Loaded> { Ok(serde_json::from_str(&client.read_line()?)?) };
    let mut client = beside(3)?;
    client.say("go")?;
    let quiet = finished(client)?;
    let mut client = beside(3600)?;
    client.say("go")?;
    let (mut answered, mut served) = (Vec::new(), Vec::new());
    for i in 0..samples {
        let (answer, serve) = one(&mut admin, &server, 1 + i % (size.tenants - 1))?;
        answered.push(answer);
        served.push(serve);
    }
    client.close_input();
    let changing = finished(client)?;
    let both = |report: &mut Report, what: &str, values: &[f64]| {
        report.single("change", &format!("{what}, {domains} domains, p50"), "ms", quantile(values, 0.5));
        report.single("change", &format!("{what}, {domains} domains, p99"), "ms", quantile(values, 0.99));
    };
    both(report, "change: request sent to served", &served);
    let after: Vec<f64> = served.iter().zip(&answered).map(|(served, answered)| (served - answered).max(0.0)).collect();
    both(report, "change: committed and answered to served", &after);
    let beside = [("nothing changes", quiet), ("tenants change", changing)];
    for (when, loaded) in beside {
        let what = format!("p99 of {BESIDE} requests/s while {when}, {domains} domains");
        report.single("change", &what, "ms", loaded.p99_us / 1000.0);
        if loaded.failed > 0 {
            report.note(format!("change: {} requests failed while {when}, {domains} domains", loaded.failed));
        }
    }

    let added = new_domains(&mut admin, &server, if bench.options.quick { 3 } else { 20 })?;
    both(report, "new domain with certificate: request sent to served", &added);
    Ok(())
}

/// Moves one tenant. Milliseconds until the API answered, and until the first answer from the other pool.
fn one(admin: &mut Api, server: &Server, tenant: usize) -> anyhow::Result<(f64, f64)> {
    let name = host(tenant);
    let mut stream = TlsStream::connect_h1(server.https, &name)?;
    let now = get(&mut stream, &name)?.origin.context("no x-origin")?;
    let other = if now == "a" { "b" } else { "a" };
    let begin = Instant::now();
    std::thread::scope(|scope| -> anyhow::Result<(f64, f64)> {
        let served = scope.spawn(move || -> anyhow::Result<f64> {
            loop {
                let answer = get(&mut stream, &name)?;
                ensure!(answer.status == 200, "{} during a change", answer.status);
                if answer.origin.as_deref() == Some(other) {
                    return Ok(ms(begin));
                }
                ensure!(begin.elapsed() < Duration::from_secs(30), "the change never arrived");
            }
        });
        admin.send("PATCH", &format!("tenants/slug:school-{tenant}"), &json!({"pool": other}))?;
        let answered = ms(begin);
        Ok((answered, served.join().map_err(|_| anyhow!("the prober panicked"))??))
    })
}

/// Adds domains one after another; milliseconds from each request until its name is served with its certificate.
fn new_domains(admin: &mut Api, server: &Server, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for i in 0..count {
        let name = format!("new-{i}.load.test");
        let begin = Instant::now();
        admin.send("POST", "domains", &json!({"name": name, "tenant": "school-0"}))?;
        while !matches!(crate::client::get_once(server.https, &name), Ok(200)) {
            ensure!(begin.elapsed() < Duration::from_secs(30), "{name} is not served");
        }
        times.push(ms(begin));
    }
    Ok(times)
}

fn fill(api: SocketAddr, token: &str, size: Size, origins: [SocketAddr; 2]) -> anyhow::Result<()> {
    eprintln!("  filling a store with {} tenants and {} domains", size.tenants, size.domains);
    let mut admin = Api::connect(api, token)?;
    admin.send("POST", "plans", &json!({"id": "load", "name": "Load", "limits": limits()}))?;
    for (id, origin) in ["a", "b"].into_iter().zip(origins) {
        let backends = json!([{"address": format!("http://{origin}"), "weight": 1}]);
        admin.send(
            "POST",
            "pools",
            &json!({"id": id, "kind": "shared", "backends": backends, "health_check": null}),
        )?;
    }
    many(api, token, size.tenants, |i| {
        ("tenants", json!({"slug": format!("school-{i}"), "name": format!("School {i}"), "plan": "load", "pool": "a"}))
    })?;
    many(api, token, size.domains, |k| {
        ("domains", json!({"name": host(k), "tenant": format!("school-{}", k % size.tenants)}))
    })
}

/// Posts `count` objects over several connections.
fn many(
    api: SocketAddr,
    token: &str,
    count: usize,
    object: impl Fn(usize) -> (&'static str, Value) + Sync,
) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let fillers: Vec<_> = (0..FILLERS)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    let mut api = Api::connect(api, token)?;
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= count {
                            return Ok(());
                        }
                        let (path, body) = object(i);
                        api.send("POST", path, &body)?;
                    }
                })
            })
            .collect();
        fillers.into_iter().try_for_each(|filler| filler.join().map_err(|_| anyhow!("a filler panicked"))?)
    })
}

fn until_served(server: &Server, last: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !matches!(crate::client::get_once(server.https, &host(last)), Ok(200)) {
        ensure!(begin.elapsed() < Duration::from_secs(120), "the proxy does not serve what the control plane knows");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
