//! A Redis server of a test's own: with a password, on a free port, in memory only.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Authority, ReservedPort};

/// Time a server has to answer.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A Redis server. Killed when dropped.
#[derive(Debug)]
pub struct Redis {
    port: ReservedPort,
    password: String,
    settings: String,
    /// Where it speaks TLS.
    tls: Option<ReservedPort>,
    child: Option<Child>,
    dir: TempDir,
}

impl Redis {
    /// Starts a server.
    ///
    /// # Panics
    /// When there is no `redis-server` (Debian package of that name; `tests/run` installs it), or it does not answer.
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// Starts a server with more lines of settings, such as `maxmemory 1mb`.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn with(settings: &str) -> Self {
        let mut redis = Self::prepare(settings);
        redis.restart().await;
        redis
    }

    /// Starts a server that speaks TLS too, with a certificate of this authority for its address.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn with_tls(authority: &Authority) -> Self {
        let port = ReservedPort::new();
        let mut redis = Self::prepare("");
        let identity = authority.identity(&["127.0.0.1"]);
        for (name, pem) in
            [("tls.crt", &*identity.certificate), ("tls.key", &identity.key), ("ca.crt", authority.pem())]
        {
            std::fs::write(redis.dir.path().join(name), pem).expect("written");
        }
        redis.settings = format!(
            "tls-port {}\ntls-cert-file tls.crt\ntls-key-file tls.key\ntls-ca-cert-file ca.crt\ntls-auth-clients no",
            port.addr().port()
        );
        redis.tls = Some(port);
        redis.restart().await;
        redis
    }

    fn prepare(settings: &str) -> Self {
        let port = ReservedPort::new();
        let dir = TempDir::with_prefix("redis-").expect("a temporary directory");
        let password = format!("secret-{}", port.addr().port());
        std::fs::write(dir.path().join("password"), format!("{password}\n")).expect("written");
        Self { port, password, settings: settings.to_owned(), tls: None, child: None, dir }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Its address as settings have it, without the password.
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.addr())
    }

    /// Its address with TLS.
    ///
    /// # Panics
    /// When it speaks none.
    pub fn tls_url(&self) -> String {
        let port = self.tls.as_ref().expect("a server started with a certificate");
        format!("rediss://{port}/0")
    }

    /// The file of its password.
    pub fn password_file(&self) -> PathBuf {
        self.dir.path().join("password")
    }

    /// Starts it, empty, where it was.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn restart(&mut self) {
        self.kill();
        let mut child = Command::new("redis-server")
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir(self.dir.path())
            .spawn()
            .unwrap_or_else(|e| panic!("redis-server does not start ({e}): install the Debian package redis-server"));
        let settings = format!(
            "bind 127.0.0.1\nport {}\nrequirepass {}\nsave \"\"\nappendonly no\n{}\n",
            self.port.addr().port(),
            self.password,
            self.settings
        );
        // By its input: a password has no place on a command line.
        child.stdin.take().expect("piped").write_all(settings.as_bytes()).expect("it reads its settings");
        self.child = Some(child);
        let begun = Instant::now();
        while self.cli(&["PING"]) != "PONG" {
            assert!(begun.elapsed() < READY_WITHIN, "redis-server does not answer on {}", self.addr());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a command with `redis-cli` and gives the answer.
    ///
    /// # Panics
    /// When there is no `redis-cli`.
    pub fn cli(&self, command: &[&str]) -> String {
        let port = self.port.addr().port().to_string();
        let answer = Command::new("redis-cli")
            .env("REDISCLI_AUTH", &self.password)
            .args(["-h", "127.0.0.1", "-p", &port])
            .args(command)
            .output()
            .unwrap_or_else(|e| panic!("redis-cli does not start ({e}): install the Debian package redis-server"));
        String::from_utf8_lossy(&answer.stdout).trim().to_owned()
    }

    /// It stands still: connections stay open, and nothing is answered until [`Self::resume`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it at once: what it held is lost.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_keeps_what_it_is_told_until_it_is_killed() {
        let mut redis = Redis::start().await;
        assert_eq!(redis.cli(&["SET", "a", "1"]), "OK");
        assert_eq!(redis.cli(&["GET", "a"]), "1");
        redis.restart().await;
        assert_eq!(redis.cli(&["GET", "a"]), "");
    }
}
