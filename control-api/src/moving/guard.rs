//! Whether more of a school's requests may follow to its new pool.

use schoolgate_config::feed::ShareReport;
use schoolgate_config::settings::Migrate;

/// Below this nothing is slow, whatever the old pool does, microseconds: 250 ms. The old pool may answer from a cache that
/// the new one has yet to fill.
const NOT_SLOW_US: u64 = 250_000;

/// Judges what became of the requests at the new pool beside those at the old one.
///
/// # Errors
/// What is wrong, for an operator to read.
pub(super) fn judge(
    moved: &ShareReport,
    rest: &ShareReport,
    old_p99_us: Option<u64>,
    rules: &Migrate,
) -> Result<(), String> {
    // Of a few requests nothing can be told; a pool of which none is left alive is told by its health.
    if moved.requests() < u64::from(rules.least_requests) {
        return Ok(());
    }
    // In tenths of a percent.
    let share = |side: &ShareReport| side.errors.saturating_mul(1_000) / side.requests().max(1);
    let (new, old) = (share(moved), share(rest));
    if new > old + u64::from(rules.more_errors_percent) * 10 {
        return Err(format!(
            "{} of {} requests failed at the new pool, {} of {} at the old one",
            moved.errors,
            moved.requests(),
            rest.errors,
            rest.requests()
        ));
    }
    // Few requests are left at the old pool towards the end: then what it did before counts.
    let old = if rest.requests() < u64::from(rules.least_requests) { old_p99_us } else { rest.p99_us() };
    let most = old.unwrap_or(0).saturating_mul(u64::from(rules.times_slower)).max(NOT_SLOW_US);
    match moved.p99_us() {
        Some(new) if new > most => Err(format!(
            "the slowest hundredth of answers takes up to {} ms at the new pool, {} ms at the old one",
            new / 1_000,
            old.unwrap_or(0) / 1_000
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(fast: u64, slow: (u64, u64), errors: u64) -> ShareReport {
        let mut latency = vec![0; ShareReport::BOUNDS_US.len() + 1];
        latency[ShareReport::bucket(2_000)] += fast;
        latency[ShareReport::bucket(slow.0)] += slow.1;
        ShareReport { errors, in_flight: 0, latency }
    }

    fn verdict(moved: &ShareReport, rest: &ShareReport, old: Option<u64>) -> Result<(), String> {
        judge(moved, rest, old, &Migrate::default())
    }

    #[test]
    fn a_few_requests_are_not_judged_and_many_are() {
        let rest = share(1_000, (0, 0), 0);
        assert!(verdict(&share(19, (0, 0), 19), &rest, None).is_ok());
        let why = verdict(&share(20, (0, 0), 1), &rest, None).expect_err("5 % of errors");
        assert!(why.contains("1 of 20 requests failed at the new pool, 0 of 1000"), "{why}");
        assert!(verdict(&share(100, (0, 0), 2), &rest, None).is_ok(), "2 % more are borne");
        assert!(verdict(&share(100, (0, 0), 3), &rest, None).is_err());
        assert!(verdict(&share(100, (0, 0), 12), &share(100, (0, 0), 10), None).is_ok(), "the old pool is no better");
    }

    #[test]
    fn a_pool_that_is_slow_beside_the_old_one_is_refused() {
        let rest = share(1_000, (0, 0), 0);
        assert!(verdict(&share(90, (200_000, 10), 0), &rest, None).is_ok(), "250 ms are not slow");
        let why = verdict(&share(90, (900_000, 10), 0), &rest, None).expect_err("a second is");
        assert!(why.contains("1000 ms at the new pool, 2 ms at the old one"), "{why}");
        let slow = share(0, (900_000, 1_000), 0);
        assert!(verdict(&share(90, (900_000, 10), 0), &slow, None).is_ok(), "the old pool is as slow");
        let gone = share(0, (0, 0), 0);
        assert!(verdict(&share(90, (900_000, 10), 0), &gone, Some(1_000_000)).is_ok(), "it was as slow before");
        assert!(verdict(&share(90, (900_000, 10), 0), &gone, Some(2_500)).is_err());
    }
}
