//! Latency at half the capacity: an open loop at half the rate that Schoolgate with many tenants bears, the same for
//! all; and straight to the origin without TLS, which is what the proxy adds to.

use crate::client::Loaded;
use crate::report::{DIRECT, Report, Rounds};
use crate::run::Bench;
use crate::server::Server;

use super::{alternating, names};

pub(crate) fn latency(bench: &Bench, servers: &[Server], report: &mut Report) -> anyhow::Result<()> {
    eprintln!("latency");
    let Some(slowest) = servers.last() else { return Ok(()) };
    let capacity = bench.wrk(slowest, bench.options.seconds.max(2))?.per_second;
    let rate = (capacity / 2.0).floor();
    report.note(format!("latency: {rate} requests/s, half of what {} bears on its core", slowest.name));
    let (mut p50, mut p99) = (Rounds::default(), Rounds::default());
    let (mut added_p50, mut added_p99) = (Rounds::default(), Rounds::default());
    let load = |target: String, names: Option<usize>| -> anyhow::Result<Loaded> {
        let seconds = format!("--seconds={}", bench.options.seconds);
        let mut args = vec![target, format!("--rate={rate}"), "--connections=100".to_owned(), seconds];
        args.push(names.map_or_else(|| "--plain".to_owned(), |names| format!("--names={names}")));
        Ok(bench.load(None, &args)?.0)
    };
    for round in 0..bench.options.rounds {
        let direct = load(format!("--addr={}", bench.origin()), None)?;
        p50.add(DIRECT, direct.p50_us / 1000.0);
        p99.add(DIRECT, direct.p99_us / 1000.0);
        for server in alternating(round, servers) {
            let done = load(format!("--addr={}", server.https), Some(names(server, 100)))?;
            p50.add(&server.name, done.p50_us / 1000.0);
            p99.add(&server.name, done.p99_us / 1000.0);
            added_p50.add(&server.name, (done.p50_us - direct.p50_us) / 1000.0);
            added_p99.add(&server.name, (done.p99_us - direct.p99_us) / 1000.0);
            if done.failed > 0 {
                report.note(format!("latency: {} failed {} requests in round {round}", server.name, done.failed));
            }
        }
    }
    report.push(p50.into_row("latency", "latency at half load, p50", "ms"));
    report.push(p99.into_row("latency", "latency at half load, p99", "ms"));
    report.push(added_p50.into_row("latency", "latency added at half load, p50", "ms"));
    report.push(added_p99.into_row("latency", "latency added at half load, p99", "ms"));
    Ok(())
}
