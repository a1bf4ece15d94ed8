//! What is stored as an object of the gateway, and how it is read back.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use schoolgate_config::model::{
    AcmeAccount, CaId, Certificate, Challenge, ContextKey, Domain, DomainName, Fingerprint, IssuerId, KeyId, Plan,
    PlanId, Platform, PlatformId, Pool, PoolId, Route, RouteId, Tenant, TenantId, TenantState, TokenIssuer, Zone,
};
use schoolgate_config::snapshot::{Object, ObjectKey, ObjectKind};

/// A kind of object that the store keeps: everything a proxy must know.
pub trait Aggregate: Clone + Into<Object> + Serialize + DeserializeOwned + Send + Sync + Unpin + 'static {
    /// What names one.
    type Key: Clone + Display + FromStr + Send + Sync;
    /// Which kind this is.
    const KIND: ObjectKind;

    /// What names this one.
    fn key(&self) -> Self::Key;
    /// The key among those of all kinds.
    fn object_key(key: &Self::Key) -> ObjectKey;
    /// The object, if it is of this kind.
    fn from_object(object: &Object) -> Option<&Arc<Self>>;
}

macro_rules! aggregates {
    ($($kind:ident($key:ty), |$value:ident| $of:expr;)*) => {$(
        impl Aggregate for $kind {
            type Key = $key;
            const KIND: ObjectKind = ObjectKind::$kind;

            fn key(&self) -> Self::Key {
                let $value = self;
                $of
            }

            fn object_key(key: &Self::Key) -> ObjectKey {
                ObjectKey::$kind(key.clone())
            }

            fn from_object(object: &Object) -> Option<&Arc<Self>> {
                match object {
                    Object::$kind(value) => Some(value),
                    _ => None,
                }
            }
        }
    )*};
}

aggregates! {
    Plan(PlanId), |v| v.id.clone();
    Pool(PoolId), |v| v.id.clone();
    Zone(DomainName), |v| v.name.clone();
    Tenant(TenantId), |v| v.id;
    Domain(DomainName), |v| v.name.clone();
    Route(RouteId), |v| v.id;
    Certificate(Fingerprint), |v| v.about.fingerprint;
    ContextKey(KeyId), |v| v.id.clone();
    TokenIssuer(IssuerId), |v| v.id.clone();
    AcmeAccount(CaId), |v| v.ca.clone();
    Challenge(DomainName), |v| v.name.clone();
    Platform(PlatformId), |_v| PlatformId;
}

/// An object as it is in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// The object.
    pub value: T,
    /// The number of the change that last wrote it: the ETag. An object that is removed and made again under the same
    /// name never has a version it had before.
    pub version: u64,
    /// When it was made, milliseconds since 1970.
    pub created_at_ms: i64,
    /// When it was last written, milliseconds since 1970.
    pub updated_at_ms: i64,
}

/// Which objects of a kind, in the order of their keys (tenants and routes: in the order they were made).
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Those after this key, as given in [`Page::next`].
    pub after: Option<String>,
    /// At most this many, 1-1000.
    pub limit: u32,
    /// Those with this text in the name; of tenants also in slug and external id. Case does not matter.
    pub search: Option<String>,
    /// Those of this tenant (domains, routes, token issuers).
    pub tenant: Option<TenantId>,
    /// Those in this state (tenants).
    pub state: Option<TenantState>,
    /// Those on this plan (tenants).
    pub plan: Option<PlanId>,
    /// Those on this pool (tenants; routes whose scope it is).
    pub pool: Option<PoolId>,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self { after: None, limit: 100, search: None, tenant: None, state: None, plan: None, pool: None }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The objects.
    pub items: Vec<T>,
    /// Where the next part begins, if there is one.
    pub next: Option<String>,
}
