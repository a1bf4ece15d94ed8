//! The proxies that are measured.

mod haproxy;
mod nginx;
mod schoolgate;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::bail;

pub(crate) use schoolgate::Schoolgate;

use crate::client;
use crate::process::Running;

/// A running proxy.
pub(crate) struct Server {
    /// The column of the table.
    pub(crate) name: String,
    pub(crate) https: SocketAddr,
    pub(crate) process: Running,
    /// It answers for `fleet::host(0)` to `fleet::host(names - 1)`.
    pub(crate) names: usize,
}

pub(crate) use haproxy::start as haproxy;
pub(crate) use nginx::start as nginx;

impl Server {
    /// Waits until it forwards a request.
    fn until_it_serves(mut self) -> anyhow::Result<Self> {
        let start = Instant::now();
        loop {
            self.process.check()?;
            match client::get_once(self.https, &crate::fleet::host(0)) {
                Ok(200) => return Ok(self),
                last if start.elapsed() > Duration::from_secs(60) => {
                    bail!("{} does not serve: {last:?}", self.name)
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// A port that is free at the moment, for programs that cannot say which one they took.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
