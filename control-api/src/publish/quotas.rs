//! What proxies say of quotas that are nearly or wholly used up, as events.

use serde_json::json;

use schoolgate_config::feed::QuotaEvent;
use schoolgate_config::model::NodeId;
use schoolgate_store::NewEvent;

/// The event that it is; none for a kind that this release does not know.
pub(super) fn event(node: &NodeId, said: &QuotaEvent) -> Option<NewEvent> {
    let QuotaEvent { kind, at_ms, tenant, tenant_slug, quota, used, limit, period_starts_ms, period_ends_ms } = said;
    let kind = [QuotaEvent::WARNING, QuotaEvent::EXCEEDED].into_iter().find(|known| known == kind)?;
    let reached = if kind == QuotaEvent::EXCEEDED { "all" } else { "80 %" };
    Some(NewEvent {
        at_ms: *at_ms,
        kind,
        tenant: Some(*tenant),
        object: format!("tenant {tenant}"),
        summary: format!("{tenant_slug} has used {reached} of its {quota}: {used} of {limit}"),
        detail: json!({
            "node": node, "quota": quota, "used": used, "limit": limit, "period_starts_at_ms": period_starts_ms,
            "period_ends_at_ms": period_ends_ms,
        }),
        // Every proxy says so when it learns of it; once in a period is enough.
        once: Some(format!("{kind} {tenant} {quota} {period_starts_ms}")),
    })
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::TenantId;

    use super::*;

    fn told(kind: &str, node: &str, period_starts_ms: i64) -> Option<NewEvent> {
        let said = QuotaEvent {
            kind: kind.to_owned(),
            at_ms: 7,
            tenant: TenantId::from_parts(1, 1),
            tenant_slug: "ash".parse().expect("a slug"),
            quota: "requests_per_day".to_owned(),
            used: 801,
            limit: 1_000,
            period_starts_ms,
            period_ends_ms: period_starts_ms + 86_400_000,
        };
        event(&node.parse().expect("a name"), &said)
    }

    #[test]
    fn a_quota_is_told_once_in_its_period_whoever_says_so() {
        let first = told(QuotaEvent::WARNING, "n1", 0).expect("an event");
        assert_eq!(first.summary, "ash has used 80 % of its requests_per_day: 801 of 1000");
        let once = |kind, node, from| told(kind, node, from).expect("an event").once;
        assert_eq!(first.once, once(QuotaEvent::WARNING, "n2", 0));
        assert_ne!(first.once, once(QuotaEvent::EXCEEDED, "n1", 0));
        assert_ne!(first.once, once(QuotaEvent::WARNING, "n1", 86_400_000));
        assert_eq!(told("quota.unheard_of", "n1", 0), None);
    }
}
