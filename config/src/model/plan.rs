//! Plans: what a tenant may use. Rows, not an enum.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{LimitName, PlanId, Weight};

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
    /// Whether what is above a limit is refused, or only counted.
    #[serde(default, skip_serializing_if = "LimitMode::is_enforce")]
    pub mode: LimitMode,
    /// Its tenants' share of a pool that is full, beside others'.
    #[serde(default)]
    pub weight: Weight,
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
    /// Bytes of request and answer bodies per calendar month in the tenant's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_month: Option<Quota>,
    /// Requests per minute, averaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Requests that may come at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Requests per minute of one client address, averaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute_per_client: Option<u64>,
    /// Requests per minute of a class that routes name (`rate_class`), averaged; at most 8 classes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, u64>,
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
    /// Bytes of one upload: a body of type `multipart/form-data`. Absent: as any body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_bytes: Option<u64>,
    /// Limits of these that are tried out: what is above them is counted, and not refused.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub shadow: BTreeSet<LimitName>,
}

impl Limits {
    /// Classes of requests with a rate of their own that one plan can have: each is room beside every tenant.
    pub const MOST_CLASSES: usize = 8;

    /// A limit by its name; `None`: there is none.
    pub fn get(&self, name: LimitName) -> Option<u64> {
        match name {
            LimitName::Users => self.users,
            LimitName::StorageBytes => self.storage_bytes,
            LimitName::RequestsPerDay => self.requests_per_day.map(|quota| quota.value),
            LimitName::BytesPerMonth => self.bytes_per_month.map(|quota| quota.value),
            LimitName::RequestsPerMinute => self.requests_per_minute,
            LimitName::Burst => self.burst,
            LimitName::RequestsPerMinutePerClient => self.requests_per_minute_per_client,
            LimitName::InFlight => self.in_flight,
            LimitName::WebSockets => self.websockets,
            LimitName::CustomDomains => self.custom_domains,
            LimitName::BodyBytes => self.body_bytes,
            LimitName::UploadBytes => self.upload_bytes,
        }
    }

    /// Puts a value in the place of a limit. A quota stays soft or hard as it was; a new one is soft.
    pub fn set(&mut self, name: LimitName, value: u64) {
        let quota =
            |before: Option<Quota>| Some(Quota { value, mode: before.map(|quota| quota.mode).unwrap_or_default() });
        match name {
            LimitName::RequestsPerDay => self.requests_per_day = quota(self.requests_per_day),
            LimitName::BytesPerMonth => self.bytes_per_month = quota(self.bytes_per_month),
            LimitName::Users => self.users = Some(value),
            LimitName::StorageBytes => self.storage_bytes = Some(value),
            LimitName::RequestsPerMinute => self.requests_per_minute = Some(value),
            LimitName::Burst => self.burst = Some(value),
            LimitName::RequestsPerMinutePerClient => self.requests_per_minute_per_client = Some(value),
            LimitName::InFlight => self.in_flight = Some(value),
            LimitName::WebSockets => self.websockets = Some(value),
            LimitName::CustomDomains => self.custom_domains = Some(value),
            LimitName::BodyBytes => self.body_bytes = Some(value),
            LimitName::UploadBytes => self.upload_bytes = Some(value),
        }
    }
}

/// Whether what is above a limit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitMode {
    /// Refused.
    #[default]
    Enforce,
    /// Counted as `would_limit` and let through: how a plan is tried out on real traffic.
    Shadow,
}

impl LimitMode {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }

    fn is_enforce(&self) -> bool {
        *self == Self::Enforce
    }
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
        struct Row(&'static str, &'static str, [u64; 9], u16, QuotaMode, PoolKindRule, &'static [&'static str]);
        let rows = [
            Row(
                "basic",
                "Basic",
                [100, 10 * GB, 1_000, 100, 50, 20, 50, 1, 10 * MIB],
                1,
                QuotaMode::Soft,
                PoolKindRule::Shared,
                &[],
            ),
            Row(
                "standard",
                "Standard",
                [300, 30 * GB, 3_000, 200, 100, 40, 150, 2, 20 * MIB],
                2,
                QuotaMode::Soft,
                PoolKindRule::Shared,
                &["advanced_reporting"],
            ),
            Row(
                "premium",
                "Premium",
                [1_000, 100 * GB, 10_000, 600, 200, 100, 500, 5, 50 * MIB],
                4,
                QuotaMode::Soft,
                PoolKindRule::Dedicated,
                &["advanced_reporting", "biometric"],
            ),
            Row(
                "enterprise",
                "Enterprise",
                [10_000, 1_000 * GB, 100_000, 3_000, 1_000, 500, 5_000, 25, 100 * MIB],
                8,
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
                    weight,
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
                        ..Limits::default()
                    },
                    mode: LimitMode::Enforce,
                    weight: Weight::new(weight).expect("a weight of the catalogue"),
                    pool_kind,
                    features: features.iter().map(|f| (*f).to_owned()).collect(),
                },
            )
            .collect();
        plans.push(Self {
            id: "custom".parse().expect("a label"),
            name: "Custom".to_owned(),
            limits: Limits::default(),
            mode: LimitMode::Enforce,
            weight: Weight::default(),
            pool_kind: PoolKindRule::Any,
            features: Vec::new(),
        });
        plans
    }
}
