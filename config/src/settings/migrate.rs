//! `[migrate]`: how a school is moved to another pool.

use serde::{Deserialize, Serialize};

use super::{Seconds, SettingsError};

/// `[migrate]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Migrate {
    /// Seconds that each share (1, 10, 50, 100 %) is watched before more follow.
    pub step_s: Seconds,
    /// Seconds that requests at the old pool may take to finish; what is there longer stays until it ends by itself.
    pub drain_s: Seconds,
    /// Seconds that the new pool may take to be made and to be found healthy by every proxy.
    pub ready_s: Seconds,
    /// Requests of a share before it is judged by its errors and its slowness.
    pub least_requests: u32,
    /// Percent of errors that the new pool may have more than the old one.
    pub more_errors_percent: u8,
    /// How many times as slow as the old pool's the slowest hundredth of the new pool's answers may be. Below 250 ms
    /// nothing is slow.
    pub times_slower: u8,
}

impl Default for Migrate {
    fn default() -> Self {
        Self {
            step_s: Seconds(60_000),
            drain_s: Seconds(60_000),
            ready_s: Seconds(60_000),
            least_requests: 20,
            more_errors_percent: 2,
            times_slower: 3,
        }
    }
}

impl Migrate {
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key: &str, found: &dyn ToString, expected: &str| {
            let (key, found, expected) = (format!("migrate.{key}"), found.to_string(), expected.to_owned());
            Err(SettingsError::Value { key, found, expected })
        };
        if self.more_errors_percent > 100 {
            return refuse("more_errors_percent", &self.more_errors_percent, "0 to 100");
        }
        if self.times_slower == 0 {
            return refuse("times_slower", &self.times_slower, "1 to 255");
        }
        if self.least_requests == 0 {
            return refuse("least_requests", &self.least_requests, "1 or more");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_could_not_judge_is_refused() {
        assert!(Migrate::default().check().is_ok());
        assert!(Migrate { more_errors_percent: 101, ..Migrate::default() }.check().is_err());
        assert!(Migrate { times_slower: 0, ..Migrate::default() }.check().is_err());
        assert!(Migrate { least_requests: 0, ..Migrate::default() }.check().is_err());
    }
}
