//! The pools that `up` keeps in step with the instances it runs.

use schoolgate_config::model::{
    Backend, BackendAddress, BackendId, BackendState, HealthCheck, Pool, PoolId, PoolKind, Weight,
};
use schoolgate_store::{Actor, Store};
use serde_json::json;

/// Where the instances of a pool were the last time, so that they come back to the same ports, and so that what an
/// operator changed about the pool's backends is told from what has to follow them.
pub(super) async fn last_addresses(store: &Store, pool: &PoolId) -> anyhow::Result<Vec<BackendAddress>> {
    let note = store.note(&note_key(pool)).await?.unwrap_or_default();
    Ok(note.split_whitespace().filter_map(|text| text.parse().ok()).collect())
}

/// Makes the pool if it was never made, and gives it these backends in the place of the last ones. Backends that an
/// operator added stay, and one that an operator removed does not come back.
pub(super) async fn follow(store: &Store, id: &PoolId, kind: PoolKind, now: &[BackendAddress]) -> anyhow::Result<()> {
    let last = last_addresses(store, id).await?;
    let mut transaction = store.begin(Actor::system("up")).await?;
    let (pool, exists) = match transaction.get::<Pool>(id).await? {
        Some(stored) => (stored.value, true),
        None => (new_pool(id, kind), false),
    };
    let backends = backends_after(&pool.backends, if exists { &last } else { &[] }, now);
    if exists && backends == pool.backends && last == now {
        transaction.rollback().await;
        return Ok(());
    }
    let pool = Pool { backends, ..pool };
    if exists {
        transaction.update(pool, None).await?;
    } else {
        transaction.insert(pool).await?;
    }
    let addresses: Vec<_> = now.iter().map(ToString::to_string).collect();
    transaction.set_note(&note_key(id), &addresses.join(" ")).await?;
    transaction.commit("pool.follow", &format!("pool {id}"), json!({ "instances": addresses })).await?;
    Ok(())
}

/// Gives the backend of an instance that had to move its new address. One that an operator removed does not come back.
pub(super) async fn moved(
    store: &Store,
    id: &PoolId,
    from: &BackendAddress,
    to: &BackendAddress,
) -> anyhow::Result<()> {
    let mut transaction = store.begin(Actor::system("up")).await?;
    if let Some(stored) = transaction.get::<Pool>(id).await?
        && let Some(backends) = backends_moved(&stored.value.backends, from, to)
    {
        transaction.update(Pool { backends, ..stored.value }, None).await?;
    }
    let last = last_addresses(store, id).await?;
    let now: Vec<_> = last.iter().map(|address| if address == from { to } else { address }.to_string()).collect();
    transaction.set_note(&note_key(id), &now.join(" ")).await?;
    let summary = json!({ "instance": { "from": from, "to": to } });
    transaction.commit("pool.follow", &format!("pool {id}"), summary).await?;
    Ok(())
}

/// `None` when none of them was at `from`.
fn backends_moved(found: &[Backend], from: &BackendAddress, to: &BackendAddress) -> Option<Vec<Backend>> {
    let moved = found.iter().find(|backend| backend.address == *from)?;
    // Another address is another backend: what nodes know of the old one does not hold for it.
    let moved = Backend { id: BackendId::generate(), address: to.clone(), ..moved.clone() };
    let others = found.iter().filter(|backend| backend.address != *from && backend.address != *to).cloned();
    Some(others.chain([moved]).collect())
}

fn note_key(pool: &PoolId) -> String {
    format!("up.instances.{pool}")
}

fn new_pool(id: &PoolId, kind: PoolKind) -> Pool {
    let pool = json!({ "id": id, "kind": kind, "health_check": HealthCheck::default() });
    serde_json::from_value(pool).expect("the rest has defaults")
}

fn backends_after(found: &[Backend], last: &[BackendAddress], now: &[BackendAddress]) -> Vec<Backend> {
    let mut backends: Vec<Backend> =
        found.iter().filter(|b| now.contains(&b.address) || !last.contains(&b.address)).cloned().collect();
    for address in now {
        let known = found.iter().any(|b| b.address == *address);
        if !known && !last.contains(address) {
            let id = BackendId::generate();
            let (weight, state) = (Weight::default(), BackendState::Active);
            backends.push(Backend { id, address: address.clone(), weight, state });
        }
    }
    backends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<BackendAddress> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }
    fn backends(list: &[&str]) -> Vec<Backend> {
        backends_after(&[], &[], &addresses(list))
    }
    fn found(list: &[Backend]) -> Vec<String> {
        list.iter().map(|b| b.address.to_string()).collect()
    }

    #[test]
    fn instances_that_moved_take_the_place_of_the_old_ones() {
        let before = backends(&["http://127.0.0.1:8701", "http://127.0.0.1:8702"]);
        let last = addresses(&["http://127.0.0.1:8701", "http://127.0.0.1:8702"]);
        let now = addresses(&["http://127.0.0.1:8702", "http://127.0.0.1:8703"]);
        let after = backends_after(&before, &last, &now);
        assert_eq!(found(&after), ["http://127.0.0.1:8702", "http://127.0.0.1:8703"]);
        assert_eq!(after[0].id, before[1].id, "one that stayed keeps its identity");
    }

    #[test]
    fn an_instance_that_moved_is_another_backend_with_the_same_share() {
        let mut before = backends(&["http://127.0.0.1:8701", "http://127.0.0.1:8702"]);
        before[0].weight = Weight::new(7).unwrap();
        let [from, to, nobody] =
            ["http://127.0.0.1:8701", "http://127.0.0.1:8703", "http://127.0.0.1:9"].map(|a| a.parse().unwrap());
        let after = backends_moved(&before, &from, &to).unwrap();
        assert_eq!(found(&after), ["http://127.0.0.1:8702", "http://127.0.0.1:8703"]);
        assert_eq!(after[1].weight.get(), 7);
        assert_ne!(after[1].id, before[0].id);
        assert_eq!(backends_moved(&before, &nobody, &to), None, "an operator removed it");
    }

    #[test]
    fn what_an_operator_added_stays_and_what_they_removed_does_not_come_back() {
        let before = backends(&["http://127.0.0.1:8701", "http://10.0.0.1:80"]);
        let last = addresses(&["http://127.0.0.1:8701", "http://127.0.0.1:8702"]);
        let after = backends_after(&before, &last, &last);
        assert_eq!(found(&after), ["http://127.0.0.1:8701", "http://10.0.0.1:80"]);
    }
}
