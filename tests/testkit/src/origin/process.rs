//! An origin in a process of its own, which can be killed and paused.
//!
//! The process is the test's own program again: a test binary that uses this has one ignored test whose body is
//! [`OriginProcess::body`], and names it to [`OriginProcess::start`].

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Mood, Origin};
use crate::{Client, until};

/// Where a process is told its mood: `/__origin/mood/slow-300`.
pub(super) const TELL: &str = "/__origin/mood/";

/// Time a process has to listen: long, because many start at once on a busy machine.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);

const NAME: &str = "SCHOOLGATE_ORIGIN_NAME";
const LISTEN: &str = "SCHOOLGATE_ORIGIN_LISTEN";
const READY: &str = "SCHOOLGATE_ORIGIN_READY";

/// A running process with an [`Origin`] in it. Killed when dropped.
#[derive(Debug)]
pub struct OriginProcess {
    name: String,
    test: String,
    addr: SocketAddr,
    child: Option<Child>,
    dir: TempDir,
}

impl OriginProcess {
    /// Starts one on a free port. `test` is the full name of the ignored test whose body is [`Self::body`].
    ///
    /// # Panics
    /// When it does not listen within 30 s.
    pub async fn start(name: &str, test: &str) -> Self {
        let dir = TempDir::with_prefix("origin-").expect("a temporary directory");
        let addr = (Ipv4Addr::LOCALHOST, 0).into();
        let mut process = Self { name: name.to_owned(), test: test.to_owned(), addr, child: None, dir };
        process.start_again().await;
        process
    }

    /// The body of the ignored test: an origin, until the process is killed. Does nothing in a process that was not
    /// started to be one.
    ///
    /// # Panics
    /// When its address is taken.
    pub async fn body() {
        #[expect(clippy::disallowed_methods, reason = "how a process learns that it is an origin")]
        let told = |name: &str| std::env::var(name).ok();
        let (Some(name), Some(listen), Some(ready)) = (told(NAME), told(LISTEN), told(READY)) else { return };
        // The test may be killed, too.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let listen = listen.parse().expect("an address");
        let origin = Origin::builder().name(&name).listen(listen).start().await;
        let partly = format!("{ready}.new");
        std::fs::write(&partly, origin.addr().to_string()).expect("written");
        std::fs::rename(&partly, &ready).expect("renamed");
        std::future::pending::<()>().await;
    }

    /// Starts it again after [`Self::kill`], on the address it had.
    ///
    /// # Panics
    /// When it runs already, or does not listen within 30 s.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let ready = self.ready();
        let _ = std::fs::remove_file(&ready);
        let program = std::env::current_exe().expect("this program has a path");
        let child = Command::new(program)
            .args(["--exact", &self.test, "--ignored", "--nocapture"])
            .env(NAME, &self.name)
            .env(LISTEN, self.addr.to_string())
            .env(READY, &ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this program starts");
        self.child = Some(child);
        self.addr = until(LISTENS_WITHIN, || async { std::fs::read_to_string(&ready).ok()?.parse().ok() }).await;
    }

    fn ready(&self) -> PathBuf {
        self.dir.path().join("address")
    }

    /// What it writes into `x-origin`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://…`, as pools take it.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Kills it, as the kernel does with a process that takes too much memory.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it in the middle of whatever it does: it still takes connections, and says nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// Tells it how to treat requests.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn set_mood(&self, mood: Mood) {
        let told = until(LISTENS_WITHIN, || async {
            let client = Client::plain(self.addr);
            client.try_get(&format!("{TELL}{}", write_mood(mood))).await.ok()
        });
        assert_eq!(told.await.status(), 204);
    }
}

impl Drop for OriginProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write_mood(mood: Mood) -> String {
    match mood {
        Mood::Well => "well".to_owned(),
        Mood::Hang => "hang".to_owned(),
        Mood::Failing(status) => format!("failing-{status}"),
        Mood::Close => "close".to_owned(),
        Mood::Slow(ms) => format!("slow-{ms}"),
        Mood::Reset => "reset".to_owned(),
        Mood::Garbage => "garbage".to_owned(),
        Mood::Truncated => "truncated".to_owned(),
        Mood::TwoLengths => "two-lengths".to_owned(),
    }
}

pub(super) fn read_mood(text: &str) -> Option<Mood> {
    if let Some(status) = text.strip_prefix("failing-") {
        return status.parse().ok().map(Mood::Failing);
    }
    if let Some(ms) = text.strip_prefix("slow-") {
        return ms.parse().ok().map(Mood::Slow);
    }
    let all = [Mood::Well, Mood::Hang, Mood::Close, Mood::Reset, Mood::Garbage, Mood::Truncated, Mood::TwoLengths];
    all.into_iter().find(|mood| write_mood(*mood) == text)
}
