//! Plans.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{LimitMode, Limits, Plan, PlanId, PoolKindRule, Weight};
use schoolgate_config::table::RoutingTable;
use schoolgate_store::Stored;

use super::Stamp;
use super::document::{Errors, Place, Text, readable};
use super::edit::Resource;
use super::permission::Subject;

/// What of a plan an operator sets.
#[derive(Debug, ToSchema)]
pub(crate) struct PlanInput {
    /// Its name in the API; it cannot be changed.
    id: PlanId,
    /// What people call it; the `id` if not given.
    name: Option<Text<1, 200>>,
    /// What a tenant on it may use; what is absent does not limit.
    #[serde(default)]
    limits: Limits,
    /// `shadow`: what is above a limit is counted, and let through.
    #[serde(default)]
    mode: LimitMode,
    /// Its tenants' share of a pool that is full, beside others'.
    #[serde(default)]
    weight: Weight,
    /// Which kind of pool its tenants belong on.
    #[serde(default)]
    pool_kind: PoolKindRule,
    /// Features that are on for every tenant of the plan.
    #[serde(default)]
    features: Vec<Text<1, 64>>,
}
readable!(PlanInput {
    id,
    name,
    limits = Limits::default(),
    mode = LimitMode::default(),
    weight = Weight::default(),
    pool_kind = PoolKindRule::default(),
    features = Vec::new(),
});

/// A plan as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanView {
    #[serde(flatten)]
    plan: Plan,
    #[serde(flatten)]
    stamp: Stamp,
}

impl Resource for Plan {
    type Input = PlanInput;
    const SUBJECT: Subject = Subject::Plans;
    const COLLECTION: &'static str = "plans";
    const KEY: &'static str = "id";
    const READ_ONLY: &'static [&'static str] = &["version", "created_at", "updated_at"];

    fn assemble(input: PlanInput, before: Option<&Self>, _: &RoutingTable, errors: &mut Errors) -> Self {
        if before.is_some_and(|plan| plan.id != input.id) {
            errors.add_at("/id", "read_only", "a plan cannot be renamed: make another and move its tenants");
        }
        // Zero would be a plan that serves nothing: what `suspend` is for.
        for (field, limit) in [
            ("requests_per_minute", input.limits.requests_per_minute),
            ("burst", input.limits.burst),
            ("requests_per_minute_per_client", input.limits.requests_per_minute_per_client),
            ("in_flight", input.limits.in_flight),
        ] {
            if limit == Some(0) {
                errors.add_at(&format!("/limits/{field}"), "out_of_range", "expected at least 1");
            }
        }
        let classes = Place::root().member("limits").member("classes");
        for (name, limit) in &input.limits.classes {
            if *limit == 0 {
                errors.add(&classes.member(name), "out_of_range", "expected at least 1 request per minute");
            }
        }
        if input.limits.classes.len() > Limits::MOST_CLASSES {
            errors.add(&classes, "too_long", format!("at most {} classes are allowed", Limits::MOST_CLASSES));
        }
        let mut features: Vec<String> = input.features.into_iter().map(|feature| feature.0).collect();
        features.sort_unstable();
        features.dedup();
        Self {
            name: input.name.map_or_else(|| input.id.to_string(), |name| name.0),
            id: input.id,
            limits: input.limits,
            mode: input.mode,
            weight: input.weight,
            pool_kind: input.pool_kind,
            features,
        }
    }

    fn view(stored: &Stored<Self>, _: &RoutingTable) -> Value {
        super::json(&PlanView { plan: stored.value.clone(), stamp: Stamp::of(stored) })
    }
}
