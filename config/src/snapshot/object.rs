//! The things a snapshot holds.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{
    AcmeAccount, CaId, Certificate, Challenge, ContextKey, Domain, DomainName, Fingerprint, IssuerId, KeyId, Plan,
    PlanId, Platform, PlatformId, Pool, PoolId, Route, RouteId, Tenant, TenantId, TokenIssuer, Zone,
};

macro_rules! objects {
    ($($(#[$doc:meta])* $kind:ident($key:ty) = $name:literal, |$value:ident| $of:expr;)*) => {
        /// A thing that a proxy must know. Shared, so that a table and a snapshot made of it hold it once.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Object {
            $($(#[$doc])* $kind(Arc<$kind>),)*
        }

        /// What names an object.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ObjectKey {
            $($(#[$doc])* $kind($key),)*
        }

        /// The kinds of object.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ObjectKind {
            $($(#[$doc])* $kind,)*
        }

        impl ObjectKind {
            /// The name used in JSON, audit lines and the store.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }

        impl Object {
            /// What names this object.
            pub fn key(&self) -> ObjectKey {
                match self { $(Self::$kind($value) => ObjectKey::$kind($of),)* }
            }
        }

        impl ObjectKey {
            /// The kind of the object named.
            pub const fn kind(&self) -> ObjectKind {
                match self { $(Self::$kind(_) => ObjectKind::$kind,)* }
            }

            /// The name without its kind.
            pub fn id(&self) -> String {
                match self { $(Self::$kind(key) => key.to_string(),)* }
            }
        }

        $(impl From<$kind> for Object {
            fn from(value: $kind) -> Self {
                Self::$kind(Arc::new(value))
            }
        })*
    };
}

objects! {
    /// A plan.
    Plan(PlanId) = "plan", |v| v.id.clone();
    /// A pool.
    Pool(PoolId) = "pool", |v| v.id.clone();
    /// A zone.
    Zone(DomainName) = "zone", |v| v.name.clone();
    /// A tenant.
    Tenant(TenantId) = "tenant", |v| v.id;
    /// A domain.
    Domain(DomainName) = "domain", |v| v.name.clone();
    /// A route.
    Route(RouteId) = "route", |v| v.id;
    /// A certificate with its sealed key.
    Certificate(Fingerprint) = "certificate", |v| v.about.fingerprint;
    /// A signing key of the tenant context.
    ContextKey(KeyId) = "context_key", |v| v.id.clone();
    /// Who may say in a token which tenant a caller belongs to.
    TokenIssuer(IssuerId) = "token_issuer", |v| v.id.clone();
    /// Our account at a certificate authority.
    AcmeAccount(CaId) = "acme_account", |v| v.ca.clone();
    /// An authorization that an authority may be checking.
    Challenge(DomainName) = "challenge", |v| v.name.clone();
    /// What holds for the platform as a whole.
    Platform(PlatformId) = "platform", |_v| PlatformId;
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind().as_str().replace('_', " "), self.id())
    }
}
