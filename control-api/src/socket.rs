//! The Unix socket of the machine's own administrator. Who may open the file may do everything, without a token: the way
//! in when the last token is lost.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Who may connect: the owner, and root.
const MODE: u32 = 0o600;

/// Bytes of a socket's path: `sun_path` holds 108 with the final NUL (unix(7)).
const PATH_MAX: usize = 107;

/// What is behind the name while the permissions are not set yet.
const FRESH: &str = "~";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel takes no such path.
    #[error("the path has {found} bytes, and a socket's has {PATH_MAX} at the most")]
    TooLong {
        /// Bytes it would take.
        found: usize,
    },
    /// There is a file of another kind.
    #[error("there is a file there that is no socket")]
    NotASocket,
    /// Another process listens there.
    #[error("another process listens there")]
    InUse,
    /// The system refuses.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A socket that is listened on; its file goes with it.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`, in place of a socket that was left there. Must be called within a runtime.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(FRESH);
        if fresh.as_bytes().len() > PATH_MAX {
            return Err(SocketError::TooLong { found: fresh.as_bytes().len() });
        }
        match fs::symlink_metadata(path) {
            Ok(about) if !about.file_type().is_socket() => return Err(SocketError::NotASocket),
            Ok(_) if StdStream::connect(path).is_ok() => return Err(SocketError::InUse),
            _ => {}
        }
        // Best effort: what is left of a start that was killed here.
        let _ = fs::remove_file(&fresh);
        let listener = StdListener::bind(&fresh)?;
        // Under its name only when nobody else can open it any more.
        let placed = fs::set_permissions(&fresh, Permissions::from_mode(MODE)).and_then(|()| fs::rename(&fresh, path));
        if let Err(error) = placed {
            let _ = fs::remove_file(&fresh);
            return Err(error.into());
        }
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, path: path.to_owned() })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next who connects.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Best effort: the next start replaces what is left.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_open_the_socket_and_it_goes_with_the_server() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        let socket = Socket::bind(&path).expect("bound");
        let about = fs::metadata(&path).expect("is there");
        assert_eq!(about.permissions().mode() & 0o777, MODE);
        assert!(matches!(Socket::bind(&path), Err(SocketError::InUse)));
        drop(socket);
        assert!(!path.exists() && fs::read_dir(dir.path()).expect("readable").count() == 0);
    }

    #[tokio::test]
    async fn a_socket_left_by_a_process_that_was_killed_is_replaced_and_another_file_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        drop(StdListener::bind(&path).expect("bound"));
        assert!(path.exists(), "dropping a listener leaves its file");
        drop(Socket::bind(&path).expect("replaced"));
        fs::write(&path, "notes").expect("written");
        assert!(matches!(Socket::bind(&path), Err(SocketError::NotASocket)));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "notes");
        let long = dir.path().join("x".repeat(PATH_MAX));
        assert!(matches!(Socket::bind(&long), Err(SocketError::TooLong { .. })));
    }
}
