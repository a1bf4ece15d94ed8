//! The CA's limits: never met, and where the CA counts otherwise, believed.

use schoolgate_mock_ca::{Endpoint, Fault, MockCa};

use crate::world::{DAY_MS, HOUR_MS, World, names};

#[tokio::test]
async fn a_district_with_many_names_under_one_registered_domain_never_meets_the_limit() {
    let world = World::with(MockCa::builder().without_renewal()).await;
    let all: Vec<String> = (0..60).map(|n| format!("school-{n}.district.example")).collect();
    world.school("district", &all).await;
    world.school("ash", &names(&["erp.ash.example"])).await;
    world.live(HOUR_MS).await;
    assert!(world.certificate("erp.ash.example").await.is_some(), "nobody else waits for them");
    assert_eq!(world.ca.record().issued.len(), 41, "four fifths of fifty, and the other");
    world.live(5 * DAY_MS).await;
    let record = world.ca.record();
    assert_eq!(record.issued.len(), 61);
    assert!(record.limited.is_empty(), "{:?}", record.limited);
}

#[tokio::test]
async fn a_refusal_moves_only_whom_it_names() {
    let world = World::new().await;
    let words = "too many certificates (50) already issued for \"ash.example\" in the last 168h0m0s";
    let fault = Fault::Problem(429, "rateLimited", words.to_owned(), Some(7_200));
    world.ca.fail(Endpoint::NewOrder, &fault, 1);
    world.school("ash", &names(&["a.ash.example"])).await;
    world.work().await;
    let entry = world.entry("a.ash.example").await;
    assert_eq!(entry.reason.as_deref(), Some("rate_limited"));
    assert!((entry.want.next_attempt_ms - world.now() - 7_200_000).abs() < 1_000);
    world.school("birch", &names(&["b.ash.example", "erp.birch.example"])).await;
    world.work().await;
    assert!(world.certificate("erp.birch.example").await.is_some());
    assert_eq!(world.orders_of("b.ash.example"), 0, "the same registered domain");
    world.live(3 * HOUR_MS).await;
    let now = [world.certificate("a.ash.example").await, world.certificate("b.ash.example").await];
    assert_eq!(now.iter().flatten().count(), 1, "there is one again when the CA said so");
    world.live(5 * HOUR_MS).await;
    assert!(world.certificate("a.ash.example").await.is_some());
    assert!(world.certificate("b.ash.example").await.is_some());
}

#[tokio::test]
async fn a_limit_of_the_account_holds_new_orders_and_nothing_is_asked_meanwhile() {
    let world = World::new().await;
    let words = "too many new orders (300) from this account in the last 3h0m0s, retry after 2099-01-01 00:00:00 UTC";
    world.ca.fail(Endpoint::NewOrder, &Fault::Problem(429, "rateLimited", words.to_owned(), Some(3_600)), 1);
    world.school("ash", &names(&["a.ash.example"])).await;
    world.school("birch", &names(&["b.birch.example"])).await;
    world.work().await;
    let before = world.ca.record().requests;
    world.live(HOUR_MS - 60_000).await;
    let waiting = [world.certificate("a.ash.example").await, world.certificate("b.birch.example").await];
    assert!(waiting.iter().filter(|c| c.is_none()).count() >= 1);
    assert!(world.ca.record().requests - before < 20, "{}", world.ca.record().requests - before);
    world.live(HOUR_MS).await;
    assert!(world.certificate("a.ash.example").await.is_some());
    assert!(world.certificate("b.birch.example").await.is_some());
}

#[tokio::test]
async fn renewals_go_on_while_new_names_wait_for_the_limit() {
    let world = World::with(MockCa::builder().without_renewal()).await;
    let old: Vec<String> = (0..20).map(|n| format!("old{n}.old{n}.example")).collect();
    world.school("old", &old).await;
    world.live(DAY_MS).await;
    let flood: Vec<String> = (0..300).map(|n| format!("s{n}.flood{n}.example")).collect();
    // They arrive when the renewals are due, and would take the account's orders for a day.
    world.live(56 * DAY_MS).await;
    world.school("flood", &flood).await;
    for _ in 0..36 {
        world.live(6 * HOUR_MS).await;
    }
    let record = world.ca.record();
    for name in &old {
        assert!(record.issued.iter().filter(|issued| issued.name == *name).count() >= 2, "{name} was not renewed");
    }
    assert!(record.limited.is_empty(), "{:?}", record.limited);
}
