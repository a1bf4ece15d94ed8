//! Operations: things that take a while, are done step by step, and outlive the process that does them.
//!
//! A step is one [`Transaction`]: what it changes, its line of audit, and how far the operation is then are written
//! together, so whoever goes on knows exactly what was done.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use schoolgate_config::model::{IdError, TenantId};
use schoolgate_config::time::new_ulid;
use ulid::Ulid;

use crate::error::StoreError;
use crate::{Actor, Lease, Store, Transaction};

/// Names an operation: `op_` and a ULID, so that the order of names is the order in which they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(Ulid);

impl OperationId {
    /// A new one.
    pub fn generate() -> Self {
        Self(new_ulid())
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op_{}", self.0)
    }
}

impl FromStr for OperationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::NotAUlid { prefix: "op", found: text.chars().take(64).collect() };
        let ulid = text.strip_prefix("op_").ok_or_else(wrong)?;
        Ulid::from_string(ulid).map(Self).map_err(|_| wrong())
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationState {
    /// It goes on.
    Running,
    /// It is being undone.
    Reverting,
    /// All is done.
    Succeeded,
    /// All is as it was before: it was cancelled, or undid itself.
    Reverted,
    /// It could neither be done nor undone; somebody has to look.
    Failed,
}

impl OperationState {
    const ALL: [Self; 5] = [Self::Running, Self::Reverting, Self::Succeeded, Self::Reverted, Self::Failed];

    /// The name used in JSON and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Reverting => "reverting",
            Self::Succeeded => "succeeded",
            Self::Reverted => "reverted",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more comes.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Reverted | Self::Failed)
    }
}

impl FromStr for OperationState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let state = Self::ALL.into_iter().find(|state| state.as_str() == text);
        state.ok_or_else(|| format!("expected one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// An operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Which.
    pub id: OperationId,
    /// What is done, such as `migrate`.
    pub kind: String,
    /// To whom.
    pub tenant: TenantId,
    /// Where it stands.
    pub state: OperationState,
    /// Somebody asked for it to be undone.
    pub cancelled: bool,
    /// When it was asked for, milliseconds since 1970.
    pub created_at_ms: i64,
    /// By whom.
    pub created_by: String,
    /// When it last went on, milliseconds since 1970.
    pub updated_at_ms: i64,
    /// What was asked for and how far it is.
    pub body: Value,
}

/// Which operations, the latest first.
#[derive(Debug, Clone, Default)]
pub struct OperationQuery {
    /// Those before this one.
    pub before: Option<OperationId>,
    /// At most this many.
    pub limit: u32,
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
    /// Those in this state.
    pub state: Option<OperationState>,
}

impl Store {
    /// One operation.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        self.sqlite.operation(id).await
    }

    /// Operations, the latest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn operations(&self, query: &OperationQuery) -> Result<Vec<Operation>, StoreError> {
        self.sqlite.operations(query).await
    }

    /// Operations that are not at their end, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn unfinished_operations(&self) -> Result<Vec<Operation>, StoreError> {
        self.sqlite.unfinished_operations().await
    }
}

impl Store {
    /// Notes how far an operation is when nothing else changes: no change, no line of audit.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn note_operation(&self, operation: &Operation, lease: &Lease) -> Result<(), StoreError> {
        let mut transaction = self.begin(Actor::system("operations")).await?;
        transaction.require(lease).await?;
        transaction.save_operation(operation).await?;
        transaction.finish().await
    }
}

impl Transaction {
    /// One operation, as this transaction finds it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn operation(&mut self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        self.turn.operation(id).await
    }

    /// The operation of a tenant that is not at its end.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn unfinished_operation(&mut self, tenant: TenantId) -> Result<Option<Operation>, StoreError> {
        self.turn.unfinished_operation(tenant).await
    }

    /// Begins an operation. A tenant has one at a time: ask [`Self::unfinished_operation`] first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn insert_operation(&mut self, operation: &Operation) -> Result<(), StoreError> {
        self.turn.insert_operation(operation).await
    }

    /// Notes how far an operation is. Whether it is cancelled is not touched.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_operation(&mut self, operation: &Operation) -> Result<(), StoreError> {
        self.turn.save_operation(operation).await
    }

    /// Asks for an operation to be undone. Says whether it was under way.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn cancel_operation(&mut self, id: OperationId) -> Result<bool, StoreError> {
        self.turn.cancel_operation(id).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::OpenMode;

    fn operation(tenant: u128) -> Operation {
        Operation {
            id: OperationId::generate(),
            kind: "migrate".to_owned(),
            tenant: TenantId::from_parts(1, tenant),
            state: OperationState::Running,
            cancelled: false,
            created_at_ms: 5,
            created_by: "ada".to_owned(),
            updated_at_ms: 5,
            body: json!({ "pool": "next" }),
        }
    }

    #[test]
    fn an_identifier_reads_back_as_written() {
        let id = OperationId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "op_", "op_x", "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
            assert!(text.parse::<OperationId>().is_err(), "{text} was taken");
        }
    }

    #[tokio::test]
    async fn an_operation_is_kept_and_a_tenant_has_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open(&url, OpenMode::Create).await.unwrap();
        let (mut first, mut other) = (operation(1), operation(2));
        // Identities of one millisecond are in no order.
        other.id = OperationId(Ulid::from_parts(first.id.0.timestamp_ms() + 1, 0));
        let mut transaction = store.begin(Actor::system("test")).await.unwrap();
        transaction.insert_operation(&first).await.unwrap();
        transaction.insert_operation(&other).await.unwrap();
        assert_eq!(transaction.unfinished_operation(first.tenant).await.unwrap().as_ref(), Some(&first));
        transaction.commit("test", "test", json!(null)).await.unwrap();
        assert_eq!(store.unfinished_operations().await.unwrap(), [first.clone(), other.clone()]);

        let mut transaction = store.begin(Actor::system("test")).await.unwrap();
        assert!(transaction.insert_operation(&operation(1)).await.is_err(), "a second one of the same tenant");
        drop(transaction);

        let mut transaction = store.begin(Actor::system("test")).await.unwrap();
        assert!(transaction.cancel_operation(first.id).await.unwrap());
        // Whoever does the operation read it before it was cancelled.
        first.body = json!({ "pool": "next", "step": 2 });
        transaction.save_operation(&first).await.unwrap();
        first.cancelled = true;
        assert_eq!(transaction.operation(first.id).await.unwrap().as_ref(), Some(&first));
        first.state = OperationState::Reverted;
        transaction.save_operation(&first).await.unwrap();
        assert!(!transaction.cancel_operation(first.id).await.unwrap(), "it is over");
        transaction.insert_operation(&operation(1)).await.unwrap();
        transaction.commit("test", "test", json!(null)).await.unwrap();

        let of_first = OperationQuery { tenant: Some(first.tenant), limit: 10, ..OperationQuery::default() };
        let found = store.operations(&of_first).await.unwrap();
        assert_eq!((found.len(), &found[1]), (2, &first), "the latest first");
        let reverted = OperationQuery { state: Some(OperationState::Reverted), ..of_first.clone() };
        assert_eq!(store.operations(&reverted).await.unwrap(), [first.clone()]);
        let before = OperationQuery { before: Some(found[0].id), ..of_first };
        assert_eq!(store.operations(&before).await.unwrap(), [first]);
    }
}
