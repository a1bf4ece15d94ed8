//! The table against a plain search: whatever the order of changes, look-ups agree with a list walked from the start,
//! and a table reached by deltas equals one compiled whole.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::identity;
use crate::model::*;
use crate::snapshot::{Change, Delta, Object, ObjectKey, decode_delta, decode_snapshot, encode_delta, encode_snapshot};

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

fn account(ca: &str, primary: bool) -> Change {
    let thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".parse().expect("a thumbprint");
    Change::Put(AcmeAccount { ca: ca.parse().expect("a name"), thumbprint, primary }.into())
}

#[test]
fn challenges_are_found_by_name_and_hold_on_to_their_account() {
    let name: DomainName = "erp.birch.example".parse().expect("a name");
    let put = |answer| Change::Put(Challenge { name: name.clone(), answer, expires_at: 10 }.into());
    let at_one = put(ChallengeAnswer::Http01 { ca: "one".parse().expect("a name") });
    let gone = Change::Remove(ObjectKey::AcmeAccount("one".parse().expect("a name")));
    let table = RoutingTable::from_snapshot(&base(), &NoLive, None).expect("holds together");
    let then = |table: &RoutingTable, changes: &[Change]| table.with_changes(table.revision().next(), changes, &NoLive);

    let missing = then(&table, std::slice::from_ref(&at_one)).expect_err("there is no account");
    assert!(matches!(missing.0[..], [Violation::Missing { .. }]), "{missing}");
    let table = then(&table, &[at_one, account("one", true)]).expect("in any order");
    assert_eq!(table.challenge("erp.birch.example").expect("there").expires_at, 10);
    assert!(table.challenge("birch.example").is_none());
    let in_use = then(&table, std::slice::from_ref(&gone)).expect_err("its challenge needs it");
    assert!(matches!(in_use.0[..], [Violation::InUse { users: 1, .. }]), "{in_use}");
    let table = then(&table, &[put(ChallengeAnswer::TlsAlpn01 { digest: [1; 32] }), gone]).expect("needed no more");
    assert!(table.primary_acme_account().is_none());
    let table = then(&table, &[Change::Remove(ObjectKey::Challenge(name))]).expect("holds together");
    assert!(table.challenge("erp.birch.example").is_none());
}

#[test]
fn one_account_is_primary_and_it_can_change_in_one_delta() {
    let table = RoutingTable::from_snapshot(&base(), &NoLive, None).expect("holds together");
    let then = |table: &RoutingTable, changes: &[Change]| table.with_changes(table.revision().next(), changes, &NoLive);
    let table = then(&table, &[account("one", true), account("two", false)]).expect("holds together");
    let two = then(&table, &[account("two", true)]).expect_err("one is primary");
    assert!(matches!(two.0[..], [Violation::TwoPrimary { .. }]), "{two}");
    let table = then(&table, &[account("two", true), account("one", false)]).expect("in any order");
    assert_eq!(table.primary_acme_account().expect("there").ca.as_str(), "two");
}

/// Written before there were accounts and challenges. Every file here was written by a release, or might have been.
#[test]
fn a_snapshot_of_an_earlier_release_reads_and_holds_together() {
    let bytes = include_bytes!("../../golden/schema-1.snapshot");
    let snapshot = crate::snapshot::decode_snapshot(bytes).expect("reads");
    let table = RoutingTable::from_snapshot(&snapshot, &NoLive, None).expect("holds together");
    assert!(table.tenant_of_domain("erp.birch.example").is_some());
    assert_eq!((table.certificates().count(), table.issuers().count(), table.context_keys().count()), (1, 1, 1));
    let keeper = crate::seal::Keeper::new(&[7; 32]);
    for certificate in table.certificates() {
        let subject = certificate.about.fingerprint.to_string();
        keeper.open_key(Certificate::KEY_PURPOSE, &subject, &certificate.key).expect("opens");
    }
    for key in table.context_keys() {
        keeper.open_key(ContextKey::KEY_PURPOSE, key.id.as_str(), &key.private).expect("opens");
    }
    assert_eq!(table.to_snapshot().objects.len(), snapshot.objects.len());
}

/// A certificate with a leaf of its own below these intermediates.
fn certificate(n: u8, above: &[&[u8]]) -> Certificate {
    let leaf = vec![n; 900];
    let fingerprint = Fingerprint::of(&leaf);
    let names = vec![format!("erp.school-{n}.example")];
    let about = CertificateRef { fingerprint, names, not_before: 0, not_after: 1, issuer: "acme".into() };
    let chain = std::iter::once(leaf).chain(above.iter().map(|der| der.to_vec())).map(Der::from).collect();
    let key = crate::seal::Keeper::new(&[7; 32]).seal(Certificate::KEY_PURPOSE, &fingerprint.to_string(), b"key");
    Certificate { about, chain, key }
}

/// How many copies of what is above the leaves a table holds.
fn copies(table: &RoutingTable) -> usize {
    let mut held: Vec<&Der> = Vec::new();
    for der in table.certificates().flat_map(|certificate| certificate.chain.iter().skip(1)) {
        if !held.iter().any(|other| other.is_shared_with(der)) {
            held.push(der);
        }
    }
    held.len()
}

#[test]
fn chains_share_the_intermediates_they_have_in_common_however_they_came() {
    let above: [&[u8]; 2] = [&[1; 1_200], &[2; 1_300]];
    let mut snapshot = base();
    snapshot.objects.extend((0..10).map(|n| Object::from(certificate(n, &above))));
    let given = RoutingTable::from_snapshot(&snapshot, &NoLive, None).expect("holds together");
    assert_eq!(copies(&given), 2, "each of the ten came with its own");
    let read = decode_snapshot(&encode_snapshot(&snapshot)).expect("reads");
    let read = RoutingTable::from_snapshot(&read, &NoLive, None).expect("holds together");
    assert_eq!(copies(&read), 2);

    let change = |table: &RoutingTable, change: Change| {
        let delta = Delta { from: table.revision(), to: table.revision().next(), changes: vec![change] };
        let delta = decode_delta(&encode_delta(&delta)).expect("reads");
        table.apply(&delta, &NoLive).expect("holds together")
    };
    let mut table = change(&read, Change::Put(certificate(10, &above).into()));
    table = change(&table, Change::Put(certificate(11, &above[..1]).into()));
    table = change(&table, Change::Put(certificate(12, &[b"of another CA"]).into()));
    assert_eq!((copies(&table), table.intermediates.len()), (3, 3));
    // Certificates are as they were, but for where their bytes are.
    let found = table.certificate(&certificate(10, &above).about.fingerprint).expect("there");
    assert_eq!(found.chain, certificate(10, &above).chain);

    table = change(&table, Change::Remove(ObjectKey::Certificate(certificate(12, &[]).about.fingerprint)));
    assert_eq!(table.intermediates.len(), 2, "what nobody has is not kept");
    for n in 0..12 {
        table = change(&table, Change::Remove(ObjectKey::Certificate(certificate(n, &[]).about.fingerprint)));
    }
    assert!(table.intermediates.is_empty());
}
