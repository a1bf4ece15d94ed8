//! The three schools of `--demo`: one on each of the ways a school can live.

use anyhow::Context;
use schoolgate_config::model::{PoolId, Tenant, TenantId};
use schoolgate_store::{Actor, Store};
use serde_json::{Value, json};

/// The note that says they were made once: an operator who deleted one does not want it back.
const MADE: &str = "demo.made";

/// A school of the demo.
pub(super) struct DemoSchool {
    /// Its slug.
    pub(super) slug: &'static str,
    /// Its name.
    pub(super) name: &'static str,
    /// Its plan.
    pub(super) plan: &'static str,
    /// Its pool.
    pub(super) pool: &'static str,
    colors: (&'static str, &'static str),
    motto: &'static str,
}

/// The pool that Lincoln has for itself.
pub(super) const DEDICATED_POOL: &str = "lincoln";

/// All three.
pub(super) const SCHOOLS: [DemoSchool; 3] = [
    DemoSchool {
        slug: "greenhill",
        name: "Greenhill Academy",
        plan: "basic",
        pool: super::up::SHARED_POOL,
        colors: ("#1f6f43", "#c9e4d4"),
        motto: "Grow where you stand",
    },
    DemoSchool {
        slug: "riverside",
        name: "Riverside High School",
        plan: "standard",
        pool: super::up::SHARED_POOL,
        colors: ("#1d5d9b", "#cfe3f5"),
        motto: "Always further down the river",
    },
    DemoSchool {
        slug: "lincoln",
        name: "Lincoln College",
        plan: "premium",
        pool: DEDICATED_POOL,
        colors: ("#7a1f2b", "#f0d9dc"),
        motto: "With firmness in the right",
    },
];

/// Makes the schools, once in the life of a store.
pub(super) async fn make_schools(store: &Store) -> anyhow::Result<()> {
    if store.note(MADE).await?.is_some() {
        return Ok(());
    }
    let mut transaction = store.begin(Actor::system("demo")).await?;
    let mut made = Vec::new();
    for school in &SCHOOLS {
        let slug = school.slug.parse().expect("the demo's slugs are labels");
        // A school of that name that an operator made is theirs.
        if transaction.tenant_by_slug(&slug).await?.is_none() {
            transaction.insert(tenant(school)?).await?;
            made.push(school.slug);
        }
    }
    transaction.set_note(MADE, "1").await?;
    transaction.commit("demo.create", "demo schools", json!({ "made": made })).await?;
    Ok(())
}

/// The demo's own pool.
pub(super) fn dedicated_pool() -> PoolId {
    DEDICATED_POOL.parse().expect("the demo's pool is a label")
}

fn tenant(school: &DemoSchool) -> anyhow::Result<Tenant> {
    let (primary, secondary) = school.colors;
    let fields: Value = json!({
        "id": TenantId::generate(),
        "slug": school.slug,
        "name": school.name,
        "state": "active",
        "plan": school.plan,
        "pool": school.pool,
        "profile": { "motto": school.motto },
        "theme": { "primary_color": primary, "secondary_color": secondary },
        "labels": { "demo": "true" },
    });
    serde_json::from_value(fields).with_context(|| format!("the demo school {} is not a tenant", school.slug))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_demo_school_is_a_tenant_on_a_plan_of_the_catalogue() {
        let plans = schoolgate_config::model::Plan::catalogue();
        for school in &SCHOOLS {
            let tenant = tenant(school).unwrap();
            assert!(plans.iter().any(|plan| plan.id == tenant.plan), "{}", school.plan);
            assert!(tenant.is_active());
        }
    }
}
