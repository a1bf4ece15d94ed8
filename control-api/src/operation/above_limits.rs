//! Whom a change would leave above a limit: what each school uses, beside what it would be allowed.
//!
//! Nothing is taken from anybody. A dry run says it, so that somebody can talk with the school first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::calendar::Calendar;
use schoolgate_config::limits::effective_limit;
use schoolgate_config::model::{LimitName, Limits, Plan, Slug, Tenant, TenantId};
use schoolgate_config::snapshot::{Change, Object};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::usage::{QuotaKind, QuotaUse, Step};
use schoolgate_store::{Store, StoreError};

/// Rows that a preview names: 1,000. It counts all tenants.
const NAMED: usize = 1_000;

/// Tenants whose use is read at once: 1,000.
const PIECE: usize = 1_000;

/// How `used` was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measured {
    /// It is so now.
    Now,
    /// As the app last reported it.
    Reported,
    /// Since the school's day began.
    Today,
    /// Since the school's month began.
    ThisMonth,
    /// The most in one minute of the last 48 hours.
    BusiestMinute,
    /// The most at one time at one proxy in the last 48 hours.
    AtOneTime,
}

/// A tenant that has more than a limit would allow.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct AboveLimit {
    tenant: TenantId,
    slug: Slug,
    /// Which limit.
    #[schema(value_type = String)]
    limit: LimitName,
    /// What it would be.
    value: u64,
    /// How much is used.
    used: u64,
    /// Since when, or when.
    measured: Measured,
}

/// Whom a write would leave above a limit.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct AboveLimits {
    /// How many tenants would be.
    pub(crate) total: usize,
    /// By slug, a row for each limit; the first 1,000.
    tenants: Vec<AboveLimit>,
}

/// The tenants whose limits change with a write, as they would be, and what of their use is known without asking.
#[derive(Debug, Default)]
pub(crate) struct Concerned {
    tenants: Vec<(Arc<Tenant>, Arc<Plan>)>,
    domains: HashMap<TenantId, u64>,
}

impl Concerned {
    /// Those of changes that are not committed yet; `table` has them.
    pub(crate) fn by(changes: &[Change], table: &RoutingTable) -> Self {
        let mut tenants = HashMap::new();
        for change in changes {
            match change {
                Change::Put(Object::Plan(plan)) => {
                    let on_it = table.tenants().filter(|entry| entry.tenant.plan == plan.id);
                    tenants.extend(on_it.map(|entry| (entry.tenant.id, (entry.tenant.clone(), plan.clone()))));
                }
                Change::Put(Object::Tenant(tenant)) => {
                    if let Some(plan) = table.plan(&tenant.plan) {
                        tenants.insert(tenant.id, (tenant.clone(), plan.clone()));
                    }
                }
                _ => {}
            }
        }
        let mut domains: HashMap<TenantId, u64> = HashMap::new();
        if !tenants.is_empty() {
            table.domains().for_each(|domain| *domains.entry(domain.tenant).or_default() += 1);
        }
        let mut tenants: Vec<_> = tenants.into_values().collect();
        tenants.sort_by(|(a, _), (b, _)| a.slug.cmp(&b.slug));
        Self { tenants, domains }
    }

    /// Those of them that would be above a limit.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub(crate) async fn above(&self, store: &Store, caps: &Limits, now_ms: i64) -> Result<AboveLimits, StoreError> {
        let mut above = AboveLimits::default();
        for piece in self.tenants.chunks(PIECE) {
            let used = Used::read(store, piece, caps, now_ms).await?;
            for (tenant, plan) in piece {
                let domains = self.domains.get(&tenant.id).copied().unwrap_or(0);
                let rows = used.of(tenant, domains).filter_map(|(limit, used, measured)| {
                    let value = allowed(tenant, plan, caps, limit, now_ms).filter(|value| used > *value)?;
                    Some(AboveLimit { tenant: tenant.id, slug: tenant.slug.clone(), limit, value, used, measured })
                });
                let before = above.tenants.len();
                above.tenants.extend(rows);
                above.total += usize::from(above.tenants.len() > before);
                above.tenants.truncate(NAMED.max(before));
            }
        }
        above.tenants.truncate(NAMED);
        Ok(above)
    }
}

/// What a limit would be; `None`: as much as there is. What the app enforces is not capped by the platform.
fn allowed(tenant: &Tenant, plan: &Plan, caps: &Limits, limit: LimitName, now_ms: i64) -> Option<u64> {
    match limit {
        LimitName::Users | LimitName::StorageBytes => {
            effective_limit(tenant, plan, &Limits::default(), limit, now_ms).value
        }
        _ => effective_limit(tenant, plan, caps, limit, now_ms).value,
    }
}

/// What some tenants use.
struct Used {
    now_ms: i64,
    /// Users and bytes of storage.
    reported: HashMap<TenantId, (u64, u64)>,
    quotas: HashMap<(TenantId, QuotaKind, u16), u64>,
    /// Requests of the busiest minute, and the most in flight.
    peaks: HashMap<TenantId, (u64, u64)>,
}

impl Used {
    async fn read(
        store: &Store,
        piece: &[(Arc<Tenant>, Arc<Plan>)],
        caps: &Limits,
        now_ms: i64,
    ) -> Result<Self, StoreError> {
        let ids: Vec<TenantId> = piece.iter().map(|(tenant, _)| tenant.id).collect();
        let reported = store.app_reports(&ids).await?;
        let quotas: BTreeSet<(TenantId, QuotaKind, u16)> = piece.iter().flat_map(|(t, _)| periods(t, now_ms)).collect();
        let quotas: Vec<QuotaUse> =
            quotas.into_iter().map(|(tenant, quota, period)| QuotaUse { tenant, quota, period, used: 0 }).collect();
        let quotas = store.quotas_used(&quotas).await?;
        // A minute above the limit is in an hour above it: most hours need not be looked into.
        let rates: Vec<(TenantId, u64)> = piece
            .iter()
            .map(|(tenant, plan)| {
                let limit = allowed(tenant, plan, caps, LimitName::RequestsPerMinute, now_ms);
                (tenant.id, limit.unwrap_or(u64::MAX))
            })
            .collect();
        let since_s = now_ms.div_euclid(1_000) - Step::Minute.kept_s();
        let peaks = store.usage_peaks(&rates, since_s).await?;
        Ok(Self {
            now_ms,
            reported: reported.into_iter().map(|r| (r.tenant, (r.users, r.storage_bytes))).collect(),
            quotas: quotas.into_iter().map(|q| ((q.tenant, q.quota, q.period), q.used)).collect(),
            peaks: peaks.into_iter().map(|p| (p.tenant, (p.requests, p.in_flight))).collect(),
        })
    }

    /// What a tenant uses of each limit of which that is known.
    fn of(&self, tenant: &Tenant, domains: u64) -> impl Iterator<Item = (LimitName, u64, Measured)> {
        let (users, storage) = self.reported.get(&tenant.id).copied().unwrap_or_default();
        let (requests, in_flight) = self.peaks.get(&tenant.id).copied().unwrap_or_default();
        let [today, month] =
            periods(tenant, self.now_ms).map(|period| self.quotas.get(&period).copied().unwrap_or_default());
        [
            (LimitName::Users, users, Measured::Reported),
            (LimitName::StorageBytes, storage, Measured::Reported),
            (LimitName::RequestsPerDay, today, Measured::Today),
            (LimitName::BytesPerMonth, month, Measured::ThisMonth),
            (LimitName::RequestsPerMinute, requests, Measured::BusiestMinute),
            (LimitName::InFlight, in_flight, Measured::AtOneTime),
            (LimitName::CustomDomains, domains, Measured::Now),
        ]
        .into_iter()
    }
}

/// The day and the month of a tenant.
fn periods(tenant: &Tenant, now_ms: i64) -> [(TenantId, QuotaKind, u16); 2] {
    let calendar = Calendar::at(&tenant.time_zone.clone().unwrap_or_default(), now_ms);
    [
        (tenant.id, QuotaKind::RequestsPerDay, calendar.day.number),
        (tenant.id, QuotaKind::BytesPerMonth, calendar.month.number),
    ]
}
