//! A process that dies at any moment, and one that was believed dead.

use std::time::Duration;

use schoolgate_config::settings::AcmeChallenge;
use schoolgate_store::StoreError;

use crate::world::{HOUR_MS, World, names};

const NAME: &str = "erp.greenhill.example";

/// Kills the worker at its n-th request to the CA, before or after the CA hears it, and has another go on. Says whether
/// there was an n-th request.
async fn killed_at(request: usize, heard: bool, method: AcmeChallenge) -> bool {
    let mut world = World::new().await;
    world.method = method;
    world.restart();
    world.school("greenhill", &names(&[NAME])).await;
    world.wire.cut_at(request, heard);
    let died = tokio::select! {
        () = world.live(HOUR_MS) => false,
        () = world.wire.was_cut.notified() => true,
    };
    world.wire.mend();
    world.restart();
    world.live(HOUR_MS).await;
    let what = format!("request {request}, {}", if heard { "heard" } else { "not heard" });
    assert!(world.certificate(NAME).await.is_some(), "{what}");
    let record = world.ca.record();
    assert_eq!(record.orders[NAME], 1, "{what}: never two orders");
    assert_eq!(record.issued.len(), 1, "{what}: never two certificates");
    assert!(!world.has_challenges().await, "{what}: nothing is left behind");
    assert_eq!(world.store.acme_orders_open().await.unwrap(), 0, "{what}");
    died
}

#[tokio::test]
async fn a_worker_that_dies_at_any_request_is_followed_by_one_that_finishes_the_same_order() {
    for heard in [false, true] {
        for method in [AcmeChallenge::Http01, AcmeChallenge::TlsAlpn01] {
            let mut request = 1;
            while killed_at(request, heard, method).await {
                request += 1;
                assert!(request < 60, "an order has no end");
            }
            assert!(request > 10, "an order has more than {request} requests, the account among them");
        }
    }
}

#[tokio::test]
async fn who_has_lost_the_lease_orders_nothing() {
    let world = World::new().await;
    world.school("greenhill", &names(&[NAME])).await;
    world.store.release_lease(&world.lease).await.unwrap();
    let other = world.store.take_lease("certificates", "other", Duration::from_secs(3_600)).await.unwrap().unwrap();
    let why = world.orders.step(&world.lease).await;
    assert!(matches!(why, Err(StoreError::LeaseLost { .. })), "{why:?}");
    assert_eq!(world.orders_of(NAME), 0);
    while !world.orders.step(&other).await.unwrap().is_idle() {}
    assert_eq!(world.orders_of(NAME), 1);
}

#[tokio::test]
async fn two_workers_and_one_order() {
    let mut world = World::new().await;
    let first = world.orders.clone();
    world.restart();
    world.school("greenhill", &names(&[NAME])).await;
    // The first begins; the second takes over in the middle; the first goes on as if nothing had happened.
    first.step(&world.lease).await.unwrap();
    assert_eq!(world.store.acme_orders_open().await.unwrap(), 1);
    world.store.release_lease(&world.lease).await.unwrap();
    let taken = world.store.take_lease("certificates", "other", Duration::from_secs(3_600)).await.unwrap().unwrap();
    let (stale, _) =
        tokio::join!(first.step(&world.lease), async { while !world.orders.step(&taken).await.unwrap().is_idle() {} });
    assert!(matches!(stale, Err(StoreError::LeaseLost { .. })), "{stale:?}");
    assert_eq!(world.orders_of(NAME), 1);
    assert_eq!(world.ca.record().issued.len(), 1);
    assert!(world.certificate(NAME).await.is_some());
}
