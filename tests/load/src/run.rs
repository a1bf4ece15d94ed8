//! One run: what is started, and which scenarios follow one another.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use schoolgate_config::time::{Clock, SystemClock, rfc3339};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::client::Loaded;
use crate::fleet::{Authority, Fleets, Leaf, Size, host};
use crate::machine::Machine;
use crate::process::{Running, on_cpu};
use crate::report::Report;
use crate::scenario;
use crate::server::{self, Schoolgate, Server};
use crate::tool;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Memory per idle connection.
    Idle,
    /// Requests per second, HTTP/1.1 over TLS.
    H1,
    /// Requests per second, HTTP/2 over TLS.
    H2,
    /// Full handshakes per second.
    Handshake,
    /// Latency at half the capacity.
    Latency,
    /// Memory after load.
    Memory,
    /// What 100,000 tenants cost a request.
    Table,
    /// Start from disk at 100,000 domains.
    Start,
    /// Time of a change at 1,000, 10,000 and 100,000 domains.
    Change,
    /// What others notice of a school at twenty times its share.
    Noisy,
}

/// Settings of a run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The binary of Schoolgate. Without it only the peers are measured.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Rounds of each scenario that alternates between servers.
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,
    /// Seconds of each server in each round.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u64,
    /// One short round of everything, on small fleets: does the harness work?
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// The core of the proxy under test.
    #[arg(long, default_value_t = 1)]
    pub(crate) proxy_cpu: usize,
    /// The core of load generators and origins.
    #[arg(long, default_value_t = 0)]
    pub(crate) load_cpu: usize,
    /// Where fleets are kept between runs.
    #[arg(long, default_value = "target/load")]
    work: PathBuf,
    /// Where the table is written.
    #[arg(long, default_value = "tests/load/results")]
    results: PathBuf,
    /// The name of its files; the date if not given.
    #[arg(long)]
    name: Option<String>,
    /// The command to be shown beside the figures.
    #[arg(long, default_value = "schoolgate-load run")]
    command: String,
}

/// Settings of a training run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TrainOptions {
    /// The instrumented binary.
    #[arg(long)]
    binary: PathBuf,
    /// Seconds of each load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where fleets are kept between runs.
    #[arg(long, default_value = "target/load")]
    work: PathBuf,
}

/// A server to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Nginx,
    Haproxy,
    Schoolgate(Size),
}

/// What all scenarios share.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) fleets: Fleets,
    leaf: Leaf,
    origin: SocketAddr,
    wrk_script: PathBuf,
    program: PathBuf,
    dir: TempDir,
    _origin: Running,
}

impl Bench {
    fn new(options: Options) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("schoolgate-load-")?;
        let program = std::env::current_exe()?;
        let leaf = Authority::new()?.issue(&host(0))?;
        let (running, origin) = start_origin(&program, options.load_cpu, "origin")?;
        let wrk_script = tool::write_wrk_script(dir.path())?;
        let fleets = Fleets::open(std::path::absolute(&options.work)?)?;
        Ok(Self { options, fleets, leaf, origin, wrk_script, program, dir, _origin: running })
    }

    /// Starts a server; its name is its column in the table.
    pub(crate) fn start(&self, which: Which) -> anyhow::Result<Server> {
        let (dir, cpu) = (self.dir.path(), self.options.proxy_cpu);
        match which {
            Which::Nginx => server::nginx(dir, cpu, &self.leaf, self.origin),
            Which::Haproxy => server::haproxy(dir, cpu, &self.leaf, self.origin),
            Which::Schoolgate(size) => self.schoolgate()?.start(&name_of(size), cpu, size, self.origin),
        }
    }

    pub(crate) fn schoolgate(&self) -> anyhow::Result<Schoolgate<'_>> {
        let program = self.options.binary.as_deref().context("--binary is not given")?;
        Ok(Schoolgate { program, fleets: &self.fleets, dir: self.dir.path().to_owned() })
    }

    pub(crate) fn has_schoolgate(&self) -> bool {
        self.options.binary.is_some()
    }

    /// Peers, and Schoolgate with few and with many tenants.
    pub(crate) fn servers(&self) -> Vec<Which> {
        let mut servers = vec![Which::Nginx, Which::Haproxy];
        if self.has_schoolgate() {
            servers.push(Which::Schoolgate(FEW));
            servers.push(Which::Schoolgate(if self.options.quick { SOME } else { MANY }));
        }
        servers
    }

    /// The backend of all servers.
    pub(crate) fn origin(&self) -> SocketAddr {
        self.origin
    }

    /// Another backend, which names itself.
    pub(crate) fn another_origin(&self, name: &str) -> anyhow::Result<(Running, SocketAddr)> {
        start_origin(&self.program, self.options.load_cpu, name)
    }

    /// A backend that works on so many requests at once, each for a while.
    pub(crate) fn slow_origin(&self, at_once: u32, takes_ms: u32) -> anyhow::Result<(Running, SocketAddr)> {
        let args = ["slow-origin".to_owned(), format!("--at-once={at_once}"), format!("--takes-ms={takes_ms}")];
        start_backend(&self.program, self.options.load_cpu, &args)
    }

    pub(crate) fn wrk(&self, server: &Server, seconds: u64) -> anyhow::Result<tool::Done> {
        tool::wrk(self.options.load_cpu, &self.wrk_script, server.https, seconds)
    }

    pub(crate) fn h2load(&self, server: &Server, seconds: u64) -> anyhow::Result<tool::Done> {
        tool::h2load(self.options.load_cpu, server.https, seconds)
    }

    /// Runs a client to its end and reads what it prints.
    pub(crate) fn client<T: DeserializeOwned>(&self, args: &[String]) -> anyhow::Result<T> {
        let output = on_cpu(self.options.load_cpu, &self.program).arg("client").args(args).output()?;
        if !output.status.success() {
            bail!("client {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Starts a client and waits until its connections are open.
    pub(crate) fn start_client(&self, args: &[String]) -> anyhow::Result<Running> {
        let args: Vec<String> = std::iter::once("client".to_owned()).chain(args.iter().cloned()).collect();
        let mut client = Running::start_talking(self.options.load_cpu, &self.program, &args)?;
        ensure!(client.read_line()? == "ready", "a client says something else than `ready`");
        Ok(client)
    }

    /// Loads over connections that are open already. Also the CPU seconds that `server` spent on it.
    pub(crate) fn load(&self, server: Option<&Server>, args: &[String]) -> anyhow::Result<(Loaded, f64)> {
        let args: Vec<String> = std::iter::once("load".to_owned()).chain(args.iter().cloned()).collect();
        let mut client = self.start_client(&args)?;
        let cpu = || server.map_or(0.0, |server| server.process.cpu_seconds());
        let before = cpu();
        client.say("go")?;
        let loaded = serde_json::from_str(&client.read_line()?)?;
        Ok((loaded, cpu() - before))
    }
}

/// The least there is.
pub(crate) const FEW: Size = Size { tenants: 10, domains: 10 };
/// A platform of some size.
pub(crate) const MANY: Size = Size { tenants: 10_000, domains: 50_000 };
/// The same for a quick run.
const SOME: Size = Size { tenants: 200, domains: 1_000 };

fn name_of(size: Size) -> String {
    format!("schoolgate-{}", size.tenants)
}

fn start_origin(program: &Path, cpu: usize, name: &str) -> anyhow::Result<(Running, SocketAddr)> {
    start_backend(program, cpu, &["origin", "--name", name].map(str::to_owned))
}

fn start_backend(program: &Path, cpu: usize, args: &[String]) -> anyhow::Result<(Running, SocketAddr)> {
    let mut running = Running::start_talking(cpu, program, args)?;
    let port = running.read_line()?.parse()?;
    Ok((running, SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
}

/// Runs what was asked for.
pub(crate) fn run(mut options: Options) -> anyhow::Result<()> {
    if options.quick {
        (options.rounds, options.seconds) = (1, 1);
    }
    let now = rfc3339(SystemClock.unix_ms());
    let mut report = Report {
        at: now.clone(),
        command: options.command.clone(),
        machine: Machine::look(),
        binary: options.binary.as_ref().map_or_else(|| "not measured".to_owned(), |path| path.display().to_string()),
        rows: Vec::new(),
        notes: Vec::new(),
        picture: None,
    };
    let (results, name) = (options.results.clone(), options.name.clone());
    let wanted = |scenario| options.only.is_empty() || options.only.contains(&scenario);
    let bench = Bench::new(options.clone())?;

    if wanted(Scenario::Idle) {
        scenario::idle(&bench, &mut report).context("idle")?;
    }
    let alternating = [Scenario::H1, Scenario::H2, Scenario::Handshake, Scenario::Latency, Scenario::Memory];
    if alternating.into_iter().any(wanted) {
        let servers =
            bench.servers().into_iter().map(|which| bench.start(which)).collect::<anyhow::Result<Vec<_>>>()?;
        if wanted(Scenario::H1) {
            scenario::h1(&bench, &servers, &mut report).context("h1")?;
        }
        if wanted(Scenario::H2) {
            scenario::h2(&bench, &servers, &mut report).context("h2")?;
        }
        if wanted(Scenario::Handshake) {
            scenario::handshakes(&bench, &servers, &mut report).context("handshake")?;
        }
        if wanted(Scenario::Latency) {
            scenario::latency(&bench, &servers, &mut report).context("latency")?;
        }
        if wanted(Scenario::Memory) {
            scenario::memory(&bench, &servers, &mut report).context("memory")?;
        }
    }
    if bench.has_schoolgate() {
        if wanted(Scenario::Table) {
            scenario::table(&bench, &mut report).context("table")?;
        }
        if wanted(Scenario::Start) {
            scenario::start(&bench, &mut report).context("start")?;
        }
        if wanted(Scenario::Change) {
            scenario::change(&bench, &mut report).context("change")?;
        }
        if wanted(Scenario::Noisy) {
            scenario::noisy(&bench, &mut report).context("noisy")?;
        }
    }
    print!("{}", report.markdown());
    let name = name.unwrap_or_else(|| now.split('T').next().unwrap_or("today").to_owned());
    report.write(&results, &name)
}

/// The loads that matter, on one instrumented process.
pub(crate) fn train(options: &TrainOptions) -> anyhow::Result<()> {
    let bench = Bench::new(Options {
        binary: Some(options.binary.clone()),
        rounds: 1,
        seconds: options.seconds,
        quick: false,
        only: Vec::new(),
        proxy_cpu: 1,
        load_cpu: 0,
        work: options.work.clone(),
        results: PathBuf::new(),
        name: None,
        command: String::new(),
    })?;
    let server = bench.start(Which::Schoolgate(SOME))?;
    for _ in 0..2 {
        bench.wrk(&server, options.seconds)?;
        bench.h2load(&server, options.seconds)?;
        scenario::handshakes_once(&bench, &server)?;
    }
    server.process.interrupt()
}
