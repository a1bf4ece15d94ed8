//! How a backend is reached: its address, what it speaks, every timeout, and who shares its connections.

use std::time::Duration;

use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use schoolgate_config::model::{BackendAddress, PoolTimeouts};

use super::upstream_tls::UpstreamTlsReady;

/// Requests at once on one HTTP/2 connection to a backend: 100, what most servers allow.
const H2_STREAMS: usize = 100;

/// How long a switched protocol may say nothing in either direction: 10 minutes. Browsers and libraries ping a
/// WebSocket at least once a minute; what is silent for longer has lost its peer.
pub(crate) const UPGRADED_IDLE: Duration = Duration::from_secs(600);

/// The shortest time that is waited: 1 ms. None at all would be a wait without end to some.
const SHORTEST: Duration = Duration::from_millis(1);

/// What one request asks of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wants {
    /// Requests of one group share kept connections; no other does.
    pub(crate) group: u64,
    /// Time for the answer's head.
    pub(crate) first_byte: Duration,
    /// Time between two pieces of the answer's body.
    pub(crate) read: Duration,
    /// Time for all that is still to come, if that is bounded.
    pub(crate) left: Option<Duration>,
    /// The client wants to switch protocols.
    pub(crate) upgrade: bool,
}

/// The way to a backend.
///
/// # Errors
/// A Unix path that no socket can have; TLS that could not be prepared.
pub(crate) fn peer(
    address: &BackendAddress,
    timeouts: &PoolTimeouts,
    wants: Wants,
    tls: Option<&UpstreamTlsReady>,
) -> Result<Box<HttpPeer>> {
    let mut peer = match address {
        BackendAddress::Https(addr) => {
            let mut peer = tls.ok_or_else(|| Error::new_in(ErrorType::InvalidCert))?.peer(*addr);
            if wants.upgrade {
                // A protocol is switched in HTTP/1.1 only.
                peer.options.set_http_version(1, 1);
            }
            peer
        }
        BackendAddress::Http(addr) | BackendAddress::H2c(addr) => HttpPeer::new(*addr, false, String::new()),
        BackendAddress::Unix(path) => {
            let path = path.to_str().ok_or_else(|| Error::new_in(ErrorType::SocketError))?;
            HttpPeer::new_uds(path, false, String::new())?
        }
    };
    peer.group_key = wants.group;
    let options = &mut peer.options;
    let connect = Duration::from_millis(timeouts.connect_ms);
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    // One clock for both: the longer, within what is left.
    let read = wants.read.max(wants.first_byte);
    let read = wants.left.map_or(read, |left| read.min(left.max(SHORTEST)));
    options.read_timeout = Some(if wants.upgrade { read.max(UPGRADED_IDLE) } else { read });
    options.write_timeout = Some(Duration::from_millis(timeouts.write_ms));
    options.idle_timeout = Some(Duration::from_millis(timeouts.idle_ms));
    match address {
        BackendAddress::H2c(_) => options.set_http_version(2, 2),
        BackendAddress::Https(_) => {}
        BackendAddress::Http(_) | BackendAddress::Unix(_) => return Ok(Box::new(peer)),
    }
    options.max_h2_streams = H2_STREAMS;
    Ok(Box::new(peer))
}

#[cfg(test)]
mod tests {
    use pingora_core::upstreams::peer::Peer;

    use super::*;

    fn wants(group: u64, read: Duration) -> Wants {
        Wants { group, first_byte: read, read, left: None, upgrade: false }
    }

    fn reuse(address: &str, group: u64) -> u64 {
        let wants = wants(group, Duration::from_secs(1));
        let address = address.parse().expect("an address");
        peer(&address, &PoolTimeouts::default(), wants, None).expect("a peer").reuse_hash()
    }

    #[test]
    fn connections_are_shared_within_a_group_only() {
        assert_eq!(reuse("http://127.0.0.1:9001", 1), reuse("http://127.0.0.1:9001", 1));
        assert_ne!(reuse("http://127.0.0.1:9001", 1), reuse("http://127.0.0.1:9001", 2));
        assert_ne!(reuse("unix:/run/a.sock", 1), reuse("unix:/run/b.sock", 1));
    }

    #[test]
    fn every_timeout_is_set() {
        for address in ["http://127.0.0.1:9001", "h2c://127.0.0.1:9001", "unix:/run/a.sock"] {
            let wants = wants(1, Duration::from_secs(7));
            let address = address.parse().expect("an address");
            let peer = peer(&address, &PoolTimeouts::default(), wants, None).expect("a peer");
            let options = &peer.options;
            assert_eq!(options.read_timeout, Some(Duration::from_secs(7)));
            for timeout in [
                options.connection_timeout,
                options.total_connection_timeout,
                options.write_timeout,
                options.idle_timeout,
            ] {
                assert!(timeout.is_some());
            }
        }
    }

    #[test]
    fn the_clock_of_an_answer_is_the_longer_one_within_what_is_left() {
        let read = |first_ms: u64, read_ms: u64, left_ms: Option<u64>| {
            let ms = Duration::from_millis;
            let wants = Wants { first_byte: ms(first_ms), read: ms(read_ms), left: left_ms.map(ms), ..wants(1, ms(1)) };
            let address = "http://127.0.0.1:9001".parse().expect("an address");
            peer(&address, &PoolTimeouts::default(), wants, None).expect("a peer").options.read_timeout
        };
        assert_eq!(read(500, 900, None), Some(Duration::from_millis(900)));
        assert_eq!(read(900, 500, Some(700)), Some(Duration::from_millis(700)));
        assert_eq!(read(900, 500, Some(0)), Some(SHORTEST));
    }

    #[test]
    fn tls_that_is_not_prepared_reaches_nobody() {
        let address = "https://127.0.0.1:9001".parse().expect("an address");
        assert!(peer(&address, &PoolTimeouts::default(), wants(1, SHORTEST), None).is_err());
    }
}
