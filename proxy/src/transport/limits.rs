//! What a connection may take: sizes, deadlines and counts, each with its reason.

use std::time::Duration;

use ipnet::IpNet;
use schoolgate_config::settings::EdgeLimits;

use super::{FloodLimits, Rate};

/// The limits of the edge. The defaults are meant to be kept; a test shortens them.
#[derive(Debug, Clone)]
pub struct TransportLimits {
    /// Time for a PROXY header and the whole TLS handshake together: 10 s. A full handshake on a bad mobile link takes
    /// two to three; longer only serves those who hold connections open.
    pub handshake: Duration,
    /// Time from the first byte of an HTTP/1.1 request head to its last, and for the HTTP/2 preface: 10 s. It counts
    /// the whole head, not one read, so a head that drips a byte a second is cut.
    pub head: Duration,
    /// Bytes of a request head: 32 KiB, what nginx allows by default. Above it 431.
    pub head_bytes: usize,
    /// Bytes of a request line: 8 KiB. Above it 414.
    pub request_line_bytes: usize,
    /// Fields of a request head: 100. Above it 431.
    pub fields: usize,
    /// Bytes of one field: 16 KiB. Above it 431.
    pub field_bytes: usize,
    /// Bytes held for clients in all: 256 MiB. Above it new requests get 503 ([`super::Budget`]).
    pub buffered_bytes: usize,
    /// How long a request body may stand still while it is waited for: 30 s.
    pub body_stall: Duration,
    /// How long a client may take nothing of what we have for it: 60 s.
    pub write_stall: Duration,
    /// How long a connection may idle between two requests, HTTP/1.1 and HTTP/2: 75 s, longer than the 60 s that
    /// most clients and load balancers keep one.
    pub idle: Duration,
    /// The same while more than 80 % of the connections are taken: 20 s.
    pub idle_crowded: Duration,
    /// How long a connection may live, before it is told to go with its next answer: 1 h, and up to a tenth more. A
    /// client then finds the node that DNS names by now, and a certificate that was renewed.
    pub lifetime: Duration,
    /// TLS handshakes of one client address: 50 a second, 200 at once.
    pub handshakes: Rate,
    /// Those that fail by the client's doing: 5 a second, 50 at once. Beyond it none begins.
    pub failing_handshakes: Rate,
    /// Requests on one HTTP/1.1 connection before we answer `Connection: close`: 1,000, as nginx. It spreads
    /// connections anew over workers and nodes.
    pub requests_h1: u32,
    /// Requests on one HTTP/2 connection before GOAWAY: 10,000.
    pub requests_h2: u32,
    /// Streams that one HTTP/2 connection may have open: 100 (RFC 9113 section 6.5.2 asks for at least that).
    pub h2_streams: u32,
    /// Bytes a client may send on a stream before we take them: 64 KiB.
    pub h2_stream_window: u32,
    /// The same for all streams of a connection: 1 MiB, which bounds what one connection can make us hold.
    pub h2_connection_window: u32,
    /// How many frames of a kind an HTTP/2 client may send.
    pub floods: FloodLimits,
    /// Connections of all listeners together; `None`: 80 % of the limit on open files, the rest being for backends.
    pub connections: Option<usize>,
    /// Connections of one client address (IPv6: of its /56): 256. A school's NAT with 2,000 pupils stays below it on
    /// HTTP/2, which takes one connection per browser and domain only while pages load.
    pub connections_per_address: usize,
    /// How long, after a stop was asked for, connections that idle are still served before they are closed: 2 s. A
    /// request that is on its way when we stop then gets its answer instead of a reset.
    pub lame_duck: Duration,
    /// Whether connections begin with a PROXY header, and from whom.
    pub proxy_protocol: ProxyProtocol,
}

/// Whether connections begin with a PROXY protocol header (v1 or v2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// They do not; one that does fails as a bad request.
    #[default]
    Off,
    /// From these addresses they must; from all others they must not.
    From(Vec<IpNet>),
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            head_bytes: 32 * 1024,
            request_line_bytes: 8 * 1024,
            fields: 100,
            field_bytes: 16 * 1024,
            buffered_bytes: 256 * 1024 * 1024,
            body_stall: Duration::from_secs(30),
            write_stall: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            idle_crowded: Duration::from_secs(20),
            lifetime: Duration::from_secs(3_600),
            handshakes: Rate { per_s: 50, burst: 200 },
            failing_handshakes: Rate { per_s: 5, burst: 50 },
            requests_h1: 1_000,
            requests_h2: 10_000,
            h2_streams: 100,
            h2_stream_window: 64 * 1024,
            h2_connection_window: 1024 * 1024,
            floods: FloodLimits::default(),
            connections: None,
            connections_per_address: 256,
            lame_duck: Duration::from_secs(2),
            proxy_protocol: ProxyProtocol::Off,
        }
    }
}

impl From<&EdgeLimits> for TransportLimits {
    /// The settings of an operator; what they do not say stays as it is by default.
    fn from(settings: &EdgeLimits) -> Self {
        let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            handshake: settings.handshake_s.duration(),
            head: settings.head_s.duration(),
            head_bytes: size(settings.head_bytes),
            request_line_bytes: size(settings.uri_bytes),
            fields: size(settings.header_fields),
            field_bytes: size(settings.field_bytes),
            buffered_bytes: usize::try_from(settings.buffered_bytes).unwrap_or(usize::MAX),
            body_stall: settings.body_stall_s.duration(),
            write_stall: settings.write_stall_s.duration(),
            idle: settings.idle_s.duration(),
            idle_crowded: settings.idle_crowded_s.duration(),
            lifetime: settings.lifetime_s.duration(),
            handshakes: Rate { per_s: settings.handshakes_per_address_s, burst: settings.handshakes_burst },
            failing_handshakes: Rate {
                per_s: settings.failing_handshakes_per_address_s,
                burst: settings.failing_handshakes_burst,
            },
            requests_h1: settings.requests_h1,
            requests_h2: settings.requests_h2,
            h2_streams: settings.h2_streams,
            h2_stream_window: settings.h2_stream_window,
            h2_connection_window: settings.h2_connection_window,
            floods: FloodLimits {
                resets_per_s: settings.h2_resets_per_s,
                unanswered: settings.h2_unanswered_resets,
                pings_per_s: settings.h2_pings_per_s,
                settings_per_s: settings.h2_settings_per_s,
                empty_data_per_s: settings.h2_empty_data_per_s,
                window_updates_per_s: settings.h2_window_updates_per_s,
                priorities: settings.h2_priorities,
                continuations: settings.h2_continuations,
            },
            connections: (settings.connections > 0).then(|| size(settings.connections)),
            connections_per_address: size(settings.connections_per_address),
            ..Self::default()
        }
    }
}
