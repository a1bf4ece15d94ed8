//! What the checks of domains found keeps orders from CAs that would refuse them.

use schoolgate_config::model::DomainName;
use schoolgate_mock_ca::MockCa;
use schoolgate_store::acme::NOT_READY;
use schoolgate_store::{Actor, DomainCheck, Hindered, Hindrance, OrderFacts};

use crate::world::{HOUR_MS, World, names};

const NAME: &str = "erp.greenhill.example";

/// A check of the domain that found this.
async fn checked(world: &World, hindrances: Vec<Hindrance>) {
    let name = DomainName::parse(NAME).unwrap();
    let before = world.store.domain_check(&name).await.unwrap().unwrap();
    let order_facts = OrderFacts { delegated_to: None, hindrances };
    let mut transaction = world.store.begin(Actor::system("test")).await.unwrap();
    assert!(transaction.save_domain_check(&DomainCheck { order_facts, ..before }).await.unwrap());
    transaction.commit_records().await.unwrap();
}

fn hindrance(ca: Option<&str>, hinders: Hindered) -> Hindrance {
    Hindrance {
        ca: ca.map(|ca| ca.parse().unwrap()),
        hinders,
        message: "CAA_FORBIDS: set this record".to_owned(),
        who_acts: "school".to_owned(),
    }
}

#[tokio::test]
async fn what_a_check_found_holds_the_order_and_the_next_check_lets_it_go() {
    let world = World::new().await;
    world.school("greenhill", &names(&[NAME])).await;
    checked(&world, vec![hindrance(None, Hindered::Looking)]).await;
    world.live(24 * HOUR_MS).await;
    let entry = world.entry(NAME).await;
    assert_eq!((entry.reason.as_deref(), entry.who_acts.as_deref()), (Some(NOT_READY), Some("school")));
    assert_eq!(entry.want.error.as_deref(), Some("CAA_FORBIDS: set this record"));
    assert_eq!((world.orders_of(NAME), entry.want.attempts), (0, 0));
    checked(&world, Vec::new()).await;
    world.work().await;
    assert!(world.certificate(NAME).await.is_some(), "the check was seen at once");
    assert_eq!(world.orders_of(NAME), 1);
}

#[tokio::test]
async fn a_name_that_caa_keeps_from_the_first_ca_goes_to_the_second() {
    let mut world = World::new().await;
    let second = MockCa::builder().open(world.clock.clone(), world.outside.clone());
    world.second = Some(second.clone());
    world.restart();
    world.school("greenhill", &names(&[NAME])).await;
    checked(&world, vec![hindrance(Some("first"), Hindered::Everything)]).await;
    world.work().await;
    assert_eq!(world.entry(NAME).await.ca.unwrap().as_str(), "second");
    assert_eq!((world.orders_of(NAME), second.record().orders[NAME]), (0, 1));
}

#[tokio::test]
async fn a_name_that_caa_keeps_from_both_is_ordered_at_neither() {
    let mut world = World::new().await;
    let second = MockCa::builder().open(world.clock.clone(), world.outside.clone());
    world.second = Some(second.clone());
    world.restart();
    world.school("greenhill", &names(&[NAME])).await;
    let both = ["first", "second"].map(|ca| hindrance(Some(ca), Hindered::Everything));
    checked(&world, both.to_vec()).await;
    world.live(24 * HOUR_MS).await;
    assert_eq!((world.orders_of(NAME), second.record().orders.len()), (0, 0));
    assert_eq!(world.entry(NAME).await.reason.as_deref(), Some(NOT_READY));
}
