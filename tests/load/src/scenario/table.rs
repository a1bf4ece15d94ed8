//! What a large table costs a request. 2,000 connections take turns, so that connections are equally cold for all:
//!
//! * over the same 10 names, in a table of 10 tenants and in one of 100,000: what the size of the table costs;
//! * over 2,000 names of 2,000 tenants in the large one: what it costs that many tenants are active, each with backend
//!   connections, a signed context and counters of its own.

use crate::fleet::Size;
use crate::report::{Report, Rounds};
use crate::run::{Bench, FEW, Which};
use crate::server::Server;

use super::alternating;

const LARGE: Size = Size { tenants: 100_000, domains: 100_000 };
/// For a quick run.
const SMALLER: Size = Size { tenants: 2_000, domains: 2_000 };
const CONNECTIONS: usize = 2_000;

/// Names asked for in one server.
struct Load<'a> {
    name: String,
    server: &'a Server,
    names: usize,
}

pub(crate) fn table(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("table");
    let large = if bench.options.quick { SMALLER } else { LARGE };
    let (few, many) = (bench.start(Which::Schoolgate(FEW))?, bench.start(Which::Schoolgate(large))?);
    let load = |server, names, of: &str| Load { name: format!("schoolgate, {of}"), server, names };
    let loads = [
        load(&few, FEW.domains, &format!("10 names of {}", FEW.tenants)),
        load(&many, FEW.domains, &format!("10 names of {}", large.tenants)),
        load(&many, large.domains, &format!("{CONNECTIONS} names of {}", large.tenants)),
    ];
    let (mut per_cpu, mut p99) = (Rounds::default(), Rounds::default());
    for round in 0..bench.options.rounds {
        for Load { name, server, names } in alternating(round, &loads) {
            let args = [
                format!("--addr={}", server.https),
                // More names than connections: each connection takes one of its own, spread over all.
                format!("--names={names}"),
                format!("--connections={CONNECTIONS}"),
                "--in-flight=50".to_owned(),
                format!("--seconds={}", bench.options.seconds),
            ];
            let (done, cpu) = bench.load(Some(server), &args)?;
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            per_cpu.add(name, done.done as f64 / cpu);
            p99.add(name, done.p99_us / 1000.0);
            if done.failed > 0 {
                report.note(format!("table: {name}: {} requests failed in round {round}", done.failed));
            }
        }
    }
    let row = per_cpu.into_row("table", "2,000 connections in turn, per CPU-second", "requests");
    let cost = |load: &Load<'_>| 1.0 / row.ratios[&load.name][&loads[0].name];
    let (size, active) = (cost(&loads[1]), cost(&loads[2]));
    report.push(row);
    report.push(p99.into_row("table", "2,000 connections in turn, p99", "ms"));
    let what = format!("cost of a request in a table of {} tenants ÷ in one of {}", large.tenants, FEW.tenants);
    report.single("table", &format!("{what}, the same 10 tenants active"), "×", size);
    report.single("table", &format!("{what}, {CONNECTIONS} tenants active"), "×", active);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let memory = many.process.memory() as f64 / 1_048_576.0;
    report.single("table", &format!("memory with {} domains after load", large.domains), "MiB", memory);
    Ok(())
}
