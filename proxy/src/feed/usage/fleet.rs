//! What a node last heard of the fleet, on disk: how many proxies share the limits, and what is used of quotas.
//!
//! A node that starts while the control plane is away goes on from it.

use std::io;
use std::path::{Path, PathBuf};

use schoolgate_config::usage::QuotaUse;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};
use tracing::warn;

/// Time between two writes while the control plane answers: 60 s. When it ceases to, the file is written at once, and what
/// is used from then on is in the file of unsent usage.
const EVERY: Duration = Duration::from_secs(60);

/// What a node last heard of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FleetState {
    /// Live proxies.
    pub(super) live_nodes: u32,
    /// What is used of quotas, by all.
    pub(super) quotas: Vec<QuotaUse>,
}

/// Its file.
#[derive(Debug)]
pub(super) struct FleetFile {
    path: PathBuf,
    written: Option<Instant>,
}

impl FleetFile {
    /// What a process before left. What cannot be read is not worth keeping a proxy from its work.
    pub(super) fn load(path: &Path) -> (Self, Option<FleetState>) {
        let file = Self { path: path.to_owned(), written: None };
        let read = std::fs::read(path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
        match read {
            Ok(state) => (file, Some(state)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => (file, None),
            Err(e) => {
                warn!("{} cannot be read and is written anew: {e}", path.display());
                (file, None)
            }
        }
    }

    /// Whether it is time to write it.
    pub(super) fn is_due(&self) -> bool {
        self.written.is_none_or(|at| at.elapsed() >= EVERY)
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&mut self, state: &FleetState) {
        let new = self.path.with_extension("new");
        let written = serde_json::to_vec(state).map_err(io::Error::other).and_then(|bytes| {
            std::fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))?;
            std::fs::write(&new, bytes)?;
            std::fs::rename(&new, &self.path)
        });
        if let Err(e) = written {
            warn!(
                "{} cannot be written: {e}; a start without the control plane begins its quotas anew",
                self.path.display()
            );
        }
        self.written = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::TenantId;
    use schoolgate_config::usage::QuotaKind;

    use super::*;

    #[test]
    fn what_was_heard_reads_back_and_damage_is_passed_over() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("proxy/fleet.json");
        let (mut file, state) = FleetFile::load(&path);
        assert!(state.is_none() && file.is_due());
        let tenant = TenantId::from_parts(1, 1);
        let used = QuotaUse { tenant, quota: QuotaKind::BytesPerMonth, period: 682, used: 5 };
        let state = FleetState { live_nodes: 3, quotas: vec![used] };
        file.write(&state);
        assert!(!file.is_due());
        assert_eq!(FleetFile::load(&path).1, Some(state));
        std::fs::write(&path, "{").expect("writes");
        assert_eq!(FleetFile::load(&path).1, None);
    }
}
