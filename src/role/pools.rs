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
    fn what_an_operator_added_stays_and_what_they_removed_does_not_come_back() {
        let before = backends(&["http://127.0.0.1:8701", "http://10.0.0.1:80"]);
        let last = addresses(&["http://127.0.0.1:8701", "http://127.0.0.1:8702"]);
        let after = backends_after(&before, &last, &last);
        assert_eq!(found(&after), ["http://127.0.0.1:8701", "http://10.0.0.1:80"]);
    }
}
