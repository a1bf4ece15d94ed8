//! Start from disk: a proxy that has served 100,000 domains is killed, its control plane goes, it is started again;
//! the time from `exec` to the first answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::client;
use crate::fleet::{Size, host};
use crate::report::{Report, median};
use crate::run::{Bench, Which};

const LARGE: Size = Size { tenants: 100_000, domains: 100_000 };
/// For a quick run.
const SMALLER: Size = Size { tenants: 2_000, domains: 2_000 };
/// Nobody listens there: "discard", a port of the system's.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

pub(crate) fn start(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("start");
    let size = if bench.options.quick { SMALLER } else { LARGE };
    let first = bench.start(Which::Schoolgate(size))?;
    let name = first.name.clone();
    drop(first);
    let schoolgate = bench.schoolgate()?;
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds {
        let begin = Instant::now();
        let server = schoolgate.start_with_feed(&name, bench.options.proxy_cpu, NOBODY)?;
        while !matches!(client::get_once(server.https, &host(size.domains - 1)), Ok(200)) {
            ensure!(begin.elapsed() < Duration::from_secs(60), "nothing served within a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
        times.push(begin.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
        memory.push(server.process.memory() as f64 / 1_048_576.0);
    }
    let domains = size.domains;
    report.single(
        "start",
        &format!("start from disk to first answer, {domains} domains, control plane gone"),
        "s",
        median(&times),
    );
    report.single("start", &format!("memory after that start, {domains} domains"), "MiB", median(&memory));
    Ok(())
}
