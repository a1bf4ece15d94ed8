//! A platform over four months: what must never happen, never does.

use std::collections::HashSet;

use schoolgate_mock_ca::{Endpoint, Fault, MockCa};

use crate::world::{DAY_MS, HOUR_MS, World};

/// Days of the run.
const DAYS: i64 = 120;

/// How often the world is looked at, and changes.
const TICK_MS: i64 = 2 * HOUR_MS;

/// What a domain's DNS does over time, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Right from the first day.
    Right,
    /// Wrong until this day.
    LateUntil(i64),
    /// Right, wrong between these days, right again.
    BrokenBetween(i64, i64),
    /// Wrong for ever from this day.
    GoneFrom(i64),
}

fn fate(number: usize) -> Fate {
    let day = i64::try_from(number % 23).unwrap_or(0);
    match number % 20 {
        0 => Fate::LateUntil(3 + day),
        1 => Fate::BrokenBetween(40 + day, 75 + day / 2),
        2 => Fate::GoneFrom(20 + day * 2),
        _ => Fate::Right,
    }
}

impl Fate {
    fn is_right(self, day: i64) -> bool {
        match self {
            Self::Right => true,
            Self::LateUntil(from) => day >= from,
            Self::BrokenBetween(from, to) => day < from || day >= to,
            Self::GoneFrom(from) => day < from,
        }
    }

    /// Whether it has been right for long enough to have been renewed.
    fn has_been_right(self, day: i64) -> bool {
        // A name that failed often is tried once a day, and an outage of the CA may come on top.
        (0..=4).all(|back| day - back >= 0 && self.is_right(day - back))
    }
}

/// How far the run is.
#[expect(clippy::print_stderr, reason = "a run of minutes says how far it is, to who asks with --nocapture")]
fn say(day: i64, world: &World, began: std::time::Instant) {
    let record = world.ca.record();
    let orders: usize = record.orders.values().sum();
    eprintln!("day {day}: {} s, {orders} orders, {} certificates", began.elapsed().as_secs(), record.issued.len());
}

/// Names whose certificate has ended.
async fn ended(world: &World) -> Vec<String> {
    // A handful at nearly all times: to read hundreds at every tick would be most of the run.
    let mut limit = 4;
    loop {
        let mut ending = world.store.certificates_ending(limit).await.unwrap();
        let read = ending.len();
        ending.retain(|(_, end_ms)| *end_ms <= world.now());
        if ending.len() < read || read < limit as usize {
            return ending.into_iter().map(|(name, _)| name).collect();
        }
        limit *= 2;
    }
}

async fn run(domains: usize) {
    let world = World::with(MockCa::builder().without_renewal()).await;
    let all: Vec<String> = (0..domains)
        .map(|n| match n % 10 {
            // A tenth are schools of districts of twenty: they share a registered domain.
            0 => format!("school-{n}.district-{}.example", n / 200),
            _ => format!("erp.school-{n}.example"),
        })
        .collect();
    for (n, part) in all.chunks(50).enumerate() {
        world.school(&format!("tenant-{n}"), part).await;
    }
    for (number, name) in all.iter().enumerate() {
        if !fate(number).is_right(0) {
            world.break_dns(name, "dns");
        }
    }
    let numbers: std::collections::HashMap<&str, usize> =
        all.iter().enumerate().map(|(n, name)| (name.as_str(), n)).collect();

    let (mut day, began) = (0, std::time::Instant::now());
    for tick in 1..=DAYS * DAY_MS / TICK_MS {
        // In larger steps than what is due asks for: what waits for a token waits for a handful at once.
        world.work().await;
        world.clock.advance_ms(TICK_MS);
        let today = tick * TICK_MS / DAY_MS;
        if today != day {
            day = today;
            for (number, name) in all.iter().enumerate() {
                match (fate(number).is_right(day - 1), fate(number).is_right(day)) {
                    (true, false) => world.break_dns(name, if number % 2 == 0 { "connection" } else { "dns" }),
                    (false, true) => world.mend_dns(name),
                    _ => {}
                }
            }
            if day % 10 == 0 {
                say(day, &world, began);
            }
            match day {
                30 => world.ca.fail(Endpoint::NewOrder, &Fault::Html(503), usize::from(u16::MAX)),
                62 => world.ca.fail(
                    Endpoint::Nonce,
                    &Fault::Problem(503, "serverInternal", "busy".into(), Some(60)),
                    usize::from(u16::MAX),
                ),
                31 | 63 => world.ca.recover(),
                _ => {}
            }
        }
        for name in ended(&world).await {
            let fate = fate(numbers[name.as_str()]);
            assert!(
                !fate.has_been_right(day),
                "day {day}: the certificate of {name} has ended, its DNS is right ({fate:?})"
            );
        }
    }
    world.work().await;

    let record = world.ca.record();
    let (most, whose) = record.most_failures_within_an_hour();
    assert!(most <= 3, "{whose} failed {most} times within an hour");
    let known: HashSet<&String> = all.iter().collect();
    assert!(record.orders.keys().all(|name| known.contains(name)), "a name that nobody has was ordered");
    assert!(
        record.limited.is_empty(),
        "the CA refused for a limit: {:?}",
        &record.limited[..record.limited.len().min(5)]
    );
    assert_eq!(record.accounts, 1);
    for (number, name) in all.iter().enumerate().filter(|(number, _)| fate(*number).has_been_right(DAYS)) {
        let entry = world.entry(name).await;
        assert!(entry.not_after_ms.is_some_and(|end| end > world.now()), "{number} {name}: {entry:?}");
    }
    for (name, orders) in &record.orders {
        let done = record.issued.iter().filter(|issued| issued.name == *name).count();
        let failed = record.failures.get(name).map_or(0, Vec::len);
        assert!(*orders <= done + failed + 1, "{name}: {orders} orders, {done} certificates, {failed} failures");
    }
}

#[tokio::test]
async fn three_hundred_domains_over_a_hundred_and_twenty_days() {
    run(300).await;
}

#[tokio::test]
#[ignore = "in a release build a quarter of an hour, twice that beside other work; an hour in a debug build; \
            `cargo nextest run --release -p schoolgate-acme --run-ignored only`"]
async fn ten_thousand_domains_over_a_hundred_and_twenty_days() {
    run(10_000).await;
}
