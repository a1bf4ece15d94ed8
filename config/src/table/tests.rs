//! The table against a plain search: whatever the order of changes, look-ups agree with a list walked from the start,
//! and a table reached by deltas equals one compiled whole.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::identity;
use crate::model::*;
use crate::snapshot::{Change, Delta, Object, ObjectKey};

const SLUGS: [&str; 5] = ["ash", "birch", "cedar", "elm", "fir"];
const NAMES: [&str; 6] =
    ["ash.example", "erp.birch.example", "elm.test", "x.y.z.example", "ash.schools.example", "fir.example"];

/// What a property test does to a table.
#[derive(Debug, Clone)]
enum Step {
    Tenant { id: u8, slug: u8, pool: u8 },
    NoTenant(u8),
    Domain { name: u8, tenant: u8, proven: bool },
    NoDomain(u8),
    Pool(u8),
    NoPool(u8),
    Route { id: u8, tenant: Option<u8>, pool: u8 },
    NoRoute(u8),
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = prop_oneof![
        3 => (0..5_u8, 0..5_u8, 0..3_u8).prop_map(|(id, slug, pool)| Step::Tenant { id, slug, pool }),
        1 => (0..5_u8).prop_map(Step::NoTenant),
        3 => (0..6_u8, 0..5_u8, any::<bool>()).prop_map(|(name, tenant, proven)| Step::Domain { name, tenant, proven }),
        1 => (0..6_u8).prop_map(Step::NoDomain),
        2 => (0..3_u8).prop_map(Step::Pool),
        1 => (0..3_u8).prop_map(Step::NoPool),
        2 => (0..3_u8, proptest::option::of(0..5_u8), 0..3_u8).prop_map(|(id, tenant, pool)| Step::Route { id, tenant, pool }),
        1 => (0..3_u8).prop_map(Step::NoRoute),
    ];
    proptest::collection::vec(proptest::collection::vec(step, 1..4), 1..30)
}

fn tenant_id(n: u8) -> TenantId {
    TenantId::from_parts(1, u128::from(n))
}

fn pool_id(n: u8) -> PoolId {
    format!("pool-{n}").parse().expect("a name")
}

fn change(step: &Step) -> Change {
    match *step {
        Step::Tenant { id, slug, pool } => {
            let mut tenant = crate::identity::tests::tenant(SLUGS[slug as usize], TenantState::Active);
            tenant.id = tenant_id(id);
            tenant.pool = pool_id(pool);
            Change::Put(tenant.into())
        }
        Step::NoTenant(id) => Change::Remove(ObjectKey::Tenant(tenant_id(id))),
        Step::Domain { name, tenant, proven } => Change::Put(
            Domain {
                name: NAMES[name as usize].parse().expect("a name"),
                tenant: tenant_id(tenant),
                primary: false,
                ownership: if proven { Ownership::Proven } else { Ownership::Unproven },
                routing: Routing::Here,
                token: String::new(),
            }
            .into(),
        ),
        Step::NoDomain(name) => Change::Remove(ObjectKey::Domain(NAMES[name as usize].parse().expect("a name"))),
        Step::Pool(n) => Change::Put(crate::identity::tests::pool(&format!("pool-{n}")).into()),
        Step::NoPool(n) => Change::Remove(ObjectKey::Pool(pool_id(n))),
        Step::Route { id, tenant, pool } => Change::Put(
            Route {
                id: RouteId::from_parts(1, u128::from(id)),
                tenant: tenant.map(tenant_id),
                pool: None,
                priority: 0,
                matches: RouteMatch::default(),
                action: RouteAction { pool: Some(pool_id(pool)), ..RouteAction::default() },
            }
            .into(),
        ),
        Step::NoRoute(id) => Change::Remove(ObjectKey::Route(RouteId::from_parts(1, u128::from(id)))),
    }
}

/// The same state as a plain map, searched from the start.
#[derive(Debug, Clone, Default)]
struct Plain(BTreeMap<String, Object>);

impl Plain {
    fn with(&self, changes: &[Change]) -> Self {
        let mut next = self.clone();
        for change in changes {
            match change {
                Change::Put(object) => next.0.insert(object.key().to_string(), object.clone()),
                Change::Remove(key) => next.0.remove(&key.to_string()),
            };
        }
        next
    }

    fn each<'a, T: 'a>(&'a self, pick: impl Fn(&'a Object) -> Option<&'a T> + 'a) -> impl Iterator<Item = &'a T> + 'a {
        self.0.values().filter_map(pick)
    }

    fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.each(|o| if let Object::Tenant(t) = o { Some(t) } else { None })
    }

    fn domains(&self) -> impl Iterator<Item = &Arc<Domain>> {
        self.each(|o| if let Object::Domain(d) = o { Some(d) } else { None })
    }

    fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.each(|o| if let Object::Route(r) = o { Some(r) } else { None })
    }

    fn has_pool(&self, id: &PoolId) -> bool {
        self.each(|o| if let Object::Pool(p) = o { Some(p) } else { None }).any(|p| p.id == *id)
    }

    /// Whether the state holds together, by looking at everything.
    fn holds(&self) -> bool {
        let has_tenant = |id: &TenantId| self.tenants().any(|t| t.id == *id);
        let slugs: Vec<_> = self.tenants().map(|t| &t.slug).collect();
        let distinct: std::collections::BTreeSet<_> = slugs.iter().collect();
        distinct.len() == slugs.len()
            && self.tenants().all(|t| self.has_pool(&t.pool))
            && self.domains().all(|d| has_tenant(&d.tenant) && d.name.parent() != Some("schools.example"))
            && self.routes().all(|r| {
                r.tenant.as_ref().is_none_or(has_tenant) && r.action.pool.as_ref().is_none_or(|p| self.has_pool(p))
            })
    }

    fn slug_at(&self, host: &str) -> Option<String> {
        if let Some(domain) = self.domains().find(|d| d.name.as_str() == host)
            && domain.ownership == Ownership::Proven
        {
            return self.tenants().find(|t| t.id == domain.tenant).map(|t| t.slug.to_string());
        }
        let (label, zone) = host.split_once('.')?;
        (zone == "schools.example").then_some(())?;
        self.tenants().find(|t| t.slug.as_str() == label).map(|t| t.slug.to_string())
    }
}

fn base() -> Snapshot {
    let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
    objects.push(crate::identity::tests::zone("schools.example").into());
    Snapshot { revision: Revision(1), objects }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn deltas_then_lookup_equal_the_plain_search(batches in steps()) {
        let mut table = RoutingTable::from_snapshot(&base(), &NoLive, None).expect("holds together");
        let mut plain = Plain::default().with(&base().objects.into_iter().map(Change::Put).collect::<Vec<_>>());
        for batch in batches {
            let from = table.revision();
            let delta = Delta::fold(from, from.next(), batch.iter().map(change));
            let next = plain.with(&delta.changes);
            match table.apply(&delta, &NoLive) {
                Ok(applied) => {
                    prop_assert!(next.holds(), "taken: {:?}", delta.changes);
                    table = applied;
                    plain = next;
                }
                Err(violations) => prop_assert!(!next.holds(), "refused: {violations}"),
            }
            for host in NAMES.iter().map(|n| (*n).to_owned()).chain(SLUGS.iter().map(|s| format!("{s}.schools.example"))) {
                let found = identity::tenant_of(&table, &host).map(|(t, _)| t.tenant.slug.to_string());
                prop_assert_eq!(found, plain.slug_at(&host), "{}", host);
            }
        }
        // Compiled whole, from objects in any order, it is the same table.
        let snapshot = table.to_snapshot();
        let whole = RoutingTable::from_snapshot(&snapshot, &NoLive, Some(&table)).expect("what holds still holds");
        let sorted = |s: Snapshot| s.objects.into_iter().map(|o| (o.key().to_string(), o)).collect::<BTreeMap<_, _>>();
        prop_assert_eq!(sorted(whole.to_snapshot()), sorted(snapshot));
        for tenant in table.tenants() {
            let routes = |t: &RoutingTable| t.tenant(&tenant.tenant.id).map(|t| t.routes.iter().map(|r| r.id).collect::<Vec<_>>());
            prop_assert_eq!(routes(&whole), routes(&table));
        }
    }

    #[test]
    fn bytes_that_were_changed_are_never_half_read(at in any::<prop::sample::Index>(), flip in 1_u8..=255) {
        let mut bytes = crate::snapshot::encode_snapshot(&base());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(crate::snapshot::decode_snapshot(&bytes).is_err());
    }
}

#[test]
fn a_delta_for_another_revision_is_refused() {
    let table = RoutingTable::from_snapshot(&base(), &NoLive, None).expect("holds together");
    let delta = Delta { from: Revision(7), to: Revision(8), changes: Vec::new() };
    assert!(matches!(
        table.apply(&delta, &NoLive).expect_err("refused").0[..],
        [Violation::Revision { needs: 7, at: 1 }]
    ));
}

#[test]
fn a_changed_plan_reaches_its_tenants() {
    let table = RoutingTable::from_snapshot(&base(), &NoLive, None).expect("holds together");
    let steps = [Step::Pool(0), Step::Tenant { id: 1, slug: 1, pool: 0 }];
    let table = table.with_changes(Revision(2), &steps.each_ref().map(change), &NoLive).expect("holds together");
    let mut plan = Plan::clone(table.plan(&"basic".parse().expect("a name")).expect("there"));
    plan.features.push("lms".to_owned());
    let table = table.with_changes(Revision(3), &[Change::Put(plan.into())], &NoLive).expect("holds together");
    assert_eq!(table.tenant(&tenant_id(1)).expect("there").plan.features, ["lms"]);
}
