//! The data directory: made, locked for one process, and where the addresses really bound are told.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

/// A data directory that belongs to this process until dropped.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    /// Held open: the lock goes with it, even when the process is killed.
    _lock: File,
}

/// The addresses a process really bound; what it does not run is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Addresses {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) https: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) control: Option<SocketAddr>,
    /// The Unix socket of the control API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) socket: Option<PathBuf>,
    /// The DNS responder, UDP and TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dns: Option<SocketAddr>,
}

impl DataDir {
    /// Makes the directory if need be, and takes it.
    ///
    /// # Errors
    /// Says what is in the way: not writable, or another process.
    pub(super) fn take(path: &Path) -> anyhow::Result<Self> {
        let run = path.join("run");
        fs::create_dir_all(&run).map_err(|e| unusable(path, &e))?;
        // The absolute path: children have to find it too.
        let path = path.canonicalize().map_err(|e| unusable(path, &e))?;
        let lock_file = run.join("lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_file)
            .map_err(|e| unusable(&path, &e))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let _ = lock.read_to_string(&mut pid);
                let who = if pid.trim().is_empty() { String::new() } else { format!(" (process {})", pid.trim()) };
                bail!(
                    "another schoolgate{who} uses the data directory {}: stop it, or give this one its own with --data-dir",
                    path.display()
                );
            }
            Err(e) => return Err(unusable(&path, &e.into())),
        }
        let written =
            lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(|e| unusable(&path, &e))?;
        let dir = Self { path, _lock: lock };
        // Left by a process that was killed; until ours are known there are none.
        dir.forget_addresses();
        Ok(dir)
    }

    /// Its absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file or directory in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Tells the world that this process is ready, and where.
    pub(super) fn publish_addresses(&self, addresses: &Addresses) -> anyhow::Result<()> {
        let path = self.file("run/addresses.json");
        let temporary = self.file("run/addresses.json.new");
        let text = serde_json::to_string_pretty(addresses)?;
        fs::write(&temporary, format!("{text}\n"))
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Takes back what [`Self::publish_addresses`] told.
    pub(super) fn forget_addresses(&self) {
        match fs::remove_file(self.file("run/addresses.json")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(error = %e, "{} cannot be removed: {e}", self.file("run/addresses.json").display());
            }
            _ => {}
        }
    }
}

fn unusable(path: &Path, error: &io::Error) -> anyhow::Error {
    let why = match error.kind() {
        io::ErrorKind::PermissionDenied => "this user may not write there".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "it is not a directory".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    };
    anyhow::anyhow!(
        "the data directory {} cannot be used: {why}; make it writable, or give another with --data-dir",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_belongs_to_one_process_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::take(&place.path().join("data")).unwrap();
        let second = DataDir::take(dir.path()).unwrap_err().to_string();
        assert!(second.contains(&std::process::id().to_string()) && second.contains("--data-dir"), "{second}");
        let path = dir.path().to_owned();
        drop(dir);
        DataDir::take(&path).unwrap();
    }

    #[test]
    fn addresses_are_there_while_the_process_is_ready() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::take(place.path()).unwrap();
        let addresses = Addresses { control: Some("127.0.0.1:8600".parse().unwrap()), ..Addresses::default() };
        dir.publish_addresses(&addresses).unwrap();
        let text = fs::read_to_string(dir.file("run/addresses.json")).unwrap();
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found, serde_json::json!({ "control": "127.0.0.1:8600" }));
        dir.forget_addresses();
        assert!(!dir.file("run/addresses.json").exists());
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_named() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        fs::write(&path, "").unwrap();
        let error = DataDir::take(&path).unwrap_err().to_string();
        assert!(error.contains("not a directory") && error.contains("--data-dir"), "{error}");
    }
}
