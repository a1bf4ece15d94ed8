//! Takes schools from step to step: looks, asks [`super::machine`], and writes.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::json;
use tracing::{debug, info, warn};

use schoolgate_config::feed::{NodeReport, ShareReport};
use schoolgate_config::model::{BackendState, NodeId, Pool, Tenant, TenantId};
use schoolgate_config::settings::Migrate;
use schoolgate_config::time::Clock;
use schoolgate_store::{Actor, Lease, NewEvent, Operation, OperationState, Store, StoreError};

use super::machine::{self, Adopted, Go, Next, Seen};
use super::{Counted, Done, KIND, Migration, PoolMaker, Step};
use crate::publish::Publisher;

/// Time between two looks: 250 ms. A look without anything to move is one query of an index.
const LOOK: Duration = Duration::from_millis(250);

/// Time that a pool may take to be made: 60 s, several starts of an instance.
const MADE_WITHIN: Duration = Duration::from_secs(60);

/// Moves schools. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Migrations {
    store: Store,
    publisher: Publisher,
    clock: Arc<dyn Clock>,
    rules: Migrate,
    maker: Arc<OnceLock<Arc<dyn PoolMaker>>>,
}

impl std::fmt::Debug for Migrations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Migrations")
    }
}

/// Why a look could not be finished.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The row was written by another release.
    #[error("the operation cannot be read")]
    Unreadable(#[from] serde_json::Error),
}

impl Migrations {
    /// Of the tenants in this store, by these rules.
    pub fn new(store: Store, publisher: Publisher, clock: Arc<dyn Clock>, rules: Migrate) -> Self {
        Self { store, publisher, clock, rules, maker: Arc::default() }
    }

    /// Says who makes pools that are not there. Only the first word counts.
    pub fn make_pools_with(&self, maker: Arc<dyn PoolMaker>) {
        let _ = self.maker.set(maker);
    }

    /// Goes on with every school on its way, while this process holds the lease, until `stop` is done.
    pub async fn run(self, holder: String, stop: impl Future<Output = ()>) {
        let store = self.store.clone();
        store.while_leased("operations", &holder, stop, |lease| self.clone().keep_looking(lease)).await;
    }

    async fn keep_looking(self, lease: Lease) {
        loop {
            match self.store.unfinished_operations().await {
                Ok(operations) => {
                    for operation in operations.into_iter().filter(|operation| operation.kind == KIND) {
                        let id = operation.id;
                        match self.look(operation, &lease).await {
                            Ok(()) => {}
                            Err(LookError::Store(StoreError::LeaseLost { .. })) => return,
                            Err(error) => warn!(operation.id = %id, %error, "operation {id} does not go on: {error}"),
                        }
                    }
                }
                Err(error) => warn!(%error, "operations cannot be read: {error}"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One look at one school, and what follows from it.
    async fn look(&self, mut operation: Operation, lease: &Lease) -> Result<(), LookError> {
        let mut migration: Migration = serde_json::from_value(operation.body.clone())?;
        let head = self.store.refresh().await?;
        let tenant = head.table.tenant(&operation.tenant).map(|entry| entry.tenant.clone());
        let pool = head.table.pool(&migration.to.pool).map(|entry| entry.pool.clone());
        let reports = self.reports();
        let now = counted(&reports, operation.tenant, &migration);
        let (moved, rest) = since(&now, &migration.counted);
        let seen = Seen {
            now_ms: self.clock.unix_ms(),
            cancelled: operation.cancelled,
            tenant: tenant.as_deref(),
            pool: self.pool(&migration, pool.as_deref()).await,
            ready: ready(&reports, pool.as_deref()),
            adopted: self.adopted(&migration).await,
            moved,
            rest,
        };
        let next = machine::next(&migration, &seen, &self.rules);
        match next {
            Next::Wait => Ok(()),
            Next::Began => {
                migration.since_ms = Some(seen.now_ms);
                migration.counted = now;
                operation.body = json!(migration);
                operation.updated_at_ms = seen.now_ms;
                Ok(self.store.note_operation(&operation, lease).await?)
            }
            Next::Go(go) => {
                // What the old pool did is compared with what the new one does when nothing is left there.
                migration.old_p99_us = seen.rest.p99_us().or(migration.old_p99_us);
                self.go(operation, migration, go, lease).await
            }
        }
    }

    /// Writes a step: what it changes, its line of audit, and the row.
    async fn go(
        &self,
        mut operation: Operation,
        mut migration: Migration,
        go: Go,
        lease: &Lease,
    ) -> Result<(), LookError> {
        let mut transaction = self.store.begin(Actor::system("migrate")).await?;
        transaction.require(lease).await?;
        let Some(now) = transaction.operation(operation.id).await? else { return Ok(()) };
        if now.state != operation.state || now.cancelled != operation.cancelled {
            // Cancelled just now: the next look sees it.
            return Ok(());
        }
        let found = transaction.get::<Tenant>(&operation.tenant).await?.map(|found| found.value);
        if let Some(tenant) = found
            && go.state != OperationState::Failed
        {
            if !machine::is_as_left(&migration, &tenant) {
                return Ok(());
            }
            if let Some(changed) = changed(&migration, &go, &tenant) {
                transaction.update(changed, None).await?;
                migration.change = Some(transaction.number());
            }
        }
        let now_ms = transaction.now_ms();
        migration.history.push(Done { at_ms: now_ms, step: go.step, percent: go.percent, note: go.note.clone() });
        (migration.step, migration.percent) = (go.step, go.percent);
        (migration.written_ms, migration.since_ms) = (now_ms, None);
        migration.counted.clear();
        migration.why = go.why.clone().or(migration.why);
        operation.state = go.state;
        operation.updated_at_ms = now_ms;
        operation.body = json!(migration);
        transaction.save_operation(&operation).await?;
        if let Some(event) = event(&operation, &migration, now_ms) {
            transaction.record_event(&event).await?;
        }
        let summary = json!({
            "operation": operation.id.to_string(), "step": go.step, "percent": go.percent, "note": go.note,
            "from": migration.from, "to": migration.to,
        });
        let (id, tenant, step) = (operation.id, operation.tenant, go.step.as_str());
        transaction.commit("tenant.migrate", &format!("tenant {tenant}"), summary).await?;
        info!(operation.id = %id, tenant.id = %tenant, "operation {id}: {step} {} %: {}", go.percent.get(), go.note);
        Ok(())
    }

    /// The new pool, made if it is not there and can be.
    async fn pool(&self, migration: &Migration, pool: Option<&Pool>) -> Result<(), String> {
        let id = &migration.to.pool;
        let is_there = pool.is_some_and(|pool| pool.backends.iter().any(|b| b.state == BackendState::Active));
        if is_there || migration.stays() || migration.step != Step::Prepare {
            return Ok(());
        }
        let Some(maker) = self.maker.get() else {
            return Err(format!("the pool {id} has no active backend, and nobody here can start one"));
        };
        debug!(pool.id = %id, "the pool {id} is made");
        match tokio::time::timeout(MADE_WITHIN, maker.make(id)).await {
            // The next look finds it.
            Ok(Ok(())) => Err(format!("the pool {id} has no active backend yet")),
            Ok(Err(why)) => Err(format!("the pool {id} cannot be made: {why}")),
            Err(_) => Err(format!("the pool {id} was not made within {} s", MADE_WITHIN.as_secs())),
        }
    }

    async fn adopted(&self, migration: &Migration) -> Adopted {
        let Some(change) = migration.change else { return Adopted::Yes };
        let Some(revision) = self.publisher.wait_published(change, Duration::ZERO).await else {
            return Adopted::NotBy("the publisher".to_owned());
        };
        let lagging = self.publisher.feed().lagging(revision);
        if lagging.is_empty() {
            return Adopted::Yes;
        }
        let names: Vec<_> = lagging.iter().map(|node| node.node.as_str()).collect();
        Adopted::NotBy(names.join(", "))
    }

    /// What live proxies last said.
    fn reports(&self) -> Vec<NodeReport> {
        let nodes = self.publisher.feed().nodes().into_iter();
        nodes.filter(|node| node.live).filter_map(|node| node.report).collect()
    }
}

/// What a step makes of the tenant.
fn changed(migration: &Migration, go: &Go, tenant: &Tenant) -> Option<Tenant> {
    let tenant = tenant.clone();
    match go.step {
        Step::Shift | Step::Drain => {
            let canary = machine::canary(migration, go.percent);
            (tenant.canary.as_deref() != Some(&canary)).then(|| Tenant { canary: Some(Box::new(canary)), ..tenant })
        }
        Step::Switch => {
            let (plan, pool) = (migration.to.plan.clone(), migration.to.pool.clone());
            Some(Tenant { canary: None, plan, pool, ..tenant })
        }
        Step::Undo => Some(Tenant { canary: None, ..tenant }),
        Step::Prepare | Step::Check | Step::End => None,
    }
}

/// What happened, where somebody should hear of it.
fn event(operation: &Operation, migration: &Migration, now_ms: i64) -> Option<NewEvent> {
    let (kind, summary) = match operation.state {
        OperationState::Succeeded => {
            ("tenant.migrated", format!("moved to pool {} and plan {}", migration.to.pool, migration.to.plan))
        }
        OperationState::Reverted => {
            ("tenant.migration_reverted", format!("stays on pool {}: {}", migration.from.pool, why(migration)))
        }
        OperationState::Failed => ("tenant.migration_failed", format!("the move ended midway: {}", why(migration))),
        OperationState::Running | OperationState::Reverting => return None,
    };
    Some(NewEvent {
        at_ms: now_ms,
        kind,
        tenant: Some(operation.tenant),
        object: format!("tenant {}", operation.tenant),
        summary,
        detail: json!({ "operation": operation.id.to_string(), "from": migration.from, "to": migration.to }),
        once: None,
    })
}

fn why(migration: &Migration) -> &str {
    migration.why.as_deref().unwrap_or("nobody knows why")
}

/// What each proxy has counted of a tenant on its way.
fn counted(reports: &[NodeReport], tenant: TenantId, migration: &Migration) -> BTreeMap<NodeId, Counted> {
    let of = |report: &NodeReport| {
        let found = report.canaries.iter().find(|c| c.tenant == tenant && c.pool == migration.to.pool)?;
        Some((report.node.clone(), Counted { moved: found.moved.clone(), rest: found.rest.clone() }))
    };
    reports.iter().filter_map(of).collect()
}

/// What came since, over all proxies.
fn since(now: &BTreeMap<NodeId, Counted>, before: &BTreeMap<NodeId, Counted>) -> (ShareReport, ShareReport) {
    let none = Counted::default();
    now.iter().fold(<(ShareReport, ShareReport)>::default(), |(moved, rest), (node, counted)| {
        let before = before.get(node).unwrap_or(&none);
        (moved.plus(&counted.moved.since(&before.moved)), rest.plus(&counted.rest.since(&before.rest)))
    })
}

/// Whether every live proxy has a healthy backend in the pool.
fn ready(reports: &[NodeReport], pool: Option<&Pool>) -> Result<(), String> {
    let Some(pool) = pool else { return Err("the new pool is not there".to_owned()) };
    if reports.is_empty() {
        return Err("no proxy has reported".to_owned());
    }
    let is_checked = pool.health_check.is_some();
    for report in reports {
        let mut backends = report.backends.iter().filter(|backend| backend.pool == pool.id.as_str());
        if !backends.any(|backend| backend.state == "up" && (backend.checked || !is_checked)) {
            return Err(format!("{} finds no healthy backend in the pool {}", report.node, pool.id));
        }
    }
    Ok(())
}
