//! A rotation over what the store keeps sealed beside its objects: accounts at authorities, and keys of open orders.

use schoolgate_store::acme::{Charge, OrderStep, QueueClass};
use schoolgate_store::{OpenMode, Transaction};

use super::*;

/// More steps than a rotation has.
const STEPS: usize = 40;

struct World {
    store: Store,
    keeper: Arc<Keeper>,
    rotation: SealRotation,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open(&url, OpenMode::Create).await.unwrap();
        store.seed(Vec::new()).await.unwrap();
        let keeper = Arc::new(Keeper::open_or_create(&dir.path().join("kek")).unwrap());
        let publisher = Publisher::load(store.clone()).await.unwrap();
        tokio::spawn(publisher.clone().run(std::future::pending()));
        let elsewhere: Elsewhere = Arc::new(|_| Ok(()));
        let rotation = SealRotation::new(publisher, store.clone(), keeper.clone(), elsewhere);
        let rotation = SealRotation { settled_after: Duration::ZERO, ..rotation };
        Self { store, keeper, rotation, _dir: dir }
    }

    async fn write(&self) -> Transaction {
        self.store.begin(Actor::system("test")).await.unwrap()
    }

    fn order(&self, name: &str) -> AcmeOrder {
        AcmeOrder {
            name: name.to_owned(),
            id: format!("order of {name}"),
            ca: "first".parse().unwrap(),
            step: OrderStep::Validating,
            class: QueueClass::New,
            charge: Charge::New,
            key: self.keeper.seal(AcmeOrder::KEY_PURPOSE, &format!("order of {name}"), b"key of an order"),
            csr: vec![1, 2, 3],
            url: Some("https://ca.test/order/1".to_owned()),
            profile: None,
            replaces: None,
            proof: None,
            change: None,
            begun_at_ms: 1,
            next_ms: i64::MAX / 2,
            stumbles: 0,
            note: None,
        }
    }

    async fn rotate(&self) {
        let mut transaction = self.write().await;
        transaction.set_note(NOTE, REQUESTED).await.unwrap();
        transaction.commit("test", "test", json!({})).await.unwrap();
        for _ in 0..STEPS {
            if self.rotation.step().await.unwrap() == Next::Wait && self.keeper.previous_id().is_none() {
                return;
            }
        }
        panic!("it does not end: {:?}", self.keeper.ids());
    }
}

#[tokio::test]
async fn accounts_and_open_orders_open_under_the_new_key_when_the_old_one_is_gone() {
    let world = World::new().await;
    let old = world.keeper.id();
    let account = AcmeCredentials {
        ca: "first".parse().unwrap(),
        directory: "https://ca.test/directory".to_owned(),
        url: "https://ca.test/account/1".to_owned(),
        thumbprint: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".to_owned(),
        sealed: world.keeper.seal(AcmeCredentials::KEY_PURPOSE, "first", b"key of an account"),
        created_at_ms: 1,
    };
    let names = ["a.example", "b.example"];
    let mut transaction = world.write().await;
    transaction.save_acme_credentials(&account).await.unwrap();
    for name in names {
        assert!(transaction.open_acme_order(&world.order(name), "").await.unwrap());
    }
    transaction.finish().await.unwrap();

    world.rotate().await;
    let new = world.keeper.id();
    assert_ne!(new, old);
    assert_eq!(world.keeper.ids(), std::slice::from_ref(&new), "the old key is gone");
    let kept = world.store.acme_credentials().await.unwrap().remove(0);
    assert_eq!(kept.sealed.kek_id(), new);
    let opened = world.keeper.open_key(AcmeCredentials::KEY_PURPOSE, "first", &kept.sealed).unwrap();
    assert_eq!(opened.as_slice(), b"key of an account");
    assert_eq!(AcmeCredentials { sealed: account.sealed.clone(), ..kept }, account, "nothing else is touched");
    for name in names {
        let order = world.store.acme_order(name).await.unwrap().unwrap();
        assert_eq!((order.key.kek_id(), order.step), (new.as_str(), OrderStep::Validating));
        let opened = world.keeper.open_key(AcmeOrder::KEY_PURPOSE, &order.id, &order.key).unwrap();
        assert_eq!(opened.as_slice(), b"key of an order");
    }
}

/// Another control process seals under the key before until it has read the key file again.
#[tokio::test]
async fn the_key_before_stays_until_who_has_not_heard_of_the_new_one_has() {
    let mut world = World::new().await;
    world.rotation.settled_after = Duration::from_secs(3_600);
    let old = world.keeper.id();
    let late = world.order("a.example");
    let mut transaction = world.write().await;
    transaction.set_note(NOTE, REQUESTED).await.unwrap();
    transaction.commit("test", "test", json!({})).await.unwrap();
    for _ in 0..STEPS {
        world.rotation.step().await.unwrap();
    }
    assert_eq!(world.keeper.previous_id(), Some(old.clone()));
    assert_ne!(world.keeper.id(), old);

    // It commits what it sealed when all that was there had been wrapped anew.
    let mut transaction = world.write().await;
    assert!(transaction.open_acme_order(&late, "").await.unwrap());
    transaction.finish().await.unwrap();
    world.rotation.settled_after = Duration::ZERO;
    for _ in 0..STEPS {
        world.rotation.step().await.unwrap();
    }
    assert_eq!(world.keeper.previous_id(), None, "it is gone in its time");
    let kept = world.store.acme_order("a.example").await.unwrap().unwrap();
    let opened = world.keeper.open_key(AcmeOrder::KEY_PURPOSE, &kept.id, &kept.key).unwrap();
    assert_eq!(opened.as_slice(), b"key of an order");
}

#[tokio::test]
async fn a_key_that_does_not_open_keeps_the_old_one_in_service() {
    let world = World::new().await;
    let mut order = world.order("a.example");
    order.key = Keeper::new(&[9; 32]).seal(AcmeOrder::KEY_PURPOSE, &order.id, b"of another gateway");
    let mut transaction = world.write().await;
    assert!(transaction.open_acme_order(&order, "").await.unwrap());
    transaction.set_note(NOTE, REQUESTED).await.unwrap();
    transaction.commit("test", "test", json!({})).await.unwrap();
    let mut stopped = None;
    for _ in 0..STEPS {
        if let Err(error) = world.rotation.step().await {
            stopped = Some(error.to_string());
            break;
        }
    }
    assert!(stopped.is_some_and(|why| why.contains("acme-order order of a.example")));
    assert!(world.keeper.previous_id().is_some());
}
