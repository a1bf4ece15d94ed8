//! What the store keeps for ACME CAs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use schoolgate_config::model::{Domain, DomainName, Ownership, Pool, Routing, Tenant, TenantId};
use schoolgate_config::seal::Keeper;
use schoolgate_config::time::ManualClock;

use super::*;
use crate::{Actor, OpenMode, WantState};

const DAY_MS: i64 = 86_400_000;

struct World {
    store: Store,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open_at(&url, OpenMode::Create, clock.clone()).await.unwrap();
        store.seed(Vec::new()).await.unwrap();
        let pool: Pool = serde_json::from_value(json!({ "id": "shared" })).unwrap();
        let mut transaction = store.begin(Actor::system("test")).await.unwrap();
        transaction.insert(pool).await.unwrap();
        transaction.commit("test", "test", json!(null)).await.unwrap();
        Self { store, clock, _dir: dir }
    }

    fn now(&self) -> i64 {
        use schoolgate_config::time::Clock as _;
        self.clock.unix_ms()
    }

    /// A school with these names, all at once, left to the ACME CAs.
    async fn school(&self, slug: &str, names: &[&str]) {
        let tenant: Tenant = serde_json::from_value(json!({
            "id": TenantId::generate(), "slug": slug, "name": slug, "state": "active", "plan": "basic", "pool": "shared",
        }))
        .unwrap();
        let mut transaction = self.store.begin(Actor::system("test")).await.unwrap();
        let id = tenant.id;
        transaction.insert(tenant).await.unwrap();
        for name in names {
            let name = DomainName::parse(name).unwrap();
            let (ownership, routing) = (Ownership::Proven, Routing::Here);
            let domain = Domain { name, tenant: id, primary: false, ownership, routing, token: "t".into() };
            transaction.insert(domain).await.unwrap();
        }
        transaction.commit("test", "test", json!(null)).await.unwrap();
        let mut transaction = self.store.begin(Actor::system("test")).await.unwrap();
        for name in names {
            transaction.set_certificate_issuer(name, "acme").await.unwrap();
        }
        transaction.finish().await.unwrap();
        self.clock.advance_ms(1_000);
    }

    async fn due(&self) -> Vec<(String, QueueClass)> {
        let entries = self.store.acme_queue(self.now(), QueuePart::Due, 100).await.unwrap();
        entries.into_iter().map(|entry| (entry.want.name, entry.class)).collect()
    }

    async fn names(&self) -> Vec<String> {
        self.due().await.into_iter().map(|(name, _)| name).collect()
    }

    async fn write(&self) -> Transaction {
        self.store.begin(Actor::system("test")).await.unwrap()
    }

    async fn open(&self, name: &str) -> bool {
        let tenant = self.store.acme_entry(self.now(), name).await.unwrap().unwrap().tenant.unwrap_or_default();
        let mut transaction = self.write().await;
        let opened = transaction.open_acme_order(&order(name, self.now()), &tenant).await.unwrap();
        transaction.finish().await.unwrap();
        opened
    }
}

fn order(name: &str, now_ms: i64) -> AcmeOrder {
    AcmeOrder {
        name: name.to_owned(),
        id: format!("order of {name}"),
        ca: "acme".parse().unwrap(),
        step: OrderStep::Prepared,
        class: QueueClass::New,
        charge: Charge::New,
        key: Keeper::new(&[1; 32]).seal(AcmeOrder::KEY_PURPOSE, name, b"key"),
        csr: vec![1, 2, 3],
        url: None,
        profile: None,
        replaces: None,
        proof: Some(Proof::Dns01 { name: "_acme-challenge.x".into(), value: "v".into() }),
        change: None,
        begun_at_ms: now_ms,
        next_ms: now_ms,
        stumbles: 0,
        note: None,
    }
}

fn setback(reason: &'static str) -> Setback {
    Setback { reason, message: "words".into(), who_acts: "school", link: Some("https://ca.test/page".into()) }
}

#[tokio::test]
async fn there_is_one_open_order_for_a_name_and_it_reads_back_as_it_was() {
    let world = World::new().await;
    world.school("ash", &["a.example"]).await;
    assert!(world.open("a.example").await);
    assert!(!world.open("a.example").await, "never two");
    let kept = world.store.acme_order("a.example").await.unwrap().unwrap();
    // A key is sealed under a data key of its own, so no two are alike.
    assert_eq!(kept, AcmeOrder { key: kept.key.clone(), ..order("a.example", world.now()) });
    let opened = Keeper::new(&[1; 32]).open_key(AcmeOrder::KEY_PURPOSE, "a.example", &kept.key).unwrap();
    assert_eq!(opened.as_slice(), b"key");
    assert!(world.due().await.is_empty(), "what is ordered waits for nobody's turn");
    let mut transaction = world.write().await;
    let moved = AcmeOrder { step: OrderStep::Placed, url: Some("u".into()), next_ms: world.now() + 5, ..kept };
    transaction.save_acme_order(&moved).await.unwrap();
    transaction.finish().await.unwrap();
    assert!(world.store.acme_orders_due(world.now(), 10).await.unwrap().is_empty());
    assert_eq!(world.store.next_acme_due().await.unwrap(), Some(world.now() + 5));
    world.clock.advance_ms(5);
    assert_eq!(world.store.acme_orders_due(world.now(), 10).await.unwrap(), std::slice::from_ref(&moved));
    let mut transaction = world.write().await;
    transaction.close_acme_order(&moved, "issued").await.unwrap();
    transaction.finish().await.unwrap();
    assert_eq!(world.store.acme_orders_open().await.unwrap(), 0);
    assert_eq!(world.store.acme_totals().await.unwrap(), [(moved.ca, "issued".to_owned(), 1)]);
}

#[tokio::test]
async fn tenants_take_turns_whoever_came_first() {
    let world = World::new().await;
    world.school("ash", &["a1.example", "a2.example", "a3.example"]).await;
    world.school("birch", &["b1.example", "b2.example"]).await;
    assert_eq!(world.names().await, ["a1.example", "b1.example", "a2.example", "b2.example", "a3.example"]);
    assert!(world.open("a1.example").await);
    world.clock.advance_ms(10);
    let next = world.names().await;
    assert_eq!(next, ["b1.example", "a2.example", "b2.example", "a3.example"], "the one served longest ago is next");
}

#[tokio::test]
async fn classes_are_strict() {
    let world = World::new().await;
    let many: Vec<String> = (0..21).map(|n| format!("m{n:02}.example")).collect();
    world.school("importer", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.school("ash", &["failed.example"]).await;
    world.school("birch", &["new.example"]).await;
    let mut transaction = world.write().await;
    transaction.acme_failed("failed.example", &setback("dns"), world.now()).await.unwrap();
    transaction.finish().await.unwrap();
    let due = world.due().await;
    assert_eq!(due.len(), 23);
    assert_eq!(due[0], ("new.example".to_owned(), QueueClass::New));
    assert_eq!(due[1], ("failed.example".to_owned(), QueueClass::Retry));
    assert!(due[2..].iter().all(|(_, class)| *class == QueueClass::Bulk));
    let depth = world.store.acme_queue_depth(world.now()).await.unwrap();
    let counts: Vec<_> = depth.iter().map(|(class, count, _)| (*class, *count)).collect();
    assert_eq!(counts, [(QueueClass::New, 1), (QueueClass::Retry, 1), (QueueClass::Bulk, 21)]);
    world.clock.advance_ms(3 * DAY_MS);
    let aged = world.due().await;
    assert!(
        aged.iter().all(|(_, class)| [QueueClass::New, QueueClass::Renewal].contains(class)),
        "what waits long goes up"
    );
}

#[tokio::test]
async fn why_a_name_waits_or_fails_is_kept_and_a_change_of_its_domain_wakes_it() {
    let world = World::new().await;
    world.school("ash", &["a.example"]).await;
    let mut transaction = world.write().await;
    transaction.acme_waits("a.example", &setback(NOT_READY), world.now() + DAY_MS).await.unwrap();
    transaction.finish().await.unwrap();
    let entry = world.store.acme_entry(world.now(), "a.example").await.unwrap().unwrap();
    assert_eq!((entry.want.state, entry.want.attempts), (WantState::Queued, 0), "nothing was tried");
    assert_eq!((entry.reason.as_deref(), entry.who_acts.as_deref()), (Some(NOT_READY), Some("school")));
    assert_eq!(entry.link.as_deref(), Some("https://ca.test/page"));
    assert!(world.due().await.is_empty());
    let all = world.store.acme_queue(world.now(), QueuePart::All, 10).await.unwrap();
    assert_eq!(all.len(), 1, "it is shown all the same");

    let key = DomainName::parse("a.example").unwrap();
    let mut transaction = world.write().await;
    let domain = transaction.get::<Domain>(&key).await.unwrap().unwrap().value;
    transaction.update(Domain { routing: Routing::Drifted, ..domain }, None).await.unwrap();
    transaction.commit("test", "test", json!(null)).await.unwrap();
    assert_eq!(world.names().await, ["a.example"]);
}

#[tokio::test]
async fn accounts_authorities_buckets_and_failures_read_back() {
    let world = World::new().await;
    let ca: CaId = "acme".parse().unwrap();
    let credentials = AcmeCredentials {
        ca: ca.clone(),
        directory: "https://ca.test/dir".into(),
        url: "https://ca.test/account/1".into(),
        thumbprint: "t".into(),
        sealed: Keeper::new(&[1; 32]).seal(AcmeCredentials::KEY_PURPOSE, "acme", b"secret"),
        created_at_ms: 1,
    };
    let health = AuthorityHealth { failures: 2, held_until_ms: Some(7), ..Default::default() };
    let bucket = Bucket {
        ca: ca.clone(),
        name: "orders".into(),
        subject: String::new(),
        tokens: 1.5,
        capacity: 3.0,
        per_ms: 1_000,
        at_ms: world.now(),
    };
    let mut transaction = world.write().await;
    transaction.save_acme_credentials(&credentials).await.unwrap();
    transaction.save_acme_authority(&ca, &health).await.unwrap();
    transaction.save_acme_bucket(&bucket).await.unwrap();
    transaction.count_acme_failure(&ca, "a.example", world.now() - DAY_MS).await.unwrap();
    assert_eq!(transaction.acme_failures(&ca, "a.example", world.now() - 1).await.unwrap(), [world.now()]);
    assert!(transaction.acme_failures(&ca, "b.example", 0).await.unwrap().is_empty());
    assert_eq!(transaction.acme_bucket(&ca, "orders", "").await.unwrap(), Some(bucket.clone()));
    transaction.finish().await.unwrap();
    assert_eq!(world.store.acme_credentials().await.unwrap(), [credentials]);
    assert_eq!(world.store.acme_authorities().await.unwrap(), [(ca, health)]);
    assert_eq!(world.store.acme_buckets(10).await.unwrap(), [bucket]);
}

#[tokio::test]
async fn a_transaction_under_a_lost_lease_is_refused() {
    let world = World::new().await;
    let lease = world.store.take_lease("certificates", "a", Duration::from_secs(1)).await.unwrap().unwrap();
    world.clock.advance_ms(1_000);
    world.store.take_lease("certificates", "b", Duration::from_secs(1)).await.unwrap().unwrap();
    let refused = world.store.begin_under(&lease, Actor::system("a")).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost { .. })), "{refused:?}");
}
