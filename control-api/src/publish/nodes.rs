//! What is known of the proxies: when each was last heard of, and what it said.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use utoipa::ToSchema;

use schoolgate_config::feed::NodeReport;
use schoolgate_config::model::{NodeId, Revision};
use schoolgate_config::time::Clock;
use schoolgate_store::NodeRecord;

use super::news::{Heard, News};

/// Time after which a proxy that neither polls nor reports no longer counts: 10 s, two of its reports.
const LIVE_FOR: Duration = Duration::from_secs(10);

/// Age up to which a proxy that the store remembers is expected back when this process starts: 1 h. It goes on serving
/// while there is no control plane, so it counts as live for [`LIVE_FOR`]; without that, a change made in the first moments
/// would be "applied" with nobody having heard of it.
const EXPECTED_FOR_MS: i64 = 3_600_000;

/// Proxies remembered: 4096. A fleet has tens; more are names that change with every start, and the oldest are forgotten.
const REMEMBERED: usize = 4_096;

/// Time between two snapshots for a proxy that is ahead of the store: 5 s. It may refuse them, and ask again at once.
const AHEAD_EVERY: Duration = Duration::from_secs(5);

/// A proxy as this control process knows it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct NodeStatus {
    /// Who.
    pub node: NodeId,
    /// Whether it polls or reported within the last ten seconds.
    pub live: bool,
    /// When it last polled or reported, milliseconds since 1970.
    pub seen_at_ms: i64,
    /// What it last said.
    pub report: Option<NodeReport>,
    /// What the control plane has to say of it.
    pub notices: Vec<String>,
}

/// A live proxy that does not serve a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LaggingNode {
    /// Who.
    pub node: NodeId,
    /// What it serves; `null` when it has not said yet.
    pub serving: Option<Revision>,
    /// Why it refused the revision, or a later one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

#[derive(Debug, Default)]
struct Node {
    /// `None` for one that is known from the store only.
    seen: Option<Instant>,
    /// Until when one that is known from the store only counts as live.
    expected_until: Option<Instant>,
    seen_at_ms: i64,
    /// Long polls it has open.
    polls: u32,
    report: Option<NodeReport>,
    ahead: Option<String>,
    ahead_answered: Option<Instant>,
    /// How often it was heard of.
    heard: u64,
    /// What `heard` was when the store last had it.
    saved: u64,
}

impl Node {
    fn is_live(&self, now: Instant) -> bool {
        self.polls > 0
            || self.seen.is_some_and(|seen| now.duration_since(seen) < LIVE_FOR)
            || self.expected_until.is_some_and(|until| now < until)
    }
}

/// What is known of the proxies.
pub(super) struct Nodes {
    nodes: Mutex<HashMap<NodeId, Node>>,
    /// Counts reports.
    reported: watch::Sender<u64>,
    /// A proxy was heard of for the first time: to be saved at once, so that it is expected after a crash.
    pub(super) appeared: Notify,
    /// What reports say to others than the publisher.
    pub(super) heard: Heard,
    clock: Arc<dyn Clock>,
}

impl Nodes {
    pub(super) fn new(known: Vec<NodeRecord>, clock: Arc<dyn Clock>) -> Self {
        let (now, now_ms) = (Instant::now(), clock.unix_ms());
        let heard = Heard::default();
        for record in &known {
            if let Some(report) = &record.report {
                heard.remember(&record.node, News::of(None, report));
            }
        }
        let nodes = known.into_iter().map(|record| {
            let expected = now_ms - record.seen_at_ms < EXPECTED_FOR_MS;
            let expected_until = expected.then(|| now + LIVE_FOR);
            let node = Node { seen_at_ms: record.seen_at_ms, report: record.report, expected_until, ..Node::default() };
            (record.node, node)
        });
        Self {
            nodes: Mutex::new(nodes.collect()),
            reported: watch::Sender::new(0),
            appeared: Notify::new(),
            heard,
            clock,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Node>> {
        // Every write leaves the map whole, so one that panicked has spoilt nothing.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, id: &NodeId, change: impl FnOnce(&mut Node) -> T) -> T {
        let now_ms = self.clock.unix_ms();
        let mut nodes = self.lock();
        if nodes.len() >= REMEMBERED && !nodes.contains_key(id) {
            let oldest = nodes.iter().min_by_key(|(_, node)| node.seen_at_ms).map(|(id, _)| id.clone());
            oldest.and_then(|id| nodes.remove(&id));
        }
        let node = nodes.entry(id.clone()).or_default();
        if node.seen.replace(Instant::now()).is_none() {
            node.expected_until = None;
            self.appeared.notify_one();
        }
        node.seen_at_ms = now_ms;
        node.heard += 1;
        change(node)
    }

    /// A proxy polls, until the guard is dropped.
    pub(super) fn poll<'a>(&'a self, id: &'a NodeId) -> Poll<'a> {
        self.with(id, |node| node.polls += 1);
        Poll { nodes: self, id }
    }

    /// A proxy holds a revision that this store has not published. Says whether it is time to hand it a snapshot.
    pub(super) fn is_ahead(&self, id: &NodeId, after: Revision, published: Revision) -> bool {
        let notice = format!(
            "{id} holds revision {after}, the newest published is {published}: was the store restored from a backup?"
        );
        self.with(id, |node| {
            if node.ahead.as_ref() != Some(&notice) {
                tracing::warn!(node.id = %id, revision.after = after.0, revision.published = published.0, "{notice}");
                node.ahead = Some(notice);
            }
            let now = Instant::now();
            let due = node.ahead_answered.is_none_or(|at| now.duration_since(at) >= AHEAD_EVERY);
            if due {
                node.ahead_answered = Some(now);
            }
            due
        })
    }

    /// A proxy says what it serves.
    pub(super) fn report(&self, report: NodeReport, published: Revision) {
        let id = report.node.clone();
        let news = self.with(&id, |node| {
            if report.serving <= published {
                node.ahead = None;
            }
            let news = News::of(node.report.as_ref(), &report);
            node.report = Some(report);
            news
        });
        self.heard.take_up(&id, news);
        self.reported.send_modify(|count| *count += 1);
    }

    /// All proxies, by name.
    pub(super) fn all(&self) -> Vec<NodeStatus> {
        let now = Instant::now();
        let nodes = self.lock();
        let mut all: Vec<NodeStatus> = nodes.iter().map(|(id, node)| status(id, node, now)).collect();
        all.sort_by(|a, b| a.node.as_str().cmp(b.node.as_str()));
        all
    }

    /// How many proxies are live.
    pub(super) fn live(&self) -> u32 {
        let now = Instant::now();
        let live = self.lock().values().filter(|node| node.is_live(now)).count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }

    /// One proxy.
    pub(super) fn get(&self, id: &NodeId) -> Option<NodeStatus> {
        self.lock().get(id).map(|node| status(id, node, Instant::now()))
    }

    /// Live proxies that do not serve `revision` or a later one.
    pub(super) fn lagging(&self, revision: Revision) -> Vec<LaggingNode> {
        let now = Instant::now();
        let nodes = self.lock();
        let live = nodes.iter().filter(|(_, node)| node.is_live(now));
        let mut lagging: Vec<LaggingNode> = live
            .filter(|(_, node)| node.report.as_ref().is_none_or(|report| report.serving < revision))
            .map(|(id, node)| {
                let refused = node.report.as_ref().and_then(|report| report.refused.as_ref());
                LaggingNode {
                    node: id.clone(),
                    serving: node.report.as_ref().map(|report| report.serving),
                    refused: refused.filter(|r| r.revision >= revision).map(|r| r.reason.clone()),
                }
            })
            .collect();
        lagging.sort_by(|a, b| a.node.as_str().cmp(b.node.as_str()));
        lagging
    }

    /// Waits until every live proxy serves `revision`, at most until `deadline`. Gives those that do not; does not wait
    /// for one that has refused it.
    pub(super) async fn wait_applied(&self, revision: Revision, deadline: Instant) -> Vec<LaggingNode> {
        let mut reported = self.reported.subscribe();
        loop {
            reported.mark_unchanged();
            let lagging = self.lagging(revision);
            if lagging.iter().all(|node| node.refused.is_some()) {
                return lagging;
            }
            // A proxy that dies stops counting without a word: look again before long.
            let look_again = deadline.min(Instant::now() + Duration::from_secs(1));
            let told = tokio::time::timeout_at(look_again, reported.changed()).await;
            if told.is_err() && Instant::now() >= deadline {
                return self.lagging(revision);
            }
        }
    }

    /// What the store does not have yet; to be told by [`Self::saved`] when it does.
    pub(super) fn unsaved(&self) -> Vec<Unsaved> {
        let nodes = self.lock();
        let unsaved = nodes.iter().filter(|(_, node)| node.heard > node.saved);
        unsaved
            .map(|(id, node)| Unsaved {
                record: NodeRecord { node: id.clone(), seen_at_ms: node.seen_at_ms, report: node.report.clone() },
                heard: node.heard,
            })
            .collect()
    }

    /// The store has these. What was heard meanwhile is still unsaved, and so is all of a save that was broken off.
    pub(super) fn saved(&self, records: &[Unsaved]) {
        let mut nodes = self.lock();
        for saved in records {
            if let Some(node) = nodes.get_mut(&saved.record.node) {
                node.saved = saved.heard;
            }
        }
    }
}

/// A proxy as the store does not have it yet.
pub(super) struct Unsaved {
    pub(super) record: NodeRecord,
    heard: u64,
}

fn status(id: &NodeId, node: &Node, now: Instant) -> NodeStatus {
    NodeStatus {
        node: id.clone(),
        live: node.is_live(now),
        seen_at_ms: node.seen_at_ms,
        report: node.report.clone(),
        notices: node.ahead.iter().cloned().collect(),
    }
}

/// A long poll that is open.
pub(super) struct Poll<'a> {
    nodes: &'a Nodes,
    id: &'a NodeId,
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.nodes.with(self.id, |node| node.polls = node.polls.saturating_sub(1));
    }
}
