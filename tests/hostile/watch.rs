//! What a battery watches while it runs: the gateway's memory, and a visitor of another school who has nothing to do with
//! it.
//!
//! The visitor is in a thread of its own and its school's backend in a process of its own, so that what it waits for is the
//! gateway or the machine, and not the attacker's program. It also asks for something that the gateway answers by
//! itself: the difference is the backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use schoolgate_testkit::{Client, Http, OriginProcess, Site, eventually};
use serde_json::json;
use tokio::sync::oneshot;

/// The name of the school next door.
const NEIGHBOUR: &str = "elm.localhost";

/// What the gateway answers without a backend: nobody has this challenge.
const OWN: &str = "/.well-known/acme-challenge/none";

/// Time between two requests of the bystander, and two looks at the memory.
const PACE: Duration = Duration::from_millis(10);

/// The school next door, with its backend.
pub(crate) struct Neighbour {
    _origin: OriginProcess,
}

impl Neighbour {
    pub(crate) async fn moves_in(site: &Site) -> Self {
        let origin = OriginProcess::start("next-door", "watch::origin_process").await;
        let api = site.api();
        let pool = json!({"id": "next-door", "kind": "shared", "backends": [{"address": origin.url()}]});
        api.post("pools", pool).await.expect(201);
        let school = json!({"slug": "elm", "name": "Elm school", "plan": "custom", "pool": "next-door"});
        api.post("tenants?wait=applied", school).await.expect(201);
        eventually(Duration::from_secs(20), || async { site.tls(NEIGHBOUR).await.is_ok() }).await;
        Self { _origin: origin }
    }
}

#[tokio::test]
#[ignore = "the body of the processes that batteries start"]
async fn origin_process() {
    OriginProcess::body().await;
}

/// How long requests of one kind took.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    /// What this share of them stayed below.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
        let place = (sorted.len() as f64 * share) as usize;
        sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// What was seen while an attack ran.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) before_kib: u64,
    pub(crate) peak_kib: u64,
    /// Of requests that went to the backend.
    pub(crate) served: Latencies,
    /// Of requests that the gateway answered by itself.
    pub(crate) own: Latencies,
    /// Requests of the bystander that were not answered as they should be.
    pub(crate) failed: usize,
}

/// Watches until it is asked what it saw.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    /// Begins: the bystander has had its first answer.
    pub(crate) async fn begin(site: &Site, _: &Neighbour) -> Self {
        let pid = site.proxy.pid().expect("the gateway runs");
        let client = site.client_with(NEIGHBOUR, Http::Two);
        let stop = Arc::<AtomicBool>::default();
        let (ready, begun) = oneshot::channel();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(watch(&client, pid, &stop, ready))
            }
        });
        begun.await.expect("the bystander is served before the attack");
        Self { stop, thread }
    }

    pub(crate) async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = tokio::task::spawn_blocking(|| self.thread.join().expect("the bystander goes on"));
        seen.await.expect("it is waited for")
    }
}

async fn watch(client: &Client, pid: u32, stop: &AtomicBool, ready: oneshot::Sender<()>) -> Seen {
    client.get("/").await;
    let before_kib = resident_kib(pid);
    let _ = ready.send(());
    let memory = async {
        let mut peak = before_kib;
        while !stop.load(Ordering::Relaxed) {
            peak = peak.max(resident_kib(pid));
            tokio::time::sleep(PACE).await;
        }
        peak
    };
    let asking = async {
        let (mut served, mut own, mut failed) = (Latencies::default(), Latencies::default(), 0);
        while !stop.load(Ordering::Relaxed) {
            for (path, expected, latencies) in [("/", 200, &mut served), (OWN, 404, &mut own)] {
                let begin = Instant::now();
                let answer = client.try_get(path).await;
                latencies.0.push(begin.elapsed());
                failed += usize::from(!answer.is_ok_and(|answer| answer.status() == expected));
            }
            tokio::time::sleep(PACE).await;
        }
        (served, own, failed)
    };
    let (peak_kib, (served, own, failed)) = tokio::join!(memory, asking);
    Seen { before_kib, peak_kib, served, own, failed }
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the gateway runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of kB")
}

/// A line of a table in Markdown, on standard output, where `tests/hostile/run` takes it from.
#[expect(clippy::print_stdout, reason = "the result of a battery")]
pub(crate) fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}
