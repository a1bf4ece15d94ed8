//! What a large table costs a request: the same 2,000 connections, over 10 names of 10 tenants and over 2,000 names of
//! 100,000, so that the look-ups of one are in the cache and those of the other are not.

use crate::fleet::Size;
use crate::report::{Report, Rounds};
use crate::run::{Bench, FEW, Which};

use super::{alternating, names};

const LARGE: Size = Size { tenants: 100_000, domains: 100_000 };
/// For a quick run.
const SMALLER: Size = Size { tenants: 2_000, domains: 2_000 };
const CONNECTIONS: usize = 2_000;

pub(crate) fn table(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("table");
    let large = if bench.options.quick { SMALLER } else { LARGE };
    let servers = [bench.start(Which::Schoolgate(FEW))?, bench.start(Which::Schoolgate(large))?];
    let (mut per_cpu, mut p99) = (Rounds::default(), Rounds::default());
    for round in 0..bench.options.rounds {
        for server in alternating(round, &servers) {
            let args = [
                format!("--addr={}", server.https),
                // The whole fleet, of which each connection takes one name.
                format!("--names={}", names(server, usize::MAX)),
                format!("--connections={CONNECTIONS}"),
                "--in-flight=50".to_owned(),
                format!("--seconds={}", bench.options.seconds),
            ];
            let (done, cpu) = bench.load(Some(server), &args)?;
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            per_cpu.add(&server.name, done.done as f64 / cpu);
            p99.add(&server.name, done.p99_us / 1000.0);
            if done.failed > 0 {
                report.note(format!("table: {} failed {} requests in round {round}", server.name, done.failed));
            }
        }
    }
    let memory = servers[1].process.memory();
    let row = per_cpu.into_row("table", "2,000 connections in turn, per CPU-second", "requests");
    let (few, many) = (&servers[0].name, &servers[1].name);
    let ratio = row.ratios[many][few];
    report.push(row);
    report.push(p99.into_row("table", "2,000 connections in turn, p99", "ms"));
    report.single(
        "table",
        &format!("a request with {} tenants, cost ÷ with {}", large.tenants, FEW.tenants),
        "×",
        1.0 / ratio,
    );
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    report.single(
        "table",
        &format!("memory with {} domains after load", large.domains),
        "MiB",
        memory as f64 / 1_048_576.0,
    );
    Ok(())
}
