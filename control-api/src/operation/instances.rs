//! Instances that register themselves as backends of a pool.
//!
//! An instance says where it listens, says so again every few seconds, and says goodbye before it stops. What it may say
//! depends on its token, which can be bound to pools, and on where it asks from: nobody can make another host a backend.
//! An operator who removes its backend has the last word until the instance is started anew.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use schoolgate_config::model::{Backend, BackendAddress, BackendId, BackendState, Pool, PoolId, Weight};
use schoolgate_config::settings::Instances;
use schoolgate_store::{Actor, Instance, NewEvent, Store, Token, Transaction};

use super::Refusal;
use super::document::{Errors, read, readable};

/// What an instance says of itself.
#[derive(Debug, ToSchema)]
pub(crate) struct InstanceInput {
    /// The pool that it serves.
    pool: PoolId,
    /// Where it listens: an address of the host that it asks from, or a Unix socket.
    #[schema(value_type = String)]
    address: BackendAddress,
    /// Its share of requests beside the others' when it registers. Afterwards that is for operators to say.
    #[serde(default)]
    weight: Weight,
}
readable!(InstanceInput { pool, address, weight = Weight::default() });

/// What an instance is told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstanceView {
    /// The backend that it is.
    backend: BackendId,
    /// Of which pool.
    pool: PoolId,
    /// How the backend stands.
    state: BackendState,
    /// Say it again after so many seconds.
    heartbeat_s: f64,
    /// Unheard for so many seconds it is removed.
    silent_s: f64,
}

/// What an instance that says goodbye is told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FarewellView {
    /// The backend that it was.
    backend: BackendId,
    /// Seconds in which what it has in flight may finish; then it is cut.
    drain_s: u32,
    /// Whether every live proxy knows: from then on nothing new comes.
    pub(crate) applied: bool,
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Caller {
    /// The token.
    pub(crate) token: Token,
    /// The address; `None`: through the Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// The request.
    pub(crate) request_id: String,
}

/// The scope of a token that binds it to a pool.
pub(crate) fn scope(pool: &PoolId) -> String {
    format!("pool:{pool}")
}

impl Caller {
    fn actor(&self) -> Actor {
        Actor {
            name: self.token.name.clone(),
            via: "instance".to_owned(),
            request_id: Some(self.request_id.clone()),
            client_ip: self.ip,
        }
    }

    fn may_serve(&self, pool: &PoolId) -> Result<(), Refusal> {
        let scopes = &self.token.scopes;
        if scopes.is_empty() || scopes.contains(&scope(pool)) {
            return Ok(());
        }
        Err(Refusal::Forbidden(format!("this token is for {}, not for the pool {pool}", scopes.join(", "))))
    }

    /// Whether an address can be its own. One who asks from this host may have any: every address of the host is its own.
    fn may_listen_at(&self, address: &BackendAddress) -> Result<(), Refusal> {
        let Some(ip) = self.ip.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_loopback()) else { return Ok(()) };
        match address {
            BackendAddress::Http(at) | BackendAddress::Https(at) | BackendAddress::H2c(at)
                if at.ip().to_canonical() == ip =>
            {
                Ok(())
            }
            _ => Err(Refusal::invalid(
                "/address",
                "invalid",
                format!("you ask from {ip}: expected an address of that host, such as http://{ip}:8701"),
            )),
        }
    }
}

/// An instance says where it listens; for the first time, or again.
///
/// # Errors
/// [`Refusal::Invalid`] names what is wrong; [`Refusal::Forbidden`] for another pool than the token's;
/// [`Refusal::Conflict`] `BACKEND_REMOVED` when an operator has removed it since it registered.
pub(crate) async fn register(
    store: &Store,
    caller: &Caller,
    rules: &Instances,
    body: &Value,
) -> Result<InstanceView, Refusal> {
    let mut errors = Errors::default();
    let input = read::<InstanceInput>(body, &mut errors);
    let input = errors.ok(input).map_err(Refusal::Invalid)?;
    caller.may_serve(&input.pool)?;
    caller.may_listen_at(&input.address)?;
    let mut transaction = store.begin(caller.actor()).await?;
    let Some(found) = transaction.get::<Pool>(&input.pool).await? else {
        return Err(Refusal::invalid("/pool", "not_found", "there is no such pool"));
    };
    let known = transaction.instance_at(&input.pool, &input.address).await?;
    let mut pool = found.value;
    let (backend, changed) = match pool.backends.iter_mut().find(|backend| backend.address == input.address) {
        // It said goodbye, and is back before it was gone.
        Some(backend) if known.as_ref().is_some_and(|known| known.leaving_at_ms.is_some()) => {
            backend.state = BackendState::Active;
            (backend.clone(), true)
        }
        Some(backend) => (backend.clone(), false),
        None if known.is_some() => {
            return Err(Refusal::Conflict {
                code: "BACKEND_REMOVED",
                message: format!(
                    "an operator removed {} from the pool {}; it can register again when it is started anew",
                    input.address, input.pool
                ),
                pointer: None,
            });
        }
        None => {
            let backend = Backend {
                id: BackendId::generate(),
                address: input.address.clone(),
                weight: input.weight,
                state: BackendState::Active,
            };
            pool.backends.push(backend.clone());
            (backend, true)
        }
    };
    let instance = Instance {
        backend: backend.id,
        pool: input.pool.clone(),
        address: input.address,
        token: caller.token.id.clone(),
        heard_at_ms: transaction.now_ms(),
        leaving_at_ms: None,
    };
    transaction.save_instance(&instance).await?;
    if changed {
        transaction.update(pool, None).await?;
        transaction.record_event(&event(&instance, "backend.registered", "registered", transaction.now_ms())).await?;
        let summary = json!({ "backend": backend.id, "address": backend.address });
        transaction.commit("instance.register", &format!("pool {}", instance.pool), summary).await?;
    } else {
        transaction.commit_records().await?;
    }
    Ok(InstanceView {
        backend: backend.id,
        pool: instance.pool,
        state: backend.state,
        heartbeat_s: rules.heartbeat_s.duration().as_secs_f64(),
        silent_s: rules.silent_s.duration().as_secs_f64(),
    })
}

/// An instance says goodbye: it gets nothing new, and goes when what it has in flight had time to finish. Gives the change
/// that says so to the proxies, unless they have heard it before.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) async fn leave(
    store: &Store,
    caller: &Caller,
    backend: BackendId,
) -> Result<(FarewellView, Option<u64>), Refusal> {
    let all = store.instances().await?;
    let known = all.into_iter().find(|known| known.backend == backend);
    let mut instance = known.ok_or_else(|| Refusal::not_found("instance"))?;
    caller.may_serve(&instance.pool)?;
    let mut transaction = store.begin(caller.actor()).await?;
    let pool = transaction.get::<Pool>(&instance.pool).await?.map(|found| found.value);
    let Some((mut pool, at)) = pool.and_then(|pool| {
        let at = pool.backends.iter().position(|other| other.id == backend)?;
        Some((pool, at))
    }) else {
        // An operator was faster.
        transaction.forget_instance(&instance.pool, &instance.address).await?;
        transaction.commit_records().await?;
        return Ok((FarewellView { backend, drain_s: 0, applied: false }, None));
    };
    let view = FarewellView { backend, drain_s: pool.drain_s, applied: false };
    instance.leaving_at_ms = instance.leaving_at_ms.or(Some(transaction.now_ms()));
    transaction.save_instance(&instance).await?;
    if pool.backends[at].state != BackendState::Active {
        transaction.commit_records().await?;
        return Ok((view, None));
    }
    pool.backends[at].state = BackendState::Draining;
    transaction.update(pool, None).await?;
    transaction.record_event(&event(&instance, "backend.leaving", "says goodbye", transaction.now_ms())).await?;
    let summary = json!({ "backend": backend, "address": instance.address });
    let committed = transaction.commit("instance.leave", &format!("pool {}", instance.pool), summary).await?;
    Ok((view, Some(committed.change)))
}

/// Why an instance is no backend any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It said goodbye, and had its time.
    Left,
    /// It was not heard for too long.
    Silent,
}

/// Takes an instance out of its pool.
///
/// # Errors
/// The store's.
pub(crate) async fn remove(mut transaction: Transaction, instance: &Instance, gone: Gone) -> Result<(), Refusal> {
    let Some(found) = transaction.get::<Pool>(&instance.pool).await? else { return Ok(()) };
    let mut pool = found.value;
    pool.backends.retain(|backend| backend.id != instance.backend);
    transaction.update(pool, None).await?;
    transaction.forget_instance(&instance.pool, &instance.address).await?;
    let (kind, what) = match gone {
        Gone::Left => ("backend.left", "left"),
        Gone::Silent => ("backend.silent", "was not heard any more, and is removed"),
    };
    transaction.record_event(&event(instance, kind, what, transaction.now_ms())).await?;
    let summary = json!({ "backend": instance.backend, "address": instance.address, "why": what });
    transaction.commit("instance.remove", &format!("pool {}", instance.pool), summary).await?;
    Ok(())
}

fn event(instance: &Instance, kind: &'static str, what: &str, at_ms: i64) -> NewEvent {
    NewEvent {
        at_ms,
        kind,
        tenant: None,
        object: format!("pool {}", instance.pool),
        summary: format!("the instance {} of the pool {} {what}", instance.address, instance.pool),
        detail: json!({ "backend": instance.backend, "address": instance.address }),
        once: None,
    }
}
