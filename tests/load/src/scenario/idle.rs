//! Memory per idle connection: how much a process grows by 1,000 connections that were used once and wait, when it
//! holds as many already, so that neither what is allocated once nor what its start left over counts.

use std::time::Duration;

use crate::client::Protocol;
use crate::process::Running;
use crate::report::{Report, Rounds};
use crate::run::{Bench, FEW, Which};
use crate::server::Server;

use super::names;

/// Connections of each step.
const STEP: usize = 1_000;
/// By how much two steps may differ before it is noted.
const LINEAR: f64 = 0.15;

pub(crate) fn idle(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("idle");
    for (protocol, what) in [(Protocol::H1, "idle h1 TLS connection"), (Protocol::H2, "idle h2 TLS connection")] {
        let mut rounds = Rounds::default();
        for round in 0..bench.options.rounds.min(3) {
            for which in bench.servers() {
                // What a connection takes does not depend on the table, and a start with a large one leaves free
                // memory behind that connections would be served from.
                if matches!(which, Which::Schoolgate(size) if size != FEW) {
                    continue;
                }
                let server = bench.start(which)?;
                let (first, second) = kib_each(bench, &server, protocol)?;
                rounds.add(&server.name, second);
                if (first / second - 1.0).abs() > LINEAR {
                    report.note(format!(
                        "{what}: {} took {first:.1} KiB each for the first {STEP} in round {round}",
                        server.name
                    ));
                }
            }
        }
        report.push(rounds.into_row("idle", what, "KiB"));
    }
    Ok(())
}

/// KiB per connection of the second and of the third thousand.
fn kib_each(bench: &Bench, server: &Server, protocol: Protocol) -> anyhow::Result<(f64, f64)> {
    let mut held = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..3 {
        held.push(bench.start_client(&[
            "idle".to_owned(),
            format!("--addr={}", server.https),
            format!("--names={}", names(server, STEP)),
            format!("--connections={STEP}"),
            format!("--protocol={}", if protocol == Protocol::H1 { "h1" } else { "h2" }),
        ])?);
        settle();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
        memory.push(server.process.memory() as f64 / 1024.0);
    }
    // Fails when the server has closed one meanwhile, which would make the figure too good.
    held.into_iter().try_for_each(Running::finish)?;
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let each = |from: usize| (memory[from + 1] - memory[from]) / STEP as f64;
    Ok((each(0), each(1)))
}

/// Buffers that a server gives back when a connection falls idle are given back by now.
fn settle() {
    std::thread::sleep(Duration::from_secs(2));
}
