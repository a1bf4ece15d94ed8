//! What is known of one downstream connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use pingora_core::protocols::http::ServerSession;
use tokio::time::Instant;

use super::TlsVersion;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    H1,
    /// HTTP/2, over TLS only.
    H2,
}

/// The TLS of a connection.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// The name the client asked for, lower case, without a final dot. A handshake without one is refused.
    pub sni: Arc<str>,
    /// The version agreed on.
    pub version: TlsVersion,
    /// Whether a ticket saved the full handshake.
    pub resumed: bool,
    /// How long the handshake took, from accept.
    pub handshake: Duration,
}

/// What is known of one downstream connection; shared by all its requests.
#[derive(Debug)]
pub struct ConnInfo {
    /// A number of this process, never used twice.
    pub id: u64,
    /// The client: the TCP peer, or whom a trusted PROXY header names.
    pub client: SocketAddr,
    /// The TCP peer.
    pub peer: SocketAddr,
    /// Where it was accepted.
    pub local: SocketAddr,
    /// `None` on the plain HTTP listener.
    pub tls: Option<TlsInfo>,
    /// What it speaks.
    pub protocol: Protocol,
    /// When it was accepted.
    pub opened: Instant,
    pub(super) requests: AtomicU32,
    /// Whether the gateway has seen the request that is being served (HTTP/1.1 only).
    pub(super) seen: AtomicBool,
}

impl ConnInfo {
    /// The name in the handshake, if there was one.
    pub fn sni(&self) -> Option<&Arc<str>> {
        self.tls.as_ref().map(|tls| &tls.sni)
    }

    /// Whether the client came over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the client speaks HTTP/2.
    pub fn is_h2(&self) -> bool {
        self.protocol == Protocol::H2
    }

    /// Requests begun on this connection, this one included.
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The gateway has the request: what is written from now on is its answer. To be called by the first filter of every
    /// request; what Pingora writes before that, on HTTP/1.1, is its own refusal of a head, and is replaced.
    pub fn see_request(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    /// Counts one request more and says how many there are.
    pub(super) fn begin_request(&self) -> u32 {
        self.seen.store(false, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The connection a request came on; `None` only when the session is not one of [`super::Edge`].
pub fn conn_info(session: &ServerSession) -> Option<&Arc<ConnInfo>> {
    session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
}
