//! What tenants used travels to the control plane: every few seconds, each piece once. What the fleet used of quotas
//! comes back.
//!
//! [`unsent`] numbers what was gathered; the control plane counts each number once. While it does not answer, all that is
//! unsent is [`kept`] in a file, so that a proxy that is killed loses what it served since it last gathered, and no more.
//! [`quotas`] tells what of a total is this node's own; [`fleet`] keeps the totals for a start without the control plane.

mod fleet;
mod kept;
mod quotas;
mod unsent;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::model::{NodeId, TenantId};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::{Clock, new_ulid};
use schoolgate_config::usage::{QuotaKind, QuotaUse, Usage, UsageFlush};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{FeedError, SnapshotFeed, chain};
use crate::gateway::SharedTable;
use crate::limit::shared::Sharing;
use crate::limit::{self, Reading};
use crate::live::NodeLive;
use crate::observe::{Observe, gather};
use fleet::{FleetFile, FleetState};
use kept::Kept;
use quotas::{Elsewhere, Quotas};
use unsent::{Gathered, Unsent};

/// Time for what is unsent when the proxy stops: 1 s. What is left goes into the file.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// What flushing is given.
pub(crate) struct UsageParts {
    /// Who we are.
    pub(crate) node: NodeId,
    /// The table in service.
    pub(crate) table: SharedTable,
    /// Counts what is lost.
    pub(crate) observe: Arc<Observe>,
    /// Knows how many share the limits.
    pub(crate) sharing: Arc<Sharing>,
    /// Tells the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Time between two flushes.
    pub(crate) every: Duration,
    /// Where what is unsent is kept while nobody answers; what was heard of the fleet is beside it.
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
pub(crate) async fn run(parts: Arc<UsageParts>, feed: Arc<dyn SnapshotFeed>, stop: CancellationToken) {
    let mut flushing = Flushing::load(&parts);
    let mut every = interval(parts.every);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let turn = tokio::select! {
            () = stop.cancelled() => Turn::Last,
            _ = every.tick() => Turn::Periodic,
        };
        flushing.gather();
        let sent = match turn {
            Turn::Last => timeout(LAST_FLUSH, flushing.send(&*feed)).await.unwrap_or(Err(FeedError::Closed)),
            Turn::Periodic => tokio::select! {
                // Sent again, in the time that is left.
                () = stop.cancelled() => continue,
                sent = flushing.send(&*feed) => sent,
            },
        };
        flushing.sent(sent, turn);
        if turn == Turn::Last {
            return;
        }
    }
}

struct Flushing<'a> {
    parts: &'a UsageParts,
    unsent: Unsent,
    kept: Kept,
    quotas: Quotas,
    file: FleetFile,
    /// The control plane has said what was used before this start.
    heard: bool,
    failing: bool,
}

impl<'a> Flushing<'a> {
    /// What a process before left. Until the control plane says more, quotas go on from what that one had heard and had not
    /// handed over.
    fn load(parts: &'a UsageParts) -> Self {
        let (kept, left) = Kept::load(&parts.file);
        let (file, state) = FleetFile::load(&parts.file.with_file_name("fleet.json"));
        let mut quotas = Quotas::default();
        let used = match state {
            Some(FleetState { live_nodes, quotas }) => {
                parts.sharing.live_nodes_are(live_nodes);
                quotas
            }
            // It never got an answer. What it served itself is in the other file.
            None => Vec::new(),
        };
        tell(&parts.table.load(), quotas.heard(&with_unsent(used, &left)));
        let unsent = Unsent::new(parts.node.clone(), new_ulid(), left);
        Self { parts, unsent, kept, quotas, file, heard: false, failing: false }
    }

    fn gather(&mut self) {
        let table = self.parts.table.load_full();
        let usage = gather(&table);
        let quotas = self.quotas_used(&table, &usage);
        self.unsent.add(Gathered { usage, quotas }, self.parts.clock.unix_s());
        let lost = self.unsent.take_lost();
        if lost > 0 {
            self.parts.observe.usage_lost(lost);
        }
        if self.kept.exists() {
            // Before anything is sent: what a flush holds on disk must never be more than what was sent by its number.
            self.keep();
        }
    }

    /// What was used of quotas by tenants that did something. Others have used nothing.
    fn quotas_used(&mut self, table: &RoutingTable<NodeLive>, usage: &[(TenantId, Usage)]) -> Vec<QuotaUse> {
        let active: HashSet<TenantId> = usage.iter().map(|(tenant, _)| *tenant).collect();
        let mut used = Vec::new();
        for entry in table.tenants() {
            let tenant = entry.tenant.id;
            if active.contains(&tenant) || entry.live.counters.in_flight() > 0 {
                for quota in QuotaKind::ALL {
                    let counts =
                        entry.live.limits.readings(counter(quota)).map(|reading| (reading.period, reading.count));
                    used.extend(self.quotas.gather(tenant, quota, counts));
                }
            }
        }
        used
    }

    /// Sends all there is, one flush after the other, and asks once what was used before this start.
    async fn send(&mut self, feed: &dyn SnapshotFeed) -> Result<(), FeedError> {
        while let Some(flush) = self.unsent.front() {
            let taken = feed.usage(flush).await?;
            let own = if self.unsent.is_own() { self.unsent.quotas_in_front() } else { Vec::new() };
            self.unsent.acknowledged();
            tell(&self.parts.table.load(), self.quotas.acknowledged(&own, &taken.quotas));
        }
        if !self.heard && self.parts.table.load().tenant_count() > 0 {
            let mut after = None;
            loop {
                let used = feed.quotas(after.as_ref()).await?;
                let Some(last) = used.last() else { break };
                after = Some(last.clone());
                tell(&self.parts.table.load(), self.quotas.heard(&used));
            }
            self.heard = true;
        }
        Ok(())
    }

    fn sent(&mut self, sent: Result<(), FeedError>, turn: Turn) {
        let begins_to_fail = sent.is_err() && !self.failing;
        match sent {
            Ok(()) => {
                self.kept.clear();
                if std::mem::take(&mut self.failing) {
                    info!("usage reaches the control plane again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!("usage does not reach the control plane and is kept here: {}", chain(&error));
                }
                if !self.kept.exists() {
                    self.keep();
                }
            }
        }
        // Before the control plane was heard, the file of the process before is as good as it gets. While nobody answers
        // it does not change: what is used goes into the other file.
        if self.heard && (begins_to_fail || turn == Turn::Last || (!self.failing && self.file.is_due())) {
            let live_nodes = self.parts.sharing.live_nodes();
            self.file.write(&FleetState { live_nodes, quotas: self.quotas.totals() });
        }
    }

    fn keep(&mut self) {
        if let Err(error) = self.kept.write(self.unsent.flushes()) {
            error!("usage that the control plane has not taken would be lost with this process: {}", chain(&error));
            // What was kept before is under numbers that are about to mean something else.
            self.kept.clear();
        }
    }
}

/// The limiter's counter of a quota.
const fn counter(quota: QuotaKind) -> limit::QuotaKind {
    match quota {
        QuotaKind::RequestsPerDay => limit::QuotaKind::Requests,
        QuotaKind::BytesPerMonth => limit::QuotaKind::Bytes,
    }
}

/// Tells counters what was used elsewhere.
fn tell(table: &RoutingTable<NodeLive>, told: Vec<Elsewhere>) {
    for Elsewhere { tenant, quota, period, used } in told {
        if let Some(entry) = table.tenant(&tenant) {
            entry.live.limits.restore(counter(quota), Reading { period, count: used });
        }
    }
}

/// Adds what was used and not handed over to what the fleet had used.
fn with_unsent(totals: Vec<QuotaUse>, left: &[UsageFlush]) -> Vec<QuotaUse> {
    let mut sums: HashMap<(TenantId, QuotaKind, u16), u64> = HashMap::new();
    for used in totals.iter().chain(left.iter().flat_map(|flush| &flush.quotas)) {
        *sums.entry((used.tenant, used.quota, used.period)).or_default() += used.used;
    }
    sums.into_iter().map(|((tenant, quota, period), used)| QuotaUse { tenant, quota, period, used }).collect()
}
