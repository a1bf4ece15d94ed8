//! What the transport tells whoever counts.

/// A TLS version, as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
    /// The handshake ended before one was chosen.
    None,
}

impl TlsVersion {
    /// Every value, for a metric that wants all its series from the start.
    pub const ALL: [Self; 3] = [Self::V12, Self::V13, Self::None];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
            Self::None => "none",
        }
    }
}

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeResult {
    /// A full handshake.
    Full,
    /// Resumed by a ticket.
    Resumed,
    /// A certificate authority has seen what it looked for (RFC 8737).
    Challenge,
    /// The client named no server.
    NoSni,
    /// We have no certificate for the name.
    UnknownSni,
    /// Nothing in common: version, suite, signature or application protocol.
    Incompatible,
    /// What came is not TLS, or broke its rules.
    Malformed,
    /// Not done before the deadline.
    Timeout,
    /// The client went away, or said so by an alert.
    Aborted,
}

impl HandshakeResult {
    /// Whether it failed by the client's doing. One that went away may have had reasons of its own.
    pub const fn is_clients_fault(self) -> bool {
        matches!(self, Self::NoSni | Self::UnknownSni | Self::Incompatible | Self::Malformed | Self::Timeout)
    }

    /// Every value, for a metric that wants all its series from the start.
    pub const ALL: [Self; 9] = [
        Self::Full,
        Self::Resumed,
        Self::Challenge,
        Self::NoSni,
        Self::UnknownSni,
        Self::Incompatible,
        Self::Malformed,
        Self::Timeout,
        Self::Aborted,
    ];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Challenge => "challenge",
            Self::NoSni => "no_sni",
            Self::UnknownSni => "unknown_sni",
            Self::Incompatible => "incompatible",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Aborted => "aborted",
        }
    }
}

/// Why a connection was closed at once, before a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionRefusal {
    /// All listeners together hold as many as they may.
    Full,
    /// This client's address holds as many as it may.
    Address,
    /// The PROXY header was missing, malformed or late.
    ProxyHeader,
    /// This client's address shakes hands faster than it may.
    HandshakeRate,
    /// Too many handshakes of this client's address have failed.
    FailingHandshakes,
}

impl ConnectionRefusal {
    /// Every value, for a metric that wants all its series from the start.
    pub const ALL: [Self; 5] =
        [Self::Full, Self::Address, Self::ProxyHeader, Self::HandshakeRate, Self::FailingHandshakes];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Address => "address",
            Self::ProxyHeader => "proxy_header",
            Self::HandshakeRate => "handshake_rate",
            Self::FailingHandshakes => "failing_handshakes",
        }
    }
}

/// Told what happens to connections. Called on the workers' threads: must not block.
pub trait TransportObserver: Send + Sync {
    /// A connection was accepted.
    fn connection_opened(&self) {}
    /// A connection that was opened is gone.
    fn connection_closed(&self) {}
    /// A connection was closed at once.
    fn connection_refused(&self, _why: ConnectionRefusal) {}
    /// A handshake ended.
    fn handshake(&self, _version: TlsVersion, _result: HandshakeResult) {}
    /// A handshake asked for a name that we have no certificate for.
    fn unknown_name(&self, _name: &str) {}
    /// An HTTP/2 client was told to go away for sending too much of something.
    fn flooded(&self, _flood: super::Flood) {}
    /// A request head was answered by the transport itself, before there was a request.
    fn head_refused(&self, _fault: super::HeadFault) {}
}

/// Counts nothing.
impl TransportObserver for () {}
