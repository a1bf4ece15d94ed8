//! HAProxy: one thread, upstream keep-alive, no log.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;

use super::{Server, free_port};
use crate::fleet::Leaf;
use crate::process::Running;

/// Starts HAProxy on one core.
pub(crate) fn start(dir: &Path, cpu: usize, leaf: &Leaf, origin: SocketAddr) -> anyhow::Result<Server> {
    let dir = dir.join("haproxy");
    std::fs::create_dir_all(&dir)?;
    let pem = dir.join("all.pem");
    std::fs::write(&pem, format!("{}{}", leaf.chain_pem, leaf.key_pem))?;
    let https = free_port()?;
    let config = format!(
        "global
    nbthread 1
    maxconn 8000
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
    http-reuse safe
frontend https
    bind {https} ssl crt {} alpn h2,http/1.1 backlog 4096
    default_backend origin
backend origin
    server origin {origin} pool-max-conn 512 pool-purge-delay 1h
",
        pem.display()
    );
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, config)?;
    let args = ["-db", "-f", &file.display().to_string()].map(str::to_owned);
    let process = Running::start("haproxy", cpu, &dir, "haproxy", &args).context("haproxy")?;
    Server { name: "haproxy".to_owned(), https, process, names: usize::MAX }.until_it_serves()
}
