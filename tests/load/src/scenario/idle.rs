//! Memory per idle connection: a fresh process, 1,000 connections that were used once, the growth divided by 1,000.

use std::time::Duration;

use crate::client::Protocol;
use crate::report::{Report, Rounds};
use crate::run::{Bench, Which};
use crate::server::Server;

use super::names;

/// Connections before counting, so that what is allocated once is there.
const WARM: usize = 20;
/// Connections held.
const HELD: usize = 1_000;

pub(crate) fn idle(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("idle");
    for (protocol, what) in [(Protocol::H1, "idle h1 TLS connection"), (Protocol::H2, "idle h2 TLS connection")] {
        let mut rounds = Rounds::default();
        for _ in 0..bench.options.rounds.min(3) {
            for which in bench.servers() {
                if which == Which::Schoolgate(crate::run::FEW) && !bench.options.quick {
                    continue;
                }
                let server = bench.start(which)?;
                rounds.add(&server.name, kib_each(bench, &server, protocol)?);
            }
        }
        report.push(rounds.into_row("idle", what, "KiB"));
    }
    Ok(())
}

fn kib_each(bench: &Bench, server: &Server, protocol: Protocol) -> anyhow::Result<f64> {
    let hold = |connections: usize| {
        bench.start_client(&[
            "idle".to_owned(),
            format!("--addr={}", server.https),
            format!("--names={}", names(server, connections)),
            format!("--connections={connections}"),
            format!("--protocol={}", if protocol == Protocol::H1 { "h1" } else { "h2" }),
        ])
    };
    let warm = hold(WARM)?;
    settle();
    let before = server.process.memory();
    let held = hold(HELD)?;
    settle();
    let after = server.process.memory();
    drop((warm, held));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    Ok((after.saturating_sub(before)) as f64 / 1024.0 / HELD as f64)
}

/// Buffers that a server gives back when a connection falls idle are given back by now.
fn settle() {
    std::thread::sleep(Duration::from_secs(1));
}
