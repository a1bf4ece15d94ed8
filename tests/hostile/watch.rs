//! What a battery watches while it runs: the gateway's memory, and a visitor who has nothing to do with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schoolgate_testkit::{Http, Site};
use tokio::task::JoinHandle;

use crate::HOST;

/// Time between two requests of the bystander, and two looks at the memory.
const PACE: Duration = Duration::from_millis(10);

/// What was seen while an attack ran.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) before_kib: u64,
    pub(crate) peak_kib: u64,
    latencies: Vec<Duration>,
    /// Requests of the bystander that were not answered 200.
    pub(crate) failed: usize,
}

impl Seen {
    /// The latency that this share of the bystander's requests stayed below.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
        let place = (sorted.len() as f64 * share) as usize;
        sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Watches until it is asked what it saw.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    peak_kib: Arc<AtomicU64>,
    before_kib: u64,
    bystander: JoinHandle<(Vec<Duration>, usize)>,
    memory: JoinHandle<()>,
}

impl Watch {
    pub(crate) async fn begin(site: &Site) -> Self {
        let pid = site.proxy.pid().expect("the gateway runs");
        let before_kib = resident_kib(pid);
        let stop = Arc::<AtomicBool>::default();
        let peak_kib = Arc::new(AtomicU64::new(before_kib));
        let memory = tokio::spawn({
            let (stop, peak_kib) = (stop.clone(), peak_kib.clone());
            async move {
                while !stop.load(Ordering::Relaxed) {
                    peak_kib.fetch_max(resident_kib(pid), Ordering::Relaxed);
                    tokio::time::sleep(PACE).await;
                }
            }
        });
        let client = site.client_with(HOST, Http::Two);
        client.get("/").await;
        let bystander = tokio::spawn({
            let stop = stop.clone();
            async move {
                let (mut latencies, mut failed) = (Vec::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let answer = client.try_get("/").await;
                    latencies.push(begin.elapsed());
                    failed += usize::from(!answer.is_ok_and(|answer| answer.status() == 200));
                    tokio::time::sleep(PACE).await;
                }
                (latencies, failed)
            }
        });
        Self { stop, peak_kib, before_kib, bystander, memory }
    }

    pub(crate) async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let (latencies, failed) = self.bystander.await.expect("the bystander goes on");
        self.memory.await.expect("the memory is watched");
        Seen { before_kib: self.before_kib, peak_kib: self.peak_kib.load(Ordering::Relaxed), latencies, failed }
    }
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
    format!("{:.1}", time.as_secs_f64() * 1_000.0)
}
