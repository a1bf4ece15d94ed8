//! The CA's rate limits, counted before we ask.
//!
//! Buckets in the store mirror the CA's own, at four fifths: what other accounts on the same registered domain, or an
//! operator with another client, take from it must not be what stops a school. Renewals have a bucket of their own, so
//! that they never wait for new names nor make them wait.

use std::time::Duration;

use schoolgate_config::model::CaId;
use schoolgate_config::settings::AcmeLimits;
use schoolgate_store::acme::{AcmeOrder, Bucket, Charge};
use schoolgate_store::{StoreError, Transaction};

use crate::failure::Limited;

/// Our share of each limit.
const SHARE: f64 = 0.8;

/// Validations of one name that may fail within [`FAILURES_WITHIN`]: 3. Let's Encrypt counts to 5.
pub const FAILURES: usize = 3;

/// See [`FAILURES`].
pub const FAILURES_WITHIN: Duration = Duration::from_secs(3_600);

/// Renewals an hour: 2,000, of which we use four fifths. CAs set no limit on them; it keeps a hundred thousand
/// certificates of six days from coming in one burst.
const RENEWALS: u32 = 2_000;

const HOUR_MS: i64 = 3_600_000;

/// A limit that has nothing left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// Which limit.
    pub limit: &'static str,
    /// Whom it concerns.
    pub of: Limited,
    /// Of whom.
    pub subject: String,
    /// When there is something again, milliseconds since 1970.
    pub until_ms: i64,
}

/// One limit, of one subject.
struct Line {
    limit: &'static str,
    of: Limited,
    subject: String,
    capacity: f64,
    per_ms: i64,
}

/// The registered domain of a name, by the public suffix list; the name itself where the list has none.
pub fn registered_domain(name: &str) -> &str {
    let name = name.strip_prefix("*.").unwrap_or(name);
    psl::domain_str(name).unwrap_or(name)
}

fn line(limits: &AcmeLimits, of: Limited, name: &str) -> Line {
    let (limit, subject, count, per_ms) = match of {
        Limited::Account => ("orders", String::new(), limits.orders_per_3_hours, 3 * HOUR_MS),
        Limited::RegisteredDomain => (
            "registered_domain",
            registered_domain(name).to_owned(),
            limits.per_registered_domain_per_week,
            168 * HOUR_MS,
        ),
        Limited::NameSet => ("name_set", name.to_owned(), limits.per_name_per_week, 168 * HOUR_MS),
        Limited::Name => ("name", name.to_owned(), 1, HOUR_MS),
    };
    // Never below one, or nothing could ever be ordered.
    Line { limit, of, subject, capacity: (f64::from(count) * SHARE).floor().max(1.0), per_ms }
}

fn lines(limits: &AcmeLimits, charge: Charge, name: &str) -> Vec<Line> {
    let renewals = || Line {
        limit: "renewals",
        of: Limited::Account,
        subject: String::new(),
        capacity: f64::from(RENEWALS) * SHARE,
        per_ms: HOUR_MS,
    };
    let of = |limited| line(limits, limited, name);
    match charge {
        Charge::New => vec![of(Limited::Account), of(Limited::RegisteredDomain), of(Limited::NameSet)],
        Charge::Replacement => vec![renewals()],
        Charge::Renewal => vec![renewals(), of(Limited::NameSet)],
    }
}

async fn bucket(transaction: &mut Transaction, ca: &CaId, line: &Line) -> Result<Bucket, StoreError> {
    let (capacity, per_ms, now_ms) = (line.capacity, line.per_ms, transaction.now_ms());
    let kept = transaction.acme_bucket(ca, line.limit, &line.subject).await?;
    Ok(match kept {
        // What is left counts, the limit itself is as the settings say now.
        Some(kept) => Bucket { capacity, per_ms, tokens: kept.remaining(now_ms).min(capacity), at_ms: now_ms, ..kept },
        None => Bucket {
            ca: ca.clone(),
            name: line.limit.to_owned(),
            subject: line.subject.clone(),
            tokens: capacity,
            capacity,
            per_ms,
            at_ms: now_ms,
        },
    })
}

/// Takes what an order for `name` costs, all of it or nothing. The inner error says what is short.
///
/// # Errors
/// What the store said.
pub async fn take(
    transaction: &mut Transaction,
    (ca, limits): (&CaId, &AcmeLimits),
    charge: Charge,
    name: &str,
) -> Result<Result<(), Short>, StoreError> {
    let now_ms = transaction.now_ms();
    if let Some(short) = failures_left(transaction, ca, name).await? {
        return Ok(Err(short));
    }
    let mut taken = Vec::new();
    for line in lines(limits, charge, name).into_iter().chain([line(limits, Limited::Name, name)]) {
        let mut bucket = bucket(transaction, ca, &line).await?;
        if line.of == Limited::Name {
            // Not a limit we count: it holds what the CA said about this name alone.
            if bucket.tokens < 1.0 {
                let until_ms = bucket.ready_at(now_ms);
                return Ok(Err(Short { limit: line.limit, of: line.of, subject: line.subject, until_ms }));
            }
            continue;
        }
        if !bucket.take(now_ms) {
            let until_ms = bucket.ready_at(now_ms);
            return Ok(Err(Short { limit: line.limit, of: line.of, subject: line.subject, until_ms }));
        }
        taken.push(bucket);
    }
    for bucket in &taken {
        transaction.save_acme_bucket(bucket).await?;
    }
    Ok(Ok(()))
}

/// Whether so many validations of a name failed that it has to rest.
async fn failures_left(transaction: &mut Transaction, ca: &CaId, name: &str) -> Result<Option<Short>, StoreError> {
    let within = i64::try_from(FAILURES_WITHIN.as_millis()).unwrap_or(i64::MAX);
    let since_ms = transaction.now_ms() - within;
    let failures = transaction.acme_failures(ca, name, since_ms).await?;
    let nth_last = failures.len().checked_sub(FAILURES).map(|at| failures[at]);
    Ok(nth_last.map(|at| Short {
        limit: "failures",
        of: Limited::Name,
        subject: name.to_owned(),
        until_ms: at + within + 1,
    }))
}

/// Gives back what an order that came to nothing was charged, of limits that count certificates. The order itself counts.
///
/// # Errors
/// What the store said.
pub async fn give_back(
    transaction: &mut Transaction,
    limits: &AcmeLimits,
    order: &AcmeOrder,
) -> Result<(), StoreError> {
    let counted = |line: &Line| matches!(line.of, Limited::RegisteredDomain | Limited::NameSet);
    for line in lines(limits, order.charge, &order.name).into_iter().filter(counted) {
        let mut bucket = bucket(transaction, &order.ca, &line).await?;
        bucket.tokens = (bucket.tokens + 1.0).min(bucket.capacity);
        transaction.save_acme_bucket(&bucket).await?;
    }
    Ok(())
}

/// Leaves nothing of a limit until a moment: the CA said so, whatever we had counted.
///
/// # Errors
/// What the store said.
pub async fn exhaust(
    transaction: &mut Transaction,
    (ca, limits): (&CaId, &AcmeLimits),
    of: Limited,
    name: &str,
    until_ms: i64,
) -> Result<(), StoreError> {
    let now_ms = transaction.now_ms();
    let mut bucket = bucket(transaction, ca, &line(limits, of, name)).await?;
    bucket.drain_until(now_ms, until_ms);
    transaction.save_acme_bucket(&bucket).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schoolgate_config::time::ManualClock;
    use schoolgate_store::{Actor, OpenMode, Store};

    use super::*;

    struct World {
        store: Store,
        clock: Arc<ManualClock>,
        limits: AcmeLimits,
        ca: CaId,
        _dir: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::at(1_800_000_000_000));
            let url = format!("sqlite://{}", dir.path().join("control.db").display());
            let store = Store::open_at(&url, OpenMode::Create, clock.clone()).await.unwrap();
            Self { store, clock, limits: AcmeLimits::default(), ca: "acme".parse().unwrap(), _dir: dir }
        }

        async fn take(&self, charge: Charge, name: &str) -> Result<(), Short> {
            let mut transaction = self.store.begin(Actor::system("test")).await.unwrap();
            let taken = take(&mut transaction, (&self.ca, &self.limits), charge, name).await.unwrap();
            transaction.finish().await.unwrap();
            taken
        }
    }

    #[test]
    fn the_registered_domain_follows_the_public_suffix_list() {
        for (name, domain) in [
            ("erp.greenhill.example.co.uk", "example.co.uk"),
            ("*.schools.example.com", "example.com"),
            ("greenhill.github.io", "greenhill.github.io"),
            ("co.uk", "co.uk"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(registered_domain(name), domain, "{name}");
        }
    }

    #[tokio::test]
    async fn four_fifths_of_the_limit_of_a_registered_domain_and_not_one_more() {
        let world = World::new().await;
        for n in 0..40 {
            assert_eq!(world.take(Charge::New, &format!("s{n}.example.com")).await, Ok(()));
        }
        let short = world.take(Charge::New, "one-more.example.com").await.unwrap_err();
        assert_eq!((short.limit, short.subject.as_str()), ("registered_domain", "example.com"));
        assert_eq!(world.take(Charge::New, "s.example.org").await, Ok(()), "others go on");
        world.clock.advance_ms(short.until_ms - 1_800_000_000_000);
        assert_eq!(world.take(Charge::New, "one-more.example.com").await, Ok(()));
    }

    #[tokio::test]
    async fn an_order_that_is_refused_costs_nothing() {
        let world = World::new().await;
        for _ in 0..4 {
            world.take(Charge::New, "a.example.com").await.unwrap();
        }
        for _ in 0..1_000 {
            let short = world.take(Charge::New, "a.example.com").await.unwrap_err();
            assert_eq!(short.limit, "name_set");
        }
        let orders = world.store.acme_buckets(1).await.unwrap().remove(0);
        assert_eq!((orders.name.as_str(), orders.tokens), ("orders", 236.0));
    }

    #[tokio::test]
    async fn renewals_and_new_names_do_not_take_from_each_other() {
        let world = World::new().await;
        for n in 0..240 {
            world.take(Charge::New, &format!("n{n}.d{n}.example")).await.unwrap();
        }
        assert_eq!(world.take(Charge::New, "more.example.net").await.unwrap_err().limit, "orders");
        for n in 0..500 {
            world.take(Charge::Replacement, &format!("n{n}.example.com")).await.unwrap();
        }
        for n in 0..4 {
            assert_eq!(world.take(Charge::Renewal, "same.example.com").await, Ok(()), "{n}");
        }
        assert_eq!(world.take(Charge::Renewal, "same.example.com").await.unwrap_err().limit, "name_set");
    }

    #[tokio::test]
    async fn the_third_failure_within_an_hour_is_the_last() {
        let world = World::new().await;
        let name = "a.example.com";
        let mut ends = Vec::new();
        for n in 0..3 {
            assert_eq!(world.take(Charge::Replacement, name).await, Ok(()), "{n}");
            let mut transaction = world.store.begin(Actor::system("test")).await.unwrap();
            let since = transaction.now_ms() - HOUR_MS;
            transaction.count_acme_failure(&world.ca, name, since).await.unwrap();
            ends.push(transaction.now_ms());
            transaction.finish().await.unwrap();
            world.clock.advance_ms(60_000);
        }
        let short = world.take(Charge::Replacement, name).await.unwrap_err();
        assert_eq!((short.limit, short.until_ms), ("failures", ends[0] + HOUR_MS + 1));
        assert_eq!(world.take(Charge::Replacement, "b.example.com").await, Ok(()));
        world.clock.advance_ms(HOUR_MS - 180_000 + 1);
        assert_eq!(world.take(Charge::Replacement, name).await, Ok(()));
    }

    #[tokio::test]
    async fn what_the_ca_says_counts_more_than_what_we_counted() {
        let world = World::new().await;
        let until_ms = 1_800_000_000_000 + 5 * HOUR_MS;
        for (of, held, free) in [
            (Limited::Name, "a.example.com", "b.example.com"),
            (Limited::RegisteredDomain, "c.example.org", "c.example.com"),
        ] {
            let mut transaction = world.store.begin(Actor::system("test")).await.unwrap();
            exhaust(&mut transaction, (&world.ca, &world.limits), of, held, until_ms).await.unwrap();
            transaction.finish().await.unwrap();
            let short = world.take(Charge::New, held).await.unwrap_err();
            assert!((until_ms..until_ms + 5).contains(&short.until_ms), "{short:?}");
            assert_eq!(world.take(Charge::New, free).await, Ok(()), "only whom it names");
        }
        world.clock.advance_ms(5 * HOUR_MS + 5);
        assert_eq!(world.take(Charge::New, "a.example.com").await, Ok(()));
    }
}
