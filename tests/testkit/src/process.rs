//! One process of the gateway: its log is kept, and it dies with the test.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Time a process has to become ready: long, because a debug build on a busy machine makes keys and databases first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Time a process has to end after it was asked to.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Lines of the log shown when a test fails.
const SHOWN: usize = 200;

/// A process that did not become ready.
#[derive(Debug)]
pub struct StartError {
    /// How it ended; `None` when it still ran after 60 s.
    pub exit: Option<ExitStatus>,
    /// What it wrote, standard output and error together.
    pub log: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exit {
            Some(exit) => write!(f, "ended with {exit} before it was ready:\n{}", self.log),
            None => write!(f, "was not ready within {READY_WITHIN:?}:\n{}", self.log),
        }
    }
}

impl std::error::Error for StartError {}

/// The addresses a process really bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
pub(crate) struct Addresses {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) status: Option<SocketAddr>,
    pub(crate) control: Option<SocketAddr>,
}

/// One process: started, killed and started again with the same arguments.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    /// Where it writes the addresses that it bound, once it is ready.
    ready_file: PathBuf,
    child: Option<Child>,
}

impl Process {
    pub(crate) fn new(name: &'static str, program: &Path, args: Vec<String>, dir: &Path, data: &Path) -> Self {
        Self {
            name,
            program: program.to_owned(),
            args,
            env: Vec::new(),
            log: dir.join(format!("{name}.log")),
            ready_file: data.join("run/addresses.json"),
            child: None,
        }
    }

    pub(crate) fn env(&mut self, env: &[(String, String)]) {
        self.env.extend_from_slice(env);
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(&mut self) -> Result<Addresses, StartError> {
        self.spawn();
        let start = Instant::now();
        loop {
            if let Some(addresses) = self.read_addresses() {
                return Ok(addresses);
            }
            if let Some(exit) = self.try_wait() {
                self.child = None;
                return Err(StartError { exit: Some(exit), log: self.log() });
            }
            if start.elapsed() > READY_WITHIN {
                self.kill();
                return Err(StartError { exit: None, log: self.log() });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        match std::fs::remove_file(&self.ready_file) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                panic!("cannot remove {}: {e}", self.ready_file.display())
            }
            _ => {}
        }
        let log =
            File::options().create(true).append(true).open(&self.log).expect("a log file in the test's directory");
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            // A group of its own: what it starts is killed with it.
            .process_group(0);
        let child = command.spawn().unwrap_or_else(|e| panic!("{} does not start: {e}", self.program.display()));
        self.child = Some(child);
    }

    fn read_addresses(&self) -> Option<Addresses> {
        serde_json::from_slice(&std::fs::read(&self.ready_file).ok()?).ok()
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("a child of ours can be waited for")
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.is_some() && self.try_wait().is_none()
    }

    /// Everything it wrote so far, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal to the process, not to what it started.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.raw_pid() {
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to stop as Ctrl-C does, and waits.
    ///
    /// # Panics
    /// When it has not ended after 30 s.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::INT);
        self.ended().await
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it has not ended after 30 s.
    pub async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(exit) = self.try_wait() {
                self.child = None;
                return exit;
            }
            assert!(start.elapsed() < STOP_WITHIN, "{} does not stop:\n{}", self.name, tail(&self.log()));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills it and all that it started, at once.
    pub fn kill(&mut self) {
        if let Some(pid) = self.raw_pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Kills the process alone: what it started has to notice by itself.
    pub fn kill_alone(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn raw_pid(&self) -> Option<Pid> {
        self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?))
    }

    pub(crate) fn dump(&self) {
        #[expect(clippy::print_stderr, reason = "shown beside the panic of the test")]
        {
            eprintln!("---- {} ({} {})\n{}", self.name, self.program.display(), self.args.join(" "), tail(&self.log()));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(log: &str) -> &str {
    let mut ends = log.rmatch_indices('\n');
    ends.nth(SHOWN).map_or(log, |(at, _)| &log[at + 1..])
}
