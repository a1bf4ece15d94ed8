//! The pools whose instances `up` runs: started with it, and made when a school moves to one of its own.

use std::net::SocketAddr;

use async_trait::async_trait;
use schoolgate_config::model::{BackendAddress, PoolId, PoolKind};
use schoolgate_control_api::PoolMaker;
use schoolgate_store::Store;
use tokio::sync::Mutex;

use super::instances::{Running, Starter, Wanted};
use super::pools;

/// Instances of a pool that is made because a school moves there: 1, as in the demo.
const OWN_INSTANCES: u32 = 1;

/// Starts instances, and keeps pools in step with them.
pub(super) struct OwnPools {
    store: Store,
    starter: Starter,
    /// Where a new instance listens if that is free.
    listen: SocketAddr,
    /// One pool is started at a time: two at once would look for the same ports.
    turn: Mutex<()>,
}

impl OwnPools {
    pub(super) fn new(store: Store, starter: Starter, listen: SocketAddr) -> Self {
        Self { store, starter, listen, turn: Mutex::new(()) }
    }

    /// Starts so many instances of a pool, where they were the last time if that is free, and makes the pool follow.
    pub(super) async fn start(&self, pool: &PoolId, kind: PoolKind, count: u32) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        let last = pools::last_addresses(&self.store, pool).await?;
        let mut running = Vec::new();
        for number in 0..count as usize {
            // Where it was the last time: then nothing changes for the proxies.
            let listen = match last.get(number) {
                Some(BackendAddress::Http(address)) => *address,
                _ => self.listen,
            };
            let Running { address, .. } = self.starter.start(Wanted { pool: pool.clone(), listen }).await?;
            running.push(BackendAddress::Http(address));
        }
        pools::follow(&self.store, pool, kind, &running).await
    }

    /// Pools that had instances the last time.
    pub(super) async fn known(&self) -> anyhow::Result<Vec<(PoolId, PoolKind)>> {
        let head = self.store.head();
        let mut known = Vec::new();
        for pool in head.table.pools().map(|entry| &entry.pool) {
            if !pools::last_addresses(&self.store, &pool.id).await?.is_empty() {
                known.push((pool.id.clone(), pool.kind));
            }
        }
        Ok(known)
    }
}

#[async_trait]
impl PoolMaker for OwnPools {
    async fn make(&self, pool: &PoolId) -> Result<(), String> {
        let has_instances = pools::last_addresses(&self.store, pool).await.map_err(|e| format!("{e:#}"))?;
        if !has_instances.is_empty() {
            return Ok(());
        }
        self.start(pool, PoolKind::Dedicated, OWN_INSTANCES).await.map_err(|error| format!("{error:#}"))
    }
}
