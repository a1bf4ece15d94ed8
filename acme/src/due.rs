//! When to act: pure functions of validity, failures and the name.

use std::time::Duration;

use ring::digest::{SHA256, digest};

/// A certificate is renewed when this share of its life is over: two thirds leave a third for outages of the authority.
const RENEW_AFTER: (i64, i64) = (2, 3);

/// Renewals are moved earlier by up to one part in so many of the life, by name: certificates that were issued together
/// are not renewed together.
const RENEW_SPREAD: i64 = 20;

/// Wait after the first failure; each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Longest wait after a failure: an operator who mended the cause waits no longer than this.
const LONGEST_RETRY: Duration = Duration::from_secs(3_600);

/// When a certificate for `name` that is valid from `not_before` to `not_after` is renewed; all in seconds since 1970.
pub fn renew_at(name: &str, not_before: i64, not_after: i64) -> i64 {
    let life = (not_after - not_before).max(0);
    let spread = life / RENEW_SPREAD;
    not_before + life / RENEW_AFTER.1 * RENEW_AFTER.0 - spread_of(name, spread)
}

/// How long to wait after `failures` failures in a row, at least one, for `name`.
pub fn retry_after(name: &str, failures: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_RETRY);
    let quarter = i64::try_from(doubled.as_millis() / 4).unwrap_or(0);
    doubled - Duration::from_millis(u64::try_from(spread_of(name, quarter)).unwrap_or(0))
}

/// Waits after failures that the school has to mend: 1 min, 10 min, 100 min, then a day, as Let's Encrypt asks for. With
/// them no name fails more than three times in an hour.
const MENDED_AFTER_MS: [i64; 4] = [60_000, 600_000, 6_000_000, 86_400_000];

/// How long to wait, in milliseconds, after `failures` failures in a row, at least one, that the school has to mend.
pub fn mended_after_ms(failures: u32) -> i64 {
    let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(MENDED_AFTER_MS.len() - 1);
    MENDED_AFTER_MS[at]
}

/// A number from 0 to `below` that is always the same for a name.
pub(crate) fn spread_of(name: &str, below: i64) -> i64 {
    let bytes = digest(&SHA256, name.as_bytes());
    let (head, _) = bytes.as_ref().split_first_chunk::<4>().expect("a digest has 32 bytes");
    if below <= 0 { 0 } else { i64::from(u32::from_le_bytes(*head)) % below }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn a_certificate_is_renewed_in_the_last_part_of_the_second_third_of_its_life() {
        for name in ["greenhill.localhost", "*.schools.test", "a"] {
            let at = renew_at(name, 0, 90 * DAY);
            assert!((90 * DAY * 2 / 3 - 90 * DAY / 20..=60 * DAY).contains(&at), "{name} is renewed at {at}");
        }
    }

    #[test]
    fn certificates_issued_together_are_not_renewed_together() {
        let moments: std::collections::BTreeSet<_> =
            (0..1_000).map(|n| renew_at(&format!("school-{n}.test"), 0, 90 * DAY) / 3_600).collect();
        assert!(moments.len() > 80, "a thousand renewals fall into {} hours", moments.len());
    }

    #[test]
    fn each_failure_waits_longer_up_to_an_hour() {
        let waits: Vec<_> = (1..40).map(|n| retry_after("a.test", n)).collect();
        assert!(waits.is_sorted());
        assert!(waits[0] <= Duration::from_secs(1) && waits[0] >= Duration::from_millis(750));
        assert!(waits[38] <= Duration::from_secs(3_600) && waits[38] >= Duration::from_secs(2_700));
    }

    #[test]
    fn what_the_school_must_mend_is_tried_less_and_less() {
        let waits: Vec<_> = (1..7).map(mended_after_ms).collect();
        assert_eq!(waits, [60_000, 600_000, 6_000_000, 86_400_000, 86_400_000, 86_400_000]);
    }

    #[test]
    fn a_validity_that_ends_before_it_begins_is_due() {
        assert_eq!(renew_at("a.test", 100, 50), 100);
    }
}
