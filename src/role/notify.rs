//! Telling systemd how it is: ready, stopping (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// It serves.
    Ready,
    /// It was asked to stop.
    Stopping,
}

/// Tells systemd, if it asked to be told.
pub(super) fn tell(notice: Notice) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, notice) {
        warn!(%error, "systemd cannot be told that this process is {notice:?}: {error}");
    }
}

fn send(socket: &OsStr, notice: Notice) -> io::Result<()> {
    // A name that begins with `@` is in the abstract namespace (unix(7)).
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let text: &[u8] = match notice {
        Notice::Ready => b"READY=1",
        Notice::Stopping => b"STOPPING=1",
    };
    UnixDatagram::unbound()?.send_to_addr(text, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_what_it_waits_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), Notice::Ready).unwrap();
        send(path.as_os_str(), Notice::Stopping).unwrap();
        let mut said = [0; 64];
        let length = socket.recv(&mut said).unwrap();
        assert_eq!(&said[..length], b"READY=1");
        let length = socket.recv(&mut said).unwrap();
        assert_eq!(&said[..length], b"STOPPING=1");
    }
}
