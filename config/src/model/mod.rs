//! The domain's types. They are parsed where data enters (API body, database row, snapshot), and trusted after that.

mod balance;
mod canary;
mod certificate;
mod challenge;
mod context_key;
mod domain;
mod field_name;
mod files;
mod health_check;
mod id;
mod jwks;
mod limit;
mod maintenance;
mod name;
mod plan;
mod platform;
mod pool;
mod route;
mod security;
mod tenant;
mod time_zone;
mod timestamp;
mod token_issuer;
mod upstream_tls;
mod zone;

pub use balance::{Balance, CookieName, CookieNameError, SameSite, StickyCookie};
pub use canary::{Canary, CanaryAsked, CanaryBy, CookieMatch, Percent};
pub use certificate::{Certificate, CertificateRef, Der};
pub use challenge::{AcmeAccount, Challenge, ChallengeAnswer, Thumbprint, ThumbprintError};
pub use context_key::{ContextKey, ContextKeyState, ContextKeyTimes};
pub use domain::{CertificateState, Domain, Ownership, Routing};
pub use field_name::{FieldNameError, changeable};
pub use files::{FilePath, FilePathError, FilesAnswer};
pub use health_check::{HealthCheck, HealthCheckForm, Probe, ProbeKind};
pub use id::{
    BackendId, CaId, Fingerprint, IdError, IssuerId, KeyId, NodeId, PlanId, PoolId, Revision, RouteId, TenantId,
};
pub use jwks::{JWKS_BYTES, Jwks, JwksError, KeyName, PublicKey, TokenKey, Unusable};
pub use limit::{LimitName, LimitNameError, Override};
pub use maintenance::Maintenance;
pub(crate) use name::is_canonical;
pub use name::{DomainName, DomainNameError, RESERVED_LABELS, Slug, SlugError};
pub use plan::{LimitMode, Limits, Plan, PoolKindRule, Quota, QuotaMode};
pub use platform::{Platform, PlatformId, PlatformIdError};
pub use pool::{
    Backend, BackendAddress, BackendAddressError, BackendState, Ejection, Pool, PoolKind, PoolTimeouts, QueueRules,
    Retry, ShardSize, Weight,
};
pub use route::{
    FixedAnswer, HeaderMatch, HostClass, Lane, Redirect, RequestClass, Rewrite, Route, RouteAction, RouteMatch,
    RouteScope, RouteTimeouts,
};
pub use security::{FrameOptions, ReferrerPolicy, Security};
pub use tenant::{Color, ColorError, Isolation, Profile, Subscription, SubscriptionStatus, Tenant, TenantState, Theme};
pub use time_zone::{TimeZone, TimeZoneError};
pub use timestamp::{Timestamp, TimestampError};
pub use token_issuer::{KeySource, KeyUrl, KeyUrlError, TokenAlgorithm, TokenIssuer, TokenIssuerError};
pub use upstream_tls::{CaBundle, ClientCertificate, PemError, ServerName, ServerNameError, UpstreamTls, certificates};
pub use zone::Zone;
