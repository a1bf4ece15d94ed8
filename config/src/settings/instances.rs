//! `[instances]`: instances that register themselves as backends.

use serde::{Deserialize, Serialize};

use super::{Seconds, SettingsError};

/// `[instances]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Instances {
    /// How often an instance says that it is there, in seconds.
    pub heartbeat_s: Seconds,
    /// Unheard for so many seconds, it is taken out of its pool.
    pub silent_s: Seconds,
}

impl Default for Instances {
    fn default() -> Self {
        Self { heartbeat_s: Seconds(5_000), silent_s: Seconds(15_000) }
    }
}

impl Instances {
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key: &str, found: Seconds, expected: &str| {
            let (key, expected) = (format!("instances.{key}"), expected.to_owned());
            Err(SettingsError::Value { key, found: found.duration().as_secs_f64().to_string(), expected })
        };
        if !(100..=60_000).contains(&self.heartbeat_s.ms()) {
            return refuse("heartbeat_s", self.heartbeat_s, "0.1 to 60");
        }
        // Of two heartbeats one may be lost.
        if self.silent_s.ms() < 2 * self.heartbeat_s.ms() {
            return refuse("silent_s", self.silent_s, "twice instances.heartbeat_s or more");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_heartbeat_may_be_lost() {
        let rules = |heartbeat, silent| Instances { heartbeat_s: Seconds(heartbeat), silent_s: Seconds(silent) };
        assert!(Instances::default().check().is_ok());
        assert!(rules(500, 1_000).check().is_ok());
        assert!(rules(500, 999).check().is_err());
        assert!(rules(99, 1_000).check().is_err());
        assert!(rules(60_001, 600_000).check().is_err());
    }
}
