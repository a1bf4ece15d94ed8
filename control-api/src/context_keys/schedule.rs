//! What is to be done with the context keys, and when. Pure: keys, times and what proxies say are arguments.

use std::collections::HashMap;
use std::sync::Arc;

use schoolgate_config::model::{ContextKey, ContextKeyState, KeyId};

use super::Times;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the key that will sign after the one that does.
    Make,
    /// Let this one sign; those that did are retired.
    Sign(KeyId),
    /// Take this one out: nothing that it signed is alive.
    Remove(KeyId),
    /// Nothing, before this time at the earliest (milliseconds since 1970); `None`: nothing at all.
    Wait(Option<i64>),
}

/// What is known beside the keys themselves.
pub(crate) struct Known<'a> {
    /// How long a key is in each of its states.
    pub(crate) times: Times,
    /// When this process began to serve the JWKS: a key published before a long stop is not known to backends by it.
    pub(crate) since_ms: i64,
    /// When a proxy last said that it signs with a key.
    pub(crate) last_signed_ms: &'a HashMap<KeyId, i64>,
}

/// The next step at `now_ms`.
pub(crate) fn next_step(keys: &[Arc<ContextKey>], known: &Known<'_>, now_ms: i64) -> Step {
    let mut due = Vec::new();
    let mut consider = |at_ms: i64, step: Step| {
        (at_ms <= now_ms).then_some(step).or_else(|| {
            due.push(at_ms);
            None
        })
    };
    let times = known.times;
    // The one made first, should there be several.
    let next = of(keys, ContextKeyState::Next).min_by(|a, b| a.id.cmp(&b.id));
    if let Some(key) = next {
        let known_ms = known.since_ms.saturating_add(times.max_age_ms);
        if let Some(step) = consider(key.times.signs_ms.max(known_ms), Step::Sign(key.id.clone())) {
            return step;
        }
    } else if let Some(rotate_ms) = times.rotate_ms
        && let Some(signs_ms) = of(keys, ContextKeyState::Active).map(|key| key.times.signs_ms).max()
        && let Some(step) = consider(signs_ms.saturating_add(rotate_ms), Step::Make)
    {
        return step;
    }
    for key in of(keys, ContextKeyState::Retired) {
        let last_ms = known.last_signed_ms.get(&key.id).copied().unwrap_or(i64::MIN);
        let leaves_ms = leaves_ms(key, times).max(last_ms.max(known.since_ms).saturating_add(times.retire_ms));
        if let Some(step) = consider(leaves_ms, Step::Remove(key.id.clone())) {
            return step;
        }
    }
    Step::Wait(due.into_iter().min())
}

/// When a retired key leaves the JWKS at the earliest.
pub(crate) fn leaves_ms(key: &ContextKey, times: Times) -> i64 {
    key.times.retired_ms.unwrap_or(0).saturating_add(times.retire_ms)
}

fn of(keys: &[Arc<ContextKey>], state: ContextKeyState) -> impl Iterator<Item = &Arc<ContextKey>> {
    keys.iter().filter(move |key| key.state == state)
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::ContextKeyTimes;
    use schoolgate_config::seal::Keeper;

    use super::*;

    const TIMES: Times = Times { rotate_ms: Some(10_000), max_age_ms: 100, publish_ms: 300, retire_ms: 500 };

    fn key(state: ContextKeyState, times: ContextKeyTimes) -> Arc<ContextKey> {
        let key = super::super::first(&Keeper::new(&[7; 32]), 0);
        Arc::new(ContextKey { state, times, ..key })
    }

    fn active() -> Arc<ContextKey> {
        key(ContextKeyState::Active, ContextKeyTimes { published_ms: 0, signs_ms: 1_000, retired_ms: None })
    }

    fn next() -> Arc<ContextKey> {
        key(ContextKeyState::Next, ContextKeyTimes { published_ms: 2_000, signs_ms: 2_300, retired_ms: None })
    }

    fn retired() -> Arc<ContextKey> {
        key(ContextKeyState::Retired, ContextKeyTimes { published_ms: 0, signs_ms: 0, retired_ms: Some(1_000) })
    }

    fn step(keys: &[Arc<ContextKey>], since_ms: i64, last_signed_ms: Option<i64>, now_ms: i64) -> Step {
        let last_signed_ms = last_signed_ms.into_iter().flat_map(|ms| keys.iter().map(move |key| (key.id.clone(), ms)));
        let known = Known { times: TIMES, since_ms, last_signed_ms: &last_signed_ms.collect() };
        next_step(keys, &known, now_ms)
    }

    #[test]
    fn the_next_key_is_made_when_the_one_that_signs_is_old() {
        let keys = [active()];
        assert_eq!(step(&keys, 0, None, 10_999), Step::Wait(Some(11_000)));
        assert_eq!(step(&keys, 0, None, 11_000), Step::Make);
        let never = Known { times: Times { rotate_ms: None, ..TIMES }, since_ms: 0, last_signed_ms: &HashMap::new() };
        assert_eq!(next_step(&keys, &never, i64::MAX), Step::Wait(None));
    }

    #[test]
    fn a_key_signs_when_every_backend_can_know_it() {
        let keys = [active(), next()];
        assert_eq!(step(&keys, 0, None, 2_299), Step::Wait(Some(2_300)));
        assert_eq!(step(&keys, 0, None, 2_300), Step::Sign(keys[1].id.clone()));
        // Nobody could fetch it while there was no control plane.
        assert_eq!(step(&keys, 5_000, None, 5_099), Step::Wait(Some(5_100)));
        assert_eq!(step(&keys, 5_000, None, 5_100), Step::Sign(keys[1].id.clone()));
        // An old key does not make a third while the second waits.
        assert_eq!(step(&keys, 20_000, None, 20_050), Step::Wait(Some(20_100)));
    }

    #[test]
    fn a_retired_key_stays_until_the_last_token_it_signed_is_dead() {
        let keys = [active(), retired()];
        assert_eq!(step(&keys, 0, None, 1_499), Step::Wait(Some(1_500)));
        assert_eq!(step(&keys, 0, None, 1_500), Step::Remove(keys[1].id.clone()));
        // A proxy that did not hear of it goes on signing; each time it says so counts.
        assert_eq!(step(&keys, 0, Some(1_400), 1_500), Step::Wait(Some(1_900)));
        assert_eq!(step(&keys, 0, Some(1_400), 1_900), Step::Remove(keys[1].id.clone()));
        // What was said before this process began is not known.
        assert_eq!(step(&keys, 3_000, None, 3_100), Step::Wait(Some(3_500)));
    }

    #[test]
    fn with_one_key_that_signs_there_is_nothing_to_do_but_wait() {
        assert_eq!(step(&[], 0, None, 0), Step::Wait(None));
    }
}
