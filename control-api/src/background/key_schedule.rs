//! When each issuer's keys are read again: a pure function of what happened and of a seed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use schoolgate_config::model::{IssuerId, KeySource, TokenIssuer};

/// Time between two reads of keys that could be read: 10 min, give or take a tenth, so that the issuers of a platform are
/// not all asked at once. An issuer publishes a new key well before it signs with it.
const PERIOD: Duration = Duration::from_secs(600);

/// Time until the next attempt after a first failure: 15 s; it doubles with each, up to [`PERIOD`].
const FIRST_RETRY: Duration = Duration::from_secs(15);

/// The least time between two reads because a proxy lacks a key: 1 min. Anybody can make a token that names one.
const HURRY: Duration = Duration::from_secs(60);

/// When the keys of each issuer are read again.
#[derive(Debug, Default)]
pub(super) struct Schedule(HashMap<IssuerId, Entry>);

#[derive(Debug)]
struct Entry {
    source: KeySource,
    at: Instant,
    read: Option<Instant>,
    failures: u32,
}

impl Schedule {
    /// Brings it in step with the issuers there are: a new one, or one with a new source, is due at once.
    pub(super) fn follow<'a>(&mut self, issuers: impl Iterator<Item = &'a Arc<TokenIssuer>>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for issuer in issuers.filter(|issuer| issuer.source != KeySource::Inline) {
            let known = before.remove(&issuer.id).filter(|entry| entry.source == issuer.source);
            let entry =
                known.unwrap_or_else(|| Entry { source: issuer.source.clone(), at: now, read: None, failures: 0 });
            self.0.insert(issuer.id.clone(), entry);
        }
    }

    /// Proxies lack keys of these: look soon.
    pub(super) fn hurry(&mut self, issuers: &BTreeSet<IssuerId>, now: Instant) {
        for issuer in issuers {
            if let Some(entry) = self.0.get_mut(issuer) {
                let soon = entry.read.map_or(now, |read| read + HURRY);
                entry.at = entry.at.min(soon);
            }
        }
    }

    /// Those to be read now.
    pub(super) fn due(&self, now: Instant) -> Vec<IssuerId> {
        self.0.iter().filter(|(_, entry)| entry.at <= now).map(|(id, _)| id.clone()).collect()
    }

    /// Keys were read, or could not be.
    pub(super) fn done(&mut self, issuer: &IssuerId, result: Result<(), ()>, now: Instant, seed: u64) {
        let Some(entry) = self.0.get_mut(issuer) else { return };
        entry.failures = if result.is_ok() { 0 } else { entry.failures.saturating_add(1) };
        entry.read = Some(now);
        entry.at = now + wait(entry.failures, seed);
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|entry| entry.at).min()
    }
}

/// How long to wait after so many failures in a row: between nine and eleven tenths of what is due.
fn wait(failures: u32, seed: u64) -> Duration {
    let whole = match failures.checked_sub(1) {
        None => PERIOD,
        Some(doubled) => FIRST_RETRY.saturating_mul(1 << doubled.min(10)).min(PERIOD),
    };
    let permille = u32::try_from(900 + seed % 201).expect("at most 1100");
    whole * permille / 1_000
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn issuer(id: &str, source: &serde_json::Value) -> Arc<TokenIssuer> {
        Arc::new(serde_json::from_value(json!({"id": id, "issuer": id, "source": source})).expect("an issuer"))
    }

    fn url(path: &str) -> serde_json::Value {
        json!({"url": format!("https://id.example/{path}")})
    }

    fn id(text: &str) -> IssuerId {
        text.parse().expect("a name")
    }

    #[test]
    fn keys_that_are_fetched_are_due_at_once_and_then_every_ten_minutes() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let issuers = [issuer("a", &url("a")), issuer("inline", &json!("inline"))];
        schedule.follow(issuers.iter(), now);
        assert_eq!(schedule.due(now), [id("a")]);
        schedule.done(&id("a"), Ok(()), now, 100);
        schedule.follow(issuers.iter(), now);
        assert_eq!(schedule.due(now), []);
        assert_eq!(schedule.next(), Some(now + PERIOD));
        schedule.follow([issuer("a", &url("elsewhere"))].iter(), now);
        assert_eq!(schedule.due(now), [id("a")], "a new source is a new beginning");
        schedule.follow([].iter(), now);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn failures_back_off_and_never_beyond_the_period() {
        assert_eq!([1, 2, 3].map(|n| wait(n, 100).as_secs()), [15, 30, 60]);
        assert_eq!(wait(u32::MAX, 100), PERIOD);
        for seed in 0..1_000 {
            let part = wait(0, seed).as_secs_f64() / PERIOD.as_secs_f64();
            assert!((0.9..=1.1).contains(&part), "{part}");
        }
    }

    #[test]
    fn a_key_that_a_proxy_lacks_is_looked_for_at_most_once_a_minute() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.follow([issuer("a", &url("a"))].iter(), now);
        schedule.done(&id("a"), Ok(()), now, 100);
        for _ in 0..3 {
            schedule.hurry(&[id("a"), id("unheard-of")].into(), now + Duration::from_secs(1));
            assert_eq!(schedule.next(), Some(now + HURRY));
        }
        let later = now + Duration::from_secs(300);
        schedule.hurry(&[id("a")].into(), later);
        assert_eq!(schedule.due(later), [id("a")]);
    }
}
