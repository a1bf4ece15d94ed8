//! One school at twenty times its share of a backend: what the others notice, with the fair queue and without it.
//!
//! The backend works on 64 requests at once, 40 ms each: 1,600 a second. Twenty schools share it, 80 a second each.
//! Nineteen ask for half of their share; the twentieth, when it is noisy, for twenty times its share: the whole backend
//! again. With the queue the pool takes 64 at once (`max_in_flight`) and schools take turns; without it the backend takes
//! all and serves them in the order they came. No other limit is reached.

use schoolgate_config::model::{Pool, QueueRules};

use crate::client::Loaded;
use crate::fleet::{Size, pool};
use crate::picture::{Bar, bars};
use crate::report::{Report, Rounds};
use crate::run::Bench;
use crate::server::Server;

use super::alternating;

const SCHOOLS: Size = Size { tenants: 20, domains: 20 };
/// Requests that the backend works on at once.
const AT_ONCE: u32 = 64;
/// How long each takes: a page of a school platform.
const TAKES_MS: u32 = 40;
/// A school's share of the backend, requests per second.
const SHARE: u32 = AT_ONCE * 1_000 / TAKES_MS / 20;
/// Connections of the nineteen.
const CONNECTIONS: usize = 190;
/// Connections of the noisy one: more requests than it may have waiting.
const NOISY_CONNECTIONS: usize = 800;
/// How long it is noisy before the others are measured.
const LEAD: std::time::Duration = std::time::Duration::from_secs(1);

struct Case<'a> {
    name: &'static str,
    server: &'a Server,
    is_noisy: bool,
}

const QUEUE_QUIET: &str = "fair queue, quiet";
const QUEUE_NOISY: &str = "fair queue, noisy";
const NONE_QUIET: &str = "no queue, quiet";
const NONE_NOISY: &str = "no queue, noisy";

pub(crate) fn noisy(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("noisy");
    let schoolgate = bench.schoolgate()?;
    let mut origins = Vec::new();
    let mut server = |name: &str, max_in_flight: Option<u32>| -> anyhow::Result<Server> {
        let (running, origin) = bench.slow_origin(AT_ONCE, TAKES_MS)?;
        origins.push(running);
        let pool = Pool { max_in_flight, queue: QueueRules::default(), ..pool(origin)? };
        schoolgate.start_on(name, bench.options.proxy_cpu, SCHOOLS, pool)
    };
    let (fair, none) = (server("fair", Some(AT_ONCE))?, server("none", None)?);
    let cases = [
        Case { name: QUEUE_QUIET, server: &fair, is_noisy: false },
        Case { name: QUEUE_NOISY, server: &fair, is_noisy: true },
        Case { name: NONE_QUIET, server: &none, is_noisy: false },
        Case { name: NONE_NOISY, server: &none, is_noisy: true },
    ];
    let (mut p50, mut p99, mut served) = (Rounds::default(), Rounds::default(), Rounds::default());
    for round in 0..bench.options.rounds {
        for Case { name, server, is_noisy } in alternating(round, &cases) {
            let noise = if *is_noisy { Some(begin_noise(bench, server)?) } else { None };
            let others = load(server, bench.options.seconds, SHARE / 2 * 19, CONNECTIONS, (0, 19));
            let (others, _) = bench.load(None, &others)?;
            p50.add(name, others.p50_us / 1_000.0);
            p99.add(name, others.p99_us / 1_000.0);
            if others.failed > 0 {
                report.note(format!("noisy: {name}: {} requests of the others failed in round {round}", others.failed));
            }
            if let Some(mut noise) = noise {
                noise.close_input();
                let noise: Loaded = serde_json::from_str(&noise.read_line()?)?;
                #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
                served.add(name, noise.done as f64 / noise.seconds / f64::from(SHARE));
            }
        }
    }
    let p99 = p99.into_row("noisy", "p99 of the nineteen schools", "ms");
    let change = |noisy: &str, quiet: &str| (p99.ratios[noisy][quiet] - 1.0) * 100.0;
    let (with, without) = (change(QUEUE_NOISY, QUEUE_QUIET), change(NONE_NOISY, NONE_QUIET));
    let bar = |name: &'static str| Bar { name, value: p99.values[name] };
    let shown = [QUEUE_QUIET, QUEUE_NOISY, NONE_QUIET, NONE_NOISY].map(bar);
    report.picture = Some(bars("p99 of nineteen schools, while a twentieth asks for 20 times its share (ms)", &shown));
    report.push(p50.into_row("noisy", "p50 of the nineteen schools", "ms"));
    report.push(p99);
    report.push(served.into_row("noisy", "what the noisy school is served", "shares"));
    report.single("noisy", "a noisy school moves the others' p99 by, with the fair queue", "%", with);
    report.single("noisy", "a noisy school moves the others' p99 by, without it", "%", without);
    Ok(())
}

fn begin_noise(bench: &Bench, server: &Server) -> anyhow::Result<crate::process::Running> {
    let args = load(server, bench.options.seconds + 60, SHARE * 20, NOISY_CONNECTIONS, (19, 1));
    let args: Vec<String> = std::iter::once("load".to_owned()).chain(args).collect();
    let mut noise = bench.start_client(&args)?;
    noise.say("go")?;
    std::thread::sleep(LEAD);
    Ok(noise)
}

/// An open loop over the names of some schools.
fn load(server: &Server, seconds: u64, rate: u32, connections: usize, (first, schools): (usize, usize)) -> Vec<String> {
    vec![
        format!("--addr={}", server.https),
        format!("--first-name={first}"),
        format!("--names={schools}"),
        format!("--connections={connections}"),
        format!("--rate={rate}"),
        format!("--seconds={seconds}"),
    ]
}
