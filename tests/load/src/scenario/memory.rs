//! Memory of the process tree after it has been loaded.

use crate::report::{Report, Rounds};
use crate::run::Bench;
use crate::server::Server;

pub(crate) fn memory(bench: &Bench, servers: &[Server], report: &mut Report) -> anyhow::Result<()> {
    eprintln!("memory");
    let mut rounds = Rounds::default();
    for server in servers {
        bench.wrk(server, bench.options.seconds)?;
        bench.h2load(server, bench.options.seconds)?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
        rounds.add(&server.name, server.process.memory() as f64 / 1024.0 / 1024.0);
    }
    report.push(rounds.into_row("memory", "memory after load", "MiB"));
    Ok(())
}
