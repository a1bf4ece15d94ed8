//! What is known of one downstream connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::protocols::http::ServerSession;
use tokio::time::Instant;

use super::{Budget, Flood, TlsVersion};

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
    /// Whether it is under a certificate that nobody issued, because the name waits for its own.
    pub waiting: bool,
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
    /// The client's SETTINGS have come (HTTP/2 only).
    pub(super) greeted: AtomicBool,
    /// What the client sends too much of, as its place in [`Flood::ALL`] plus one (HTTP/2 only).
    pub(super) flood: AtomicU8,
    /// Requests that were reset before they were answered, beyond those that were answered (HTTP/2 only).
    pub(super) unanswered: AtomicU32,
    /// What its requests are counted against.
    pub(super) budget: Arc<Budget>,
    /// Bytes of bodies that have come and that no request has read yet (HTTP/2 only).
    pub(super) unread: AtomicUsize,
    /// Whether the gateway has seen the request that is being served (HTTP/1.1 only).
    pub(super) seen: AtomicBool,
    /// Nothing more is read of it (HTTP/1.1 only).
    pub(super) cut: AtomicBool,
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

    /// Whether the name in the handshake waits for its certificate: nothing but answers of ours is for this connection.
    pub fn is_waiting(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.waiting)
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

    /// Reads nothing more of it: what is served on it now finds its client gone (HTTP/1.1 only).
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// What its requests are counted against.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// A request has read so many bytes of its body.
    pub(crate) fn read_body(&self, bytes: usize) {
        if self.is_h2() {
            let less = |unread: usize| Some(unread.saturating_sub(bytes));
            let _ = self.unread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// A request of HTTP/2 has ended with an answer begun.
    pub fn answered(&self) {
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        if unanswered > 0 {
            // Two at once may forgive one between them; it is a matter of dozens.
            self.unanswered.store(unanswered - 1, Ordering::Relaxed);
        }
    }

    /// A request of HTTP/2 has ended before an answer: its client has reset it. More than `most` of these end the
    /// connection.
    pub fn unanswered(&self, most: u32) {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) >= most {
            self.flooded(Flood::Unanswered);
        }
    }

    /// The client sends too much of something: the driver will end the connection.
    pub(super) fn flooded(&self, flood: Flood) {
        self.flood.store(flood as u8 + 1, Ordering::Relaxed);
    }

    /// What the client sends too much of.
    pub(super) fn flood(&self) -> Option<Flood> {
        let place = usize::from(self.flood.load(Ordering::Relaxed));
        Flood::ALL.get(place.checked_sub(1)?).copied()
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
