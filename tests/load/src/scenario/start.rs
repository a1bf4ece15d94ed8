//! Start from disk: a proxy that has served 100,000 domains, each with a certificate of its own, is killed, its control
//! plane goes, it is started again; the time from `exec` until it is ready and to the first answer, and its memory.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::client::{self, TlsStream};
use crate::fleet::{Size, host};
use crate::report::{Report, median};
use crate::run::{Bench, Which};
use crate::server::{Schoolgate, Server};

const LARGE: Size = Size { tenants: 100_000, domains: 100_000 };
/// For a quick run.
const SMALLER: Size = Size { tenants: 2_000, domains: 2_000 };
/// Nobody listens there: "discard", a port of the system's.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// What one start took.
struct Started {
    /// From `exec` until it says that it is ready.
    ready_s: f64,
    /// The first handshake after that, with a name whose key nobody has asked for.
    handshake_s: f64,
    /// From `exec` until the first answer has been read.
    answer_s: f64,
    /// After that answer, in MiB.
    memory: f64,
    /// When the keys of all names have been opened, in MiB.
    memory_at_rest: f64,
}

pub(crate) fn start(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("start");
    let size = if bench.options.quick { SMALLER } else { LARGE };
    let first = bench.start(Which::Schoolgate(size))?;
    let name = first.name.clone();
    drop(first);
    let schoolgate = bench.schoolgate()?;
    let mut rounds = Vec::new();
    for _ in 0..bench.options.rounds {
        rounds.push(start_once(&schoolgate, &name, bench.options.proxy_cpu, &host(size.domains - 1))?);
    }
    let domains = size.domains;
    let mut say = |what: &str, unit, of: fn(&Started) -> f64| {
        let values: Vec<f64> = rounds.iter().map(of).collect();
        report.single("start", &format!("{what}, {domains} domains"), unit, median(&values));
    };
    say("start from disk until ready, control plane gone", "s", |round| round.ready_s);
    say("the first handshake after it", "ms", |round| round.handshake_s * 1_000.0);
    say("start from disk to first answer, control plane gone", "s", |round| round.answer_s);
    say("memory after that start", "MiB", |round| round.memory);
    say("memory when the keys of all names are open", "MiB", |round| round.memory_at_rest);
    Ok(())
}

fn start_once(schoolgate: &Schoolgate<'_>, name: &str, cpu: usize, host: &str) -> anyhow::Result<Started> {
    let begin = Instant::now();
    let server = schoolgate.start_with_feed(name, cpu, NOBODY)?;
    let ready_s = begin.elapsed().as_secs_f64();
    let asked = Instant::now();
    let mut stream = TlsStream::connect_h1(server.https, host).context("the first handshake after it was ready")?;
    let handshake_s = asked.elapsed().as_secs_f64();
    let status = client::get(&mut stream, host)?.status;
    ensure!(status == 200, "the first answer after it was ready is {status}");
    let answer_s = begin.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let memory = || server.process.memory() as f64 / 1_048_576.0;
    let after = memory();
    settle(&server)?;
    Ok(Started { ready_s, handshake_s, answer_s, memory: after, memory_at_rest: memory() })
}

/// Waits until the process has done what it does beside the requests after a start: it uses no more than a fiftieth of
/// its core.
fn settle(server: &Server) -> anyhow::Result<()> {
    const LOOK_EVERY: Duration = Duration::from_millis(500);
    let begin = Instant::now();
    let mut before = server.process.cpu_seconds();
    loop {
        std::thread::sleep(LOOK_EVERY);
        let now = server.process.cpu_seconds();
        if now - before <= LOOK_EVERY.as_secs_f64() / 50.0 {
            return Ok(());
        }
        before = now;
        ensure!(begin.elapsed() < Duration::from_secs(120), "it does not come to rest after its start");
    }
}
