//! New connection, full handshake, one request, close. The client's core is the bottleneck, so only the figure per
//! second of the proxy's CPU time compares.

use crate::client::Handshakes;
use crate::report::{Report, Rounds};
use crate::run::Bench;
use crate::server::Server;

use super::{alternating, names};

pub(crate) fn handshakes(bench: &Bench, servers: &[Server], report: &mut Report) -> anyhow::Result<()> {
    eprintln!("handshake");
    let (mut per_cpu, mut per_second) = (Rounds::default(), Rounds::default());
    for round in 0..bench.options.rounds {
        for server in alternating(round, servers) {
            let before = server.process.cpu_seconds();
            let done = handshakes_once(bench, server)?;
            let cpu = server.process.cpu_seconds() - before;
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let count = done.done as f64;
            per_cpu.add(&server.name, count / cpu);
            per_second.add(&server.name, count / done.seconds);
            if done.failed > 0 {
                report.note(format!("handshake: {} failed {} in round {round}", server.name, done.failed));
            }
        }
    }
    report.push(per_cpu.into_row("handshake", "full handshake + 1 request, per CPU-second", "handshakes"));
    report.push(per_second.into_row("handshake", "full handshake + 1 request, per second", "handshakes"));
    Ok(())
}

/// One round on one server.
pub(crate) fn handshakes_once(bench: &Bench, server: &Server) -> anyhow::Result<Handshakes> {
    bench.client(&[
        "handshakes".to_owned(),
        format!("--addr={}", server.https),
        format!("--names={}", names(server, 10_000)),
        format!("--seconds={}", bench.options.seconds),
    ])
}
