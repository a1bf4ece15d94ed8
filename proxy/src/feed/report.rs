//! What a node says of itself: to the control plane, and to whoever looks at its status.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use schoolgate_config::feed::{BackendReport, CanaryReport, NodeReport, RefusedRevision, ReportTaken};
use schoolgate_config::model::{NodeId, Revision};
use schoolgate_config::seal::Keeper;
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::rfc3339;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Signing, SnapshotFeed};
use crate::balance::changes::BackendChanges;
use crate::limit::shared::Sharing;
use crate::observe::{Counted, Observe};
use crate::tls::Keyring;

/// Time between two reports when nothing happens: 5 s. The control plane takes a node for live that reported within a
/// few of these.
const PERIOD: Duration = Duration::from_secs(5);
/// Time between two reports while a tenant has a canary: 500 ms. Whether more may follow is decided by them, and what
/// goes wrong meanwhile goes wrong for visitors.
const WATCHED_PERIOD: Duration = Duration::from_millis(500);
/// Notices that are kept, the latest: 20.
const NOTICES: usize = 20;
/// Backends in one report: 2,000, about 300 KB.
const BACKENDS: usize = 2_000;

/// How following the feed goes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Following {
    /// Whether the last question to the feed was answered.
    pub connected: bool,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When that began, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The latest revision the feed offered.
    pub offered: Revision,
}

#[derive(Debug, Default)]
struct Said {
    refused: Option<RefusedRevision>,
    notices: VecDeque<String>,
    following: Following,
}

/// What adoption has to say, kept until it is asked for.
#[derive(Debug)]
pub struct Standing {
    said: Mutex<Said>,
    /// Moves when there is something new to report.
    news: watch::Sender<u64>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { said: Mutex::default(), news: watch::Sender::new(0) }
    }
}

impl Standing {
    fn change(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// A revision was adopted: nothing is refused any more.
    pub(super) fn adopted(&self) {
        self.change(|said| said.refused = None);
    }

    /// A revision was refused.
    pub(super) fn refused(&self, revision: Revision, reason: String) {
        self.change(|said| said.refused = Some(RefusedRevision { revision, reason }));
    }

    /// Something an operator should know. Said once, however often it happens.
    pub(super) fn notice(&self, notice: String) {
        self.change(|said| {
            if !said.notices.contains(&notice) {
                if said.notices.len() == NOTICES {
                    said.notices.pop_front();
                }
                said.notices.push_back(notice);
            }
        });
    }

    /// The feed answered, offering up to `revision`.
    pub(super) fn answered(&self, revision: Option<Revision>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let offered = revision.unwrap_or(Revision::NONE).max(said.following.offered);
        said.following = Following { connected: true, error: None, since: None, offered };
    }

    /// The feed did not answer. True if that is new.
    pub(super) fn unanswered(&self, error: String, now_ms: i64) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let following = &mut said.following;
        let new = following.error.is_none();
        if new {
            following.since = Some(rfc3339(now_ms));
        }
        following.connected = false;
        following.error = Some(error);
        new
    }

    /// How following the feed goes.
    pub fn following(&self) -> Following {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).following.clone()
    }
}

/// Everything that a report is made of.
pub struct NodeView<L: Counted> {
    /// Who we are.
    pub node: NodeId,
    /// When this process began to serve, milliseconds since 1970.
    pub started_at_ms: i64,
    /// The table in service.
    pub table: Arc<ArcSwap<RoutingTable<L>>>,
    /// Certificates in service.
    pub keyring: Arc<Keyring>,
    /// The context key in service.
    pub signing: Signing,
    /// Opens sealed keys.
    pub keeper: Arc<Keeper>,
    /// Counters.
    pub observe: Arc<Observe>,
    /// What adoption says.
    pub standing: Arc<Standing>,
    /// How limits are shared.
    pub sharing: Arc<Sharing>,
    /// What became of backends.
    pub changes: Arc<BackendChanges>,
}

impl<L: Counted> NodeView<L> {
    /// How the node is now.
    pub fn report(&self) -> NodeReport {
        let table = self.table.load_full();
        let (refused, notices) = {
            let said = self.standing.said.lock().unwrap_or_else(PoisonError::into_inner);
            (said.refused.clone(), said.notices.iter().cloned().collect())
        };
        let backends = table
            .pools()
            .flat_map(|entry| {
                let pool = entry.pool.id.to_string();
                L::backends(&entry.pool, &entry.live).into_iter().map(move |backend| BackendReport {
                    pool: pool.clone(),
                    backend: backend.id.to_string(),
                    address: backend.address.to_string(),
                    state: backend.state.as_str().to_owned(),
                    checked: backend.checked,
                    in_flight: backend.in_flight,
                    reason: backend.reason,
                })
            })
            .take(BACKENDS)
            .collect();
        NodeReport {
            node: self.node.clone(),
            serving: table.revision(),
            refused,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_ms: self.started_at_ms,
            certificates: self.keyring.len() as u64,
            connections: self.observe.connections(),
            requests_in_flight: self.observe.in_flight(),
            sealing_keys: self.keeper.ids(),
            context_key: self.signing.load().as_ref().map(|key| key.id.clone()),
            backends,
            canaries: self.canaries(&table),
            notices,
            unknown_hosts: self.observe.unknown_hosts(),
            missing_keys: self.observe.missing_keys(),
            cross_tenant_attempts: self.observe.reported_attempts(),
            quota_events: self.observe.quota_events(),
            limits: Some(self.sharing.report()),
            backend_changes: self.changes.latest(),
        }
    }
}

impl<L: Counted> NodeView<L> {
    fn canaries(&self, table: &RoutingTable<L>) -> Vec<CanaryReport> {
        let all = table.tenants_with_canary().filter_map(|entry| L::canary(&entry.tenant, &entry.live));
        all.take(CanaryReport::MOST).collect()
    }

    /// Whether somebody waits for what becomes of a canary.
    fn is_watched(&self) -> bool {
        self.table.load().tenants_with_canary().next().is_some()
    }
}

/// Reports after every adoption and every few seconds, until told to stop.
pub async fn run<L: Counted>(view: Arc<NodeView<L>>, feed: Arc<dyn SnapshotFeed>, stop: CancellationToken) {
    let mut news = view.standing.news.subscribe();
    let mut changes = view.changes.subscribe();
    let mut period = interval(WATCHED_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    let mut last = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = period.tick() => {
                let is_due = last.is_none_or(|at: Instant| at.elapsed() >= PERIOD);
                if !is_due && !view.is_watched() {
                    continue;
                }
            }
            changed = news.changed() => if changed.is_err() { return },
            changed = changes.changed() => if changed.is_err() { return },
        }
        news.mark_unchanged();
        last = Some(Instant::now());
        changes.mark_unchanged();
        // So that a key that a rotation brings is known, and reported, before anything is sealed under it. A file that
        // cannot be read now leaves the keys as they are.
        if let Err(error) = view.keeper.refresh() {
            warn!("the key file was not read again: {}", super::chain(&error));
        }
        // Made after the mark, so that what happens from here on is reported again.
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = feed.report(view.report()) => result,
        };
        match result {
            Ok(ReportTaken { live_nodes }) => {
                if let Some(nodes) = live_nodes {
                    view.sharing.live_nodes_are(nodes);
                }
                if failing {
                    failing = false;
                    info!("reports reach the control plane again");
                }
            }
            Err(error) if !failing => {
                failing = true;
                warn!("reports do not reach the control plane: {}", super::chain(&error));
            }
            Err(_) => {}
        }
    }
}
