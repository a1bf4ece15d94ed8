//! What tenants used travels to the control plane: every few seconds, each piece once.
//!
//! [`unsent`] numbers what was gathered; the control plane counts each number once. While it does not answer, all that is
//! unsent is [`kept`] in a file, so that a proxy that is killed loses what it served since it last gathered, and no more.

mod kept;
mod unsent;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use schoolgate_config::model::NodeId;
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::{Clock, new_ulid};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{FeedError, SnapshotFeed, chain};
use crate::observe::{Counted, Observe, gather};
use kept::Kept;
use unsent::{Gathered, Unsent};

/// Time for what is unsent when the proxy stops: 1 s. What is left goes into the file.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// What flushing is given.
pub(crate) struct UsageParts<L: Counted> {
    /// Who we are.
    pub(crate) node: NodeId,
    /// The table in service.
    pub(crate) table: Arc<ArcSwap<RoutingTable<L>>>,
    /// Counts what is lost.
    pub(crate) observe: Arc<Observe>,
    /// Tells the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Time between two flushes.
    pub(crate) every: Duration,
    /// Where what is unsent is kept while nobody answers.
    pub(crate) file: PathBuf,
}

/// Whether there will be another flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There will.
    Periodic,
    /// The proxy stops.
    Last,
}

/// Flushes until told to stop, and once more then.
pub(crate) async fn run<L: Counted>(parts: Arc<UsageParts<L>>, feed: Arc<dyn SnapshotFeed>, stop: CancellationToken) {
    let (mut kept, left) = Kept::load(&parts.file);
    let mut unsent = Unsent::new(parts.node.clone(), new_ulid(), left);
    let mut every = interval(parts.every);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        let turn = tokio::select! {
            () = stop.cancelled() => Turn::Last,
            _ = every.tick() => Turn::Periodic,
        };
        let gathered = Gathered { usage: gather(&parts.table.load_full()), quotas: Vec::new() };
        unsent.add(gathered, parts.clock.unix_s());
        let lost = unsent.take_lost();
        if lost > 0 {
            parts.observe.usage_lost(lost);
        }
        if kept.exists() {
            // Before anything is sent: what a flush holds on disk must never be more than what was sent by its number.
            keep(&mut kept, &unsent);
        }
        let sent = match turn {
            Turn::Last => timeout(LAST_FLUSH, send(&mut unsent, &*feed)).await.unwrap_or(Err(FeedError::Closed)),
            Turn::Periodic => tokio::select! {
                // Sent again, in the time that is left.
                () = stop.cancelled() => continue,
                sent = send(&mut unsent, &*feed) => sent,
            },
        };
        match sent {
            Ok(()) => {
                kept.clear();
                if failing {
                    failing = false;
                    info!("usage reaches the control plane again");
                }
            }
            Err(error) => {
                if !failing {
                    failing = true;
                    warn!("usage does not reach the control plane and is kept here: {}", chain(&error));
                }
                if !kept.exists() {
                    keep(&mut kept, &unsent);
                }
            }
        }
        if turn == Turn::Last {
            return;
        }
    }
}

/// Sends all there is, one flush after the other.
async fn send(unsent: &mut Unsent, feed: &dyn SnapshotFeed) -> Result<(), FeedError> {
    while let Some(flush) = unsent.front() {
        feed.usage(flush).await?;
        unsent.acknowledged();
    }
    Ok(())
}

fn keep(kept: &mut Kept, unsent: &Unsent) {
    if let Err(error) = kept.write(unsent.flushes()) {
        error!("usage that the control plane has not taken would be lost with this process: {}", chain(&error));
        // What was kept before is under numbers that are about to mean something else.
        kept.clear();
    }
}
