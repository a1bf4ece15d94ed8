//! Renewal: when, and as what.

use schoolgate_mock_ca::{Endpoint, Fault, MockCa};
use serde_json::json;

use crate::world::{DAY_MS, HOUR_MS, World, names};

const NAME: &str = "erp.greenhill.example";

async fn with_certificate(ca: schoolgate_mock_ca::MockCaBuilder) -> World {
    let world = World::with(ca).await;
    world.school("greenhill", &names(&[NAME])).await;
    world.work().await;
    world
}

#[tokio::test]
async fn a_certificate_is_renewed_in_the_cas_window_and_says_what_it_replaces() {
    let world = with_certificate(MockCa::builder()).await;
    world.live(70 * DAY_MS).await;
    let record = world.ca.record();
    assert_eq!(record.issued.len(), 2);
    assert!(record.issued[1].replaced);
    let age = record.issued[1].at_ms - record.issued[0].at_ms;
    assert!((57 * DAY_MS..62 * DAY_MS).contains(&age), "renewed after {} days", age / DAY_MS);
}

#[tokio::test]
async fn a_window_that_moves_into_the_past_is_acted_upon_and_its_page_kept() {
    let world = with_certificate(MockCa::builder()).await;
    world.live(DAY_MS).await;
    world.ca.suggest(NAME, world.now() - 2 * DAY_MS, world.now() - DAY_MS);
    world.live(7 * HOUR_MS).await;
    let record = world.ca.record();
    assert!(record.issued.len() >= 2, "an incident at the CA: replaced at its next word");
    assert!(record.issued[1].replaced);
}

#[tokio::test]
async fn without_renewal_information_a_third_of_the_life_is_left() {
    let world = with_certificate(MockCa::builder().without_renewal().days(45)).await;
    world.live(40 * DAY_MS).await;
    let record = world.ca.record();
    assert_eq!(record.issued.len(), 2);
    assert!(!record.issued[1].replaced);
    let age = record.issued[1].at_ms - record.issued[0].at_ms;
    assert!((28 * DAY_MS..32 * DAY_MS).contains(&age), "renewed after {} days", age / DAY_MS);
}

#[tokio::test]
async fn certificates_of_six_days_are_renewed_at_half_of_their_life() {
    let world = with_certificate(MockCa::builder().without_renewal().days(6)).await;
    world.live(30 * DAY_MS).await;
    let issued = world.ca.record().issued;
    assert!((9..=12).contains(&issued.len()), "{} certificates in 30 days", issued.len());
    for pair in issued.windows(2) {
        assert!(pair[1].at_ms < pair[0].not_after_ms - 2 * DAY_MS);
    }
}

#[tokio::test]
async fn a_refused_replacement_is_ordered_once_without() {
    for (kind, status) in [("alreadyReplaced", 409), ("malformed", 404), ("unauthorized", 403), ("serverInternal", 500)]
    {
        let world = with_certificate(MockCa::builder()).await;
        world.live(DAY_MS).await;
        let fault = Fault::Problem(status, kind, "no".to_owned(), None);
        world.ca.fail(Endpoint::NewOrder, &fault, 1);
        world.ca.suggest(NAME, world.now() - HOUR_MS, world.now() + HOUR_MS);
        world.live(DAY_MS).await;
        let record = world.ca.record();
        assert!(record.issued.len() >= 2, "{kind}");
        assert!(!record.issued[1].replaced, "{kind}");
        assert_eq!(world.entry(NAME).await.want.attempts, 0, "{kind}");
    }
}

#[tokio::test]
async fn nonsense_about_renewal_changes_nothing() {
    for nonsense in [
        json!("hello"),
        json!({ "suggestedWindow": { "start": "soon", "end": "later" } }),
        json!({ "suggestedWindow": { "start": "2030-01-02T00:00:00Z", "end": "2030-01-01T00:00:00Z" } }),
        json!({ "suggestedWindow": { "start": "2099-01-01T00:00:00Z", "end": "2099-02-01T00:00:00Z" } }),
    ] {
        let world = World::with(MockCa::builder().days(9)).await;
        world.ca.answer_renewal(NAME, nonsense.clone());
        world.school("greenhill", &names(&[NAME])).await;
        world.live(8 * DAY_MS + 2 * HOUR_MS).await;
        let issued = world.ca.record().issued;
        assert_eq!(issued.len(), 2, "{nonsense}");
        assert!(issued[1].at_ms < issued[0].not_after_ms, "{nonsense}");
    }
}

#[tokio::test]
async fn a_ca_that_is_away_when_renewals_are_due_costs_nothing_but_time() {
    let world = with_certificate(MockCa::builder().without_renewal()).await;
    world.live(55 * DAY_MS).await;
    world.ca.fail(Endpoint::Nonce, &Fault::Html(503), usize::from(u16::MAX));
    world.live(9 * DAY_MS).await;
    assert_eq!(world.ca.record().issued.len(), 1);
    world.ca.recover();
    world.live(HOUR_MS).await;
    assert_eq!(world.ca.record().issued.len(), 2);
}
