//! Latency at half the capacity: an open loop at half the rate that Schoolgate with many tenants bears, the same for
//! all; and straight to the origin without TLS, which is what the proxy adds to.

use crate::client::Loaded;
use crate::report::{Report, Rounds};
use crate::run::Bench;
use crate::server::Server;

use super::{alternating, names};

/// The column of the origin.
const DIRECT: &str = "origin";

pub(crate) fn latency(bench: &Bench, servers: &[Server], report: &mut Report) -> anyhow::Result<()> {
    eprintln!("latency");
    let Some(slowest) = servers.last() else { return Ok(()) };
    let capacity = bench.wrk(slowest, bench.options.seconds.max(2))?.per_second;
    let rate = (capacity / 2.0).floor();
    report.note(format!("latency: {rate} requests/s, half of what {} bears on its core", slowest.name));
    let (mut p50, mut p99) = (Rounds::default(), Rounds::default());
    let load = |target: String, names: usize| -> anyhow::Result<Loaded> {
        let mut args = vec!["load".to_owned(), target];
        args.extend([
            format!("--rate={rate}"),
            format!("--names={names}"),
            "--connections=100".to_owned(),
            format!("--seconds={}", bench.options.seconds),
        ]);
        if names == 0 {
            args.retain(|arg| !arg.starts_with("--names"));
            args.push("--plain".to_owned());
        }
        bench.client(&args)
    };
    for round in 0..bench.options.rounds {
        let direct = load(format!("--addr={}", bench.origin()), 0)?;
        p50.add(DIRECT, direct.p50_us / 1000.0);
        p99.add(DIRECT, direct.p99_us / 1000.0);
        for server in alternating(round, servers) {
            let done = load(format!("--addr={}", server.https), names(server, 100))?;
            p50.add(&server.name, done.p50_us / 1000.0);
            p99.add(&server.name, done.p99_us / 1000.0);
            if done.failed > 0 {
                report.note(format!("latency: {} failed {} requests in round {round}", server.name, done.failed));
            }
        }
    }
    report.push(p50.into_row("latency", "latency at half load, p50", "ms"));
    report.push(p99.into_row("latency", "latency at half load, p99", "ms"));
    Ok(())
}
