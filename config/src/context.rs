//! The claims of `X-Tenant-Context`: what a backend is told of the tenant, in one signed header.
//!
//! A compact JWS (RFC 7515) with `alg` EdDSA (RFC 8037), `kid`, `aud` = the pool, and a lifetime of
//! [`LIFETIME_S`]. A backend that verifies it cannot be fooled by a request that did not pass the gateway.

use serde::Serialize;

use crate::model::{Isolation, Limits, Plan, PlanId, PoolId, Slug, Tenant, TenantId, Theme};

/// Seconds a context is good for: long enough to sign once per tenant and half a minute, short enough that a
/// suspended tenant's leaked header is soon worth nothing.
pub const LIFETIME_S: i64 = 60;

/// The `iss` of every context.
pub const ISSUER: &str = "schoolgate";

/// What a backend is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Claims<'a> {
    /// [`ISSUER`].
    pub iss: &'a str,
    /// The pool the request is forwarded to.
    pub aud: PoolId,
    /// The tenant again, where generic verifiers look for it.
    pub sub: TenantId,
    /// Seconds since 1970.
    pub iat: i64,
    /// Seconds since 1970.
    pub exp: i64,
    /// The tenant.
    pub tenant_id: TenantId,
    /// Its slug.
    pub slug: Slug,
    /// Its name.
    pub name: &'a str,
    /// Its plan.
    pub plan: PlanId,
    /// How its data is kept apart.
    pub isolation: Isolation,
    /// Features that are on, sorted.
    pub features: Vec<&'a str>,
    /// What it may use.
    pub limits: Limits,
    /// Its colours and logo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theme: Option<&'a Theme>,
}

impl<'a> Claims<'a> {
    /// The claims about `tenant` for a request to `pool`, from `now` (seconds since 1970).
    ///
    /// `limits` are those that hold for it now ([`crate::limits::effective`]).
    pub fn new(tenant: &'a Tenant, plan: &'a Plan, limits: Limits, pool: &PoolId, now: i64) -> Self {
        Self {
            iss: ISSUER,
            aud: pool.clone(),
            sub: tenant.id,
            iat: now,
            exp: now + LIFETIME_S,
            tenant_id: tenant.id,
            slug: tenant.slug.clone(),
            name: &tenant.name,
            plan: tenant.plan.clone(),
            isolation: tenant.isolation,
            features: features(tenant, plan),
            limits,
            theme: (!tenant.theme.is_empty()).then_some(&*tenant.theme),
        }
    }
}

/// The features that are on for a tenant: its plan's, with the tenant's own switches over them; sorted.
pub fn features<'a>(tenant: &'a Tenant, plan: &'a Plan) -> Vec<&'a str> {
    let from_plan = plan.features.iter().map(String::as_str).filter(|f| tenant.features.get(*f) != Some(&false));
    let own = tenant.features.iter().filter(|(_, on)| **on).map(|(name, _)| name.as_str());
    let mut all: Vec<&str> = from_plan.chain(own).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether one feature is on for a tenant.
pub fn has_feature(tenant: &Tenant, plan: &Plan, feature: &str) -> bool {
    tenant.features.get(feature).copied().unwrap_or_else(|| plan.features.iter().any(|f| f == feature))
}
