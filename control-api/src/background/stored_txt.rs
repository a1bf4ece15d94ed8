//! What our DNS responder answers, out of the store.

use async_trait::async_trait;

use schoolgate_config::model::DomainName;
use schoolgate_dns::{TxtSource, Unavailable};
use schoolgate_store::Store;

/// TXT values that are in the store, for the zones that are in it.
#[derive(Debug, Clone)]
pub struct StoredTxt {
    store: Store,
}

impl StoredTxt {
    /// Those of a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl TxtSource for StoredTxt {
    fn zones(&self) -> Vec<DomainName> {
        self.store.head().table.zones().map(|zone| zone.name.clone()).collect()
    }

    async fn values_of(&self, name: &str) -> Result<Vec<String>, Unavailable> {
        self.store.txt_values(name).await.map_err(|error| Unavailable(error.to_string()))
    }
}
