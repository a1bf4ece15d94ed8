//! `[proxy.files]`: files that routes answer with.

use serde::{Deserialize, Serialize};

use super::{Seconds, SettingsError};

/// `[proxy.files]`: a directory of small files that routes answer with (`action.files`), held in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// The directory; empty: none. Hidden files, and links that lead out of it, are passed over.
    pub dir: String,
    /// Bytes of one file at most.
    pub file_bytes: u32,
    /// Bytes of all files at most: what they take of the memory of every gateway.
    pub total_bytes: u32,
    /// Seconds between two looks at whether something changed, 0.1 to 3600.
    pub reread_s: Seconds,
}
impl Default for Files {
    fn default() -> Self {
        Self { dir: String::new(), file_bytes: 1024 * 1024, total_bytes: 16 * 1024 * 1024, reread_s: Seconds(5_000) }
    }
}

impl Files {
    /// The most that `total_bytes` can be: 256 MiB. A gateway is no file server.
    const MOST_BYTES: u32 = 256 * 1024 * 1024;

    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key: &str, found: &dyn ToString, expected: String| {
            Err(SettingsError::Value { key: format!("proxy.files.{key}"), found: found.to_string(), expected })
        };
        if !(1..=Self::MOST_BYTES).contains(&self.total_bytes) {
            return refuse("total_bytes", &self.total_bytes, format!("1 to {}", Self::MOST_BYTES));
        }
        if !(1..=self.total_bytes).contains(&self.file_bytes) {
            return refuse("file_bytes", &self.file_bytes, "1 to proxy.files.total_bytes".to_owned());
        }
        if !(100..=3_600_000).contains(&self.reread_s.ms()) {
            return refuse("reread_s", &self.reread_s.duration().as_secs_f64(), "0.1 to 3600".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_bound_nothing_are_refused() {
        assert!(Files::default().check().is_ok());
        let files = Files::default;
        assert!(Files { total_bytes: Files::MOST_BYTES + 1, ..files() }.check().is_err());
        assert!(Files { total_bytes: 0, ..files() }.check().is_err());
        assert!(Files { file_bytes: 0, ..files() }.check().is_err());
        assert!(Files { file_bytes: 2, total_bytes: 1, ..files() }.check().is_err());
        assert!(Files { reread_s: Seconds(50), ..files() }.check().is_err());
    }
}
