//! What every store does: one suite, for each implementation.

use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use schoolgate_config::model::{
    AcmeAccount, Certificate, CertificateRef, Challenge, ChallengeAnswer, Der, Domain, DomainName, Fingerprint,
    Ownership, Plan, PlanId, Pool, PoolId, Revision, Routing, Slug, Tenant, TenantId, TenantState, TokenIssuer, Zone,
};
use schoolgate_config::seal::Keeper;
use schoolgate_config::snapshot::{Change, ObjectKey, ObjectKind};
use schoolgate_config::table::Violation;
use schoolgate_config::time::{Clock, ManualClock};
use schoolgate_config::usage::{CodeClass, QuotaKind, QuotaUse, RequestClass, Step, Usage, UsageFlush, UsagePart};

use crate::*;

/// A store of its own for each test.
struct World {
    store: Store,
    clock: Arc<ManualClock>,
    directory: TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let store = Store::open_at(&url(&directory), OpenMode::Create, clock.clone()).await.expect("opens");
        Self { store, clock, directory }
    }

    /// With the catalogue, the zones `localhost` and `schools.test`, and the pool `shared`.
    async fn seeded() -> Self {
        let world = Self::new().await;
        assert!(world.store.seed(vec![zone("localhost"), zone("schools.test")]).await.expect("seeds"));
        world.put(pool("shared")).await;
        world
    }

    async fn again(&self) -> Store {
        Store::open(&url(&self.directory), OpenMode::Existing).await.expect("opens")
    }

    async fn begin(&self) -> Transaction {
        self.store.begin(actor()).await.expect("begins")
    }

    async fn put<A: Aggregate>(&self, value: A) -> Stored<A> {
        let mut transaction = self.begin().await;
        let stored = transaction.insert(value).await.expect("inserts");
        commit(transaction).await.expect("commits");
        stored
    }

    async fn wants(&self) -> Vec<String> {
        let wants = self.store.certificate_wants(None, 1_000).await.expect("reads");
        wants.into_iter().map(|want| want.name).collect()
    }
}

fn url(directory: &TempDir) -> String {
    format!("sqlite://{}", directory.path().join("control.db").display())
}

fn actor() -> Actor {
    Actor {
        name: "ada".into(),
        via: "api".into(),
        request_id: Some("01J".into()),
        client_ip: Some([127, 0, 0, 1].into()),
    }
}

async fn commit(transaction: Transaction) -> Result<Committed, StoreError> {
    transaction.commit("test", "test", json!({})).await
}

fn zone(name: &str) -> Zone {
    Zone {
        name: domain_name(name),
        shared_host: None,
        trusted_callers: Vec::new(),
        reserved: Vec::new(),
        path_prefix: false,
        require_token: false,
    }
}

fn pool(id: &str) -> Pool {
    serde_json::from_value(json!({ "id": id })).expect("a pool")
}

fn tenant(slug: &str) -> Tenant {
    serde_json::from_value(json!({
        "id": TenantId::generate(), "slug": slug, "name": format!("{slug} school"), "state": "active",
        "plan": "basic", "pool": "shared",
    }))
    .expect("a tenant")
}

fn domain(name: &str, tenant: &Tenant, ownership: Ownership) -> Domain {
    Domain {
        name: domain_name(name),
        tenant: tenant.id,
        primary: false,
        ownership,
        routing: Routing::Here,
        token: "t".into(),
    }
}

fn domain_name(name: &str) -> DomainName {
    DomainName::parse(name).expect("a name")
}

fn slug(slug: &str) -> Slug {
    slug.parse().expect("a slug")
}

fn certificate(name: &str, serial: u8) -> Certificate {
    let fingerprint = Fingerprint::of(format!("{name} {serial}").as_bytes());
    Certificate {
        about: CertificateRef {
            fingerprint,
            names: vec![name.to_owned()],
            not_before: 0,
            not_after: 10,
            issuer: "internal".into(),
        },
        chain: vec![Der::from(vec![serial; 500])],
        key: Keeper::new(&[1; 32]).seal(Certificate::KEY_PURPOSE, &fingerprint.to_string(), b"key"),
    }
}

#[tokio::test]
async fn what_was_written_reads_back_with_the_number_of_its_change() {
    let world = World::seeded().await;
    let greenhill = tenant("greenhill");
    let written = world.put(greenhill.clone()).await;
    assert_eq!(written.version, 3);
    assert_eq!(written.created_at_ms, 1_700_000_000_000);
    assert_eq!(world.store.get::<Tenant>(&greenhill.id).await.expect("reads"), Some(written.clone()));
    assert_eq!(world.store.tenant_by_slug(&greenhill.slug).await.expect("reads"), Some(written));
    assert_eq!(world.store.get::<Tenant>(&TenantId::generate()).await.expect("reads"), None);

    world.clock.advance_ms(500);
    let mut transaction = world.begin().await;
    let mut renamed = greenhill.clone();
    renamed.slug = slug("green");
    renamed.external_id = Some("C-7".into());
    let updated = transaction.update(renamed.clone(), Some(3)).await.expect("updates");
    commit(transaction).await.expect("commits");
    assert_eq!(
        (updated.version, updated.created_at_ms, updated.updated_at_ms),
        (4, 1_700_000_000_000, 1_700_000_000_500)
    );
    assert_eq!(world.store.tenant_by_slug(&greenhill.slug).await.expect("reads"), None);
    assert_eq!(world.store.tenant_by_external_id("C-7").await.expect("reads"), Some(updated));
    let head = world.store.head();
    assert_eq!(head.change, 4);
    assert!(head.table.tenant_by_slug("green").is_some());
}

#[tokio::test]
async fn a_value_that_must_be_unique_is_refused_by_name() {
    let world = World::seeded().await;
    let mut first = tenant("greenhill");
    first.external_id = Some("C-7".into());
    world.put(first).await;
    let mut transaction = world.begin().await;
    let mut other = tenant("greenhill");
    match transaction.insert(other.clone()).await {
        Err(StoreError::Taken { kind: ObjectKind::Tenant, field: "slug", value }) => assert_eq!(value, "greenhill"),
        other => panic!("{other:?}"),
    }
    other.slug = slug("other");
    other.external_id = Some("C-7".into());
    assert!(matches!(transaction.insert(other.clone()).await, Err(StoreError::Taken { field: "external_id", .. })));
    // A refusal leaves the transaction usable.
    other.external_id = None;
    transaction.insert(other).await.expect("inserts");
    match transaction.insert(pool("shared")).await {
        Err(e @ StoreError::Taken { kind: ObjectKind::Pool, field: "id", .. }) => {
            assert_eq!(e.to_string(), "a pool with the id `shared` exists already");
        }
        other => panic!("{other:?}"),
    }
    commit(transaction).await.expect("commits");
}

#[tokio::test]
async fn an_object_that_was_changed_meanwhile_is_not_overwritten() {
    let world = World::seeded().await;
    let stored = world.put(tenant("greenhill")).await;
    let mut transaction = world.begin().await;
    match transaction.update(stored.value.clone(), Some(1)).await {
        Err(StoreError::Stale { expected: 1, found: 3, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        transaction.delete::<Tenant>(&stored.value.id, Some(1)).await,
        Err(StoreError::Stale { expected: 1, found: 3, .. })
    ));
    assert!(matches!(transaction.update(tenant("nobody"), None).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(
        transaction.delete::<Tenant>(&TenantId::generate(), Some(7)).await,
        Err(StoreError::NotFound { .. })
    ));
}

#[tokio::test]
async fn an_object_made_again_never_has_a_version_it_had_before() {
    let world = World::seeded().await;
    let first = world.put(pool("web")).await;
    let mut transaction = world.begin().await;
    transaction.delete::<Pool>(&first.value.id, None).await.expect("deletes");
    commit(transaction).await.expect("commits");
    assert!(world.put(pool("web")).await.version > first.version);
}

#[tokio::test]
async fn a_change_that_leaves_what_does_not_hold_together_is_refused_whole() {
    let world = World::seeded().await;
    let mut transaction = world.begin().await;
    let mut greenhill = tenant("greenhill");
    greenhill.plan = "no-such-plan".parse().expect("a name");
    greenhill.pool = "no-such-pool".parse().expect("a name");
    transaction.insert(greenhill.clone()).await.expect("inserts");
    assert!(matches!(transaction.check(), Err(StoreError::Violations(v)) if v.0.len() == 2));
    match commit(transaction).await {
        Err(StoreError::Violations(v)) => assert!(v.0.iter().all(|v| matches!(v, Violation::Missing { .. }))),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.store.get::<Tenant>(&greenhill.id).await.expect("reads"), None);

    world.put(tenant("riverside")).await;
    let mut transaction = world.begin().await;
    let shared: PoolId = "shared".parse().expect("a name");
    transaction.delete::<Pool>(&shared, None).await.expect("deletes");
    assert!(matches!(commit(transaction).await, Err(StoreError::Violations(_))));
    assert!(world.store.get::<Pool>(&shared).await.expect("reads").is_some());
}

#[tokio::test]
async fn a_transaction_that_is_dropped_or_undone_leaves_nothing() {
    let world = World::seeded().await;
    let before = world.store.head().change;
    let mut transaction = world.begin().await;
    transaction.insert(tenant("greenhill")).await.expect("inserts");
    drop(transaction);
    let mut transaction = world.begin().await;
    assert_eq!(transaction.tenant_by_slug(&slug("greenhill")).await.expect("reads"), None);
    transaction.insert(tenant("greenhill")).await.expect("inserts");
    assert!(transaction.tenant_by_slug(&slug("greenhill")).await.expect("reads").is_some());
    transaction.rollback().await;
    assert_eq!(world.store.tenant_by_slug(&slug("greenhill")).await.expect("reads"), None);
    assert_eq!(world.store.head().change, before);
    assert_eq!(world.put(tenant("greenhill")).await.version, before + 1);
}

#[tokio::test]
async fn many_transactions_at_once_are_numbered_one_by_one_and_all_kept() {
    let world = World::seeded().await;
    let before = world.store.head().change;
    let writes = (0..200).map(|n| {
        let store = world.store.clone();
        tokio::spawn(async move {
            let mut transaction = store.begin(actor()).await?;
            transaction.insert(tenant(&format!("school-{n}"))).await?;
            if n % 10 == 0 {
                // Some give up, in the middle of the others' group.
                return Ok(None);
            }
            commit(transaction).await.map(Some)
        })
    });
    let mut numbers = Vec::new();
    for write in writes.collect::<Vec<_>>() {
        numbers.extend(write.await.expect("joins").expect("commits").map(|committed: Committed| committed.change));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (before + 1..=before + 180).collect::<Vec<_>>());
    assert_eq!(world.store.count::<Tenant>(&ListQuery::default()).await.expect("counts"), 180);
    assert_eq!(world.store.head().table.tenant_count(), 180);
    assert_eq!(world.store.verify_audit().await.expect("reads"), Ok(before + 180));
}

#[tokio::test]
async fn a_request_that_gives_up_at_any_moment_spoils_nothing_for_the_others() {
    let world = World::seeded().await;
    for n in 0..60 {
        let store = world.store.clone();
        let gives_up = tokio::spawn(async move {
            let mut transaction = store.begin(actor()).await?;
            transaction.insert(tenant(&format!("gone-{n}"))).await?;
            commit(transaction).await
        });
        let store = world.store.clone();
        let stays = tokio::spawn(async move {
            let mut transaction = store.begin(actor()).await?;
            transaction.insert(tenant(&format!("here-{n}"))).await?;
            commit(transaction).await
        });
        for _ in 0..n {
            tokio::task::yield_now().await;
        }
        gives_up.abort();
        stays.await.expect("joins").expect("commits");
    }
    let here = ListQuery { search: Some("HERE-".into()), ..ListQuery::default() };
    assert_eq!(world.store.count::<Tenant>(&here).await.expect("counts"), 60);
    let (change, objects) = world.store.everything().await.expect("reads");
    let head = world.store.head();
    assert_eq!((change, objects.len()), (head.change, head.table.to_snapshot().objects.len()));
    assert!(world.store.verify_audit().await.expect("reads").is_ok());
}

#[tokio::test]
async fn a_list_comes_in_parts_and_can_be_searched_and_filtered() {
    let world = World::seeded().await;
    let mut made = Vec::new();
    for n in 0..7 {
        let mut tenant = tenant(&format!("school-{n}"));
        tenant.state = if n % 2 == 0 { TenantState::Active } else { TenantState::Suspended };
        made.push(world.put(tenant).await.value);
    }
    let mut query = ListQuery { limit: 3, ..ListQuery::default() };
    let mut seen = Vec::new();
    loop {
        let page = world.store.list::<Tenant>(&query).await.expect("lists");
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|stored| stored.value));
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    made.sort_by_key(|tenant| tenant.id);
    assert_eq!(seen, made);

    let suspended = ListQuery { state: Some(TenantState::Suspended), ..ListQuery::default() };
    assert_eq!(world.store.count::<Tenant>(&suspended).await.expect("counts"), 3);
    let found = ListQuery { search: Some("School-4".into()), ..ListQuery::default() };
    assert_eq!(world.store.list::<Tenant>(&found).await.expect("lists").items[0].value.slug, slug("school-4"));
    let literally = ListQuery { search: Some("%".into()), ..ListQuery::default() };
    assert_eq!(world.store.count::<Tenant>(&literally).await.expect("counts"), 0);

    world.put(domain("erp.example", &made[0], Ownership::Unproven)).await;
    let of = |tenant: &Tenant| ListQuery { tenant: Some(tenant.id), ..ListQuery::default() };
    assert_eq!(world.store.count::<Domain>(&of(&made[0])).await.expect("counts"), 1);
    assert_eq!(world.store.count::<Domain>(&of(&made[1])).await.expect("counts"), 0);
    assert!(matches!(
        world.store.list::<Plan>(&of(&made[0])).await,
        Err(StoreError::Filter { kind: ObjectKind::Plan, filter: "tenant" })
    ));
}

#[tokio::test]
async fn wanted_certificates_follow_domains_zones_and_tenants() {
    let world = World::seeded().await;
    assert_eq!(world.wants().await, ["*.schools.test"]);
    let greenhill = world.put(tenant("greenhill")).await.value;
    world.put(tenant("riverside")).await;
    world.put(domain("erp.greenhill.test", &greenhill, Ownership::Proven)).await;
    world.put(domain("elsewhere.example", &greenhill, Ownership::Unproven)).await;
    let all = ["*.schools.test", "erp.greenhill.test", "greenhill.localhost", "riverside.localhost"];
    assert_eq!(world.wants().await, all);

    let mut transaction = world.begin().await;
    let renamed = Tenant { slug: slug("green"), ..greenhill.clone() };
    transaction.update(renamed, None).await.expect("updates");
    transaction.update(domain("elsewhere.example", &greenhill, Ownership::Proven), None).await.expect("updates");
    transaction.delete::<Domain>(&domain_name("erp.greenhill.test"), None).await.expect("deletes");
    commit(transaction).await.expect("commits");
    assert_eq!(world.wants().await, ["*.schools.test", "elsewhere.example", "green.localhost", "riverside.localhost"]);

    let mut transaction = world.begin().await;
    transaction.delete::<Zone>(&domain_name("localhost"), None).await.expect("deletes");
    transaction.delete::<Zone>(&domain_name("schools.test"), None).await.expect("deletes");
    transaction.insert(zone("test")).await.expect("inserts");
    commit(transaction).await.expect("commits");
    assert_eq!(world.wants().await, ["elsewhere.example", "green.test", "riverside.test"]);
}

#[tokio::test]
async fn a_zone_without_a_wildcard_wants_its_shared_host_and_no_reserved_label() {
    let world = World::seeded().await;
    world.put(tenant("greenhill")).await;
    world.put(tenant("lab")).await;
    let mut changed = zone("localhost");
    changed.shared_host = Some(domain_name("api.localhost"));
    changed.reserved = vec!["lab".into()];
    let mut transaction = world.begin().await;
    transaction.update(changed.clone(), None).await.expect("updates");
    commit(transaction).await.expect("commits");
    assert_eq!(world.wants().await, ["*.schools.test", "api.localhost", "greenhill.localhost"]);

    // A name keeps its certificate when the reason for it changes.
    let before = world.store.certificate_want("greenhill.localhost").await.expect("reads");
    let mut transaction = world.begin().await;
    transaction.update(Zone { reserved: Vec::new(), ..changed }, None).await.expect("updates");
    commit(transaction).await.expect("commits");
    assert_eq!(world.store.certificate_want("greenhill.localhost").await.expect("reads"), before);
    assert!(world.wants().await.contains(&"lab.localhost".to_owned()));
}

#[tokio::test]
async fn a_certificate_replaces_the_one_before_and_goes_with_its_name() {
    let world = World::seeded().await;
    let now = 1_700_000_000_000;
    world.put(tenant("greenhill")).await;
    let due = world.store.certificates_due(now, 10).await.expect("reads");
    assert_eq!(
        due.iter().map(|want| want.name.as_str()).collect::<Vec<_>>(),
        ["*.schools.test", "greenhill.localhost"]
    );
    let want = due[1].clone();

    let first = certificate("greenhill.localhost", 1);
    let mut transaction = world.begin().await;
    assert!(transaction.certificate_issued(&want, first.clone(), now + 1_000).await.expect("writes"));
    commit(transaction).await.expect("commits");
    let issued = world.store.certificate_want(&want.name).await.expect("reads").expect("is wanted");
    assert_eq!((issued.state, issued.fingerprint), (WantState::Issued, Some(first.about.fingerprint)));
    assert_eq!(
        world.store.get::<Certificate>(&first.about.fingerprint).await.expect("reads").expect("is there").value,
        first
    );
    assert_eq!(world.store.certificates_due(now + 999, 10).await.expect("reads").len(), 1);

    // A second worker that began with the same want writes nothing.
    let mut transaction = world.begin().await;
    assert!(!transaction.certificate_issued(&want, certificate(&want.name, 9), 0).await.expect("writes"));
    assert!(!transaction.certificate_failed(&want, "no", 0).await.expect("writes"));
    transaction.rollback().await;

    let mut transaction = world.begin().await;
    assert!(transaction.certificate_failed(&issued, "the CA is away", now + 2_000).await.expect("writes"));
    commit(transaction).await.expect("commits");
    let failing = world.store.certificate_want(&want.name).await.expect("reads").expect("is wanted");
    assert_eq!(
        (failing.state, failing.attempts, failing.error.as_deref()),
        (WantState::Failing, 1, Some("the CA is away"))
    );
    assert_eq!(failing.fingerprint, issued.fingerprint, "the earlier certificate goes on serving");

    let second = certificate("greenhill.localhost", 2);
    let mut transaction = world.begin().await;
    assert!(transaction.certificate_issued(&failing, second.clone(), now + 9_000).await.expect("writes"));
    let removed = Change::Remove(ObjectKey::Certificate(first.about.fingerprint));
    assert!(transaction.changes().contains(&removed));
    commit(transaction).await.expect("commits");
    assert_eq!(world.store.get::<Certificate>(&first.about.fingerprint).await.expect("reads"), None);

    let id = world.store.tenant_by_slug(&slug("greenhill")).await.expect("reads").expect("is there").value.id;
    let mut transaction = world.begin().await;
    transaction.delete::<Tenant>(&id, None).await.expect("deletes");
    commit(transaction).await.expect("commits");
    assert_eq!(world.wants().await, ["*.schools.test"]);
    assert_eq!(world.store.get::<Certificate>(&second.about.fingerprint).await.expect("reads"), None);
    assert_eq!(world.store.head().table.certificates().count(), 0);
}

#[tokio::test]
async fn the_audit_tells_who_did_what_and_cannot_be_rewritten() {
    let world = World::seeded().await;
    let transaction = world.begin().await;
    transaction.commit("token.create", "token t1", json!({ "name": "ci" })).await.expect("commits");
    let lines = world.store.audit(&AuditQuery { limit: 1, ..AuditQuery::default() }).await.expect("reads");
    let line = &lines[0];
    assert_eq!((line.number, line.actor.as_str(), line.action.as_str()), (3, "ada", "token.create"));
    assert_eq!((line.client_ip.as_deref(), &line.summary), (Some("127.0.0.1"), &json!({ "name": "ci" })));
    let about = AuditQuery { object: Some("token t1".into()), ..AuditQuery::default() };
    assert_eq!(world.store.audit(&about).await.expect("reads").len(), 1);
    assert_eq!(world.store.verify_audit().await.expect("reads"), Ok(3));
    assert!(world.store.changes_after(2, 10).await.expect("reads").is_empty(), "no object was touched");
}

#[tokio::test]
async fn changes_are_read_back_as_committed() {
    let world = World::seeded().await;
    let greenhill = tenant("greenhill");
    world.put(greenhill.clone()).await;
    for store in [world.store.clone(), world.again().await] {
        let commits = store.changes_after(2, 10).await.expect("reads");
        assert_eq!(commits.len(), 1);
        assert_eq!((commits[0].number, commits[0].actor.as_str()), (3, "ada"));
        assert_eq!(commits[0].changes, vec![Change::Put(greenhill.clone().into())]);
        assert_eq!(
            store.changes_after(0, 2).await.expect("reads").iter().map(|c| c.number).collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(store.changes_after(3, 10).await.expect("reads").is_empty());
    }
}

#[tokio::test]
async fn two_stores_on_one_database_see_each_others_commits() {
    let world = World::seeded().await;
    let other = world.again().await;
    world.put(tenant("greenhill")).await;
    assert!(other.tenant_by_slug(&slug("greenhill")).await.expect("reads").is_some());
    assert!(other.head().table.tenant_by_slug("greenhill").is_none(), "not looked yet");
    assert!(other.refresh().await.expect("refreshes").table.tenant_by_slug("greenhill").is_some());

    // What one has not seen counts all the same when it writes.
    world.put(pool("web")).await;
    let mut transaction = other.begin(actor()).await.expect("begins");
    let mut lincoln = tenant("lincoln");
    lincoln.pool = "web".parse().expect("a name");
    transaction.insert(lincoln).await.expect("inserts");
    let committed = commit(transaction).await.expect("commits");
    assert_eq!(committed.change, 5);
    let mut transaction = world.begin().await;
    assert_eq!(transaction.number(), 6);
    let web: PoolId = "web".parse().expect("a name");
    transaction.delete::<Pool>(&web, None).await.expect("deletes");
    assert!(matches!(commit(transaction).await, Err(StoreError::Violations(_))));
    assert_eq!(world.store.verify_audit().await.expect("reads"), Ok(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_database_can_write_at_once() {
    let world = World::seeded().await;
    let other = world.again().await;
    let writes = (0..100).map(|n| {
        let store = if n % 2 == 0 { world.store.clone() } else { other.clone() };
        tokio::spawn(async move {
            let mut transaction = store.begin(actor()).await?;
            transaction.insert(tenant(&format!("school-{n}"))).await?;
            commit(transaction).await
        })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.expect("joins").expect("commits");
    }
    for store in [&world.store, &other] {
        assert_eq!(store.refresh().await.expect("refreshes").table.tenant_count(), 100);
        assert_eq!(store.verify_audit().await.expect("reads"), Ok(102));
    }
}

#[tokio::test]
async fn a_store_is_as_it_was_after_a_second_start() {
    let world = World::seeded().await;
    let greenhill = world.put(tenant("greenhill")).await;
    world.put(domain("erp.greenhill.test", &greenhill.value, Ownership::Proven)).await;
    world.store.close().await;
    assert!(matches!(world.store.get::<Tenant>(&greenhill.value.id).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(world.store.begin(actor()).await, Err(StoreError::Unavailable { .. })));
    let store = world.again().await;
    assert_eq!(store.get(&greenhill.value.id).await.expect("reads"), Some(greenhill));
    assert_eq!(store.head().change, 4);
    assert!(!store.seed(Vec::new()).await.expect("looks"), "seeds only once");
    assert_eq!(store.count::<Plan>(&ListQuery::default()).await.expect("counts"), Plan::catalogue().len() as u64);
    let basic: PlanId = "basic".parse().expect("a name");
    assert_eq!(store.get::<Plan>(&basic).await.expect("reads").expect("is there").value, Plan::catalogue()[0]);
}

#[tokio::test]
async fn a_database_that_is_damaged_absent_or_newer_is_refused_with_its_path_and_a_way_out() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("control.db");
    match Store::open(&url(&directory), OpenMode::Existing).await {
        Err(e @ StoreError::Absent { .. }) => assert!(e.to_string().contains("control.db")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(Store::open("mysql://x", OpenMode::Create).await, Err(StoreError::Url { .. })));
    std::fs::write(&path, [b'x'; 5_000]).expect("writes");
    match Store::open(&url(&directory), OpenMode::Create).await {
        Err(e @ StoreError::Corrupt { .. }) => {
            assert!(e.to_string().contains("control.db") && e.to_string().contains("restore a backup"));
        }
        other => panic!("{other:?}"),
    }

    let world = World::seeded().await;
    for n in 0..50 {
        world.put(tenant(&format!("school-{n}"))).await;
    }
    world.store.close().await;
    let path = world.directory.path().join("control.db");
    let mut bytes = std::fs::read(&path).expect("reads");
    for byte in bytes.iter_mut().skip(8_192).step_by(3).take(20_000) {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).expect("writes");
    let opened = Store::open(&url(&world.directory), OpenMode::Existing).await;
    assert!(matches!(opened, Err(StoreError::Corrupt { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_revision_has_its_number_once() {
    let world = World::seeded().await;
    assert_eq!(world.store.last_revision().await.expect("reads"), None);
    let record = |n: u64| RevisionRecord {
        revision: Revision(n),
        created_at_ms: 5,
        change_from: n,
        change_to: n,
        objects: 1,
        actors: vec!["ada".into()],
    };
    for n in 1..=4 {
        world.store.record_revision(&record(n), &[n as u8], 2).await.expect("records");
    }
    assert!(matches!(world.store.record_revision(&record(4), &[], 2).await, Err(StoreError::Exists { .. })));
    assert_eq!(world.store.last_revision().await.expect("reads"), Some(record(4)));
    assert_eq!(world.store.revision(Revision(2)).await.expect("reads"), Some(record(2)));
    assert_eq!(world.store.revision(Revision(9)).await.expect("reads"), None);
    let before = world.store.revisions(Some(Revision(3)), 10).await.expect("reads");
    assert_eq!(before, [record(2), record(1)]);
    let deltas = world.store.deltas_after(Revision(0), 10).await.expect("reads");
    assert_eq!(deltas, [(record(3), vec![3]), (record(4), vec![4])], "older deltas are forgotten");
    let changes = world.store.changes_of(&record(2)).await.expect("reads");
    assert_eq!(changes.iter().map(|commit| commit.number).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn tokens_answers_nodes_and_notes_read_back() {
    let world = World::new().await;
    let token = Token {
        id: "abc".into(),
        kind: TokenKind::Node,
        name: "proxies".into(),
        role: "node".into(),
        scopes: vec!["feed".into()],
        tenants: vec![TenantId::from_parts(1, 1)],
        networks: vec!["10.0.0.0/8".into()],
        secret_hash: [7; 32],
        created_at_ms: 1,
        created_by: "ada".into(),
        expires_at_ms: Some(9),
    };
    let answer = StoredAnswer {
        actor: "ada".into(),
        key: "k".into(),
        request_hash: [1; 32],
        status: 201,
        etag: Some("\"3\"".into()),
        location: None,
        body: b"{}".to_vec(),
        created_at_ms: 100,
    };
    let mut transaction = world.begin().await;
    transaction.insert_token(&token).await.expect("inserts");
    assert!(matches!(transaction.insert_token(&token).await, Err(StoreError::Exists { .. })));
    transaction.remember_answer(&answer).await.expect("remembers");
    assert!(matches!(transaction.remember_answer(&answer).await, Err(StoreError::Exists { .. })));
    transaction.set_note("demo", "made").await.expect("notes");
    commit(transaction).await.expect("commits");
    assert_eq!(world.store.token("abc").await.expect("reads"), Some(token.clone()));
    assert_eq!(world.store.tokens().await.expect("reads"), [token]);
    assert_eq!(world.store.answer("ada", "k").await.expect("reads"), Some(answer));
    assert_eq!(world.store.answer("bob", "k").await.expect("reads"), None);
    assert_eq!(world.store.note("demo").await.expect("reads").as_deref(), Some("made"));
    world.store.forget_answers(101).await.expect("forgets");
    assert_eq!(world.store.answer("ada", "k").await.expect("reads"), None);

    let mut node = NodeRecord { node: "n1".parse().expect("a name"), seen_at_ms: 5, report: None };
    world.store.save_nodes(std::slice::from_ref(&node)).await.expect("saves");
    node.seen_at_ms = 6;
    world.store.save_nodes(std::slice::from_ref(&node)).await.expect("saves");
    assert_eq!(world.store.nodes().await.expect("reads"), [node]);

    let mut transaction = world.begin().await;
    assert!(transaction.delete_token("abc").await.expect("deletes"));
    assert!(!transaction.delete_token("abc").await.expect("deletes"));
    commit(transaction).await.expect("commits");
    assert_eq!(world.store.token("abc").await.expect("reads"), None);
}

#[tokio::test]
async fn how_fetching_keys_went_is_kept_as_long_as_the_issuer() {
    let world = World::seeded().await;
    let issuer = |id: &str| -> TokenIssuer {
        serde_json::from_value(json!({"id": id, "issuer": id, "source": {"url": "https://id.example/keys"}}))
            .expect("an issuer")
    };
    let fetch = |id: &str, error: Option<&str>| KeyFetch {
        issuer: id.parse().expect("a name"),
        tried_at_ms: 7,
        fetched_at_ms: error.is_none().then_some(7),
        failures: u32::from(error.is_some()),
        error: error.map(str::to_owned),
    };
    for id in ["a", "b"] {
        world.put(issuer(id)).await;
        world.store.save_key_fetch(&fetch(id, Some("unreachable"))).await.expect("saves");
    }
    world.store.save_key_fetch(&fetch("a", None)).await.expect("saves");
    assert_eq!(world.store.key_fetches().await.expect("reads"), [fetch("a", None), fetch("b", Some("unreachable"))]);

    let mut transaction = world.begin().await;
    transaction.delete::<TokenIssuer>(&"b".parse().expect("a name"), None).await.expect("deletes");
    commit(transaction).await.expect("commits");
    world.store.save_key_fetch(&fetch("b", None)).await.expect("saves");
    assert_eq!(world.store.key_fetches().await.expect("reads"), [fetch("a", None)]);
}

#[tokio::test]
async fn an_ignored_host_is_remembered_until_it_is_heeded() {
    let world = World::seeded().await;
    let host = |actor: &str| IgnoredHost { name: domain_name("x.example"), at_ms: 7, actor: actor.into() };
    let mut transaction = world.begin().await;
    transaction.ignore_host(&host("ada")).await.expect("ignores");
    transaction.ignore_host(&host("bob")).await.expect("ignores again");
    commit(transaction).await.expect("commits");
    assert_eq!(world.again().await.ignored_hosts().await.expect("reads"), [host("ada")]);
    let mut transaction = world.begin().await;
    assert!(transaction.heed_host(&domain_name("x.example")).await.expect("heeds"));
    assert!(!transaction.heed_host(&domain_name("x.example")).await.expect("heeds"));
    commit(transaction).await.expect("commits");
    assert_eq!(world.store.ignored_hosts().await.expect("reads"), []);
}

#[tokio::test]
async fn accounts_and_challenges_are_objects_that_survive_a_restart() {
    let world = World::seeded().await;
    let thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".parse().expect("a thumbprint");
    let account = AcmeAccount { ca: "pebble".parse().expect("a name"), thumbprint, primary: true };
    let name = domain_name("erp.greenhill.example");
    let answer = ChallengeAnswer::Http01 { ca: account.ca.clone() };
    let challenge = Challenge { name: name.clone(), answer, expires_at: 1_800_000_000 };
    world.put(account.clone()).await;
    world.put(challenge.clone()).await;
    let again = world.again().await;
    assert_eq!(again.get::<AcmeAccount>(&account.ca).await.expect("reads").expect("there").value, account);
    assert_eq!(again.get::<Challenge>(&name).await.expect("reads").expect("there").value, challenge);
    assert_eq!(again.head().table.challenge(name.as_str()).map(|found| found.as_ref()), Some(&challenge));

    let mut transaction = world.begin().await;
    transaction.delete::<AcmeAccount>(&account.ca, None).await.expect("deletes");
    match transaction.check() {
        Err(StoreError::Violations(violations)) => {
            assert!(matches!(violations.0[..], [Violation::InUse { .. }]), "{violations}");
        }
        other => panic!("{other:?}"),
    }
}

fn event(at_ms: i64, kind: &'static str, tenant: Option<&Tenant>) -> NewEvent {
    NewEvent {
        at_ms,
        kind,
        tenant: tenant.map(|tenant| tenant.id),
        object: "domain erp.greenhill.example".into(),
        summary: "something happened".into(),
        detail: json!({"at": at_ms}),
        once: None,
    }
}

#[tokio::test]
async fn events_are_listed_by_kind_area_tenant_and_object_the_last_first() {
    let world = World::new().await;
    let now = world.clock.unix_ms();
    let (one, two) = (tenant("one"), tenant("two"));
    let other = NewEvent { object: "certificate x".into(), ..event(now + 3, "certificate.failed", None) };
    let events = [event(now + 1, "domain.proven", Some(&one)), event(now + 2, "domain.left", Some(&two)), other];
    world.store.record_events(&events).await.expect("records");
    let times = async |query: EventQuery| -> Vec<i64> {
        let found = world.store.events(&query).await.expect("reads");
        found.into_iter().map(|event| event.at_ms - now).collect()
    };
    let kind = |kind: &str| EventQuery { kind: Some(kind.into()), ..EventQuery::default() };
    assert_eq!(times(EventQuery::default()).await, [3, 2, 1]);
    assert_eq!(times(kind("domain")).await, [2, 1]);
    assert_eq!(times(kind("domain.left")).await, [2]);
    assert_eq!(times(kind("dom")).await, [0; 0]);
    assert_eq!(times(EventQuery { tenant: Some(one.id), ..EventQuery::default() }).await, [1]);
    assert_eq!(times(EventQuery { object: Some("certificate x".into()), ..EventQuery::default() }).await, [3]);
    let first = world.store.events(&EventQuery { limit: 1, ..EventQuery::default() }).await.expect("reads");
    assert_eq!((first.len(), first[0].tenant, &first[0].detail), (1, None, &json!({"at": now + 3})));
    assert_eq!(times(EventQuery { before: Some(first[0].number), ..EventQuery::default() }).await, [2, 1]);
}

#[tokio::test]
async fn an_event_is_kept_with_the_change_it_belongs_to_or_not_at_all() {
    let world = World::new().await;
    let mut transaction = world.begin().await;
    transaction.record_event(&event(1, "domain.left", None)).await.expect("records");
    transaction.rollback().await;
    let all = EventQuery::default();
    assert_eq!(world.store.events(&all).await.expect("reads"), []);
    let mut transaction = world.begin().await;
    transaction.record_event(&event(1, "domain.left", None)).await.expect("records");
    commit(transaction).await.expect("commits");
    assert_eq!(world.store.events(&all).await.expect("reads").len(), 1);
}

#[tokio::test]
async fn an_event_that_is_reported_twice_is_recorded_once() {
    let world = World::new().await;
    let event = NewEvent { once: Some("request 7".into()), ..event(1, "security.cross_tenant_attempt", None) };
    world.store.record_events(&[event.clone(), event.clone()]).await.expect("records");
    world.again().await.record_event(event).await.expect("records");
    assert_eq!(world.store.events(&EventQuery::default()).await.expect("reads").len(), 1);
}

#[tokio::test]
async fn events_are_forgotten_by_age_and_a_flood_of_one_kind_pushes_out_no_other() {
    let world = World::new().await;
    let now = world.clock.unix_ms();
    world.store.record_event(event(now, "domain.proven", None)).await.expect("records");
    let flood = vec![event(now + EVENTS_KEPT_MS, "security.cross_tenant_attempt", None); 20_600];
    world.store.record_events(&flood).await.expect("records");
    let count = async |kind: &str| {
        let query = EventQuery { kind: Some(kind.into()), limit: u32::MAX, ..EventQuery::default() };
        world.store.events(&query).await.expect("reads").len()
    };
    let kept = count("security").await;
    assert!((20_000..20_256).contains(&kept), "{kept}");
    world.store.forget_events().await.expect("forgets");
    assert_eq!((count("security").await, count("domain").await), (20_000, 1));
    world.clock.advance_ms(EVENTS_KEPT_MS + 1);
    world.store.forget_events().await.expect("forgets");
    assert_eq!((count("security").await, count("domain").await), (20_000, 0));
}

#[tokio::test]
async fn txt_values_are_answered_until_they_end_or_are_withdrawn() {
    let world = World::new().await;
    let end = world.clock.unix_ms() + 1_000;
    let values = async || world.store.txt_values("_acme-challenge.Schools.test.").await.expect("reads");
    for value in ["b", "a", "a"] {
        world.store.publish_txt("_ACME-challenge.schools.test", value, end).await.expect("publishes");
    }
    world.store.publish_txt("other.acme.schools.test", "c", end).await.expect("publishes");
    assert_eq!(values().await, ["a", "b"]);
    assert!(world.store.withdraw_txt("_acme-challenge.schools.test.", "a").await.expect("withdraws"));
    assert!(!world.store.withdraw_txt("_acme-challenge.schools.test.", "a").await.expect("withdraws"));
    assert_eq!(values().await, ["b"]);
    world.clock.advance_ms(1_000);
    assert_eq!(values().await, [""; 0]);
}

#[tokio::test]
async fn every_domain_has_a_check_for_as_long_as_it_is_there() {
    let world = World::seeded().await;
    let school = tenant("one");
    world.put(school.clone()).await;
    let made = world.put(domain("a.example", &school, Ownership::Unproven)).await.value;
    let now = world.clock.unix_ms();
    let due = async |at| world.store.domain_checks_due(at, 10).await.expect("reads");
    assert_eq!(due(now - 1).await, []);
    let check = due(now).await.pop().expect("one is due");
    assert_eq!((check.name.as_str(), &check.life, check.checked_at_ms), ("a.example", &json!(null), None));

    let seen = DomainCheck { next_check_ms: Some(now + 60_000), life: json!({"checks": 1}), ..check.clone() };
    let save = async |check: &DomainCheck| {
        let mut transaction = world.begin().await;
        let saved = transaction.save_domain_check(check).await.expect("saves");
        transaction.commit_records().await.expect("commits");
        saved
    };
    assert!(save(&seen).await);
    assert!(!save(&DomainCheck { findings: json!([1]), ..seen.clone() }).await, "another was first");
    assert_eq!(world.store.next_domain_check().await.expect("reads"), Some(now + 60_000));
    assert_eq!(world.store.domain_check(&made.name).await.expect("reads").expect("it is there").life, seen.life);

    let mut transaction = world.begin().await;
    transaction.delete::<Domain>(&made.name, None).await.expect("deletes");
    commit(transaction).await.expect("commits");
    assert_eq!(world.store.domain_check(&made.name).await.expect("reads"), None);
    world.clock.advance_ms(1);
    world.put(made).await;
    assert!(!save(&seen).await, "a check of the domain that was removed is not of the one made again");
}

#[tokio::test]
async fn a_transfer_goes_with_its_domain_and_a_released_name_is_forgotten_in_time() {
    let world = World::seeded().await;
    let school = tenant("one");
    world.put(school.clone()).await;
    let made = world.put(domain("a.example", &school, Ownership::Proven)).await.value;
    let now = world.clock.unix_ms();
    let transfer = DomainTransfer {
        name: made.name.clone(),
        tenant: school.id,
        token: "t".into(),
        requested_at_ms: now,
        requested_by: "test".into(),
        proven_at_ms: None,
    };
    let released = ReleasedName { name: made.name.clone(), tenant: school.id, released_at_ms: now, until_ms: now + 5 };
    let mut transaction = world.begin().await;
    transaction.save_domain_transfer(&transfer).await.expect("saves");
    let proven = DomainTransfer { proven_at_ms: Some(now), ..transfer };
    transaction.save_domain_transfer(&proven).await.expect("saves");
    transaction.keep_released_name(&released).await.expect("saves");
    transaction.commit_records().await.expect("commits");
    assert_eq!(world.store.domain_transfer(&made.name).await.expect("reads"), Some(proven));
    assert_eq!(world.store.released_name(&made.name).await.expect("reads"), Some(released));
    let mut transaction = world.begin().await;
    transaction.delete::<Domain>(&made.name, None).await.expect("deletes");
    commit(transaction).await.expect("commits");
    assert_eq!(world.store.domain_transfer(&made.name).await.expect("reads"), None);
    world.clock.advance_ms(5);
    assert_eq!(world.store.released_name(&made.name).await.expect("reads"), None);
}

fn uploaded(name: &str, serial: u8) -> Certificate {
    let mut certificate = certificate(name, serial);
    certificate.about.issuer = CertificateRef::UPLOADED.to_owned();
    certificate
}

#[tokio::test]
async fn a_certificate_that_was_brought_goes_when_its_name_changes_hands() {
    let world = World::seeded().await;
    let (ash, birch) = (tenant("ash"), tenant("birch"));
    world.put(ash.clone()).await;
    world.put(birch.clone()).await;
    world.put(domain("ash.example", &ash, Ownership::Proven)).await;
    let bring = async |certificate: Certificate| {
        let mut transaction = world.begin().await;
        transaction.upload_certificate(certificate).await?;
        commit(transaction).await.map(|_| ())
    };
    for change in [
        Some(domain("ash.example", &birch, Ownership::Proven)),
        Some(domain("ash.example", &birch, Ownership::Lapsed)),
        None,
    ] {
        let certificate = uploaded("ash.example", 9);
        bring(certificate.clone()).await.expect("brought");
        assert!(matches!(bring(certificate.clone()).await, Err(StoreError::Taken { .. })));
        let names = world.store.uploaded_names().await.expect("reads");
        assert_eq!(names, [("ash.example".to_owned(), certificate.about.fingerprint)]);
        // What does not touch the owner does not touch the certificate.
        let mut transaction = world.begin().await;
        let mut same =
            transaction.get::<Domain>(&domain_name("ash.example")).await.expect("reads").expect("there").value;
        same.routing = Routing::Partial;
        same.ownership = Ownership::Proven;
        transaction.update(same, None).await.expect("updates");
        commit(transaction).await.expect("commits");
        assert!(world.store.head().table.certificate(&certificate.about.fingerprint).is_some());

        let mut transaction = world.begin().await;
        match change {
            Some(domain) => drop(transaction.update(domain, None).await.expect("updates")),
            None => transaction.delete::<Domain>(&domain_name("ash.example"), None).await.expect("deletes"),
        }
        commit(transaction).await.expect("commits");
        assert!(world.store.head().table.certificate(&certificate.about.fingerprint).is_none());
        assert!(world.store.uploaded_names().await.expect("reads").is_empty());
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_out_of_service_and_its_name_wants_another() {
    let world = World::seeded().await;
    let ash = tenant("ash");
    world.put(ash.clone()).await;
    world.put(domain("ash.example", &ash, Ownership::Proven)).await;
    let want = world.store.certificate_want("ash.example").await.expect("reads").expect("wanted");
    let mut issued = certificate("ash.example", 1);
    issued.about.issuer = "acme".to_owned();
    let fingerprint = issued.about.fingerprint;
    let mut transaction = world.begin().await;
    assert!(transaction.certificate_issued(&want, issued, i64::MAX >> 1).await.expect("writes"));
    commit(transaction).await.expect("commits");

    let mut transaction = world.begin().await;
    transaction.revoke_certificate(&fingerprint, RevocationReason::KeyCompromise).await.expect("revokes");
    commit(transaction).await.expect("commits");
    assert!(world.store.head().table.certificate(&fingerprint).is_none());
    let want = world.store.certificate_want("ash.example").await.expect("reads").expect("wanted");
    assert_eq!((want.state, want.fingerprint), (WantState::Queued, None));
    assert_eq!(want.next_attempt_ms, world.clock.unix_ms());

    let told = |told| world.store.revocation_told(&fingerprint, told);
    assert!(told(Err("busy")).await.expect("writes"));
    let open = world.again().await.revocations_requested(10).await.expect("reads");
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].state, RevocationState::Requested { error: Some("busy".to_owned()) });
    assert_eq!((open[0].reason.code(), open[0].leaf.len(), open[0].actor.as_str()), (1, 500, "ada"));
    assert!(told(Ok(())).await.expect("writes"));
    assert!(!told(Ok(())).await.expect("writes"), "it knows already");
    assert!(world.store.revocations_requested(10).await.expect("reads").is_empty());
    let known = world.store.revocation(&fingerprint).await.expect("reads").expect("kept");
    assert!(matches!(known.state, RevocationState::Done { .. }));

    let mut transaction = world.begin().await;
    let again = transaction.revoke_certificate(&fingerprint, RevocationReason::Superseded).await;
    assert!(matches!(again, Err(StoreError::NotFound { .. })));
}

fn flush(node: &str, boot: u128, number: u64, parts: Vec<UsagePart>) -> UsageFlush {
    UsageFlush {
        node: node.parse().expect("a name"),
        boot: serde_json::from_value(json!(TenantId::from_parts(1, boot).to_string()[4..])).expect("a ULID"),
        number,
        parts,
        quotas: Vec::new(),
    }
}

fn part(tenant: TenantId, at_s: i64, requests: u64) -> UsagePart {
    let mut usage = Usage { bytes_out: 10 * requests, in_flight_peak: requests, ..Usage::default() };
    usage.requests.add(RequestClass::Api, CodeClass::Success, requests);
    usage.latency.add(9, requests);
    UsagePart { tenant, at_s, step: Step::Minute, usage }
}

/// Requests in each sum of a step.
async fn sums(store: &Store, tenant: TenantId, step: Step) -> Vec<(i64, u64)> {
    let query = UsageQuery { tenant, step, from_s: 0, to_s: i64::MAX };
    let parts = store.usage(&query).await.expect("reads");
    parts.iter().map(|part| (part.at_s, part.usage.requests.total())).collect()
}

#[tokio::test]
async fn usage_is_summed_by_minute_hour_and_day_over_all_proxies() {
    let world = World::new().await;
    let (ash, oak) = (TenantId::from_parts(1, 1), TenantId::from_parts(1, 2));
    let now = 1_700_000_000;
    let minute = Step::Minute.floor(now);
    let parts = vec![part(ash, minute, 2), part(ash, minute - 60, 1), part(oak, minute, 5)];
    world.store.count_usage(&flush("n1", 1, 1, parts)).await.expect("counts");
    world.store.count_usage(&flush("n2", 2, 1, vec![part(ash, minute + 7, 4)])).await.expect("counts");
    assert_eq!(sums(&world.store, ash, Step::Minute).await, [(minute - 60, 1), (minute, 6)]);
    assert_eq!(sums(&world.store, ash, Step::Hour).await, [(Step::Hour.floor(now), 7)]);
    assert_eq!(sums(&world.again().await, oak, Step::Day).await, [(Step::Day.floor(now), 5)]);

    let query = UsageQuery { tenant: ash, step: Step::Day, from_s: 0, to_s: i64::MAX };
    let [day] = world.store.usage(&query).await.expect("reads").try_into().expect("one day");
    assert_eq!((day.usage.bytes_out, day.usage.in_flight_peak, day.usage.latency.count()), (70, 4, 7));
    let totals = TotalsQuery { from_s: Step::Day.floor(now), to_s: now, after: None, limit: 10 };
    let totals = world.store.usage_totals(&totals).await.expect("reads");
    assert_eq!(totals.iter().map(|t| (t.tenant, t.requests)).collect::<Vec<_>>(), [(ash, 7), (oak, 5)]);
}

#[tokio::test]
async fn the_busiest_minute_is_found_in_hours_that_are_busy_enough() {
    let world = World::new().await;
    let (ash, oak, elm) = (TenantId::from_parts(1, 1), TenantId::from_parts(1, 2), TenantId::from_parts(1, 3));
    let hour = Step::Hour.floor(1_700_000_000);
    let parts = vec![
        part(ash, hour, 30),
        part(ash, hour + 60, 50),
        part(ash, hour + 3_600, 40),
        part(oak, hour, 70),
        part(elm, hour - 7_200, 90),
    ];
    world.store.count_usage(&flush("n1", 1, 1, parts)).await.expect("counts");
    let peaks = async |above: &[(TenantId, u64)]| {
        let peaks = world.store.usage_peaks(above, hour).await.expect("reads");
        peaks.iter().map(|peak| (peak.tenant, peak.requests, peak.in_flight)).collect::<Vec<_>>()
    };
    assert_eq!(peaks(&[(ash, 49), (oak, 70), (elm, 0)]).await, [(ash, 50, 50), (oak, 0, 70)]);
    assert_eq!(peaks(&[(ash, 50)]).await, [(ash, 0, 50)], "the hour had more, no minute of it did");
    assert_eq!(peaks(&[(ash, u64::MAX)]).await, [(ash, 0, 50)]);
}

#[tokio::test]
async fn a_flush_that_is_sent_again_is_not_counted_again() {
    let world = World::new().await;
    let tenant = TenantId::from_parts(1, 1);
    let minute = Step::Minute.floor(1_700_000_000);
    let mut first = flush("n1", 1, 1, vec![part(tenant, minute, 3)]);
    first.quotas.push(QuotaUse { tenant, quota: QuotaKind::RequestsPerDay, period: 19_675, used: 3 });
    for _ in 0..3 {
        let taken = world.store.count_usage(&first).await.expect("counts");
        assert_eq!((taken.number, taken.quotas), (1, first.quotas.clone()));
    }
    world.store.count_usage(&flush("n1", 1, 2, vec![part(tenant, minute, 1)])).await.expect("counts");
    world.again().await.count_usage(&first).await.expect("counts");
    assert_eq!(sums(&world.store, tenant, Step::Minute).await, [(minute, 4)]);
    // Another start of the same proxy begins at one again, and so does another proxy.
    world.store.count_usage(&flush("n1", 2, 1, vec![part(tenant, minute, 1)])).await.expect("counts");
    world.store.count_usage(&flush("n2", 1, 1, vec![part(tenant, minute, 1)])).await.expect("counts");
    assert_eq!(sums(&world.store, tenant, Step::Minute).await, [(minute, 6)]);
}

#[tokio::test]
async fn quotas_add_up_over_proxies_and_are_found_again_after_a_restart() {
    let world = World::new().await;
    let tenant = TenantId::from_parts(1, 1);
    let used = |day: u16, used| QuotaUse { tenant, quota: QuotaKind::RequestsPerDay, period: 19_661 + day, used };
    for (node, use_) in [("n1", used(14, 4)), ("n2", used(14, 5)), ("n3", used(15, 1))] {
        let mut flush = flush(node, 1, 1, Vec::new());
        flush.quotas.push(use_);
        world.store.count_usage(&flush).await.expect("counts");
    }
    assert_eq!(world.again().await.quotas_used(&[used(14, 0), used(16, 0)]).await.expect("reads"), [used(14, 9)]);
    let recent = world.store.recent_quotas(None, 10).await.expect("reads");
    assert_eq!(recent, [used(14, 9), used(15, 1)]);
    assert_eq!(world.store.recent_quotas(Some(&used(14, 0)), 10).await.expect("reads"), [used(15, 1)]);
    assert_eq!(world.store.recent_quotas(Some(&used(15, 0)), 10).await.expect("reads"), []);
    world.clock.advance_ms(26 * 3_600_000);
    assert_eq!(world.store.recent_quotas(None, 10).await.expect("reads"), [], "no day lasts so long");
}

#[tokio::test]
async fn usage_is_kept_as_long_as_its_step_and_the_future_is_now() {
    let world = World::new().await;
    let tenant = TenantId::from_parts(1, 1);
    let now = world.clock.unix_s();
    let parts = vec![part(tenant, now - 86_400, 1), part(tenant, now - 40 * 86_400, 2), part(tenant, now + 86_400, 4)];
    world.store.count_usage(&flush("n1", 1, 1, parts)).await.expect("counts");
    let minutes = [(Step::Minute.floor(now - 86_400), 1), (Step::Minute.floor(now), 4)];
    assert_eq!(sums(&world.store, tenant, Step::Minute).await, minutes, "too old for a minute, and not from now");
    assert_eq!(sums(&world.store, tenant, Step::Day).await.len(), 3);

    world.clock.advance_ms(25 * 3_600_000);
    while world.store.forget_usage().await.expect("forgets") {}
    assert_eq!(sums(&world.store, tenant, Step::Minute).await, [(Step::Minute.floor(now), 4)]);
    assert_eq!(sums(&world.store, tenant, Step::Hour).await.len(), 2);
    world.clock.advance_ms(390 * 86_400_000);
    while world.store.forget_usage().await.expect("forgets") {}
    assert_eq!(sums(&world.store, tenant, Step::Hour).await, []);
    assert_eq!(sums(&world.store, tenant, Step::Day).await.len(), 2);
    world.clock.advance_ms(20 * 86_400_000);
    while world.store.forget_usage().await.expect("forgets") {}
    assert_eq!(sums(&world.store, tenant, Step::Day).await, []);
}

#[tokio::test]
async fn the_last_report_of_an_instance_counts() {
    let world = World::new().await;
    let report = |n, users| AppReport {
        tenant: TenantId::from_parts(1, n),
        users,
        students: 7,
        storage_bytes: 4_096,
        instance: "127.0.0.1:8701".into(),
        reported_at_ms: 5,
    };
    world.store.save_app_reports(&[report(1, 8), report(2, 1)]).await.expect("saves");
    world.store.save_app_reports(&[report(1, 9)]).await.expect("saves");
    let tenants = [1, 2, 3].map(|n| TenantId::from_parts(1, n));
    let found = world.again().await.app_reports(&tenants).await.expect("reads");
    assert_eq!(found, [report(1, 9), report(2, 1)]);
}

#[tokio::test]
async fn a_token_of_an_instance_is_neither_a_nodes_nor_an_operators() {
    let world = World::new().await;
    let token = Token {
        id: "abc".into(),
        kind: TokenKind::Instance,
        name: "apps".into(),
        role: "instance".into(),
        scopes: Vec::new(),
        tenants: Vec::new(),
        networks: Vec::new(),
        secret_hash: [1; 32],
        created_at_ms: 5,
        created_by: "test".into(),
        expires_at_ms: None,
    };
    let mut transaction = world.begin().await;
    transaction.insert_token(&token).await.expect("inserts");
    commit(transaction).await.expect("commits");
    assert_eq!(world.again().await.token("abc").await.expect("reads"), Some(token));
}
