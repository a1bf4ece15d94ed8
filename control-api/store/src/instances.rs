//! Instances that registered themselves as backends: what is known of one beside its place in a pool.

use schoolgate_config::model::{BackendAddress, BackendId, PoolId};

use crate::Store;
use crate::Transaction;
use crate::error::StoreError;

/// An instance that registered itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The backend that it is.
    pub backend: BackendId,
    /// Of which pool.
    pub pool: PoolId,
    /// Where it listens.
    pub address: BackendAddress,
    /// The token that it registered with.
    pub token: String,
    /// When it was last heard, milliseconds since 1970.
    pub heard_at_ms: i64,
    /// When it said goodbye, milliseconds since 1970.
    pub leaving_at_ms: Option<i64>,
}

impl Store {
    /// All instances that registered themselves.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        self.sqlite.instances().await
    }
}

impl Transaction {
    /// The instance of a pool at an address.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn instance_at(
        &mut self,
        pool: &PoolId,
        address: &BackendAddress,
    ) -> Result<Option<Instance>, StoreError> {
        self.turn.instance_at(pool, address).await
    }

    /// Notes what is known of an instance.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_instance(&mut self, instance: &Instance) -> Result<(), StoreError> {
        self.turn.save_instance(instance).await
    }

    /// Forgets an instance.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn forget_instance(&mut self, pool: &PoolId, address: &BackendAddress) -> Result<(), StoreError> {
        self.turn.forget_instance(pool, address).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Actor, OpenMode};

    #[tokio::test]
    async fn an_instance_is_noted_heard_and_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open(&url, OpenMode::Create).await.expect("a store");
        let first = Instance {
            backend: BackendId::from_parts(1, 1),
            pool: "web".parse().expect("a pool"),
            address: "http://127.0.0.1:8701".parse().expect("an address"),
            token: "abc".to_owned(),
            heard_at_ms: 5,
            leaving_at_ms: None,
        };
        let mut transaction = store.begin(Actor::system("test")).await.expect("begun");
        transaction.save_instance(&first).await.expect("saved");
        transaction.finish().await.expect("finished");
        assert_eq!(store.instances().await.expect("read"), std::slice::from_ref(&first));

        let later = Instance { heard_at_ms: 9, leaving_at_ms: Some(9), ..first };
        let mut transaction = store.begin(Actor::system("test")).await.expect("begun");
        transaction.save_instance(&later).await.expect("saved");
        assert_eq!(transaction.instance_at(&later.pool, &later.address).await.expect("read").as_ref(), Some(&later));
        transaction.forget_instance(&later.pool, &later.address).await.expect("forgotten");
        transaction.finish().await.expect("finished");
        assert_eq!(store.instances().await.expect("read"), []);
    }
}
