//! Schoolgate: one worker, identity headers, limits and metrics on, no access log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use schoolgate_config::model::Pool;
use serde::Deserialize;

use super::Server;
use crate::feed;
use crate::fleet::{Fleets, Size, pool};
use crate::process::Running;

/// The addresses a process really bound.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) https: Option<SocketAddr>,
    pub(crate) control: Option<SocketAddr>,
}

/// How Schoolgate is started.
pub(crate) struct Schoolgate<'a> {
    pub(crate) program: &'a Path,
    pub(crate) fleets: &'a Fleets,
    pub(crate) dir: PathBuf,
}

impl Schoolgate<'_> {
    /// A data plane with a fleet of this size, which it gets from a feed as it does from a control plane.
    pub(crate) fn start(&self, name: &str, cpu: usize, size: Size, origin: SocketAddr) -> anyhow::Result<Server> {
        self.start_on(name, cpu, size, pool(origin)?)
    }

    /// The same, whose tenants are on this pool.
    pub(crate) fn start_on(&self, name: &str, cpu: usize, size: Size, pool: Pool) -> anyhow::Result<Server> {
        let feed = feed::serve(self.fleets.snapshot(size, pool)?)?;
        let server = self.start_with_feed(name, cpu, feed)?;
        Server { names: size.domains, ..server }.until_it_serves()
    }

    /// A data plane that looks for its control plane at this address.
    pub(crate) fn start_with_feed(&self, name: &str, cpu: usize, feed: SocketAddr) -> anyhow::Result<Server> {
        let data = self.data(name);
        std::fs::create_dir_all(&data)?;
        let token = data.join("node.token");
        if !token.exists() {
            std::fs::write(&token, "load\n")?;
        }
        self.start_proxy(name, cpu, &[format!("http://{feed}")], &token, &self.fleets.key_file())
    }

    /// A data plane with everything given.
    pub(crate) fn start_proxy(
        &self,
        name: &str,
        cpu: usize,
        control: &[String],
        node_token: &Path,
        key_file: &Path,
    ) -> anyhow::Result<Server> {
        let data = self.data(name);
        let settings = self.settings(name, control, node_token, key_file)?;
        let mut args = flags("proxy", &settings, &data);
        for flag in ["--http", "--https", "--status"] {
            args.extend([flag.to_owned(), "127.0.0.1:0".to_owned()]);
        }
        let (process, addresses) = self.start_process(name, cpu, &data, &args)?;
        let https = addresses.https.context("no address for HTTPS")?;
        Ok(Server { name: name.to_owned(), https, process, names: 1 })
    }

    /// A control plane of its own.
    pub(crate) fn start_control(&self, name: &str, cpu: usize) -> anyhow::Result<(Running, SocketAddr)> {
        let data = self.data(name);
        std::fs::create_dir_all(&data)?;
        let settings = self.dir.join(format!("{name}.toml"));
        std::fs::write(&settings, "[platform]\nassume_owned = [\"test\"]\n")?;
        let mut args = flags("control", &settings, &data);
        args.extend(["--control".to_owned(), "127.0.0.1:0".to_owned()]);
        let (process, addresses) = self.start_process(name, cpu, &data, &args)?;
        Ok((process, addresses.control.context("no address for the control API")?))
    }

    /// The data directory of the server of this name.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn settings(&self, name: &str, control: &[String], token: &Path, key_file: &Path) -> anyhow::Result<PathBuf> {
        let file = self.dir.join(format!("{name}.toml"));
        // The limits are those that the peers are given too: a connection lives as long as the run, and all clients
        // have one address, which also asks for a name before its certificate is there.
        let settings = format!(
            "[proxy]
workers = 1
node = \"load\"
control = {control:?}
node_token_file = {token:?}
[proxy.limits]
idle_s = 3600
requests_h1 = 4000000000
requests_h2 = 4000000000
connections_per_address = 1000000
failing_handshakes_per_address_s = 100000
failing_handshakes_burst = 100000
[keys]
file = {key_file:?}
[telemetry]
access_log = \"off\"
log = \"warn\"
"
        );
        std::fs::write(&file, settings)?;
        Ok(file)
    }

    fn start_process(
        &self,
        name: &str,
        cpu: usize,
        data: &Path,
        args: &[String],
    ) -> anyhow::Result<(Running, Addresses)> {
        let ready = data.join("run/addresses.json");
        let _ = std::fs::remove_file(&ready);
        let mut process = Running::start(name, cpu, &self.dir, self.program, args)?;
        let start = Instant::now();
        loop {
            if let Ok(text) = std::fs::read(&ready)
                && let Ok(addresses) = serde_json::from_slice(&text)
            {
                return Ok((process, addresses));
            }
            process.check()?;
            if start.elapsed() > Duration::from_secs(120) {
                bail!("{name} is not ready after two minutes");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn flags(command: &str, settings: &Path, data: &Path) -> Vec<String> {
    let (settings, data) = (settings.display().to_string(), data.display().to_string());
    [command, "--config", &settings, "--data-dir", &data].map(str::to_owned).to_vec()
}
