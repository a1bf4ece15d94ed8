//! A moment, written as RFC 3339.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::id::{as_string, shortened};

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time such as 2026-11-20T20:15:00Z (RFC 3339)")]
pub struct TimestampError(String);

/// A moment, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment so many milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_unix_ms(unix_ms: i64) -> Self {
        Self(unix_ms)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn unix_ms(self) -> i64 {
        self.0
    }
}
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::time::rfc3339(self.0))
    }
}
impl FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let error = || TimestampError(shortened(text));
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| error())?;
        i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).map(Self).map_err(|_| error())
    }
}
as_string!(Timestamp, TimestampError, "a time such as 2026-11-20T20:15:00Z (RFC 3339)");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_in_any_offset_and_is_written_in_utc() {
        let at: Timestamp = "2026-11-20T21:15:00.5+01:00".parse().expect("a time");
        assert_eq!(at.to_string(), "2026-11-20T20:15:00.500Z");
        for text in ["", "2026-11-20", "20:15", "2026-13-01T00:00:00Z", "now"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text} was taken");
        }
    }
}
