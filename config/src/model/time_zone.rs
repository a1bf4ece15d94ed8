//! A time zone: what "today" means to a school.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::id::{as_string, shortened};

/// Why a text is not a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time zone: write a name of the IANA database, such as Europe/Berlin or UTC")]
pub struct TimeZoneError(String);

/// A time zone by its IANA name. The rules come with this binary, not from the machine, so that every node of a fleet
/// agrees when a day ends.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimeZone(Arc<str>);

impl TimeZone {
    /// The name, as the database spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn rules(&self) -> jiff::tz::TimeZone {
        jiff::tz::TimeZone::get(&self.0).unwrap_or(jiff::tz::TimeZone::UTC)
    }
}

impl Default for TimeZone {
    fn default() -> Self {
        Self("UTC".into())
    }
}
impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for TimeZone {
    type Err = TimeZoneError;
    fn from_str(text: &str) -> Result<Self, TimeZoneError> {
        let rules = jiff::tz::TimeZone::get(text).map_err(|_| TimeZoneError(shortened(text)))?;
        rules.iana_name().map(|name| Self(name.into())).ok_or_else(|| TimeZoneError(shortened(text)))
    }
}
as_string!(TimeZone, TimeZoneError, "a name of the IANA time zone database, such as Europe/Berlin");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_known_by_its_name_in_the_database() {
        assert_eq!("europe/berlin".parse::<TimeZone>().map(|z| z.to_string()), Ok("Europe/Berlin".into()));
        assert_eq!("UTC".parse::<TimeZone>(), Ok(TimeZone::default()));
        for text in ["", "Berlin", "Europe/Atlantis", "+01:00", "../../etc/passwd"] {
            assert!(text.parse::<TimeZone>().is_err(), "{text} was taken");
        }
    }
}
