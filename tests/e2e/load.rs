//! Visitors who ask without pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use schoolgate_testkit::{Client, eventually};
use tokio::task::JoinHandle;

use crate::SOON;

/// Visitors at once: 4.
const VISITORS: usize = 4;

/// Asks without pause until told to stop; counts what was not answered with 200.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    bad: Arc<AtomicU64>,
    visitors: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(client: &Client) -> Self {
        let (stop, good, bad) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let visitor = |_| {
            let (client, stop, good, bad) = (client.clone(), Arc::clone(&stop), Arc::clone(&good), Arc::clone(&bad));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let ok = client.try_get("/").await.is_ok_and(|answer| answer.status() == 200);
                    let count: &AtomicU64 = if ok { &good } else { &bad };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let visitors = (0..VISITORS).map(visitor).collect();
        Self { stop, good, bad, visitors }
    }

    /// Waits until so many more were answered well.
    pub(crate) async fn more(&self, more: u64) {
        let target = self.good.load(Ordering::Relaxed) + more;
        eventually(SOON, || async { self.good.load(Ordering::Relaxed) >= target }).await;
    }

    /// Ends it; gives how many were answered well, and how many were not.
    pub(crate) async fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for visitor in self.visitors {
            visitor.await.expect("no panic");
        }
        (self.good.load(Ordering::Relaxed), self.bad.load(Ordering::Relaxed))
    }
}
