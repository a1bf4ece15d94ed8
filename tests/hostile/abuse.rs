//! HTTP/2 clients that cost much and pay little, each for some seconds on several connections at once.
//!
//! Passed: the gateway's memory stays bounded, it is the same process afterwards, and a bystander's requests are all
//! answered. The table says how much and how fast.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schoolgate_testkit::{OriginProcess, Site};
use tokio::time::sleep;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW, PING, PRIORITY, Raw, SETTINGS, WINDOW_UPDATE,
    field, frame, get, post, pseudo, remembered, reset,
};
use crate::watch::{Neighbour, Watch, milliseconds, resident_kib, row};
use crate::{gateway, with_backend};

/// How long each attack goes on.
const TIME: Duration = Duration::from_secs(6);

/// Connections that attack at once.
const CONNECTIONS: usize = 8;

/// Memory that an attack of eight connections may cost: 128 MiB, half of the budget of buffered bytes.
const MOST_KIB: u64 = 128 * 1024;

/// One way to attack: what is said first, and what is said again and again until the other side hangs up.
struct Attack {
    name: &'static str,
    settings: &'static [(u16, u32)],
    first: Vec<u8>,
    /// From the number of the round, which begins at 0.
    again: fn(u32) -> Vec<u8>,
    /// Rounds on one connection.
    rounds: u32,
    /// The connection is held open after its rounds, and nothing is read.
    hold: bool,
}

/// The number of the stream of this round.
fn stream(round: u32) -> u32 {
    2 * round + 1
}

fn attacks() -> Vec<Attack> {
    let plain = |name, first: Vec<u8>, again| Attack { name, settings: &[], first, again, rounds: 20_000, hold: false };
    // A field of 4,000 bytes in the table, then one byte for each copy of it.
    let bomb: Vec<u8> = [pseudo("GET", "/"), remembered("x", &"y".repeat(4_000))].concat();
    let nobody = Attack {
        name: "nobody attacks",
        settings: &[],
        first: Vec::new(),
        again: |_| Vec::new(),
        rounds: 0,
        hold: true,
    };
    vec![
        // What the machine does to a bystander by itself.
        nobody,
        plain("rapid reset", Vec::new(), |n| [get(stream(n), "/delay/100"), reset(stream(n))].concat()),
        plain("MadeYouReset: window update of 0", Vec::new(), |n| {
            [get(stream(n), "/delay/100"), frame(WINDOW_UPDATE, 0, stream(n), &[0; 4])].concat()
        }),
        plain("MadeYouReset: data after the end", Vec::new(), |n| {
            [get(stream(n), "/delay/100"), frame(DATA, 0, stream(n), b"x")].concat()
        }),
        plain("CONTINUATION", frame(HEADERS, END_STREAM, 1, &pseudo("GET", "/")), |n| {
            frame(CONTINUATION, 0, 1, &field(format!("x-{n}"), "y".repeat(16_000)))
        }),
        plain("CONTINUATION, empty", frame(HEADERS, END_STREAM, 1, &pseudo("GET", "/")), |_| {
            frame(CONTINUATION, 0, 1, &[])
        }),
        plain("SETTINGS", Vec::new(), |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        plain("PING", Vec::new(), |_| frame(PING, 0, 0, &[0; 8])),
        plain("PRIORITY", Vec::new(), |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        plain("WINDOW_UPDATE", Vec::new(), |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        plain("empty DATA", post(1, "/"), |_| frame(DATA, 0, 1, &[])),
        plain("unknown frames", Vec::new(), |_| frame(0x42, 0, 0, &[0; 64])),
        plain("HPACK bomb", frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb), |n| {
            // 62 is the newest entry of the table.
            let copies = [pseudo("GET", "/"), vec![0x80 | 62; 4_000]].concat();
            frame(HEADERS, END_HEADERS | END_STREAM, stream(n + 1), &copies)
        }),
        Attack {
            name: "window of 0, 100 large answers",
            settings: &[(INITIAL_WINDOW, 0)],
            first: Vec::new(),
            again: |n| get(stream(n), "/bytes/1000000"),
            rounds: 100,
            hold: true,
        },
        Attack {
            name: "large answers, nothing read",
            settings: &[(INITIAL_WINDOW, 0x7fff_ffff)],
            first: frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes()),
            again: |n| get(stream(n), "/bytes/1000000"),
            rounds: 100,
            hold: true,
        },
        Attack {
            name: "100 uploads that stop",
            settings: &[],
            first: Vec::new(),
            again: |n| [post(stream(n), "/"), frame(DATA, 0, stream(n), &[b'x'; 9_000])].concat(),
            rounds: 100,
            hold: true,
        },
    ]
}

/// Attacks on one connection after another until the time is over; counts connections and frames.
async fn attack(site: &Site, attack: &Attack, until: Instant, connections: &AtomicU64, frames: &AtomicU64) {
    while Instant::now() < until {
        let Ok(mut raw) = Raw::connect(site, attack.settings).await else {
            // Refused: too many handshakes, or connections.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        connections.fetch_add(1, Ordering::Relaxed);
        let mut alive = raw.send(&attack.first).await.is_ok();
        let mut round = 0;
        while alive && round < attack.rounds && Instant::now() < until {
            // Several rounds at once, as one who means it would.
            let end = (round + 50).min(attack.rounds);
            let batch: Vec<u8> = (round..end).flat_map(attack.again).collect();
            frames.fetch_add(u64::from(end - round), Ordering::Relaxed);
            alive = tokio::time::timeout_at(until.into(), raw.send(&batch)).await.is_ok_and(|sent| sent.is_ok());
            round = end;
        }
        if attack.hold && alive {
            sleep(until.saturating_duration_since(Instant::now())).await;
        } else {
            raw.ends_within(Duration::from_millis(500)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and a quiet machine: tests/hostile/run"]
async fn no_flood_of_http_2_costs_a_bystander_its_answers_or_us_our_memory() {
    // In a process of its own: what it takes to make a thousand large answers is not the attacker's time.
    let origin = OriginProcess::start("attacked", "watch::origin_process").await;
    let site = with_backend(gateway(), origin.addr()).await;
    let neighbour = Neighbour::moves_in(&site).await;
    let pid = site.proxy.pid().expect("it runs");
    row(&[
        "HTTP/2",
        "connections",
        "rounds",
        "RSS before",
        "peak",
        "10 s after",
        "bystander p50",
        "p99",
        "longest",
        "without backend p50",
        "p99",
        "failed",
    ]
    .map(str::to_owned));
    row(&["---"; 12].map(str::to_owned));
    let mut wrong = Vec::new();
    for one in attacks() {
        let watch = Watch::begin(&site, &neighbour).await;
        let until = Instant::now() + TIME;
        let (connections, frames) = (AtomicU64::new(0), AtomicU64::new(0));
        let all = (0..CONNECTIONS).map(|_| attack(&site, &one, until, &connections, &frames));
        futures_util::future::join_all(all).await;
        let seen = watch.end().await;
        sleep(Duration::from_secs(10)).await;
        let after = resident_kib(pid);
        let mib = |kib: u64| format!("{} MiB", kib / 1024);
        row(&[
            one.name.to_owned(),
            connections.into_inner().to_string(),
            frames.into_inner().to_string(),
            mib(seen.before_kib),
            mib(seen.peak_kib),
            mib(after),
            milliseconds(seen.served.quantile(0.5)),
            milliseconds(seen.served.quantile(0.99)),
            milliseconds(seen.served.quantile(1.0)),
            milliseconds(seen.own.quantile(0.5)),
            milliseconds(seen.own.quantile(0.99)),
            seen.failed.to_string(),
        ]);
        if seen.failed > 0 {
            wrong.push(format!("{}: {} requests of the bystander failed", one.name, seen.failed));
        }
        if seen.peak_kib > seen.before_kib + MOST_KIB {
            wrong.push(format!("{}: {} more", one.name, mib(seen.peak_kib - seen.before_kib)));
        }
    }
    assert_eq!(site.proxy.pid(), Some(pid), "it was restarted");
    assert!(!site.log().contains("panicked"), "something panicked");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
