//! New connection, full handshake, one request, close: over and over.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{TlsStream, get, tls};
use crate::fleet::host;

/// Settings of the client.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    addr: SocketAddr,
    /// Names asked for in turn, from `s0.load.test` on.
    #[arg(long, default_value_t = 1)]
    names: usize,
    /// Connections at once.
    #[arg(long, default_value_t = 8)]
    threads: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// What it did.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handshakes {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) seconds: f64,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Handshakes> {
    let config = tls::config(&[b"http/1.1"]);
    let (start, next) = (Instant::now(), AtomicUsize::new(0));
    let until = start + Duration::from_secs_f64(options.seconds);
    let (mut done, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads)
            .map(|_| {
                scope.spawn(|| {
                    let (mut done, mut failed) = (0, 0);
                    while Instant::now() < until {
                        let name = host(next.fetch_add(1, Ordering::Relaxed) % options.names);
                        let once = || -> anyhow::Result<bool> {
                            let mut stream = TlsStream::connect(&config, options.addr, &name)?;
                            let good = get(&mut stream, &name)?.status == 200;
                            stream.close()?;
                            Ok(good)
                        };
                        if once().unwrap_or(false) { done += 1 } else { failed += 1 }
                    }
                    (done, failed)
                })
            })
            .collect();
        for thread in threads {
            let (d, f) = thread.join().unwrap_or((0, 1));
            done += d;
            failed += f;
        }
    });
    Ok(Handshakes { done, failed, seconds: start.elapsed().as_secs_f64() })
}
