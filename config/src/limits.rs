//! Which limits hold for a tenant, and where each comes from: its plan, an override, or a cap of the platform.
//!
//! Pure, and asked with a moment: an override begins and ends by itself, on every node and in the API alike, with
//! nobody writing anything.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{LimitMode, LimitName, Limits, Override, Plan, Tenant};

/// Where the value of a limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Nothing limits.
    None,
    /// The plan.
    Plan,
    /// An override of the tenant.
    Override,
    /// The platform's cap, which is below what plan or override say.
    PlatformCap,
}

/// One limit of a tenant, and everything that has a say in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EffectiveLimit {
    /// Which.
    #[schema(value_type = String)]
    pub limit: LimitName,
    /// What holds; `null`: nothing limits.
    pub value: Option<u64>,
    /// Where that comes from.
    pub from: Provenance,
    /// Whether it is enforced.
    pub mode: LimitMode,
    /// What the plan says.
    pub plan: Option<u64>,
    /// The platform's cap.
    pub platform_cap: Option<u64>,
    /// The override, also while it has not begun or is over.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Override>,
    /// Whether the override holds now.
    pub override_holds: bool,
}

/// A limit of a tenant at `now_ms` (milliseconds since 1970).
pub fn effective_limit(tenant: &Tenant, plan: &Plan, caps: &Limits, name: LimitName, now_ms: i64) -> EffectiveLimit {
    let replaced = tenant.overrides.get(&name);
    let holding = replaced.filter(|replaced| replaced.holds(now_ms));
    let (of_plan, cap) = (plan.limits.get(name), caps.get(name));
    let wanted = holding.map(|replaced| replaced.value).or(of_plan);
    let (value, from) = match (wanted, cap) {
        (None, None) => (None, Provenance::None),
        (wanted, Some(cap)) if wanted.is_none_or(|wanted| wanted > cap) => (Some(cap), Provenance::PlatformCap),
        (wanted, _) if holding.is_some() => (wanted, Provenance::Override),
        (wanted, _) => (wanted, Provenance::Plan),
    };
    EffectiveLimit {
        limit: name,
        value,
        from,
        mode: mode(plan, name),
        plan: of_plan,
        platform_cap: cap,
        replaced: replaced.cloned(),
        override_holds: holding.is_some(),
    }
}

/// All limits of a tenant at `now_ms` (milliseconds since 1970), as a plan would list them.
pub fn effective(tenant: &Tenant, plan: &Plan, caps: &Limits, now_ms: i64) -> Limits {
    let mut limits = plan.limits.clone();
    // The plan's own words are the rule; only what has another say in it is looked at.
    for name in LimitName::ALL.iter().filter(|name| tenant.overrides.contains_key(name) || caps.get(**name).is_some()) {
        if let Some(value) = effective_limit(tenant, plan, caps, *name, now_ms).value {
            limits.set(*name, value);
        }
    }
    limits
}

/// When limits of a tenant next change by themselves, after `now_ms`.
pub fn next_turn(tenant: &Tenant, now_ms: i64) -> Option<i64> {
    tenant.overrides.values().filter_map(|replaced| replaced.next_turn(now_ms)).min()
}

/// Whether a limit of a plan is enforced.
pub fn mode(plan: &Plan, name: LimitName) -> LimitMode {
    if plan.limits.shadow.contains(&name) { LimitMode::Shadow } else { plan.mode }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::tenant;
    use crate::model::{TenantState, Timestamp};

    fn school(value: u64, expires_ms: i64) -> Tenant {
        let mut school = tenant("ash", TenantState::Active);
        let expires_at = Some(Timestamp::from_unix_ms(expires_ms));
        let exam = Override { value, reason: "results day".into(), starts_at: None, expires_at };
        school.overrides.insert(LimitName::RequestsPerMinute, exam);
        school
    }

    fn basic() -> Plan {
        Plan::catalogue().remove(0)
    }

    #[test]
    fn an_override_stands_before_the_plan_until_it_expires() {
        let (school, plan, caps) = (school(3_000, 1_000), basic(), Limits::default());
        let at = |now| {
            let limit = effective_limit(&school, &plan, &caps, LimitName::RequestsPerMinute, now);
            assert_eq!(effective(&school, &plan, &caps, now).requests_per_minute, limit.value);
            (limit.value, limit.from)
        };
        assert_eq!(at(999), (Some(3_000), Provenance::Override));
        assert_eq!(at(1_000), (Some(100), Provenance::Plan));
        assert_eq!((next_turn(&school, 999), next_turn(&school, 1_000)), (Some(1_000), None));
    }

    #[test]
    fn the_platforms_cap_is_above_everything_and_limits_where_nothing_does() {
        let (school, plan) = (school(3_000, 1_000), basic());
        let caps = Limits { requests_per_minute: Some(500), upload_bytes: Some(7), ..Limits::default() };
        let limit = |name| effective_limit(&school, &plan, &caps, name, 0);
        assert_eq!(limit(LimitName::RequestsPerMinute).value, Some(500));
        assert_eq!(limit(LimitName::RequestsPerMinute).from, Provenance::PlatformCap);
        assert_eq!(limit(LimitName::UploadBytes).value, Some(7));
        assert_eq!((limit(LimitName::Users).value, limit(LimitName::Users).from), (Some(100), Provenance::Plan));
        assert_eq!(limit(LimitName::BytesPerMonth).from, Provenance::None);
    }

    #[test]
    fn a_quota_stays_hard_under_an_override() {
        let mut school = school(1, 0);
        let plan =
            Plan::catalogue().into_iter().find(|plan| plan.id.as_str() == "enterprise").expect("in the catalogue");
        let more = Override { value: 5, reason: "test".into(), starts_at: None, expires_at: None };
        school.overrides.insert(LimitName::RequestsPerDay, more);
        let limits = effective(&school, &plan, &Limits::default(), 0);
        assert_eq!(limits.requests_per_day.map(|q| (q.value, q.mode)), Some((5, crate::model::QuotaMode::Hard)));
    }
}
