//! Active checks: one task asks every backend of every pool in turn, and tells what became of them.
//!
//! The task reads the current table on every round, so a new pool is checked within 100 ms and a removed one no
//! more. What a check asks is in `probe`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use schoolgate_config::feed::BackendChange;
use schoolgate_config::model::{BackendId, BackendState, HealthCheck};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::{Clock, SystemClock};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::changes::BackendChanges;
use super::pool::LiveBackend;
use super::probe::{Way, probe};
use crate::live::NodeLive;

/// How often the task looks which checks are due: 100 ms, a tenth of the default interval.
const ROUND: Duration = Duration::from_millis(100);

/// Checks at once: 64. With the default timeout of 1 s and every backend hanging, that is still 64 a second.
const AT_ONCE: usize = 64;

/// What is to be checked.
type Table = Arc<ArcSwap<RoutingTable<NodeLive>>>;

/// A check that is due.
struct Due {
    backend: Arc<LiveBackend>,
    rule: HealthCheck,
    way: Way,
}

/// Checks the backends of the current table, and tells changes of their condition, until the future is dropped.
pub async fn run(table: Table, changes: Arc<BackendChanges>) {
    let mut due_at: HashMap<BackendId, Instant> = HashMap::new();
    let mut waiting: VecDeque<Due> = VecDeque::new();
    let mut running: JoinSet<()> = JoinSet::new();
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = interval(ROUND);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // What was due has begun before more is looked for: each backend has its turn, however many there are.
            _ = rounds.tick(), if waiting.is_empty() => find_due(&table.load(), &mut due_at, &mut waiting),
            _ = looks.tick() => tell_changes(&table.load(), &changes, SystemClock.unix_ms()),
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
        while running.len() < AT_ONCE
            && let Some(due) = waiting.pop_front()
        {
            running.spawn(async move { check_and_note(&due.backend, &due.rule, &due.way).await });
        }
    }
}

fn find_due(table: &RoutingTable<NodeLive>, due_at: &mut HashMap<BackendId, Instant>, waiting: &mut VecDeque<Due>) {
    let now = Instant::now();
    let mut present = 0;
    for entry in table.pools() {
        let Some(rule) = &entry.pool.health_check else { continue };
        for member in entry.live.members() {
            if member.state == BackendState::Disabled {
                continue;
            }
            present += 1;
            let interval = Duration::from_millis(rule.interval_ms.max(1));
            // The first check at once: until then a backend counts as healthy.
            let at = due_at.entry(member.backend.id).or_insert(now);
            if *at > now {
                continue;
            }
            // No two checks of one backend at once: the next is due after this one's time is over.
            *at = now + interval.max(Duration::from_millis(rule.timeout_ms)).mul_f64(fastrand::f64().mul_add(0.2, 0.9));
            let way = Way::to(&member.backend.address, &entry.live);
            waiting.push_back(Due { backend: member.backend.clone(), rule: rule.clone(), way });
        }
    }
    if due_at.len() > present * 2 + 64 {
        // Backends that are gone. The others are merely checked a moment early.
        due_at.clear();
    }
}

/// Tells every backend whose condition is not what it was when it was last looked at, whatever the reason: a check, an
/// ejection or its end, an operator.
fn tell_changes(table: &RoutingTable<NodeLive>, changes: &BackendChanges, now_ms: i64) {
    for entry in table.pools() {
        for member in entry.live.members() {
            let condition = member.condition(now_ms);
            let Some(before) = member.backend.told(condition) else { continue };
            let LiveBackend { pool, id, address, .. } = &*member.backend;
            changes.add(BackendChange {
                at_ms: now_ms,
                pool: pool.to_string(),
                backend: id.to_string(),
                address: address.to_string(),
                from: before.as_str().to_owned(),
                to: condition.as_str().to_owned(),
                reason: member.backend.reason(),
            });
        }
    }
}

async fn check_and_note(backend: &Arc<LiveBackend>, rule: &HealthCheck, way: &Way) {
    let limit = Duration::from_millis(rule.timeout_ms);
    let outcome = match timeout(limit, probe(way, &rule.probe)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {} ms", rule.timeout_ms)),
    };
    if backend.checked(&outcome, rule.healthy_after, rule.unhealthy_after) {
        match outcome {
            Ok(()) => info!(pool.id = %backend.pool, backend.addr = %backend.address, "{} is healthy", backend.address),
            Err(why) => {
                warn!(pool.id = %backend.pool, backend.addr = %backend.address, "{} is unhealthy: {why}", backend.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use schoolgate_config::model::{Plan, Pool, Revision};
    use schoolgate_config::snapshot::{Object, Snapshot};

    use super::super::pool::tests::pool;
    use super::*;

    fn table(pool: Pool) -> RoutingTable<NodeLive> {
        let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
        objects.push(pool.into());
        let snapshot = Snapshot { revision: Revision(1), objects };
        RoutingTable::from_snapshot(&snapshot, &NodeLive::default(), None).expect("holds together")
    }

    #[test]
    fn every_change_of_a_backend_is_told_once_with_its_reason() {
        let table = table(pool(&[1, 1]));
        let entry = table.pools().next().expect("a pool");
        let backend = entry.live.members()[0].backend.clone();
        let changes = BackendChanges::default();
        let look = |now_ms: i64| {
            tell_changes(&table, &changes, now_ms);
            changes.latest().into_iter().map(|c| format!("{} {}->{}", c.at_ms, c.from, c.to)).collect::<Vec<_>>()
        };
        assert_eq!(look(1), [""; 0], "that all is well is no news");
        backend.checked(&Err("refused".into()), 1, 1);
        assert_eq!((look(2), look(3)), (vec!["2 up->unhealthy".to_owned()], vec!["2 up->unhealthy".to_owned()]));
        assert_eq!(changes.latest()[0].reason.as_deref(), Some("refused"));
        backend.checked(&Ok(()), 1, 1);
        backend.ejected_until_ms.store(100, Ordering::Relaxed);
        assert_eq!(look(4)[0], "4 unhealthy->ejected");
        assert_eq!(look(100)[0], "100 ejected->up", "a rest that is over is told by the clock");
    }
}
