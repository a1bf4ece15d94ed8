//! Tells when overrides of limits begin and end.
//!
//! They do so by themselves, at every reader by its clock, and nobody writes anything: without this an exam week would end
//! unnoticed. Which were told is known by the events themselves, so another process that takes over tells none twice.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use schoolgate_config::model::{LimitName, Override, Plan, Tenant};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::Clock;
use schoolgate_store::{Actor, EVENTS_KEPT_MS, Lease, NewEvent, Store, StoreError};

/// The lease it runs under.
const LEASE: &str = "override-turns";

/// Time between two looks, for overrides that were made meanwhile: 10 s. A turn that is known is told when it comes.
const LOOK: Duration = Duration::from_secs(10);

/// Wait after a failure of the store: 5 s.
const BACK_OFF: Duration = Duration::from_secs(5);

/// Events recorded in one transaction: 500.
const AT_ONCE: usize = 500;

/// Tells when overrides begin and end.
#[derive(Clone)]
pub struct OverrideTurns {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for OverrideTurns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OverrideTurns")
    }
}

/// A beginning or an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Began,
    Ended,
}

impl OverrideTurns {
    /// Of the tenants in a store.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Tells, until `stop` is ready, while this process holds the lease. `holder` is this process's own name.
    pub async fn run(self, holder: String, stop: impl Future<Output = ()>) {
        let store = self.store.clone();
        store.while_leased(LEASE, &holder, stop, |lease| self.clone().keep_telling(lease)).await;
    }

    async fn keep_telling(self, lease: Lease) {
        // What came to pass while nobody looked is told late; what is older would be forgotten at once.
        let mut told_ms = self.clock.unix_ms() - EVENTS_KEPT_MS;
        loop {
            let now_ms = self.clock.unix_ms();
            let next_ms = match self.tell(&lease, told_ms, now_ms).await {
                Ok(next_ms) => next_ms,
                Err(StoreError::LeaseLost { .. }) => return,
                Err(error) => {
                    tracing::warn!("turns of overrides cannot be told, and it is tried again: {error}");
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                }
            };
            told_ms = told_ms.max(now_ms);
            let left = |next: i64| Duration::from_millis(u64::try_from(next - self.clock.unix_ms()).unwrap_or(0));
            tokio::time::sleep(next_ms.map_or(LOOK, |next| left(next).min(LOOK))).await;
        }
    }

    /// Tells of turns after one moment and up to another. Gives the next one after both.
    async fn tell(&self, lease: &Lease, after_ms: i64, now_ms: i64) -> Result<Option<i64>, StoreError> {
        let head = self.store.refresh().await?;
        let (events, next_ms) = turns(&head.table, after_ms, now_ms);
        for events in events.chunks(AT_ONCE) {
            let mut transaction = self.store.begin(Actor::system(LEASE)).await?;
            transaction.require(lease).await?;
            for event in events {
                transaction.record_event(event).await?;
            }
            transaction.commit_records().await?;
        }
        Ok(next_ms)
    }
}

/// Turns of all overrides after one moment and up to another, and when the next one is.
fn turns(table: &RoutingTable, after_ms: i64, now_ms: i64) -> (Vec<NewEvent>, Option<i64>) {
    let (mut events, mut next_ms) = (Vec::new(), None::<i64>);
    for entry in table.tenants() {
        for (limit, replaced) in &entry.tenant.overrides {
            let turns = [(Turn::Began, replaced.starts_at), (Turn::Ended, replaced.expires_at)];
            for (turn, at_ms) in turns.into_iter().filter_map(|(turn, at)| Some((turn, at?.unix_ms()))) {
                if at_ms > now_ms {
                    next_ms = Some(next_ms.map_or(at_ms, |next| next.min(at_ms)));
                } else if at_ms > after_ms {
                    events.push(event(turn, at_ms, &entry.tenant, &entry.plan, *limit, replaced));
                }
            }
        }
    }
    (events, next_ms)
}

fn event(turn: Turn, at_ms: i64, tenant: &Tenant, plan: &Plan, limit: LimitName, replaced: &Override) -> NewEvent {
    let Override { value, reason, starts_at, expires_at } = replaced;
    let of_plan = plan.limits.get(limit);
    let plans = of_plan.map_or_else(|| "no limit".to_owned(), |value| value.to_string());
    let (slug, plan) = (&tenant.slug, &plan.id);
    let (kind, summary) = match turn {
        Turn::Began => (
            "override.began",
            format!("{slug}: {limit} is {value} from now on ({reason}), instead of {plans} of {plan}"),
        ),
        Turn::Ended => {
            ("override.ended", format!("{slug}: {limit} is no longer {value} ({reason}), but {plans} of {plan}"))
        }
    };
    NewEvent {
        at_ms,
        kind,
        tenant: Some(tenant.id),
        object: format!("tenant {}", tenant.id),
        summary,
        detail: json!({
            "limit": limit, "value": value, "plan": plan, "plan_value": of_plan, "reason": reason,
            "starts_at": starts_at, "expires_at": expires_at,
        }),
        // Whoever looks first tells it.
        once: Some(format!("{kind} {} {limit} {at_ms}", tenant.id)),
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::Timestamp;
    use schoolgate_config::time::ManualClock;
    use schoolgate_store::{EventQuery, OpenMode};
    use serde_json::from_value;

    use super::*;

    /// 2023-11-14.
    const NOW: i64 = 1_700_000_000_000;

    async fn with_override(
        starts_ms: Option<i64>,
        expires_ms: Option<i64>,
    ) -> (OverrideTurns, Arc<ManualClock>, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(NOW));
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open_at(&url, OpenMode::Create, clock.clone()).await.expect("a store");
        store.seed(Vec::new()).await.expect("seeded");
        let mut transaction = store.begin(Actor::system("test")).await.expect("begins");
        let pool = json!({"id": "shared", "kind": "shared"});
        transaction.insert(from_value::<schoolgate_config::model::Pool>(pool).expect("a pool")).await.expect("written");
        let tenant = json!({
            "id": schoolgate_config::model::TenantId::from_parts(1, 1), "slug": "ash", "name": "Ash", "state": "active",
            "plan": "basic", "pool": "shared",
        });
        let mut tenant: Tenant = from_value(tenant).expect("a tenant");
        let at = |ms: Option<i64>| ms.map(Timestamp::from_unix_ms);
        let exam =
            Override { value: 3_000, reason: "exams".into(), starts_at: at(starts_ms), expires_at: at(expires_ms) };
        tenant.overrides.insert(LimitName::RequestsPerMinute, exam);
        transaction.insert(tenant).await.expect("written");
        transaction.commit("test", "test", json!(null)).await.expect("committed");
        (OverrideTurns::new(store, clock.clone()), clock, dir)
    }

    async fn told(turns: &OverrideTurns) -> Vec<(String, i64)> {
        let events = turns.store.events(&EventQuery { kind: Some("override".into()), ..EventQuery::default() }).await;
        events.expect("read").into_iter().rev().map(|event| (event.kind, event.at_ms)).collect()
    }

    #[tokio::test]
    async fn a_turn_is_told_once_at_its_moment_whoever_looks() {
        let (begins, ends) = (NOW + 1_000, NOW + 5_000);
        let (turns, clock, _dir) = with_override(Some(begins), Some(ends)).await;
        let lease = async |holder: &str| {
            let lease =
                turns.store.take_lease(LEASE, holder, Duration::from_secs(30)).await.expect("the store answers");
            lease.expect("it is free")
        };
        let a = lease("a").await;
        assert_eq!(turns.tell(&a, 0, NOW).await.expect("looks"), Some(begins));
        assert_eq!(told(&turns).await, []);
        assert_eq!(turns.tell(&a, NOW, begins).await.expect("looks"), Some(ends));
        assert_eq!(told(&turns).await, [("override.began".to_owned(), begins)]);
        clock.advance_ms(60_000);
        // Another process, which does not know how far the first one was.
        let b = lease("b").await;
        assert_eq!(turns.tell(&b, 0, NOW + 60_000).await.expect("looks"), None);
        let both = [("override.began".to_owned(), begins), ("override.ended".to_owned(), ends)];
        assert_eq!(told(&turns).await, both);
        let late = turns.tell(&a, 0, NOW + 60_000).await;
        assert!(matches!(late, Err(StoreError::LeaseLost { .. })), "{late:?}");
    }

    #[tokio::test]
    async fn an_override_that_holds_from_the_write_on_is_told_when_it_ends() {
        let (turns, _, _dir) = with_override(None, Some(NOW + 5_000)).await;
        let (events, next_ms) = turns_of(&turns, NOW + 5_000);
        assert_eq!((events.len(), next_ms), (1, None));
        assert_eq!(events[0].summary, "ash: requests_per_minute is no longer 3000 (exams), but 100 of basic");
        let (turns, _, _dir) = with_override(None, None).await;
        assert_eq!(turns_of(&turns, i64::MAX), (Vec::new(), None), "one without an end");
    }

    fn turns_of(turns: &OverrideTurns, now_ms: i64) -> (Vec<NewEvent>, Option<i64>) {
        super::turns(&turns.store.head().table, NOW, now_ms)
    }
}
