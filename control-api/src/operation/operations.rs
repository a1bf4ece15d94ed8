//! Operations: what takes a while, such as moving a school. What is done is in [`crate::moving`].

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{Plan, PlanId, PoolId, PoolKind, PoolKindRule, Tenant};
use schoolgate_config::time::rfc3339;
use schoolgate_store::{Operation, OperationId, OperationQuery, OperationState, Store};

use super::document::{Errors, read, readable};
use super::permission::{Operator, Reach, Subject};
use super::tenants::TenantKey;
use super::{Done, Refusal, What, Work, json};
use crate::moving::{self, Migration, Place, Step};

/// Where a school is to go: to another plan, another pool, or both.
#[derive(Debug, ToSchema)]
pub(crate) struct MigrateInput {
    /// The plan it is to be on; its own if not given.
    #[schema(value_type = Option<String>)]
    plan: Option<PlanId>,
    /// The pool it is to be on. If not given: its own where the plan allows it; a dedicated one named after the school
    /// where the plan wants that.
    #[schema(value_type = Option<String>)]
    pool: Option<PoolId>,
}
readable!(MigrateInput { plan, pool });

/// An operation as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OperationView {
    /// Which.
    id: String,
    /// The same: where it was asked for, its answer says so.
    operation: String,
    /// What is done: `migrate`.
    kind: String,
    /// To which tenant.
    tenant: String,
    /// `running`, `reverting`, `succeeded`, `reverted` (all is as it was before) or `failed`.
    #[schema(value_type = String)]
    state: &'static str,
    /// Somebody asked for it to be undone.
    cancelled: bool,
    /// What is being done: `prepare`, `check`, `shift`, `drain`, `switch`, `undo` or `end`.
    step: Step,
    /// The share that goes to the new pool, in percent.
    percent: u8,
    /// Where the school was.
    from: Place,
    /// Where it goes.
    to: Place,
    /// Why it is undone, or could not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// What was done.
    steps: Vec<StepView>,
    /// Who asked for it.
    created_by: String,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it last went on.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A step that was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StepView {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Which.
    step: Step,
    /// The share that goes to the new pool since, in percent.
    percent: u8,
    /// Why, or what was seen.
    note: String,
}

impl OperationView {
    /// An operation, if this release can read it.
    fn of(operation: &Operation) -> Option<Self> {
        let migration: Migration = serde_json::from_value(operation.body.clone()).ok()?;
        let steps = migration.history.into_iter().map(|done| StepView {
            at: rfc3339(done.at_ms),
            step: done.step,
            percent: done.percent.get(),
            note: done.note,
        });
        Some(Self {
            id: operation.id.to_string(),
            operation: operation.id.to_string(),
            kind: operation.kind.clone(),
            tenant: operation.tenant.to_string(),
            state: operation.state.as_str(),
            cancelled: operation.cancelled,
            step: migration.step,
            percent: migration.percent.get(),
            from: migration.from,
            to: migration.to,
            why: migration.why,
            steps: steps.collect(),
            created_by: operation.created_by.clone(),
            created_at: rfc3339(operation.created_at_ms),
            updated_at: rfc3339(operation.updated_at_ms),
        })
    }
}

fn missing(id: OperationId) -> Refusal {
    Refusal::not_found(&format!("operation {id}"))
}

/// Begins to move a school. Answers when that is noted; what is done then is seen at the operation.
///
/// # Errors
/// [`Refusal::Invalid`], [`Refusal::NotFound`], [`Refusal::Forbidden`]; [`Refusal::Conflict`] when the school is on its
/// way already, or has a canary.
pub(crate) async fn migrate(work: &mut Work, key: &TenantKey, body: &Value) -> Result<Done, Refusal> {
    let mut errors = Errors::default();
    let input = read::<MigrateInput>(body, &mut errors);
    let input = errors.ok(input).map_err(Refusal::Invalid)?;
    let tenant = super::tenants::changeable(work, key, Subject::Tenants.write()).await?.value;
    super::tenants::not_of_tenants(work)?;
    let to = destination(work, &tenant, input)?;
    let from = Place { plan: tenant.plan.clone(), pool: tenant.pool.clone() };
    if from == to {
        return Err(Refusal::invalid("", "invalid", "the tenant is there already: name another plan or pool"));
    }
    if let Some(under_way) = work.transaction.unfinished_operation(tenant.id).await? {
        return Err(Refusal::Conflict {
            code: "OPERATION_IN_PROGRESS",
            message: format!("operation {} is under way for this tenant: wait for it, or cancel it", under_way.id),
            pointer: None,
        });
    }
    if tenant.canary.is_some() {
        return Err(Refusal::Conflict {
            code: "CANARY_IN_USE",
            message: "the tenant has a canary, which the move needs: remove it first".to_owned(),
            pointer: None,
        });
    }
    let now_ms = work.transaction.now_ms();
    let operation = Operation {
        id: OperationId::generate(),
        kind: moving::KIND.to_owned(),
        tenant: tenant.id,
        state: OperationState::Running,
        cancelled: false,
        created_at_ms: now_ms,
        created_by: work.operator.name.clone(),
        updated_at_ms: now_ms,
        body: json(&Migration::new(from, to, now_ms)),
    };
    work.transaction.insert_operation(&operation).await?;
    Ok(Done { about: format!("tenant {}", tenant.id), ..done(&operation, What::Accepted, "tenant.migrate") })
}

/// Where the school goes, if it can.
fn destination(work: &Work, tenant: &Tenant, input: MigrateInput) -> Result<Place, Refusal> {
    let table = work.transaction.table();
    let id = input.plan.unwrap_or_else(|| tenant.plan.clone());
    let Some(plan) = table.plan(&id) else {
        return Err(Refusal::invalid("/plan", "not_found", format!("the plan `{id}` does not exist")));
    };
    let kind_of = |pool: &PoolId| table.pool(pool).map(|entry| entry.pool.kind);
    let pool = match input.pool {
        Some(pool) => pool,
        None if allows(plan, kind_of(&tenant.pool)) => tenant.pool.clone(),
        None if plan.pool_kind == PoolKindRule::Dedicated => {
            // A slug is a DNS label, and so is the name of a pool.
            tenant.slug.as_str().parse().map_err(|_| Refusal::invalid("/pool", "missing", "name a pool"))?
        }
        None => {
            let message = format!("the plan {id} wants another kind of pool than {}: name one", tenant.pool);
            return Err(Refusal::invalid("/pool", "missing", message));
        }
    };
    match kind_of(&pool) {
        Some(kind) if !allows(plan, Some(kind)) => {
            let message = format!("the plan {id} does not allow a {} pool such as `{pool}`", kind_name(kind));
            Err(Refusal::invalid("/pool", "wrong_kind", message))
        }
        None if !work.platform.makes_pools || !allows(plan, Some(PoolKind::Dedicated)) => {
            let message = format!("the pool `{pool}` does not exist, and cannot be made here: make it first");
            Err(Refusal::invalid("/pool", "not_found", message))
        }
        _ => Ok(Place { plan: id, pool }),
    }
}

fn allows(plan: &Plan, kind: Option<PoolKind>) -> bool {
    match (plan.pool_kind, kind) {
        (PoolKindRule::Any, _) => true,
        (PoolKindRule::Shared, kind) => kind == Some(PoolKind::Shared),
        (PoolKindRule::Dedicated, kind) => kind == Some(PoolKind::Dedicated),
    }
}

const fn kind_name(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Shared => "shared",
        PoolKind::Dedicated => "dedicated",
    }
}

/// Asks for an operation to be undone.
///
/// # Errors
/// [`Refusal::Conflict`] when it is at its end, or past where it can be undone.
pub(crate) async fn cancel(work: &mut Work, id: OperationId) -> Result<Done, Refusal> {
    work.operator.may(Subject::Tenants.write())?;
    super::tenants::not_of_tenants(work)?;
    let mut operation = work.transaction.operation(id).await?.ok_or_else(|| missing(id))?;
    work.operator.may_with(Subject::Tenants.write(), operation.tenant)?;
    let too_late = |message: String| Refusal::Conflict { code: "OPERATION_OVER", message, pointer: None };
    let step = serde_json::from_value::<Migration>(operation.body.clone()).map(|migration| migration.step);
    if operation.state == OperationState::Running && matches!(step, Ok(Step::Switch)) {
        let message = "the tenant is on its new pool and plan already: move it back if that is what you want";
        return Err(too_late(message.to_owned()));
    }
    if operation.state != OperationState::Running {
        return Err(too_late(format!("operation {id} is {}", operation.state.as_str())));
    }
    work.transaction.cancel_operation(id).await?;
    operation.cancelled = true;
    let about = format!("tenant {}", operation.tenant);
    Ok(Done { about, ..done(&operation, What::Changed, "operation.cancel") })
}

fn done(operation: &Operation, what: What, action: &str) -> Done {
    let view = OperationView::of(operation);
    Done {
        what,
        object: view.as_ref().map_or(Value::Null, json),
        version: None,
        path: format!("operations/{}", operation.id),
        action: action.to_owned(),
        about: String::new(),
        summary: serde_json::json!({
            "operation": operation.id.to_string(),
            "from": view.as_ref().map(|view| &view.from),
            "to": view.as_ref().map(|view| &view.to),
        }),
        names: Vec::new(),
        again: None,
    }
}

/// One operation.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) async fn get(store: &Store, operator: &Operator, id: OperationId) -> Result<OperationView, Refusal> {
    operator.may(Subject::Tenants.read())?;
    let operation = store.operation(id).await?.ok_or_else(|| missing(id))?;
    operator.may_with(Subject::Tenants.read(), operation.tenant)?;
    OperationView::of(&operation).ok_or_else(|| missing(id))
}

/// Operations that the operator may see, the latest first, and where the next part begins.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub(crate) async fn list(
    store: &Store,
    operator: &Operator,
    query: &OperationQuery,
) -> Result<(Vec<OperationView>, Option<String>), Refusal> {
    let reach = operator.may(Subject::Tenants.read())?;
    if let Some(tenant) = query.tenant {
        operator.may_with(Subject::Tenants.read(), tenant)?;
    }
    let found = store.operations(query).await?;
    let is_full = found.len() >= query.limit as usize;
    let next = found.last().filter(|_| is_full).map(|last| last.id.to_string());
    let may_see = |operation: &&Operation| reach == Reach::All || operator.tenants.contains(&operation.tenant);
    Ok((found.iter().filter(may_see).filter_map(OperationView::of).collect(), next))
}
