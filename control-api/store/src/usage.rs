//! What tenants used, as the store sums it.

use schoolgate_config::model::TenantId;
use schoolgate_config::usage::Step;

/// Which sums of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Sums over what.
    pub step: Step,
    /// From this moment on, seconds since 1970.
    pub from_s: i64,
    /// Before this moment.
    pub to_s: i64,
}

/// Sums of every tenant, in the order of tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TotalsQuery {
    /// From this moment on, seconds since 1970; whole days.
    pub from_s: i64,
    /// Before this moment.
    pub to_s: i64,
    /// Tenants after this one.
    pub after: Option<TenantId>,
    /// At most so many.
    pub limit: u32,
}

/// The busiest time of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsagePeak {
    /// Whose.
    pub tenant: TenantId,
    /// Requests of its busiest minute, if that had more than was asked about; else 0.
    pub requests: u64,
    /// The most requests in flight at one time at one proxy.
    pub in_flight: u64,
}

/// What a tenant used in some days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageTotal {
    /// Whose. It may be a tenant that is no more.
    pub tenant: TenantId,
    /// Requests.
    pub requests: u64,
    /// Requests answered with 5xx.
    pub errors: u64,
    /// Requests refused for a limit.
    pub limited: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
    /// The most requests in flight at one time at one proxy.
    pub in_flight_peak: u64,
}
