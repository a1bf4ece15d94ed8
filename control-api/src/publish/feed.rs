//! Serves revisions to proxies and records their acknowledgements.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use schoolgate_config::feed::{FeedAnswer, NodeReport, ReportTaken, RequestAnswer};
use schoolgate_config::model::{IssuerId, NodeId, Revision};
use schoolgate_config::snapshot::encode_snapshot;
use schoolgate_config::table::RoutingTable;
use schoolgate_config::usage::{QuotaUse, UsageFlush, UsageTaken};
use schoolgate_store::StoreError;

use super::nodes::{LaggingNode, NodeStatus};
use super::publisher::Shared;
use super::questions::Found;
use super::recent::RecentDelta;

/// The longest a poll may wait: 60 s, below the idle limits of what may stand in between.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Quotas in one answer: 5,000, about 600 KB.
const QUOTAS: u32 = 5_000;

/// Serves revisions to proxies. A clone is another handle to the same one.
#[derive(Clone)]
pub struct FeedServer {
    shared: Arc<Shared>,
}

/// What a proxy is to be told.
enum Step {
    Nothing,
    Deltas(Vec<RecentDelta>),
    Snapshot(Arc<RoutingTable>),
}

impl FeedServer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What came after a revision, as values; waits for it at most `wait`.
    pub async fn next(&self, node: &NodeId, after: Revision, wait: Duration) -> FeedAnswer {
        match self.step(node, after, wait).await {
            Step::Nothing => FeedAnswer::Nothing,
            Step::Deltas(deltas) => {
                FeedAnswer::Deltas(deltas.into_iter().map(|recent| (*recent.delta).clone()).collect())
            }
            Step::Snapshot(table) => FeedAnswer::Snapshot(table.to_snapshot()),
        }
    }

    /// What came after a revision, as the bytes of [`FeedAnswer::encode`]; empty when nothing came. Deltas are passed on
    /// as they were published; a snapshot is encoded once for all proxies that ask for it.
    pub async fn next_bytes(&self, node: &NodeId, after: Revision, wait: Duration) -> Bytes {
        match self.step(node, after, wait).await {
            Step::Nothing => Bytes::new(),
            Step::Deltas(deltas) => {
                let frames: Vec<Bytes> = deltas.into_iter().map(|recent| recent.bytes).collect();
                FeedAnswer::frames(&frames).into()
            }
            Step::Snapshot(table) => self.snapshot_bytes(table).await,
        }
    }

    async fn step(&self, node: &NodeId, after: Revision, wait: Duration) -> Step {
        let _poll = self.shared.nodes.poll(node);
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        let mut position = self.shared.position.subscribe();
        loop {
            let published = position.borrow_and_update().revision;
            if after < published {
                // Revision 0 is nothing at all: its whole history would lead to the same as the snapshot.
                let deltas = if after == Revision::NONE { None } else { self.shared.recent().after(after) };
                return deltas.map_or_else(|| Step::Snapshot(self.shared.table.load_full()), Step::Deltas);
            }
            if after > published && self.shared.nodes.is_ahead(node, after, published) {
                return Step::Snapshot(self.shared.table.load_full());
            }
            match tokio::time::timeout_at(deadline, position.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Step::Nothing,
            }
        }
    }

    async fn snapshot_bytes(&self, table: Arc<RoutingTable>) -> Bytes {
        // Held while encoding, so that a fleet that starts at once has it done once.
        let mut encoded = self.shared.snapshot.lock().await;
        if let Some((revision, bytes)) = &*encoded
            && *revision >= table.revision()
        {
            return bytes.clone();
        }
        let revision = table.revision();
        let encode = move || Bytes::from(FeedAnswer::frames(&[encode_snapshot(&table.to_snapshot())]));
        match tokio::task::spawn_blocking(encode).await {
            Ok(bytes) => {
                *encoded = Some((revision, bytes.clone()));
                bytes
            }
            // Only when the runtime is shutting down; the proxy asks again.
            Err(_) => Bytes::new(),
        }
    }

    /// Records what a proxy says of itself.
    pub fn report(&self, report: NodeReport) -> ReportTaken {
        let published = self.shared.position.borrow().revision;
        self.shared.nodes.report(report, published);
        ReportTaken { live_nodes: Some(self.shared.nodes.live()) }
    }

    /// What the fleet has used of quotas in periods that last, of those after `after`; none at the end.
    ///
    /// # Errors
    /// What the store says.
    pub async fn quotas(&self, after: Option<&QuotaUse>) -> Result<Vec<QuotaUse>, StoreError> {
        self.shared.store.recent_quotas(after, QUOTAS).await
    }

    /// Counts what tenants used at a proxy, each flush once.
    ///
    /// # Errors
    /// What the store says: the flush is not counted, and is to be sent again.
    pub async fn count_usage(&self, flush: &UsageFlush) -> Result<UsageTaken, StoreError> {
        self.shared.store.count_usage(flush).await
    }

    /// Issuers of tokens that proxies have said to lack a key of since this was asked last.
    pub(crate) fn issuers_lacking_keys(&self) -> BTreeSet<IssuerId> {
        self.shared.nodes.heard.issuers()
    }

    /// Waits until a proxy says that it lacks a key.
    pub(crate) async fn key_missing(&self) {
        self.shared.nodes.heard.key_missing.notified().await;
    }

    /// Asks every live proxy for a request that it served, at most `within`.
    pub async fn find_request(&self, request_id: &str, within: Duration) -> Found {
        let live = self.shared.nodes.all().into_iter().filter(|node| node.live).map(|node| node.node);
        self.shared.questions.ask(request_id, live.collect(), Instant::now() + within).await
    }

    /// Identifiers of requests that a proxy is asked for; waits for one at most `wait`.
    pub async fn questions(&self, node: &NodeId, wait: Duration) -> Vec<String> {
        self.shared.questions.next(node, wait.min(WAIT_MAX)).await
    }

    /// Takes what a proxy knows of requests.
    pub fn answer(&self, node: &NodeId, answers: Vec<RequestAnswer>) {
        self.shared.questions.answered(node, answers);
    }

    /// All proxies, by name.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        self.shared.nodes.all()
    }

    /// One proxy.
    pub fn node(&self, node: &NodeId) -> Option<NodeStatus> {
        self.shared.nodes.get(node)
    }

    /// Live proxies that do not serve `revision` or a later one.
    pub fn lagging(&self, revision: Revision) -> Vec<LaggingNode> {
        self.shared.nodes.lagging(revision)
    }

    /// Waits until every live proxy serves `revision` or a later one, at most `timeout`. Gives those that do not; does
    /// not wait for one that has refused it.
    pub async fn wait_applied(&self, revision: Revision, timeout: Duration) -> Vec<LaggingNode> {
        self.shared.nodes.wait_applied(revision, Instant::now() + timeout).await
    }
}
