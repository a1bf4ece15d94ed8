//! Requests per second of one core, and per second of CPU time, which a busy neighbour cannot spoil.

use crate::report::{Report, Rounds};
use crate::run::Bench;
use crate::server::Server;
use crate::tool::Done;

use super::alternating;

/// HTTP/1.1: wrk, 50 connections.
pub(crate) fn h1(bench: &Bench, servers: &[Server], report: &mut Report) -> anyhow::Result<()> {
    throughput(bench, servers, report, "h1", "h1 keep-alive over TLS", Bench::wrk)
}

/// HTTP/2: h2load, 10 connections with 10 streams.
pub(crate) fn h2(bench: &Bench, servers: &[Server], report: &mut Report) -> anyhow::Result<()> {
    throughput(bench, servers, report, "h2", "h2 over TLS", Bench::h2load)
}

fn throughput(
    bench: &Bench,
    servers: &[Server],
    report: &mut Report,
    scenario: &'static str,
    what: &str,
    load: fn(&Bench, &Server, u64) -> anyhow::Result<Done>,
) -> anyhow::Result<()> {
    eprintln!("{scenario}");
    for server in servers {
        load(bench, server, 1)?;
    }
    let (mut per_cpu, mut per_second) = (Rounds::default(), Rounds::default());
    for round in 0..bench.options.rounds {
        for server in alternating(round, servers) {
            let before = server.process.cpu_seconds();
            let done = load(bench, server, bench.options.seconds)?;
            let cpu = server.process.cpu_seconds() - before;
            per_cpu.add(&server.name, done.requests / cpu);
            per_second.add(&server.name, done.per_second);
            if done.failed > 0.0 {
                report.note(format!("{scenario}: {} failed {} requests in round {round}", server.name, done.failed));
            }
        }
    }
    report.push(per_cpu.into_row(scenario, &format!("{what}, per CPU-second"), "requests"));
    report.push(per_second.into_row(scenario, &format!("{what}, per second"), "requests"));
    Ok(())
}
