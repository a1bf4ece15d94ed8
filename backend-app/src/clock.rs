//! The time of day, read in one place. Rules take it as an argument.

use time::OffsetDateTime;

/// Now, in UTC.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Now, in whole seconds since 1970.
pub(crate) fn unix_now() -> i64 {
    now().unix_timestamp()
}

/// `at` in milliseconds since 1970, as instants are stored.
pub(crate) fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
