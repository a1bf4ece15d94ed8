//! Certificates that come to their end and were not renewed: what the summary, the metrics and the events say of them.
//!
//! Nobody is refused for it: a certificate that has ended is served on, so that whoever does not check, or decides to go
//! on, still reaches the school. It is an alarm all the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use schoolgate_config::model::{Certificate, Ownership, Routing, TenantId};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::{Clock, rfc3339};
use schoolgate_store::{NewEvent, Store, StoreError};

/// Time between two looks: 10 min. The last of the thresholds is a day.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Wait after a failure of the store: 30 s.
const BACK_OFF: Duration = Duration::from_secs(30);

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// How near its end a certificate is, by thresholds of 7, 3 and 1 days; of a short-lived one by a fifth, a tenth and a
/// thirtieth of its life, where that is less. All lie behind the moment at which it should have been renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Within 7 days.
    Week,
    /// Within 3 days.
    Days,
    /// Within a day.
    Day,
    /// It has ended.
    Ended,
}

impl Stage {
    /// All, the farthest first.
    pub(crate) const ALL: [Self; 4] = [Self::Week, Self::Days, Self::Day, Self::Ended];

    /// The name used in JSON and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Week => "week",
            Self::Days => "days",
            Self::Day => "day",
            Self::Ended => "ended",
        }
    }

    /// How near its end a certificate of this validity is; `None`: not near. Seconds since 1970.
    fn of(not_before: i64, not_after: i64, now: i64) -> Option<Self> {
        let life = not_after.saturating_sub(not_before).max(0);
        let left = not_after.saturating_sub(now);
        let within = |days: i64, part: i64| left <= (days * DAY_S).min(life / part);
        match () {
            () if left <= 0 => Some(Self::Ended),
            () if within(1, 30) => Some(Self::Day),
            () if within(3, 10) => Some(Self::Days),
            () if within(7, 5) => Some(Self::Week),
            () => None,
        }
    }
}

/// A name whose last certificate is near its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The name, or `*.zone`.
    pub(crate) name: String,
    /// How near.
    pub(crate) stage: Stage,
    /// When it ends, seconds since 1970.
    pub(crate) not_after: i64,
    /// Whose it is.
    pub(crate) tenant: Option<TenantId>,
}

/// Names whose last certificate is near its end, the first to end first. A name that left, or is nobody's any more, is not
/// renewed on purpose and not among them.
pub(crate) fn endings(table: &RoutingTable, now: i64) -> Vec<Ending> {
    let mut last: HashMap<&str, &Certificate> = HashMap::new();
    for certificate in table.certificates() {
        for name in &certificate.about.names {
            let known = last.entry(name).or_insert(certificate);
            if certificate.about.not_after > known.about.not_after {
                *known = certificate;
            }
        }
    }
    let ending = |(name, certificate): (&str, &Certificate)| {
        let about = &certificate.about;
        let stage = Stage::of(about.not_before, about.not_after, now)?;
        let domain = table.domain(name);
        if domain.is_some_and(|d| d.routing == Routing::Left || d.ownership != Ownership::Proven) {
            return None;
        }
        let tenant = domain.map(|domain| domain.tenant);
        Some(Ending { name: name.to_owned(), stage, not_after: about.not_after, tenant })
    };
    let mut endings: Vec<Ending> = last.into_iter().filter_map(ending).collect();
    endings.sort_unstable_by(|a, b| (a.not_after, &a.name).cmp(&(b.not_after, &b.name)));
    endings
}

/// Records an event for each threshold that a certificate passes, once, whatever process sees it first.
#[derive(Clone)]
pub struct EndingWatch {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for EndingWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndingWatch")
    }
}

impl EndingWatch {
    /// Watches the certificates of a store.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Looks until `stop` is ready.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let watch = async {
            let mut said = HashMap::new();
            loop {
                let wait = match self.look(&mut said).await {
                    Ok(()) => LOOK_EVERY,
                    Err(error) => {
                        tracing::warn!("certificates that end cannot be told of, and it is tried again: {error}");
                        BACK_OFF
                    }
                };
                tokio::time::sleep(wait).await;
            }
        };
        tokio::select! {
            () = watch => {}
            () = stop => {}
        }
    }

    /// Records what was not recorded. `said` remembers what this process has, so that it asks the store for news only.
    async fn look(&self, said: &mut HashMap<String, (i64, Stage)>) -> Result<(), StoreError> {
        let endings = endings(&self.store.head().table, self.clock.unix_s());
        let news: Vec<&Ending> =
            endings.iter().filter(|e| said.get(&e.name) != Some(&(e.not_after, e.stage))).collect();
        if !news.is_empty() {
            let now_ms = self.clock.unix_ms();
            self.store.record_events(&news.iter().map(|ending| event(ending, now_ms)).collect::<Vec<_>>()).await?;
            for ending in &news {
                let (name, end) = (&ending.name, rfc3339(ending.not_after.saturating_mul(1_000)));
                match ending.stage {
                    Stage::Week => {
                        tracing::warn!(certificate.name = %name, "the certificate of {name} ends at {end} and is not renewed")
                    }
                    _ => tracing::error!(
                        certificate.name = %name,
                        "the certificate of {name} {} at {end} and is not renewed", verb(ending.stage)
                    ),
                }
            }
        }
        *said = endings.into_iter().map(|ending| (ending.name, (ending.not_after, ending.stage))).collect();
        Ok(())
    }
}

const fn verb(stage: Stage) -> &'static str {
    match stage {
        Stage::Ended => "ended",
        Stage::Week | Stage::Days | Stage::Day => "ends",
    }
}

fn event(ending: &Ending, now_ms: i64) -> NewEvent {
    let Ending { name, stage, not_after, tenant } = ending;
    let end = rfc3339(not_after.saturating_mul(1_000));
    let (kind, rest) = match stage {
        Stage::Ended => ("certificate.ended", "it is served on, and visitors are warned"),
        Stage::Week | Stage::Days | Stage::Day => ("certificate.ending", "it should have been renewed by now"),
    };
    NewEvent {
        at_ms: now_ms,
        kind,
        tenant: *tenant,
        object: format!("certificate of {name}"),
        summary: format!("the certificate of {name} {} at {end}: {rest}", verb(*stage)),
        detail: json!({ "name": name, "ends_at": end, "stage": stage }),
        once: Some(format!("certificate-end {name} {not_after} {}", stage.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schoolgate_config::model::{CertificateRef, Der, Domain, Fingerprint, Pool, Tenant};
    use schoolgate_config::seal::Keeper;
    use schoolgate_config::time::ManualClock;
    use schoolgate_store::{Actor, EventQuery, OpenMode};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn thresholds_are_days_and_for_short_lives_parts_of_them() {
        let of = |life: i64, left: i64| Stage::of(NOW + left - life, NOW + left, NOW);
        let ninety = 90 * DAY_S;
        for (left, stage) in [
            (8 * DAY_S, None),
            (7 * DAY_S, Some(Stage::Week)),
            (3 * DAY_S, Some(Stage::Days)),
            (DAY_S, Some(Stage::Day)),
            (1, Some(Stage::Day)),
            (0, Some(Stage::Ended)),
            (-DAY_S, Some(Stage::Ended)),
        ] {
            assert_eq!(of(ninety, left), stage, "{left}");
        }
        // Of six days, renewed when three are left.
        let six = 6 * DAY_S;
        assert_eq!((of(six, 2 * DAY_S), of(six, DAY_S)), (None, Some(Stage::Week)));
        assert_eq!((of(six, DAY_S / 2), of(six, DAY_S / 6)), (Some(Stage::Days), Some(Stage::Day)));
    }

    struct World {
        store: Store,
        clock: Arc<ManualClock>,
        tenant: TenantId,
        _dir: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::at(NOW * 1_000));
            let url = format!("sqlite://{}", dir.path().join("control.db").display());
            let store = Store::open_at(&url, OpenMode::Create, clock.clone()).await.unwrap();
            store.seed(Vec::new()).await.unwrap();
            let tenant = TenantId::from_parts(1, 1);
            let mut transaction = store.begin(Actor::system("test")).await.unwrap();
            let pool: Pool = serde_json::from_value(json!({"id": "web"})).unwrap();
            transaction.insert(pool).await.unwrap();
            let school: Tenant = serde_json::from_value(json!({"id": tenant, "slug": "ash", "name": "Ash",
                "state": "active", "plan": "basic", "pool": "web", "subscription": {"status": "active"}}))
            .unwrap();
            transaction.insert(school).await.unwrap();
            transaction.commit("test", "test", json!(null)).await.unwrap();
            Self { store, clock, tenant, _dir: dir }
        }

        async fn domain(&self, name: &str, routing: Routing) {
            let mut transaction = self.store.begin(Actor::system("test")).await.unwrap();
            let domain = Domain {
                name: name.parse().unwrap(),
                tenant: self.tenant,
                primary: false,
                ownership: Ownership::Proven,
                routing,
                token: "t".repeat(20),
            };
            transaction.insert(domain).await.unwrap();
            transaction.commit("test", "test", json!(null)).await.unwrap();
        }

        /// A certificate of 90 days for a name.
        async fn certificate(&self, name: &str, ends_in_days: i64, issuer: &str) {
            let der = format!("{name} {ends_in_days} {issuer}").into_bytes();
            let fingerprint = Fingerprint::of(&der);
            let not_after = NOW + ends_in_days * DAY_S;
            let certificate = Certificate {
                about: CertificateRef {
                    fingerprint,
                    names: vec![name.to_owned()],
                    not_before: not_after - 90 * DAY_S,
                    not_after,
                    issuer: issuer.to_owned(),
                },
                chain: vec![Der::from(der)],
                key: Keeper::new(&[7; 32]).seal(Certificate::KEY_PURPOSE, &fingerprint.to_string(), b"key"),
            };
            let mut transaction = self.store.begin(Actor::system("test")).await.unwrap();
            transaction.insert(certificate).await.unwrap();
            transaction.commit("test", "test", json!(null)).await.unwrap();
        }

        fn endings(&self) -> Vec<(String, Stage)> {
            let now = self.clock.unix_s();
            endings(&self.store.head().table, now).into_iter().map(|ending| (ending.name, ending.stage)).collect()
        }

        async fn kinds(&self) -> Vec<String> {
            let mut events = self.store.events(&EventQuery::default()).await.unwrap();
            events.reverse();
            events.into_iter().map(|event| event.kind).collect()
        }
    }

    #[tokio::test]
    async fn the_last_certificate_of_a_name_counts_and_who_left_does_not() {
        let world = World::new().await;
        for name in ["old.ash.test", "own.ash.test", "new.ash.test"] {
            world.domain(name, Routing::Here).await;
        }
        world.domain("left.ash.test", Routing::Left).await;
        world.certificate("old.ash.test", -1, "acme").await;
        world.certificate("new.ash.test", 2, "acme").await;
        world.certificate("new.ash.test", 60, "acme").await;
        world.certificate("own.ash.test", 2, "uploaded").await;
        world.certificate("left.ash.test", 2, "acme").await;
        let expected = [("old.ash.test".to_owned(), Stage::Ended), ("own.ash.test".to_owned(), Stage::Days)];
        assert_eq!(world.endings(), expected);
    }

    #[tokio::test]
    async fn each_threshold_is_told_once_by_however_many_processes() {
        let world = World::new().await;
        world.domain("erp.ash.test", Routing::Here).await;
        world.certificate("erp.ash.test", 8, "acme").await;
        let watch = EndingWatch::new(world.store.clone(), world.clock.clone());
        let mut processes = [HashMap::new(), HashMap::new()];
        for _ in 0..20 {
            for said in &mut processes {
                watch.look(said).await.unwrap();
            }
            world.clock.advance_ms(DAY_S * 1_000 / 2);
        }
        let ending = "certificate.ending";
        assert_eq!(world.kinds().await, [ending, ending, ending, "certificate.ended"]);
        let events = world.store.events(&EventQuery::default()).await.unwrap();
        assert!(events.iter().all(|event| event.tenant == Some(world.tenant)), "{events:?}");
        assert!(events[0].summary.contains("is served on"), "{}", events[0].summary);
        // A new certificate has thresholds of its own.
        world.certificate("erp.ash.test", 9, "acme").await;
        watch.look(&mut processes[0]).await.unwrap();
        assert_eq!(world.kinds().await.len(), 5);
    }
}
