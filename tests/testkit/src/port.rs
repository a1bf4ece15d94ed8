//! Ports for servers that take no port 0, or that come back where they were.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Below the range that systems hand out by themselves (32768 and up on Linux).
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port of 127.0.0.1, TCP and UDP, that no other test gets while this lives.
///
/// "Bind port 0, close, tell the number to a server" is a race: another process may get the number meanwhile. Here the
/// TCP socket stays bound without listening. Linux lets a server that sets `SO_REUSEADDR` (all do) listen beside it,
/// and gives the number to nobody who asks for any port. UDP has no such way to share; there only the range protects.
#[derive(Debug)]
pub struct ReservedPort {
    _holder: Socket,
    addr: SocketAddr,
}

impl ReservedPort {
    /// Takes a free one.
    ///
    /// # Panics
    /// When none is free.
    pub fn new() -> Self {
        // A random begin: tests run side by side in processes of their own.
        let begin = RandomState::new().hash_one(std::process::id());
        (0..u64::from(COUNT))
            .map(|step| FIRST + u16::try_from(begin.wrapping_add(step) % u64::from(COUNT)).expect("below COUNT"))
            .find_map(Self::take)
            .unwrap_or_else(|| panic!("no free port from {FIRST} on"))
    }

    fn take(port: u16) -> Option<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let holder = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        // Shared only once it is bound: two tests would else both have it.
        holder.bind(&addr.into()).ok()?;
        UdpSocket::bind(addr).ok()?;
        holder.set_reuse_address(true).expect("a socket has this option");
        Some(Self { _holder: holder, addr })
    }

    /// Where a server may listen.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl fmt::Display for ReservedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

impl Default for ReservedPort {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_server_listens_there_again_and_again_and_nobody_else_gets_it() {
        let ports: Vec<_> = (0..50).map(|_| ReservedPort::new()).collect();
        let distinct: HashSet<_> = ports.iter().map(ReservedPort::addr).collect();
        assert_eq!(distinct.len(), ports.len());
        for port in &ports {
            assert!(ReservedPort::take(port.addr().port()).is_none(), "it is taken");
            for _ in 0..2 {
                // The standard library sets SO_REUSEADDR.
                let server = TcpListener::bind(port.addr()).expect("room beside the holder");
                let _client = TcpStream::connect(port.addr()).expect("it listens");
                let _accepted = server.accept().expect("a client");
            }
        }
    }
}
