//! The ordinary life: three ways of proving, and what goes into service.

use std::sync::atomic::Ordering;

use schoolgate_config::model::Routing;
use schoolgate_config::settings::AcmeChallenge;
use schoolgate_mock_ca::{Endpoint, Fault, MockCa};
use schoolgate_store::WantState;
use schoolgate_store::acme::{NOT_READY, OrderStep};

use crate::world::{HOUR_MS, World, names};

const NAME: &str = "erp.greenhill.example";

#[tokio::test]
async fn a_name_is_proven_over_http_and_its_key_opens() {
    let world = World::new().await;
    world.school("greenhill", &names(&[NAME])).await;
    world.work().await;
    let entry = world.entry(NAME).await;
    assert_eq!((entry.want.state, entry.want.attempts), (WantState::Issued, 0));
    let certificate = world.certificate(NAME).await.unwrap();
    let subject = certificate.about.fingerprint.to_string();
    assert!(
        world.keeper.open_key(schoolgate_config::model::Certificate::KEY_PURPOSE, &subject, &certificate.key).is_ok()
    );
    assert_eq!((certificate.about.issuer.as_str(), certificate.chain.len()), ("acme", 2));
    assert_eq!(world.orders_of(NAME), 1);
    assert_eq!(world.ca.record().accounts, 1);
    assert!(!world.has_challenges().await, "the first CA's answers need nothing published");
    assert_eq!(world.store.acme_orders_open().await.unwrap(), 0);
    assert_eq!(world.store.acme_totals().await.unwrap()[0].2, 1);
}

#[tokio::test]
async fn a_name_is_proven_in_a_handshake_and_the_challenge_goes_afterwards() {
    let mut world = World::new().await;
    world.method = AcmeChallenge::TlsAlpn01;
    world.restart();
    world.school("greenhill", &names(&[NAME])).await;
    world.proxies.0.store(false, Ordering::SeqCst);
    world.work().await;
    assert!(world.has_challenges().await, "it is on its way to the proxies");
    world.live(10_000).await;
    assert!(world.outside.looked.lock().unwrap().is_empty(), "no CA looks while a proxy cannot answer");
    assert_eq!(world.store.acme_order(NAME).await.unwrap().unwrap().step, OrderStep::Published);
    world.proxies.0.store(true, Ordering::SeqCst);
    world.live(2_000).await;
    assert_eq!(*world.outside.looked.lock().unwrap(), ["tls-alpn-01"]);
    assert!(world.certificate(NAME).await.is_some());
    assert!(!world.has_challenges().await);
    assert_eq!(world.orders_of(NAME), 1);
}

#[tokio::test]
async fn a_wildcard_is_proven_by_dns_and_the_record_goes_afterwards() {
    let world = World::new().await;
    world.zone("schools.example").await;
    world.work().await;
    assert_eq!(*world.outside.looked.lock().unwrap(), ["dns-01"]);
    assert_eq!(world.certificate("*.schools.example").await.unwrap().about.names, ["*.schools.example"]);
    assert!(world.store.txt_values("_acme-challenge.schools.example").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_slow_ca_and_one_with_odd_nonces_issue_all_the_same() {
    let odd = MockCa::builder().slow_by(3).nonce_without_content().rejecting_a_nonce_every(5);
    let world = World::with(odd).await;
    let all: Vec<String> = (0..20).map(|n| format!("s{n}.example")).collect();
    world.school("greenhill", &all).await;
    world.live(HOUR_MS).await;
    for name in &all {
        assert!(world.certificate(name).await.is_some(), "{name}");
        assert_eq!(world.orders_of(name), 1, "{name}");
    }
}

#[tokio::test]
async fn a_name_that_does_not_point_here_is_not_ordered_until_it_does() {
    let world = World::new().await;
    world.school("greenhill", &names(&[NAME])).await;
    world.route(NAME, Routing::Elsewhere).await;
    world.live(24 * HOUR_MS).await;
    let entry = world.entry(NAME).await;
    assert_eq!((entry.reason.as_deref(), entry.who_acts.as_deref()), (Some(NOT_READY), Some("school")));
    assert_eq!((world.orders_of(NAME), entry.want.attempts), (0, 0));
    world.route(NAME, Routing::Here).await;
    world.work().await;
    assert!(world.certificate(NAME).await.is_some(), "the change of the domain was seen at once");
}

#[tokio::test]
async fn a_name_that_left_is_renewed_no_more() {
    let world = World::new().await;
    world.school("greenhill", &names(&[NAME])).await;
    world.work().await;
    world.route(NAME, Routing::Left).await;
    world.live(75 * 24 * HOUR_MS).await;
    assert_eq!(world.orders_of(NAME), 1);
}

#[tokio::test]
async fn tenants_take_turns_and_a_single_school_goes_before_an_import() {
    let world = World::new().await;
    let import: Vec<String> = (0..100).map(|n| format!("s{n}.import{n}.example")).collect();
    world.school("importer", &import).await;
    world.clock.advance_ms(1_000);
    for slug in ["ash", "birch"] {
        let own: Vec<String> = (0..3).map(|n| format!("{slug}{n}.{slug}.example")).collect();
        world.school(slug, &own).await;
        world.clock.advance_ms(1_000);
    }
    world.orders.step(&world.lease).await.unwrap();
    let mut open = Vec::new();
    for name in ["ash0", "ash1", "ash2", "birch0", "birch1", "birch2"] {
        let zone = name.trim_end_matches(char::is_numeric);
        open.push(world.store.acme_order(&format!("{name}.{zone}.example")).await.unwrap().is_some());
    }
    assert_eq!(open, [true; 6], "eight orders at once, six of them of those who wait for one name");
    assert_eq!(world.store.acme_orders_open().await.unwrap(), 8);
}

#[tokio::test]
async fn a_revoked_certificate_is_told_to_its_ca_and_replaced() {
    let world = World::new().await;
    world.school("greenhill", &names(&[NAME])).await;
    world.work().await;
    let fingerprint = world.certificate(NAME).await.unwrap().about.fingerprint;
    world.ca.fail(Endpoint::Revoke, &Fault::Html(503), 1);
    let mut transaction = world.store.begin(schoolgate_store::Actor::system("test")).await.unwrap();
    transaction.revoke_certificate(&fingerprint, schoolgate_store::RevocationReason::KeyCompromise).await.unwrap();
    transaction.commit("certificate.revoke", "test", serde_json::json!(null)).await.unwrap();
    world.work().await;
    assert!(world.ca.record().revoked.is_empty(), "it was busy");
    world.live(HOUR_MS).await;
    assert_eq!(world.ca.record().revoked, [NAME]);
    let next = world.certificate(NAME).await.unwrap().about.fingerprint;
    assert_ne!(next, fingerprint);
}

#[tokio::test]
async fn a_domain_that_goes_takes_its_order_with_it() {
    let world = World::new().await;
    world.school("greenhill", &names(&[NAME])).await;
    world.proxies.0.store(false, Ordering::SeqCst);
    world.work().await;
    assert_eq!(world.store.acme_orders_open().await.unwrap(), 1);
    let mut transaction = world.store.begin(schoolgate_store::Actor::system("test")).await.unwrap();
    transaction.delete::<schoolgate_config::model::Domain>(&NAME.parse().unwrap(), None).await.unwrap();
    transaction.commit("test", "test", serde_json::json!(null)).await.unwrap();
    world.live(5_000).await;
    assert_eq!(world.store.acme_orders_open().await.unwrap(), 0);
    assert!(world.outside.looked.lock().unwrap().is_empty());
}
