//! Clients that are slow on purpose, some hundred at once: each is cut when its time is over, and a bystander is served
//! all the while.

use std::time::{Duration, Instant};

use schoolgate_testkit::{OriginProcess, Site, TlsConn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::watch::{Neighbour, Watch, milliseconds, row};
use crate::{HOST, gateway, with_backend};

/// Slow clients at once: below what one address may have.
const CLIENTS: usize = 200;

/// The time that the settings below give a client.
const PATIENCE: Duration = Duration::from_secs(4);

/// How much later than that it may be cut.
const GRACE: Duration = Duration::from_secs(6);

const SETTINGS: &str = "[proxy.limits]\nhead_s = 4\nbody_stall_s = 4\nbody_rate_after_s = 4\nwrite_stall_s = 4\n\
                        handshakes_burst = 1000\n";

/// Clients at once that do not read: when they were cut, they decrypt the megabytes that their sockets took, in this
/// process.
const UNREADING: usize = 20;

/// A way to be slow: what is said at once, and a byte that is said now and then.
#[derive(Clone, Copy)]
struct Slow {
    name: &'static str,
    first: &'static str,
    drip: Option<&'static str>,
    /// Whether it reads what it is told.
    reads: bool,
}

impl Slow {
    const fn clients(&self) -> usize {
        if self.reads { CLIENTS } else { UNREADING }
    }
}

const WAYS: [Slow; 5] = [
    Slow { name: "slowloris: a field a second", first: "GET / HTTP/1.1\r\n", drip: Some("X: y\r\n"), reads: true },
    Slow { name: "a head that stops", first: "GET / HTTP/1.1\r\nHost: ash", drip: None, reads: true },
    Slow {
        name: "a body that stops",
        first: "POST / HTTP/1.1\r\nHost: ash.localhost\r\nContent-Length: 1000\r\n\r\nhello",
        drip: None,
        reads: true,
    },
    Slow {
        name: "a body that drips",
        first: "POST / HTTP/1.1\r\nHost: ash.localhost\r\nContent-Length: 100000\r\n\r\n",
        drip: Some("x"),
        reads: true,
    },
    Slow {
        name: "an answer that nobody reads",
        first: "GET /bytes/20000000 HTTP/1.1\r\nHost: ash.localhost\r\n\r\n",
        drip: None,
        reads: false,
    },
];

/// How long it lasted until it was cut; `None` when it never was.
async fn endured(site: &Site, way: Slow) -> Option<Duration> {
    let tls = TlsConn::connect(site.https(), HOST, &["http/1.1"], &site.ca()).await.ok()?;
    let (mut read, mut write) = tokio::io::split(tls.into_parts().0);
    let begin = Instant::now();
    write.write_all(way.first.as_bytes()).await.ok()?;
    write.flush().await.ok()?;
    let dripping = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            let Some(drip) = way.drip else { continue };
            if write.write_all(drip.as_bytes()).await.is_err() || write.flush().await.is_err() {
                return;
            }
        }
    };
    let reading = async {
        if way.reads {
            let mut sink = [0; 4_096];
            while matches!(read.read(&mut sink).await, Ok(1..)) {}
        } else {
            // What was sent before the end is in the way of seeing it: look after the time only.
            sleep(PATIENCE + GRACE - Duration::from_secs(1)).await;
            let mut sink = vec![0; 1 << 20];
            while matches!(read.read(&mut sink).await, Ok(1..)) {}
        }
    };
    let cut = async {
        tokio::select! { () = dripping => {}, () = reading => {} }
    };
    timeout(PATIENCE + GRACE + Duration::from_secs(5), cut).await.ok().map(|()| begin.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and a quiet machine: tests/hostile/run"]
async fn who_is_slow_is_cut_and_a_bystander_is_served_meanwhile() {
    let origin = OriginProcess::start("attacked", "watch::origin_process").await;
    let site = with_backend(gateway().settings(SETTINGS), origin.addr()).await;
    let neighbour = Neighbour::moves_in(&site).await;
    row(&[
        "slow clients",
        "at once",
        "cut",
        "after",
        "RSS before",
        "peak",
        "bystander p50",
        "p99",
        "without backend p50",
        "p99",
        "failed",
    ]
    .map(str::to_owned));
    row(&["---"; 11].map(str::to_owned));
    let mut wrong = Vec::new();
    for way in WAYS {
        let watch = Watch::begin(&site, &neighbour).await;
        let clients = way.clients();
        let all = futures_util::future::join_all((0..clients).map(|_| endured(&site, way))).await;
        let seen = watch.end().await;
        let cut: Vec<Duration> = all.into_iter().flatten().collect();
        let longest = cut.iter().max().copied().unwrap_or_default();
        row(&[
            way.name.to_owned(),
            clients.to_string(),
            cut.len().to_string(),
            format!("≤ {:.1} s", longest.as_secs_f64()),
            format!("{} MiB", seen.before_kib / 1024),
            format!("{} MiB", seen.peak_kib / 1024),
            milliseconds(seen.served.quantile(0.5)),
            milliseconds(seen.served.quantile(0.99)),
            milliseconds(seen.own.quantile(0.5)),
            milliseconds(seen.own.quantile(0.99)),
            seen.failed.to_string(),
        ]);
        if cut.len() < clients || longest > PATIENCE + GRACE {
            wrong.push(format!("{}: {} of {clients} were cut, the last after {longest:?}", way.name, cut.len()));
        }
        if seen.failed > 0 {
            wrong.push(format!("{}: {} requests of the bystander failed", way.name, seen.failed));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
