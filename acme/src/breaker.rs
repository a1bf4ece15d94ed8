//! When a CA is left alone, and when the second one may step in. Pure.

use std::time::Duration;

use schoolgate_store::acme::{AuthorityHealth, QueueClass};

/// Failures of the CA itself within [`WITHIN_MS`] after which it is left alone: 5.
const FAILURES: u32 = 5;

/// See [`FAILURES`]: 5 min.
const WITHIN_MS: i64 = 300_000;

/// While it is left alone, one order tries it after a quarter of the time that it has been away, within these bounds:
/// 2 min to 30 min.
const PROBE_MS: (i64, i64) = (120_000, 1_800_000);

/// Time after which the second CA may step in: 30 min. Most outages are shorter, and every other CA has limits and
/// troubles of its own.
pub const FALLBACK_AFTER: Duration = Duration::from_secs(1_800);

/// Whether an order may go to a CA now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Open,
    /// One, to see whether it is well again.
    Probe,
    /// Not before this moment, milliseconds since 1970.
    After(i64),
}

/// Whether an order may go to the CA.
pub fn admits(health: &AuthorityHealth, now_ms: i64) -> Admission {
    if let Some(until) = health.held_until_ms.filter(|until| *until > now_ms) {
        return Admission::After(until);
    }
    match (health.open_since_ms, health.probe_at_ms) {
        (None, _) => Admission::Open,
        (Some(_), Some(probe)) if probe > now_ms => Admission::After(probe),
        (Some(_), _) => Admission::Probe,
    }
}

/// Notes that a probe is on its way.
pub fn probing(health: &mut AuthorityHealth, now_ms: i64) {
    let away_ms = health.open_since_ms.map_or(0, |since| now_ms - since);
    health.probe_at_ms = Some(now_ms + (away_ms / 4).clamp(PROBE_MS.0, PROBE_MS.1));
}

/// Notes a failure of the CA itself. Says whether it is left alone from now on, and was not before.
pub fn failed(health: &mut AuthorityHealth, now_ms: i64, why: &str) -> bool {
    health.last_error = Some(why.to_owned());
    if health.is_open() {
        probing(health, now_ms);
        return false;
    }
    if health.failing_since_ms.is_none_or(|since| now_ms - since > WITHIN_MS) {
        (health.failures, health.failing_since_ms) = (0, Some(now_ms));
    }
    health.failures += 1;
    if health.failures < FAILURES {
        return false;
    }
    health.open_since_ms = Some(now_ms);
    probing(health, now_ms);
    true
}

/// Notes that the CA answered well. Says whether there was anything to note.
pub fn succeeded(health: &mut AuthorityHealth) -> bool {
    let well = AuthorityHealth { link: health.link.clone(), held_until_ms: health.held_until_ms, ..Default::default() };
    if *health == well {
        return false;
    }
    *health = well;
    true
}

/// Whether the second CA may take what the first cannot: it has been away for long, somebody waits or a certificate is
/// about to end, and the second is well itself.
pub fn may_fall_back(first: &AuthorityHealth, second: &AuthorityHealth, class: QueueClass, now_ms: i64) -> bool {
    let long = i64::try_from(FALLBACK_AFTER.as_millis()).unwrap_or(i64::MAX);
    first.open_since_ms.is_some_and(|since| now_ms - since > long)
        && class <= QueueClass::New
        && second.account_error.is_none()
        && admits(second, now_ms) == Admission::Open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_five_minutes_open_it_and_one_success_closes_it() {
        let mut health = AuthorityHealth::default();
        for n in 0..4 {
            assert!(!failed(&mut health, n * 1_000, "503"));
            assert_eq!(admits(&health, n * 1_000), Admission::Open);
        }
        assert!(failed(&mut health, 4_000, "503"));
        assert_eq!(admits(&health, 5_000), Admission::After(124_000));
        assert_eq!(admits(&health, 124_000), Admission::Probe);
        probing(&mut health, 124_000);
        assert_eq!(admits(&health, 125_000), Admission::After(244_000), "one probe at a time");
        assert!(!failed(&mut health, 126_000, "503"), "it was open already");
        probing(&mut health, 3_604_000);
        assert_eq!(
            admits(&health, 3_605_000),
            Admission::After(3_604_000 + 900_000),
            "less often the longer it is away"
        );
        assert!(succeeded(&mut health));
        assert_eq!(admits(&health, 126_001), Admission::Open);
        assert!(!succeeded(&mut health), "nothing to write while it is well");
    }

    #[test]
    fn rare_failures_do_not_open_it() {
        let mut health = AuthorityHealth::default();
        for n in 0..100 {
            assert!(!failed(&mut health, n * 100_000, "timeout"), "failure {n}");
        }
    }

    #[test]
    fn an_account_that_is_held_rests_though_the_ca_is_well() {
        let mut health = AuthorityHealth { held_until_ms: Some(5_000), ..Default::default() };
        assert!(!succeeded(&mut health));
        assert_eq!(admits(&health, 4_999), Admission::After(5_000));
        assert_eq!(admits(&health, 5_000), Admission::Open);
    }

    #[test]
    fn the_second_steps_in_late_and_for_those_who_cannot_wait_only() {
        let (mut first, second) = (AuthorityHealth::default(), AuthorityHealth::default());
        for n in 0..5 {
            failed(&mut first, n, "503");
        }
        let opened = first.open_since_ms.unwrap();
        let late = opened + 1_800_001;
        assert!(!may_fall_back(&first, &second, QueueClass::Expiring, late - 1));
        assert!(may_fall_back(&first, &second, QueueClass::Expiring, late));
        assert!(may_fall_back(&first, &second, QueueClass::New, late));
        assert!(!may_fall_back(&first, &second, QueueClass::Renewal, late));
        assert!(!may_fall_back(&first, &first, QueueClass::New, late), "a second that is ill is no help");
        assert!(!may_fall_back(&second, &second, QueueClass::New, late), "the first is well");
    }
}
