//! A CA that is ill, forgetful or particular, and a school whose DNS is wrong.

use schoolgate_mock_ca::{Endpoint, Fault, MockCa};
use schoolgate_store::WantState;

use crate::world::{DAY_MS, HOUR_MS, MINUTE_MS, World, names};

const NAME: &str = "erp.greenhill.example";

#[tokio::test]
async fn every_kind_of_fault_at_every_resource_is_overcome_without_a_second_order() {
    let busy = || Fault::Problem(503, "serverInternal", "busy".to_owned(), Some(30));
    for fault in [busy(), Fault::Html(502), Fault::Html(503), Fault::Hang, Fault::LostAnswer] {
        for endpoint in [
            Endpoint::Directory,
            Endpoint::Nonce,
            Endpoint::Account,
            Endpoint::NewOrder,
            Endpoint::Order,
            Endpoint::Authorization,
            Endpoint::Challenge,
            Endpoint::Finalize,
            Endpoint::Certificate,
        ] {
            let world = World::new().await;
            world.ca.fail(endpoint, &fault, 2);
            world.school("greenhill", &names(&[NAME])).await;
            world.live(6 * HOUR_MS).await;
            let what = format!("{fault:?} at {endpoint:?}");
            assert!(world.certificate(NAME).await.is_some(), "{what}");
            assert_eq!(world.orders_of(NAME), 1, "{what}");
            assert_eq!(world.entry(NAME).await.want.attempts, 0, "{what}: it was not the name's fault");
        }
    }
}

#[tokio::test]
async fn wrong_dns_is_told_in_the_cas_words_and_tried_less_and_less() {
    let world = World::new().await;
    world.break_dns(NAME, "dns");
    world.school("greenhill", &names(&[NAME])).await;
    world.work().await;
    let entry = world.entry(NAME).await;
    assert_eq!((entry.want.state, entry.want.attempts), (WantState::Failing, 1));
    assert_eq!((entry.reason.as_deref(), entry.who_acts.as_deref()), (Some("dns"), Some("school")));
    assert!(entry.want.error.unwrap().contains("is not what was expected"));
    world.live(3 * DAY_MS).await;
    let record = world.ca.record();
    assert!(record.most_failures_within_an_hour().0 <= 3, "{:?}", record.failures);
    assert!((5..=7).contains(&record.failures[NAME].len()), "{:?}", record.failures);
    world.mend_dns(NAME);
    world.live(DAY_MS + HOUR_MS).await;
    assert!(world.certificate(NAME).await.is_some());
}

#[tokio::test]
async fn an_operator_who_insists_does_not_spend_more_than_three_failures_an_hour() {
    let world = World::new().await;
    world.break_dns(NAME, "connection");
    world.school("greenhill", &names(&[NAME])).await;
    for _ in 0..180 {
        world.work().await;
        let mut transaction = world.store.begin(schoolgate_store::Actor::system("impatient")).await.unwrap();
        assert!(transaction.retry_certificate(NAME).await.unwrap());
        transaction.commit("certificate.retry", "test", serde_json::json!(null)).await.unwrap();
        world.clock.advance_ms(MINUTE_MS);
    }
    let record = world.ca.record();
    assert_eq!(record.most_failures_within_an_hour().0, 3);
    assert!(record.limited.is_empty(), "the CA's own limit was never met: {:?}", record.limited);
    let entry = world.entry(NAME).await;
    assert_eq!(entry.reason.as_deref(), Some("budget"));
    let why = entry.want.error.unwrap();
    assert!(why.contains("three times"), "{why}");
}

#[tokio::test]
async fn caa_that_forbids_us_is_the_schools_to_mend() {
    let world = World::new().await;
    world.outside.caa_forbids.lock().unwrap().insert(NAME.to_owned());
    world.school("greenhill", &names(&[NAME])).await;
    world.work().await;
    let entry = world.entry(NAME).await;
    assert_eq!((entry.reason.as_deref(), entry.who_acts.as_deref()), (Some("caa"), Some("school")));
}

#[tokio::test]
async fn a_name_that_the_ca_refuses_for_good_is_left_alone() {
    let world = World::new().await;
    let name = "erp.blocked.test";
    world.school("greenhill", &names(&[name])).await;
    world.live(20 * DAY_MS).await;
    let entry = world.entry(name).await;
    assert_eq!((entry.reason.as_deref(), entry.want.attempts), (Some("rejected_by_ca"), 1));
}

#[tokio::test]
async fn an_account_that_the_ca_forgot_is_made_again_with_its_key() {
    let world = World::new().await;
    world.school("greenhill", &names(&[NAME])).await;
    world.work().await;
    let thumbprint = world.store.acme_credentials().await.unwrap().remove(0).thumbprint;
    world.ca.forget_accounts();
    world.school("ash", &names(&["erp.ash.example"])).await;
    world.live(HOUR_MS).await;
    assert!(world.certificate("erp.ash.example").await.is_some());
    let credentials = world.store.acme_credentials().await.unwrap().remove(0);
    assert_eq!(credentials.thumbprint, thumbprint, "proxies need not learn another");
    assert_eq!(world.ca.record().accounts, 2);
}

#[tokio::test]
async fn a_profile_that_the_ca_does_not_have_is_left_out() {
    let mut world = World::new().await;
    world.profile = Some("tlsserver".to_owned());
    world.restart();
    world.school("greenhill", &names(&[NAME])).await;
    world.work().await;
    assert_eq!(world.ca.record().issued[0].profile.as_deref(), Some("tlsserver"));
    world.profile = Some("nonsense".to_owned());
    world.restart();
    world.school("ash", &names(&["erp.ash.example"])).await;
    world.work().await;
    assert_eq!(world.ca.record().issued[1].profile, None);
}

#[tokio::test]
async fn a_ca_that_is_away_is_left_alone_and_the_second_helps_those_who_cannot_wait() {
    let mut world = World::new().await;
    world.second = Some(MockCa::builder().open(world.clock.clone(), world.outside.clone()));
    world.restart();
    // The account is made while all is well.
    world.school("greenhill", &names(&["first.example"])).await;
    world.work().await;
    world.ca.fail(Endpoint::Nonce, &Fault::Html(503), usize::from(u16::MAX));
    world.ca.fail(Endpoint::NewOrder, &Fault::Html(503), usize::from(u16::MAX));
    let all: Vec<String> = (0..10).map(|n| format!("s{n}.example")).collect();
    for (n, name) in all.iter().enumerate() {
        world.school(&format!("school-{n}"), std::slice::from_ref(name)).await;
    }
    let before = world.ca.record().requests;
    world.live(25 * MINUTE_MS).await;
    let asked = world.ca.record().requests - before;
    assert!(asked < 60, "{asked} requests to a CA that is down for 25 minutes");
    let first = world.store.acme_authorities().await.unwrap().remove(0).1;
    assert!(first.is_open() && first.last_error.is_some());
    assert!(world.certificate("s0.example").await.is_none(), "not yet: most outages are short");
    world.live(15 * MINUTE_MS).await;
    for name in &all {
        let entry = world.entry(name).await;
        assert!(world.certificate(name).await.is_some(), "{entry:?} {:?}", world.store.acme_authorities().await);
        assert_eq!(entry.ca.unwrap().as_str(), "second");
    }
    world.ca.recover();
    world.school("late", &names(&["late.example"])).await;
    world.live(10 * MINUTE_MS).await;
    let late = world.entry("late.example").await;
    assert!(late.ca.is_some(), "{late:?}");
    world.school("later", &names(&["later.example"])).await;
    world.live(10 * MINUTE_MS).await;
    assert_eq!(world.entry("later.example").await.ca.unwrap().as_str(), "first", "it is well again");
}

#[tokio::test]
async fn a_pause_keeps_the_cas_page_for_the_operator() {
    let world = World::with(MockCa::builder().pausing_after(2)).await;
    world.break_dns(NAME, "dns");
    world.school("greenhill", &names(&[NAME])).await;
    world.live(3 * HOUR_MS).await;
    let entry = world.entry(NAME).await;
    assert_eq!((entry.reason.as_deref(), entry.who_acts.as_deref()), (Some("paused_by_ca"), Some("operator")));
    assert!(entry.link.unwrap().ends_with("/unpause?jwt=abc"));
    assert!(world.store.acme_authorities().await.unwrap()[0].1.link.is_some());
}
