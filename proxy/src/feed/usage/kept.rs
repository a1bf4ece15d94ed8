//! Where usage is kept while the control plane does not take it: a file beside the last good state.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use schoolgate_config::usage::UsageFlush;
use tracing::warn;

/// Why usage is not on disk.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be written")]
pub(super) struct KeepError {
    path: PathBuf,
    source: io::Error,
}

/// The file.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    exists: bool,
}

impl Kept {
    /// What a process before left. A file that cannot be read is set aside: it must not keep a proxy from serving.
    pub(super) fn load(path: &Path) -> (Self, Vec<UsageFlush>) {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => Ok(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return (Self { path: path.to_owned(), exists: false }, Vec::new());
            }
            Err(e) => Err(e),
        };
        let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
        match read {
            Ok(left) => (Self { path: path.to_owned(), exists: true }, left),
            Err(error) => {
                warn!("{} cannot be read ({error}) and is set aside: usage in it is not counted", path.display());
                if let Err(error) = std::fs::rename(path, path.with_extension("damaged")) {
                    warn!("{} cannot be set aside and will be written over: {error}", path.display());
                }
                (Self { path: path.to_owned(), exists: false }, Vec::new())
            }
        }
    }

    /// Whether something is kept.
    pub(super) fn exists(&self) -> bool {
        self.exists
    }

    /// Keeps these instead of those before, whole or not at all. Not flushed to the disk: what is lost with the power
    /// is some seconds of usage, and a node writes this every few seconds while the control plane is away.
    ///
    /// # Errors
    /// [`KeepError`] names the file.
    pub(super) fn write(&mut self, flushes: &VecDeque<UsageFlush>) -> Result<(), KeepError> {
        let failed = |source| KeepError { path: self.path.clone(), source };
        let bytes = serde_json::to_vec(flushes).map_err(|e| failed(io::Error::other(e)))?;
        let new = self.path.with_extension("new");
        let written = std::fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))
            .and_then(|()| std::fs::write(&new, bytes))
            .and_then(|()| std::fs::rename(&new, &self.path));
        written.map_err(failed)?;
        self.exists = true;
        Ok(())
    }

    /// Nothing is unsent any more.
    pub(super) fn clear(&mut self) {
        if !self.exists {
            return;
        }
        match std::fs::remove_file(&self.path) {
            // What is left there is sent again at the next start, and known by its numbers.
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                warn!("{} cannot be removed: {e}", self.path.display());
            }
            _ => self.exists = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    #[test]
    fn what_is_kept_reads_back_until_it_is_cleared() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("proxy/usage.json");
        let flush = UsageFlush {
            node: "n1".parse().expect("a name"),
            boot: Ulid::from_parts(1, 1),
            number: 3,
            parts: Vec::new(),
            quotas: Vec::new(),
        };
        let (mut kept, left) = Kept::load(&path);
        assert!(left.is_empty() && !kept.exists());
        kept.write(&VecDeque::from([flush.clone()])).expect("writes");
        let (mut kept, left) = Kept::load(&path);
        assert_eq!(left, [flush]);
        kept.clear();
        assert!(!path.exists() && !kept.exists());
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("usage.json");
        std::fs::write(&path, "[{\"node\":").expect("writes");
        let (kept, left) = Kept::load(&path);
        assert!(left.is_empty() && !kept.exists());
        assert!(!path.exists() && path.with_extension("damaged").exists());
    }
}
