//! What a report of a proxy says that the one before it did not.
//!
//! Requests that named two tenants wait here, beside the path of a report, until they are in the store as events.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio::sync::Notify;

use schoolgate_config::feed::{BackendChange, CrossTenantAttempt, MissingKey, NodeReport, QuotaEvent};
use schoolgate_config::model::{IssuerId, NodeId};
use schoolgate_store::NewEvent;

use super::{backends, quotas};

/// Attempts that wait to be recorded: 2,000, about 600 KB. They wait for moments; while the store cannot be written the
/// oldest go, and every one is in the log and counted by its proxy.
const ATTEMPTS: usize = 2_000;

/// Changes of backends and of quotas that wait to be recorded: 1,000, about 500 KB. As attempts.
const CHANGES: usize = 1_000;

/// Issuers that wait to be looked at: 1,000. They wait for moments, and a platform has a handful.
const WAITING: usize = 1_000;

/// A request that named two tenants, and the proxy that refused it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempt {
    /// Which proxy.
    node: NodeId,
    /// What it said.
    attempt: CrossTenantAttempt,
}

/// The kind of event that a request that named two tenants is.
const CROSS_TENANT_ATTEMPT: &str = "security.cross_tenant_attempt";

impl From<&Attempt> for NewEvent {
    fn from(Attempt { node, attempt }: &Attempt) -> Self {
        let CrossTenantAttempt { at_ms, request_id, client, host, tenant, tenant_slug: _, kind, named } = attempt;
        Self {
            at_ms: *at_ms,
            kind: CROSS_TENANT_ATTEMPT,
            tenant: *tenant,
            object: tenant.map_or_else(|| format!("host {host}"), |tenant| format!("tenant {tenant}")),
            summary: said(node, attempt),
            detail: json!({
                "node": node, "host": host, "client": client, "identifier": kind, "named": named,
                "request_id": request_id,
            }),
            // A report repeats what the one before said, and so does the first one to another control process.
            once: Some(format!("request {request_id}")),
        }
    }
}

/// What a report says that is new.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    attempts: Vec<CrossTenantAttempt>,
    changes: Vec<BackendChange>,
    quotas: Vec<QuotaEvent>,
    issuers: Vec<IssuerId>,
}

impl News {
    /// What `now` says and `before` did not.
    pub(super) fn of(before: Option<&NodeReport>, now: &NodeReport) -> Self {
        let said = |attempt: &CrossTenantAttempt| {
            before.is_some_and(|b| b.cross_tenant_attempts.iter().any(|old| old.request_id == attempt.request_id))
        };
        let looked = |missing: &MissingKey| before.is_some_and(|before| before.missing_keys.contains(missing));
        let attempts = now.cross_tenant_attempts.iter().take(CrossTenantAttempt::MOST);
        let missing = now.missing_keys.iter().take(MissingKey::MOST);
        let known = |change: &BackendChange| before.is_some_and(|before| before.backend_changes.contains(change));
        let changes = now.backend_changes.iter().take(BackendChange::MOST).rev();
        let reached = |event: &QuotaEvent| before.is_some_and(|before| before.quota_events.contains(event));
        let quotas = now.quota_events.iter().take(QuotaEvent::MOST).rev();
        Self {
            quotas: quotas.filter(|event| !reached(event)).cloned().collect(),
            changes: changes.filter(|change| !known(change)).cloned().collect(),
            attempts: attempts.filter(|attempt| !said(attempt)).cloned().collect(),
            issuers: missing.filter(|missing| !looked(missing)).map(|missing| missing.issuer.clone()).collect(),
        }
    }
}

/// What proxies said last, for those who care.
#[derive(Debug, Default)]
pub(super) struct Heard {
    attempts: Mutex<VecDeque<Attempt>>,
    /// What became of backends and of quotas, to be recorded.
    changes: Mutex<VecDeque<NewEvent>>,
    issuers: Mutex<BTreeSet<IssuerId>>,
    /// An issuer is waiting.
    pub(super) key_missing: Notify,
    /// An event is waiting.
    pub(super) attempted: Notify,
}

impl Heard {
    /// Takes up what a report of `node` says that is new, and tells it.
    pub(super) fn take_up(&self, node: &NodeId, news: News) {
        news.attempts.iter().for_each(|attempt| tell(node, attempt));
        self.remember(node, news);
    }

    /// Takes up what was told before this process began.
    pub(super) fn remember(&self, node: &NodeId, news: News) {
        if !news.attempts.is_empty() {
            let mut attempts = lock(&self.attempts);
            for attempt in news.attempts {
                attempts.push_back(Attempt { node: node.clone(), attempt });
            }
            // Proxies report in turns, each the last first.
            attempts.make_contiguous().sort_by_key(|waiting| waiting.attempt.at_ms);
            let surplus = attempts.len().saturating_sub(ATTEMPTS);
            attempts.drain(..surplus);
            self.attempted.notify_one();
        }
        let changed = news.changes.iter().filter_map(|change| backends::event(node, change));
        let told: Vec<_> = changed.chain(news.quotas.iter().filter_map(|event| quotas::event(node, event))).collect();
        if !told.is_empty() {
            let mut changes = lock(&self.changes);
            changes.extend(told);
            let surplus = changes.len().saturating_sub(CHANGES);
            changes.drain(..surplus);
            self.attempted.notify_one();
        }
        if !news.issuers.is_empty() {
            let mut issuers = lock(&self.issuers);
            let room = WAITING.saturating_sub(issuers.len());
            issuers.extend(news.issuers.into_iter().take(room));
            self.key_missing.notify_one();
        }
    }

    /// What is not recorded yet, of each kind the first first; to be told by [`Self::recorded`] when it is.
    pub(super) fn unrecorded(&self) -> Vec<NewEvent> {
        let mut events: Vec<_> = lock(&self.attempts).iter().map(NewEvent::from).collect();
        events.extend(lock(&self.changes).iter().cloned());
        events
    }

    /// These are recorded. What came meanwhile still waits.
    pub(super) fn recorded(&self, events: &[NewEvent]) {
        let done: BTreeSet<_> = events.iter().filter_map(|event| event.once.as_deref()).collect();
        lock(&self.changes).retain(|event| event.once.as_deref().is_none_or(|once| !done.contains(once)));
        lock(&self.attempts).retain(|waiting| {
            let event = NewEvent::from(waiting);
            event.once.is_none_or(|once| !done.contains(once.as_str()))
        });
    }

    /// Issuers that were said to lack a key since this was asked last.
    pub(super) fn issuers(&self) -> BTreeSet<IssuerId> {
        std::mem::take(&mut *lock(&self.issuers))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every write leaves the value whole, so one that panicked has spoilt nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(node: &NodeId, attempt: &CrossTenantAttempt) {
    let CrossTenantAttempt { request_id, host, kind, .. } = attempt;
    tracing::warn!(
        event = CROSS_TENANT_ATTEMPT,
        node.id = %node,
        request.id = %request_id,
        tenant.id = attempt.tenant.as_ref().map(tracing::field::display),
        client.addr = attempt.client.as_ref().map(tracing::field::display),
        host = %host,
        identifier = %kind,
        "{}",
        said(node, attempt)
    );
}

fn said(node: &NodeId, attempt: &CrossTenantAttempt) -> String {
    let CrossTenantAttempt { host, kind, named, .. } = attempt;
    format!("{node} refused a request for {host}: its {kind} named `{named}`")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(missing: &[(&str, i64)], attempts: &[i64]) -> NodeReport {
        let missing: Vec<_> = missing
            .iter()
            .map(|(issuer, at)| json!({"issuer": issuer, "kid": "k", "count": 1, "last_seen_ms": at}))
            .collect();
        let attempts: Vec<_> = attempts
            .iter()
            .map(|at| {
                json!({"at_ms": at, "request_id": at.to_string(), "client": "192.0.2.1", "host": "ash.example",
                       "tenant": null, "tenant_slug": "ash", "kind": "header", "named": "birch"})
            })
            .collect();
        serde_json::from_value(json!({
            "node": "n1", "serving": 1, "version": "0", "started_at_ms": 0, "certificates": 0, "connections": 0,
            "requests_in_flight": 0, "missing_keys": missing, "cross_tenant_attempts": attempts,
        }))
        .expect("a report")
    }

    #[test]
    fn what_was_said_before_is_not_new() {
        let first = report(&[("a", 1)], &[2, 1]);
        assert_eq!(News::of(Some(&first), &first), News::default());
        let news = News::of(Some(&first), &report(&[("a", 5), ("b", 1)], &[3, 2, 1]));
        let issuers: Vec<_> = news.issuers.iter().map(IssuerId::as_str).collect();
        assert_eq!((news.attempts.len(), news.attempts[0].at_ms), (1, 3));
        assert_eq!(issuers, ["a", "b"], "a token came that the last report did not know of");
    }

    #[test]
    fn the_latest_attempts_of_all_proxies_wait_in_the_order_of_time() {
        let heard = Heard::default();
        for (node, from) in [("n1", 1), ("n2", 2)] {
            let node: NodeId = node.parse().expect("a name");
            for at in 0..1_500 {
                heard.take_up(&node, News::of(None, &report(&[], &[2 * at + from])));
            }
        }
        let waiting = heard.unrecorded();
        assert_eq!((waiting.len(), waiting[0].at_ms, waiting[ATTEMPTS - 1].at_ms), (ATTEMPTS, 1_001, 3_000));
        assert!(waiting.is_sorted_by_key(|event| event.at_ms));
    }

    #[test]
    fn what_is_recorded_waits_no_more_and_what_came_meanwhile_does() {
        let heard = Heard::default();
        let node: NodeId = "n1".parse().expect("a name");
        heard.take_up(&node, News::of(None, &report(&[], &[2, 1])));
        let taken = heard.unrecorded();
        heard.take_up(&node, News::of(None, &report(&[], &[3])));
        heard.recorded(&taken);
        let waiting = heard.unrecorded();
        assert_eq!((waiting.len(), waiting[0].at_ms), (1, 3));
        assert_eq!(waiting[0].summary, "n1 refused a request for ash.example: its header named `birch`");
    }

    #[test]
    fn an_issuer_that_lacks_a_key_is_told_once() {
        let heard = Heard::default();
        heard.take_up(&"n1".parse().expect("a name"), News::of(None, &report(&[("a", 1)], &[])));
        assert_eq!(heard.issuers().len(), 1);
        assert_eq!(heard.issuers().len(), 0);
    }
}
