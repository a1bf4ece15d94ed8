//! Backends of a pool, one by one.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{Backend, BackendId, BackendState, Pool, PoolId, Weight};
use schoolgate_store::{Store, Stored};

use super::document::{Errors, Place, read, readable};
use super::edit;
use super::permission::Operator;
use super::pools::BackendInput;
use super::{Done, Refusal, What, Work, json};

/// A backend as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackendView {
    #[serde(flatten)]
    backend: Backend,
    /// Its pool.
    pool: PoolId,
}

/// What of a backend can change.
#[derive(Debug, ToSchema)]
pub(crate) struct BackendPatch {
    /// Its share of requests beside the others'.
    weight: Option<Weight>,
    /// Whether it takes new requests.
    state: Option<BackendState>,
}
readable!(BackendPatch { weight, state });

fn view(pool: &PoolId, backend: &Backend) -> BackendView {
    BackendView { backend: backend.clone(), pool: pool.clone() }
}

fn missing(pool: &PoolId, id: BackendId) -> Refusal {
    Refusal::not_found(&format!("backend {id} of pool {pool}"))
}

/// The backends of a pool, with the pool.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) async fn list(
    store: &Store,
    operator: &Operator,
    pool: &PoolId,
) -> Result<(Stored<Pool>, Vec<BackendView>), Refusal> {
    let found = edit::get::<Pool>(store, operator, pool).await?;
    let views = found.value.backends.iter().map(|backend| view(pool, backend)).collect();
    Ok((found, views))
}

/// One backend, with the pool.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) async fn get(
    store: &Store,
    operator: &Operator,
    pool: &PoolId,
    id: BackendId,
) -> Result<(Stored<Pool>, BackendView), Refusal> {
    let found = edit::get::<Pool>(store, operator, pool).await?;
    let backend = found.value.backends.iter().find(|backend| backend.id == id).ok_or_else(|| missing(pool, id))?;
    let view = view(pool, backend);
    Ok((found, view))
}

/// Adds a backend to a pool.
///
/// # Errors
/// [`Refusal::Conflict`] when the pool has one at this address; [`Refusal::Invalid`], [`Refusal::NotFound`].
pub(crate) async fn add(work: &mut Work, pool: &PoolId, body: &Value) -> Result<Done, Refusal> {
    let before = edit::changeable::<Pool>(work, pool).await?;
    let mut errors = Errors::default();
    let input = read::<BackendInput>(body, &mut errors);
    if body.get("id").is_some_and(|id| !id.is_null()) {
        errors.add_at("/id", "read_only", "`id` cannot be set");
    }
    let backend = input.map(|input| input.into_backend(&[], &Place::root(), &mut errors));
    let backend = errors.ok(backend).map_err(Refusal::Invalid)?;
    if before.value.backends.iter().any(|other| other.address == backend.address) {
        return Err(Refusal::Conflict {
            code: "BACKEND_EXISTS",
            message: format!("the pool {pool} has a backend at {} already", backend.address),
            pointer: Some("/address"),
        });
    }
    let mut after = before.value.clone();
    after.backends.push(backend.clone());
    let done = edit::save(work, before, after, "add-backend").await?;
    Ok(Done { what: What::Created, ..about(done, pool, &backend) })
}

/// Changes weight or state of a backend.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Invalid`], [`Refusal::Stale`].
pub(crate) async fn patch(work: &mut Work, pool: &PoolId, id: BackendId, body: &Value) -> Result<Done, Refusal> {
    let mut errors = Errors::default();
    let mut body = body.clone();
    let before = edit::changeable::<Pool>(work, pool).await?;
    let now = before.value.backends.iter().find(|backend| backend.id == id).ok_or_else(|| missing(pool, id))?;
    if let (Value::Object(members), Value::Object(now)) = (&mut body, json(&view(pool, now))) {
        for field in ["id", "address", "pool"] {
            if members.remove(field).is_some_and(|value| now.get(field) != Some(&value)) {
                errors.add_at(&format!("/{field}"), "read_only", "cannot be changed: add another backend");
            }
        }
    }
    let patch = read::<BackendPatch>(&body, &mut errors);
    let patch = errors.ok(patch).map_err(Refusal::Invalid)?;
    change(work, before, id, "update-backend", |backend| {
        backend.weight = patch.weight.unwrap_or(backend.weight);
        backend.state = patch.state.unwrap_or(backend.state);
    })
    .await
}

/// Puts a backend into a state.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Stale`].
pub(crate) async fn set_state(
    work: &mut Work,
    pool: &PoolId,
    id: BackendId,
    state: BackendState,
) -> Result<Done, Refusal> {
    let before = edit::changeable::<Pool>(work, pool).await?;
    let verb = if state == BackendState::Draining { "drain-backend" } else { "undrain-backend" };
    change(work, before, id, verb, |backend| backend.state = state).await
}

/// Takes a backend out of a pool.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Stale`].
pub(crate) async fn remove(work: &mut Work, pool: &PoolId, id: BackendId) -> Result<Done, Refusal> {
    let before = edit::changeable::<Pool>(work, pool).await?;
    let mut after = before.value.clone();
    after.backends.retain(|backend| backend.id != id);
    if after.backends.len() == before.value.backends.len() {
        return Err(missing(pool, id));
    }
    let done = edit::save(work, before, after, "remove-backend").await?;
    Ok(Done { what: What::Removed, object: Value::Null, version: None, ..done })
}

async fn change(
    work: &mut Work,
    before: Stored<Pool>,
    id: BackendId,
    verb: &str,
    change: impl FnOnce(&mut Backend),
) -> Result<Done, Refusal> {
    let pool = before.value.id.clone();
    let mut after = before.value.clone();
    let backend = after.backends.iter_mut().find(|backend| backend.id == id).ok_or_else(|| missing(&pool, id))?;
    change(backend);
    let backend = backend.clone();
    let done = edit::save(work, before, after, verb).await?;
    Ok(about(done, &pool, &backend))
}

/// What was done to a pool, as something done to its backend.
fn about(done: Done, pool: &PoolId, backend: &Backend) -> Done {
    Done { object: json(&view(pool, backend)), path: format!("pools/{pool}/backends/{}", backend.id), ..done }
}
