//! Limits of a tenant: which hold and why, and what stands in the place of its plan's for a while.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use schoolgate_config::limits::{EffectiveLimit, effective_limit, next_turn};
use schoolgate_config::model::{
    LimitName, Limits, Override, PlanId, QuotaMode, Slug, Tenant, TenantId, TimeZone, Timestamp,
};
use schoolgate_config::table::{RoutingTable, TenantEntry};
use schoolgate_config::time::rfc3339;
use schoolgate_store::Store;

use super::document::{Errors, Text, read, readable};
use super::edit;
use super::permission::Operator;
use super::tenants::{self, TenantKey};
use super::{Done, Refusal, What, Work};

/// What holds in the place of a plan's limit.
#[derive(Debug, ToSchema)]
pub(crate) struct OverrideInput {
    /// The limit while it holds.
    value: u64,
    /// Why, for whoever looks at it later.
    reason: Text<1, 500>,
    /// From when; now if not given.
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    /// Until when; without it, until it is taken away.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}
readable!(OverrideInput { value, reason, starts_at, expires_at });

/// The limits of a tenant, now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitsView {
    tenant: TenantId,
    slug: Slug,
    plan: PlanId,
    /// Where its days begin and end.
    #[schema(value_type = String)]
    time_zone: TimeZone,
    /// The moment this is about.
    #[schema(format = DateTime)]
    at: String,
    /// When an override next begins or ends; `null`: none does.
    #[schema(format = DateTime)]
    changes_at: Option<String>,
    /// Every limit, in the order of a plan.
    limits: Vec<LimitRow>,
}

/// One limit of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitRow {
    #[serde(flatten)]
    effective: EffectiveLimit,
    /// How much is used, where the control plane knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    /// Of quotas: whether what is above is refused (`hard`) or only warned about (`soft`).
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<QuotaMode>,
}

/// The limits of a tenant at `now_ms` (milliseconds since 1970).
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) async fn show(
    store: &Store,
    caps: &Limits,
    operator: &Operator,
    key: &TenantKey,
    now_ms: i64,
) -> Result<LimitsView, Refusal> {
    let id = tenants::get(store, operator, key).await?.value.id;
    let head = store.head();
    let entry = head.table.tenant(&id).ok_or_else(|| Refusal::not_found(&format!("tenant {key}")))?;
    Ok(view(entry, &head.table, caps, now_ms))
}

fn view(
    entry: &TenantEntry<impl schoolgate_config::table::Live>,
    table: &RoutingTable,
    caps: &Limits,
    now_ms: i64,
) -> LimitsView {
    let (tenant, plan) = (&entry.tenant, &entry.plan);
    let domains = table.domains().filter(|domain| domain.tenant == tenant.id).count() as u64;
    let row = |name: &LimitName| LimitRow {
        effective: effective_limit(tenant, plan, caps, *name, now_ms),
        used: (*name == LimitName::CustomDomains).then_some(domains),
        quota: match name {
            LimitName::RequestsPerDay => plan.limits.requests_per_day.map(|quota| quota.mode),
            LimitName::BytesPerMonth => plan.limits.bytes_per_month.map(|quota| quota.mode),
            _ => None,
        },
    };
    LimitsView {
        tenant: tenant.id,
        slug: tenant.slug.clone(),
        plan: plan.id.clone(),
        time_zone: tenant.time_zone.clone().unwrap_or_default(),
        at: rfc3339(now_ms),
        changes_at: next_turn(tenant, now_ms).map(rfc3339),
        limits: LimitName::ALL.iter().map(row).collect(),
    }
}

/// Puts an override in the place of a limit.
///
/// # Errors
/// [`Refusal::Invalid`] with everything that is wrong; [`Refusal::NotFound`], [`Refusal::Forbidden`], [`Refusal::Stale`].
pub(crate) async fn put(work: &mut Work, key: &TenantKey, limit: &str, body: &Value) -> Result<Done, Refusal> {
    let name = limit_of(limit)?;
    let now_ms = work.transaction.now_ms();
    let mut errors = Errors::default();
    let input = read::<OverrideInput>(body, &mut errors);
    if let Some(input) = &input {
        check(input, name, now_ms, &mut errors);
    }
    let OverrideInput { value, reason, starts_at, expires_at } = errors.ok(input).map_err(Refusal::Invalid)?;
    let before = tenants::changeable_by_operators(work, key).await?;
    let mut tenant = before.value.clone();
    let made = Override { value, reason: reason.0, starts_at, expires_at };
    let old = tenant.overrides.insert(name, made.clone());
    let stored = work.transaction.update(tenant, None).await?;
    let object = row_of(work, &stored.value, name, now_ms);
    let what = if old.is_none() { What::Created } else { What::Changed };
    let mut done = edit::done(work, &stored, what, "override", json!({ "limit": name, "from": old, "to": made }));
    done.path = format!("{}/overrides/{name}", done.path);
    // Idempotent, so 200 both times.
    done.what = What::Changed;
    done.object = object;
    Ok(done)
}

/// Takes an override away.
///
/// # Errors
/// [`Refusal::NotFound`] also when there is none; [`Refusal::Forbidden`], [`Refusal::Stale`].
pub(crate) async fn clear(work: &mut Work, key: &TenantKey, limit: &str) -> Result<Done, Refusal> {
    let name = limit_of(limit)?;
    let before = tenants::changeable_by_operators(work, key).await?;
    let mut tenant = before.value.clone();
    let Some(old) = tenant.overrides.remove(&name) else {
        return Err(Refusal::not_found(&format!("the override of {name}")));
    };
    let stored = work.transaction.update(tenant, None).await?;
    let summary = json!({ "limit": name, "from": old, "to": null });
    let mut done = edit::done(work, &stored, What::Removed, "clear-override", summary);
    done.object = Value::Null;
    Ok(done)
}

fn row_of(work: &Work, tenant: &Tenant, name: LimitName, now_ms: i64) -> Value {
    let Some(plan) = work.transaction.table().plan(&tenant.plan) else { return Value::Null };
    super::json(&effective_limit(tenant, plan, &work.platform.caps, name, now_ms))
}

fn limit_of(text: &str) -> Result<LimitName, Refusal> {
    text.parse().map_err(|error: schoolgate_config::model::LimitNameError| Refusal::not_found(&error.to_string()))
}

fn check(input: &OverrideInput, name: LimitName, now_ms: i64, errors: &mut Errors) {
    use LimitName::{Burst, InFlight, RequestsPerMinute, RequestsPerMinutePerClient};
    if matches!(name, Burst | InFlight | RequestsPerMinute | RequestsPerMinutePerClient) && input.value == 0 {
        // What serves nothing is what `suspend` is for.
        errors.add_at("/value", "out_of_range", "expected at least 1; to refuse all requests, suspend the tenant");
    }
    if let Some(ends) = input.expires_at {
        if input.starts_at.is_some_and(|starts| starts >= ends) {
            errors.add_at("/expires_at", "invalid", "the end is not after the start");
        } else if ends.unix_ms() <= now_ms {
            errors.add_at("/expires_at", "invalid", "this time is over: the override would never hold");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(name: LimitName, body: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        let input = read::<OverrideInput>(body, &mut errors);
        if let Some(input) = &input {
            check(input, name, 1_000_000, &mut errors);
        }
        errors.ok(input).err().into_iter().flatten().map(|error| error.pointer).collect()
    }

    #[test]
    fn an_override_that_would_never_hold_or_says_no_reason_is_refused() {
        let name = LimitName::RequestsPerMinute;
        assert!(
            errors_of(name, &json!({"value": 5, "reason": "exam", "expires_at": "2026-01-01T00:00:00Z"})).is_empty()
        );
        assert_eq!(
            errors_of(name, &json!({"value": 5, "reason": "exam", "expires_at": "1970-01-01T00:00:01Z"})),
            ["/expires_at"]
        );
        let backwards = json!({"value": 5, "reason": "exam", "starts_at": "2027-01-01T00:00:00Z", "expires_at": "2026-01-01T00:00:00Z"});
        assert_eq!(errors_of(name, &backwards), ["/expires_at"]);
        assert_eq!(errors_of(name, &json!({"value": 0, "reason": "exam"})), ["/value"]);
        assert!(errors_of(LimitName::WebSockets, &json!({"value": 0, "reason": "exam"})).is_empty());
        assert_eq!(errors_of(name, &json!({"value": 5})), ["/reason"]);
    }
}
