//! The key-encryption key is rotated while an order is at work.

use std::sync::Arc;

use schoolgate_config::model::Certificate;
use schoolgate_config::seal::{Keeper, SealedKey};
use schoolgate_mock_ca::MockCa;
use schoolgate_store::Actor;
use schoolgate_store::acme::{AcmeCredentials, AcmeOrder};

use crate::world::{HOUR_MS, World, names};

const NAME: &str = "erp.greenhill.example";

/// What the control plane does, from the first step to the last.
async fn rotate(world: &World) {
    assert!(world.keeper.introduce().unwrap() && world.keeper.promote().unwrap());
    let rewrapped =
        |purpose: &str, subject: &str, key: &SealedKey| world.keeper.rewrap(purpose, subject, key).unwrap().unwrap();
    let mut transaction = world.store.begin(Actor::system("test")).await.unwrap();
    for order in world.store.acme_orders_due(i64::MAX, 10).await.unwrap() {
        let key = rewrapped(AcmeOrder::KEY_PURPOSE, &order.id, &order.key);
        transaction.save_rewrapped_acme_order(&AcmeOrder { key, ..order }).await.unwrap();
    }
    for account in world.store.acme_credentials().await.unwrap() {
        let sealed = rewrapped(AcmeCredentials::KEY_PURPOSE, account.ca.as_str(), &account.sealed);
        transaction.save_acme_credentials(&AcmeCredentials { sealed, ..account }).await.unwrap();
    }
    transaction.finish().await.unwrap();
    assert!(world.keeper.retire().unwrap());
}

/// Rotates the key while the n-th request to the CA is on its way. Says whether there was one.
async fn rotated_at(request: usize) -> bool {
    let mut world = World::with(MockCa::builder().without_renewal()).await;
    world.keeper = Arc::new(Keeper::open_or_create(&world.dir.path().join("kek")).unwrap());
    world.restart();
    world.school("greenhill", &names(&[NAME])).await;
    let old = world.keeper.id();
    world.wire.hold_at(request);
    let rotation = async {
        world.wire.is_held.notified().await;
        rotate(&world).await;
        world.wire.go_on.notify_one();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = world.live(HOUR_MS) => {}
        () = rotation => {}
    }
    let certificate = world.certificate(NAME).await.unwrap_or_else(|| panic!("request {request}"));
    let subject = certificate.about.fingerprint.to_string();
    let opened = world.keeper.open_key(Certificate::KEY_PURPOSE, &subject, &certificate.key);
    assert!(opened.is_ok(), "request {request}: the key of the certificate is lost");
    let record = world.ca.record();
    assert_eq!((record.orders[NAME], record.issued.len()), (1, 1), "request {request}: it was ordered again");
    world.keeper.id() != old
}

#[tokio::test]
async fn an_order_at_work_ends_with_a_key_that_opens_whenever_the_sealing_key_is_rotated() {
    let mut request = 1;
    while rotated_at(request).await {
        request += 1;
    }
    assert!(request > 8, "an order is some ten requests, not {request}");
}
