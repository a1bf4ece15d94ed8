//! Enforced: the limits that hold for a tenant, compiled for the request path.

use std::sync::Arc;

use http::HeaderValue;
use schoolgate_config::limits;
use schoolgate_config::model::{LimitMode, LimitName, Limits, Plan, Quota, QuotaMode};

use super::gcra::Rate;
use super::{QuotaKind, fields};

/// A limit, and whether it is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule<T> {
    pub(crate) limit: T,
    pub(crate) mode: LimitMode,
}

/// What holds for a tenant, from its plan, its overrides and the platform's caps.
#[derive(Debug)]
pub struct Enforced {
    /// The plan it was made of, by identity: a changed plan is another allocation while this one lives.
    plan: Arc<Plan>,
    /// When an override begins or ends, milliseconds since 1970.
    until_ms: i64,
    pub(super) rate: Option<Rule<Rate>>,
    pub(super) client: Option<Rule<Rate>>,
    pub(super) classes: Box<[(Box<str>, Rule<Rate>)]>,
    pub(super) requests: Option<Rule<Quota>>,
    pub(super) bytes: Option<Rule<Quota>>,
    pub(super) in_flight: Option<Rule<u32>>,
    pub(super) websockets: Option<Rule<u32>>,
    pub(crate) body_bytes: Option<Rule<u64>>,
    pub(crate) upload_bytes: Option<Rule<u64>>,
    /// The limits as a backend is told of them.
    pub(crate) limits: Limits,
    /// `RateLimit-Policy`; absent when there is nothing to say.
    pub(super) policy: Option<HeaderValue>,
}

impl Enforced {
    /// Compiles limits that hold until `until_ms`.
    pub(super) fn new(plan: &Arc<Plan>, effective: &Limits, until_ms: Option<i64>) -> Self {
        let mode = |name| limits::mode(plan, name);
        let rate = |name, limit: Option<u64>, burst| {
            limit.map(|limit| Rule { limit: Rate::per_minute(limit, burst), mode: mode(name) })
        };
        let quota = |name, quota: Option<Quota>| quota.map(|limit| Rule { limit, mode: mode(name) });
        let number = |name, limit: Option<u64>| {
            limit.map(|limit| Rule { limit: u32::try_from(limit).unwrap_or(u32::MAX), mode: mode(name) })
        };
        let bytes = |name, limit: Option<u64>| limit.map(|limit| Rule { limit, mode: mode(name) });
        Self {
            plan: plan.clone(),
            until_ms: until_ms.unwrap_or(i64::MAX),
            rate: rate(LimitName::RequestsPerMinute, effective.requests_per_minute, effective.burst),
            client: rate(LimitName::RequestsPerMinutePerClient, effective.requests_per_minute_per_client, None),
            classes: effective
                .classes
                .iter()
                .map(|(name, limit)| {
                    (name.as_str().into(), Rule { limit: Rate::per_minute(*limit, None), mode: plan.mode })
                })
                .collect(),
            requests: quota(LimitName::RequestsPerDay, effective.requests_per_day),
            bytes: quota(LimitName::BytesPerMonth, effective.bytes_per_month),
            in_flight: number(LimitName::InFlight, effective.in_flight),
            websockets: number(LimitName::WebSockets, effective.websockets),
            body_bytes: bytes(LimitName::BodyBytes, effective.body_bytes),
            upload_bytes: bytes(LimitName::UploadBytes, effective.upload_bytes),
            policy: fields::policy(effective),
            limits: effective.clone(),
        }
    }

    /// Whether it still holds: made of this plan, and no override has begun or ended since.
    pub(crate) fn fits(&self, plan: &Arc<Plan>, now_ms: i64) -> bool {
        self.is_of(plan) && now_ms < self.until_ms
    }

    pub(super) fn is_of(&self, plan: &Arc<Plan>) -> bool {
        Arc::ptr_eq(&self.plan, plan)
    }

    /// The quotas that there are.
    pub(crate) fn quotas(&self) -> impl Iterator<Item = (QuotaKind, u64)> {
        let of = |kind, rule: Option<Rule<Quota>>| rule.map(|rule| (kind, rule.limit.value));
        [of(QuotaKind::Requests, self.requests), of(QuotaKind::Bytes, self.bytes)].into_iter().flatten()
    }

    /// The rate of a class of requests.
    pub(super) fn class(&self, name: &str) -> Option<Rule<Rate>> {
        self.classes.iter().find(|(of, _)| **of == *name).map(|(_, rule)| *rule)
    }
}

impl Rule<Quota> {
    /// What refuses: a hard quota that is enforced.
    pub(super) fn refuses(&self) -> bool {
        self.limit.mode == QuotaMode::Hard && self.mode == LimitMode::Enforce
    }
}
