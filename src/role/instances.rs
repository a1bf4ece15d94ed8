//! The school-app instances that `up` supervises: started, watched, started again, moved when their port is lost, stopped.
//!
//! Each is a process of its own, so that one that crashes takes no other with it, and it sees the gateway only as any
//! backend does.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use schoolgate_config::model::PoolId;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::school_app::ADDRESS_IN_USE;
use super::supervise::Backoff;

/// Time an instance has to finish what is in flight before it is killed. It gives itself the same and a little less.
const STOP_WITHIN: Duration = Duration::from_secs(7);

/// Ports tried for one instance before giving up: whoever has a hundred ports in a row taken wants other ones.
const PORTS_TRIED: u16 = 100;

/// Time an instance has to answer its first health check.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What the instances have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// The program to start: this one.
    pub(super) program: PathBuf,
    /// Where the schools' databases are.
    pub(super) data_dir: PathBuf,
    /// Where the gateway's public keys are.
    pub(super) keys: String,
    /// Where they report people and storage.
    pub(super) report_url: String,
    /// The file of the token for that: a secret has no place on a command line.
    pub(super) report_token_file: PathBuf,
    /// Log directives.
    pub(super) log: String,
}

/// An instance that is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The pool it serves.
    pub(super) pool: PoolId,
    /// Where it listens if nobody else does; else one of the ports after it.
    pub(super) listen: SocketAddr,
}

/// An instance that runs.
#[derive(Debug, Clone)]
pub(super) struct Running {
    /// The pool it serves.
    pub(super) pool: PoolId,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

/// An instance whose port another process took while it was away, and that listens elsewhere now.
#[derive(Debug)]
pub(super) struct Moved {
    /// The pool it serves.
    pub(super) pool: PoolId,
    /// Where it listened.
    pub(super) from: SocketAddr,
    /// Where it listens.
    pub(super) to: SocketAddr,
}

/// Moves that are not followed yet: 16, more than anybody's instances on one machine. Beyond it they wait.
const MOVES: usize = 16;

/// Addresses that instances have, or had when they last ran.
#[derive(Debug, Clone, Default)]
struct Taken(Arc<Mutex<Vec<SocketAddr>>>);

impl Taken {
    fn add(&self, address: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(address);
    }

    fn remove(&self, address: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != address);
    }

    fn contains(&self, address: SocketAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
    }
}

/// What every instance's supervision is given.
#[derive(Debug, Clone)]
struct Supervision {
    common: Common,
    taken: Taken,
    moves: mpsc::Sender<Moved>,
    stop: CancellationToken,
}

/// Instances, and the thread that supervises them.
#[derive(Debug)]
pub(super) struct Instances {
    orders: mpsc::UnboundedSender<Order>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Order {
    wanted: Wanted,
    answer: oneshot::Sender<anyhow::Result<Running>>,
}

impl Instances {
    /// Starts the thread. What it tells of are instances that had to move.
    ///
    /// It is one that lives as long as the process: the kernel tells a child that its parent died when the *thread*
    /// that made it ends (prctl(2), `PR_SET_PDEATHSIG`), and threads of a runtime come and go.
    pub(super) fn new(common: Common) -> anyhow::Result<(Self, mpsc::Receiver<Moved>)> {
        let (orders, mut inbox) = mpsc::unbounded_channel::<Order>();
        let stop = CancellationToken::new();
        let (moves, moved) = mpsc::channel(MOVES);
        let supervision = Supervision { common, taken: Taken::default(), moves, stop: stop.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("instances".to_owned()).spawn(move || {
            runtime.block_on(async {
                let tasks = TaskTracker::new();
                let stop = supervision.stop.clone();
                while let Some(order) = tokio::select! { order = inbox.recv() => order, () = stop.cancelled() => None }
                {
                    let started = start(&supervision.common, &order.wanted, &supervision.taken).await;
                    let answer = started.map(|(child, running)| {
                        supervision.taken.add(running.address);
                        tasks.spawn(supervision.clone().keep_running(running.clone(), child));
                        running
                    });
                    // Whoever asked may have gone; the instance is stopped with the others.
                    let _ = order.answer.send(answer);
                }
                stop.cancelled().await;
                tasks.close();
                tasks.wait().await;
            });
        })?;
        Ok((Self { orders, stop, thread: Some(thread) }, moved))
    }

    /// Where more instances are asked for.
    pub(super) fn starter(&self) -> Starter {
        Starter(self.orders.clone())
    }

    /// Stops all of them, and waits: first politely, then by force.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                error!("the supervisor of the school-app instances panicked");
            }
        }
    }
}

/// Asks the supervisor for instances. A clone asks the same one.
#[derive(Debug, Clone)]
pub(super) struct Starter(mpsc::UnboundedSender<Order>);

impl Starter {
    /// Starts an instance and waits until it answers.
    ///
    /// # Errors
    /// When it does not start, or does not answer in time.
    pub(super) async fn start(&self, wanted: Wanted) -> anyhow::Result<Running> {
        let (answer, receiver) = oneshot::channel();
        let gone = "the supervisor of the school-app instances is gone";
        self.0.send(Order { wanted, answer }).ok().context(gone)?;
        receiver.await.context(gone)?
    }
}

/// Starts an instance on its address, or on the next that is free.
async fn start(common: &Common, wanted: &Wanted, taken: &Taken) -> anyhow::Result<(Child, Running)> {
    let mut next = wanted.listen;
    for _ in 0..PORTS_TRIED {
        let address = free_address(next, taken)?;
        let running = Running { pool: wanted.pool.clone(), address };
        let mut child = spawn(common, &running)?;
        match ready(&mut child, address).await? {
            None => return Ok((child, running)),
            // Someone else was faster between our look and its bind.
            Some(status) if status.code() == Some(i32::from(ADDRESS_IN_USE)) => {}
            Some(status) => anyhow::bail!("a school-app instance on {address} ended with {status}; its log is above"),
        }
        next.set_port(address.port().saturating_add(u16::from(next.port() != 0)));
    }
    anyhow::bail!("no free port for a school-app instance at {} or after it; set school_app.listen", wanted.listen)
}

/// The first address at or after `from` that nobody listens on.
fn free_address(from: SocketAddr, taken: &Taken) -> anyhow::Result<SocketAddr> {
    let mut address = from;
    loop {
        let listener = if taken.contains(address) { None } else { TcpListener::bind(address).ok() };
        if let Some(listener) = listener {
            return Ok(listener.local_addr()?);
        }
        let port = address.port().checked_add(1).filter(|port| *port - from.port() < PORTS_TRIED);
        match port {
            Some(port) if from.port() != 0 => address.set_port(port),
            _ => anyhow::bail!(
                "no free port for a school-app instance at {from} or the {PORTS_TRIED} after it; set school_app.listen"
            ),
        }
    }
}

fn spawn(common: &Common, running: &Running) -> anyhow::Result<Child> {
    let Running { pool, address } = running;
    let mut child = Command::new(&common.program)
        .arg("school-app")
        .args(["--listen", &address.to_string(), "--audience", pool.as_str(), "--keys", &common.keys])
        .args(["--log", &common.log, "--parent-pid", &std::process::id().to_string()])
        .args(["--report-url", &common.report_url])
        .arg("--report-token-file")
        .arg(&common.report_token_file)
        .arg("--data-dir")
        .arg(&common.data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} cannot be started as school-app", common.program.display()))?;
    let name = format!("school-app {pool} {}", address.port());
    if let Some(out) = child.stdout.take() {
        tokio::spawn(pass_on(out, name.clone()));
    }
    if let Some(err) = child.stderr.take() {
        tokio::spawn(pass_on(err, name));
    }
    Ok(child)
}

/// Waits until the instance answers; if it ends before that, says how.
async fn ready(child: &mut Child, address: SocketAddr) -> anyhow::Result<Option<ExitStatus>> {
    let pid = child.id();
    let answers = async {
        // Another gateway's instance may have taken the port first, and would answer as well.
        while !(pid.is_some_and(|pid| listens(pid, address)) && is_healthy(address).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        status = child.wait() => Ok(Some(status?)),
        ready = tokio::time::timeout(READY_WITHIN, answers) => {
            ready.with_context(|| format!("the school-app instance on {address} does not answer"))?;
            Ok(None)
        }
    }
}

/// Whether it is this process that listens on a port: its sockets (`/proc/PID/fd`) beside those that listen (proc(5)).
fn listens(pid: u32, address: SocketAddr) -> bool {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|fd| {
            std::fs::read_link(fd.ok()?.path()).ok()?.to_str()?.strip_prefix("socket:[").map(str::to_owned)
        })
        .collect();
    let port = format!(":{:04X}", address.port());
    ["tcp", "tcp6"].into_iter().any(|table| {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            // sl, local address, remote address, state (0A: listening), queues, timers, retransmits, uid, timeout, inode
            let fields: Vec<&str> = line.split_whitespace().collect();
            let &[_, local, _, "0A", _, _, _, _, _, inode, ..] = fields.as_slice() else { return false };
            local.ends_with(&port) && sockets.iter().any(|socket| socket.trim_end_matches(']') == inode)
        })
    })
}

async fn is_healthy(address: SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: instance\r\nconnection: close\r\n\r\n").await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head)
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(head)) if head.ends_with(b" 200"))
}

/// How the next process of an instance is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Where it was.
    Here,
    /// Where it was if that is free again, else on another port.
    Anywhere,
}

impl Supervision {
    /// Watches an instance: when it ends before the stop, it is started again on the same address. When another process
    /// has that, it moves.
    async fn keep_running(self, mut running: Running, child: Child) {
        let mut backoff = Backoff::new();
        let mut child = Some(child);
        let mut again = Again::Here;
        loop {
            let began = Instant::now();
            if let Some(mut alive) = child.take() {
                let Running { pool, address } = &running;
                tokio::select! {
                    status = alive.wait() => {
                        let code = status.as_ref().ok().and_then(ExitStatus::code);
                        again = if code == Some(i32::from(ADDRESS_IN_USE)) { Again::Anywhere } else { Again::Here };
                        let how = status.map_or_else(|e| e.to_string(), |status| status.to_string());
                        warn!(pool.id = %pool, backend.addr = %address, "school-app {pool} {} ended: {how}", address.port());
                    }
                    () = self.stop.cancelled() => return end(alive, &running).await,
                }
            }
            let wait = backoff.after(began.elapsed());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
            let started = tokio::select! {
                started = self.start_again(&running, again) => started,
                () = self.stop.cancelled() => return,
            };
            match started {
                Ok((alive, now)) => (child, running) = (Some(alive), now),
                Err(error) => {
                    let Running { pool, address } = &running;
                    error!(pool.id = %pool, backend.addr = %address, "school-app {pool}: {error:#}");
                }
            }
        }
    }

    async fn start_again(&self, running: &Running, again: Again) -> anyhow::Result<(Child, Running)> {
        let Running { pool, address } = running;
        if again == Again::Here {
            return Ok((spawn(&self.common, running)?, running.clone()));
        }
        self.taken.remove(*address);
        let wanted = Wanted { pool: pool.clone(), listen: *address };
        let started = start(&self.common, &wanted, &self.taken).await;
        let now = started.as_ref().map_or(*address, |(_, now)| now.address);
        self.taken.add(now);
        if now != *address {
            warn!(
                pool.id = %pool, backend.addr = %now,
                "school-app {pool} moved from port {} to {}: another process has the old one", address.port(), now.port()
            );
            // Nobody listens when everything stops, and then nobody needs to know.
            let _ = self.moves.send(Moved { pool: pool.clone(), from: *address, to: now }).await;
        }
        started
    }
}

async fn end(mut child: Child, running: &Running) {
    let Running { pool, address } = running;
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // It may have ended by itself just now.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(STOP_WITHIN, child.wait()).await.is_err() {
        warn!(pool.id = %pool, backend.addr = %address, "school-app {pool} {} does not stop, killing it", address.port());
        if let Err(error) = child.kill().await {
            error!(%error, "school-app {pool} {} cannot be killed: {error}", address.port());
        }
    }
    info!(pool.id = %pool, backend.addr = %address, "school-app {pool} {} stopped", address.port());
}

/// Passes an instance's log on, as lines of ours at the level they have.
async fn pass_on(stream: impl AsyncRead + Unpin, name: String) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match level_and_text(&line) {
            ("ERROR", text) => error!("{name}: {text}"),
            ("WARN", text) => warn!("{name}: {text}"),
            ("DEBUG" | "TRACE", text) => tracing::debug!("{name}: {text}"),
            (_, text) => info!("{name}: {text}"),
        }
    }
}

/// The level and text of a log line `TIME LEVEL text`; a line of another form is all text.
fn level_and_text(line: &str) -> (&str, &str) {
    let parts = line.split_once(' ').and_then(|(time, rest)| {
        let (level, text) = rest.trim_start().split_once(' ')?;
        time.ends_with('Z').then_some((level, text.trim_start()))
    });
    parts.filter(|(level, _)| matches!(*level, "ERROR" | "WARN" | "INFO" | "DEBUG" | "TRACE")).unwrap_or(("", line))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_port_belongs_to_the_process_that_listens_on_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(super::listens(std::process::id(), address));
        drop(listener);
        assert!(!super::listens(std::process::id(), address));
    }

    use super::*;

    #[test]
    fn a_log_line_is_passed_on_at_its_level() {
        assert_eq!(level_and_text("2026-11-20T21:00:00.000Z  WARN slow query"), ("WARN", "slow query"));
        assert_eq!(level_and_text("2026-11-20T21:00:00.000Z ERROR x y"), ("ERROR", "x y"));
        assert_eq!(level_and_text("thread panicked at x"), ("", "thread panicked at x"));
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let free = free_address(address, &Taken::default()).unwrap();
        assert!(free.port() > address.port() && free.port() - address.port() < PORTS_TRIED);
    }

    #[test]
    fn an_address_that_an_instance_has_is_passed_over() {
        let taken = Taken::default();
        let free = free_address("127.0.0.1:0".parse().unwrap(), &taken).unwrap();
        taken.add(free);
        assert_ne!(free_address(free, &taken).unwrap(), free);
    }
}
