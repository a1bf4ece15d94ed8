//! Plans: what a tenant may use. Rows, not an enum.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PlanId;

/// A plan of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Its name in the API.
    pub id: PlanId,
    /// What people call it.
    pub name: String,
    /// What a tenant on it may use.
    #[serde(default)]
    pub limits: Limits,
    /// Which kind of pool its tenants belong on.
    #[serde(default)]
    pub pool_kind: PoolKindRule,
    /// Features that are on for every tenant of the plan.
    #[serde(default)]
    pub features: Vec<String>,
}

/// What a tenant may use; a limit that is absent does not limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// People with an account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<u64>,
    /// Bytes of storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
    /// API requests per calendar day in the tenant's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_day: Option<Quota>,
    /// Requests per minute, averaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Requests that may come at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Requests at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// WebSockets at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websockets: Option<u64>,
    /// Names of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_domains: Option<u64>,
    /// Bytes of one request body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
}

/// A number that may be used up in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// How much.
    pub value: u64,
    /// What happens above it.
    #[serde(default)]
    pub mode: QuotaMode,
}

/// What happens above a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuotaMode {
    /// Counted, warned about, served.
    #[default]
    Soft,
    /// Refused with 429.
    Hard,
}

/// Which kind of pool a plan's tenants belong on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolKindRule {
    /// Shared pools.
    Shared,
    /// A pool of its own.
    Dedicated,
    /// Either.
    #[default]
    Any,
}

impl Plan {
    /// The catalogue a new store begins with (DESIGN: basic, standard, premium, enterprise; `custom` starts without limits).
    pub fn catalogue() -> Vec<Self> {
        const GB: u64 = 1_000_000_000;
        const MIB: u64 = 1 << 20;
        struct Row(&'static str, &'static str, [u64; 9], QuotaMode, PoolKindRule, &'static [&'static str]);
        let rows = [
            Row(
                "basic",
                "Basic",
                [100, 10 * GB, 1_000, 100, 50, 20, 50, 1, 10 * MIB],
                QuotaMode::Soft,
                PoolKindRule::Shared,
                &[],
            ),
            Row(
                "standard",
                "Standard",
                [300, 30 * GB, 3_000, 200, 100, 40, 150, 2, 20 * MIB],
                QuotaMode::Soft,
                PoolKindRule::Shared,
                &["advanced_reporting"],
            ),
            Row(
                "premium",
                "Premium",
                [1_000, 100 * GB, 10_000, 600, 200, 100, 500, 5, 50 * MIB],
                QuotaMode::Soft,
                PoolKindRule::Dedicated,
                &["advanced_reporting", "biometric"],
            ),
            Row(
                "enterprise",
                "Enterprise",
                [10_000, 1_000 * GB, 100_000, 3_000, 1_000, 500, 5_000, 25, 100 * MIB],
                QuotaMode::Hard,
                PoolKindRule::Dedicated,
                &[
                    "advanced_reporting",
                    "biometric",
                    "financial_management",
                    "hostel",
                    "lms",
                    "parent_portal",
                    "sms_notifications",
                    "transport",
                ],
            ),
        ];
        let mut plans: Vec<Self> = rows
            .into_iter()
            .map(
                |Row(
                    id,
                    name,
                    [users, storage, day, minute, burst, in_flight, websockets, domains, body],
                    mode,
                    pool_kind,
                    features,
                )| Self {
                    id: id.parse().expect("the catalogue's names are labels"),
                    name: name.to_owned(),
                    limits: Limits {
                        users: Some(users),
                        storage_bytes: Some(storage),
                        requests_per_day: Some(Quota { value: day, mode }),
                        requests_per_minute: Some(minute),
                        burst: Some(burst),
                        in_flight: Some(in_flight),
                        websockets: Some(websockets),
                        custom_domains: Some(domains),
                        body_bytes: Some(body),
                    },
                    pool_kind,
                    features: features.iter().map(|f| (*f).to_owned()).collect(),
                },
            )
            .collect();
        plans.push(Self {
            id: "custom".parse().expect("a label"),
            name: "Custom".to_owned(),
            limits: Limits::default(),
            pool_kind: PoolKindRule::Any,
            features: Vec::new(),
        });
        plans
    }
}
