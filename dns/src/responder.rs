//! Our own small authoritative DNS server.
//!
//! It knows two kinds of names in each zone of the platform: `<token>.acme.<zone>`, which schools make
//! `_acme-challenge.<their name>` an alias of, and `_acme-challenge.<zone>` for the zone's own wildcard. Delegate both to
//! it in the zone (`acme NS ns.…`, `_acme-challenge NS ns.…`). It answers SOA, NS and TXT, never recurses, and refuses
//! the rest; a source that asks too much gets no answer.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{NS, SOA, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use schoolgate_config::model::DomainName;

/// Seconds that an answer may be kept: 60. A certificate authority asks once; what it keeps must not outlive a retry.
const TTL: u32 = 60;

/// Seconds that the absence of a value may be kept: 5, for a value is published moments before it is asked for.
const NEGATIVE_TTL: u32 = 5;

/// Time for which an idle TCP connection is kept: 5 s.
const TCP_IDLE: Duration = Duration::from_secs(5);

/// Answers waiting to be sent on one TCP connection.
const TCP_QUEUE: usize = 8;

/// Questions of one source (IPv4 address, IPv6 /56) in a second: 50. A certificate authority asks from many places, a few
/// times each.
const PER_SECOND: u32 = 50;

/// Sources remembered within a second: 4096; with more, all are counted as one.
const SOURCES: usize = 4_096;

/// Bytes of an answer over UDP.
const PAYLOAD: u16 = 1_232;

/// The values cannot be read now.
#[derive(Debug, thiserror::Error)]
#[error("the TXT values cannot be read: {0}")]
pub struct Unavailable(pub String);

/// Where the responder finds what it answers.
#[async_trait]
pub trait TxtSource: Send + Sync + 'static {
    /// The zones of the platform.
    fn zones(&self) -> Vec<DomainName>;

    /// The TXT values that a name has now; lower case, without a final dot.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn values_of(&self, name: &str) -> Result<Vec<String>, Unavailable>;
}

/// What a responder is told.
#[derive(Debug, Clone)]
pub struct ResponderOptions {
    /// Where to listen, UDP and TCP; port 0 is any.
    pub listen: SocketAddr,
    /// Its own name in NS and SOA records; `None`: `ns.<zone>`.
    pub name: Option<DomainName>,
}

/// Why a responder does not start.
#[derive(Debug, thiserror::Error)]
#[error("the DNS responder cannot listen on {address} ({over}): {source}")]
pub struct ResponderError {
    /// Where.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub over: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// An authoritative server that listens.
pub struct Responder {
    address: SocketAddr,
    server: Server<Handler>,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Responder {
    /// Listens, and answers from now on, until dropped or stopped.
    ///
    /// # Errors
    /// [`ResponderError`] names the address.
    pub async fn start(options: ResponderOptions, source: Arc<dyn TxtSource>) -> Result<Self, ResponderError> {
        /// Attempts at a port that is free for both, where any will do.
        const ATTEMPTS: u32 = 8;
        let mut attempt = 1;
        let (udp, tcp, address) = loop {
            match bind(options.listen).await {
                Err(error) if options.listen.port() == 0 && attempt < ATTEMPTS => {
                    tracing::debug!("another port for the DNS responder: {error}");
                    attempt += 1;
                }
                other => break other?,
            }
        };
        let handler = Handler { source, name: options.name, limits: Limits::default() };
        let mut server = Server::new(handler);
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_QUEUE);
        tracing::info!("the DNS responder listens on {address} (UDP and TCP)");
        Ok(Self { address, server })
    }

    /// The address really bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            ended = self.server.block_until_done() => if let Err(error) = ended {
                tracing::error!("the DNS responder ended: {error}");
            },
        }
        if let Err(error) = self.server.shutdown_gracefully().await {
            tracing::debug!("the DNS responder was cut off: {error}");
        }
    }
}

async fn bind(listen: SocketAddr) -> Result<(UdpSocket, TcpListener, SocketAddr), ResponderError> {
    let failed = |address, over| move |source| ResponderError { address, over, source };
    let tcp = TcpListener::bind(listen).await.map_err(failed(listen, "TCP"))?;
    let address = tcp.local_addr().map_err(failed(listen, "TCP"))?;
    let udp = UdpSocket::bind(address).await.map_err(failed(address, "UDP"))?;
    Ok((udp, tcp, address))
}

struct Handler {
    source: Arc<dyn TxtSource>,
    name: Option<DomainName>,
    limits: Limits,
}

/// What is said to a question.
#[derive(Debug, Default)]
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    /// Beside an answer without records: how long that may be kept (RFC 2308).
    authority: Vec<Record>,
}

impl Reply {
    fn refused(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

impl Handler {
    async fn reply(&self, name: &Name, kind: RecordType) -> Reply {
        let zones = self.source.zones();
        let Some(place) = place(name, &zones) else { return Reply::refused(ResponseCode::Refused) };
        let apex = place.apex.clone();
        let mut reply = Reply { code: ResponseCode::NoError, authoritative: true, ..Reply::default() };
        let record = |data| Record::from_rdata(name.clone(), TTL, data);
        let ns = self.server_name(&place.zone);
        let (Some(ns), true) = (ns, place.is_apex || place.holds_values) else {
            // Deeper than anything we have.
            reply.code = ResponseCode::NXDomain;
            reply.authority.extend(self.soa(&place));
            return reply;
        };
        let mut values = Vec::new();
        if place.holds_values {
            match self.source.values_of(&plain(name)).await {
                Ok(found) => values = found,
                Err(error) => {
                    tracing::warn!("a question for {name} is not answered: {error}");
                    return Reply::refused(ResponseCode::ServFail);
                }
            }
        }
        let any = kind == RecordType::ANY;
        if kind == RecordType::TXT || any {
            reply.answers.extend(values.iter().map(|value| record(RData::TXT(text(value)))));
        }
        if place.is_apex && (kind == RecordType::NS || any) {
            reply.answers.push(record(RData::NS(NS(ns))));
        }
        if place.is_apex && (kind == RecordType::SOA || any) {
            reply.answers.extend(self.soa(&place));
        }
        if reply.answers.is_empty() {
            // A name without values is not there, unless a zone begins at it.
            if !place.is_apex && values.is_empty() {
                reply.code = ResponseCode::NXDomain;
            }
            debug_assert!(apex.zone_of(name));
            reply.authority.extend(self.soa(&place));
        }
        reply
    }

    fn server_name(&self, zone: &DomainName) -> Option<Name> {
        let text = self.name.as_ref().map_or_else(|| format!("ns.{zone}."), |name| format!("{name}."));
        Name::from_ascii(text).ok()
    }

    fn soa(&self, place: &Place) -> Option<Record> {
        let ns = self.server_name(&place.zone)?;
        let contact = Name::from_ascii(format!("hostmaster.{}.", place.zone)).ok()?;
        // Nothing is transferred from here, so one serial is as good as another.
        let soa = SOA::new(ns, contact, 1, 3_600, 600, 86_400, NEGATIVE_TTL);
        Some(Record::from_rdata(place.apex.clone(), NEGATIVE_TTL, RData::SOA(soa)))
    }
}

/// Where a name is, of those that are ours.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    zone: DomainName,
    /// Where what is delegated to us begins.
    apex: Name,
    is_apex: bool,
    /// Whether TXT values can be here.
    holds_values: bool,
}

/// Finds the place of a name: `acme.<zone>` with one label above it, or `_acme-challenge.<zone>`.
fn place(name: &Name, zones: &[DomainName]) -> Option<Place> {
    let text = plain(name);
    zones.iter().find_map(|zone| {
        let above = text.strip_suffix(zone.as_str())?.strip_suffix('.')?;
        let (apex, is_apex, holds_values) = match above.rsplit_once('.') {
            None if above == "_acme-challenge" => (above, true, true),
            None if above == "acme" => (above, true, false),
            Some((deeper, "acme")) => ("acme", false, !deeper.contains('.')),
            Some((_, "_acme-challenge")) => ("_acme-challenge", false, false),
            _ => return None,
        };
        let apex = Name::from_ascii(format!("{apex}.{zone}.")).ok()?;
        Some(Place { zone: zone.clone(), apex, is_apex, holds_values })
    })
}

fn plain(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').map_or(text.clone(), str::to_owned)
}

/// A value in pieces of 255 bytes (RFC 1035 section 3.3).
fn text(value: &str) -> TXT {
    TXT::from_bytes(value.as_bytes().chunks(255).collect())
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut send: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let nothing = ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() });
        // Over TCP the source is who it says, and waits for its own answers.
        if request.protocol() == hickory_server::net::xfer::Protocol::Udp && !self.limits.admit(request.src().ip()) {
            return nothing;
        }
        let reply = match request.request_info() {
            _ if request.metadata.message_type != MessageType::Query => return nothing,
            _ if request.metadata.op_code != OpCode::Query => Reply::refused(ResponseCode::NotImp),
            Ok(info) if info.query.query_class() == DNSClass::IN => {
                self.reply(&info.query.original().name().to_lowercase(), info.query.query_type()).await
            }
            Ok(_) => Reply::refused(ResponseCode::Refused),
            Err(_) => Reply::refused(ResponseCode::FormErr),
        };
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = false;
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(theirs) = &request.edns {
            edns.set_max_payload(theirs.max_payload().clamp(512, PAYLOAD));
            builder.edns(&edns);
        }
        let response = builder.build(metadata, &reply.answers, &reply.authority, [], []);
        match send.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!("an answer to {} was not sent: {error}", request.src());
                nothing
            }
        }
    }
}

/// How much each source asks.
#[derive(Debug, Default)]
struct Limits(Mutex<Window>);

#[derive(Debug)]
struct Window {
    began: Instant,
    asked: HashMap<IpAddr, u32>,
}

impl Default for Window {
    fn default() -> Self {
        Self { began: Instant::now(), asked: HashMap::new() }
    }
}

impl Limits {
    /// Whether a question is answered.
    fn admit(&self, source: IpAddr) -> bool {
        self.admit_at(source, Instant::now())
    }

    fn admit_at(&self, source: IpAddr, now: Instant) -> bool {
        // Every write leaves the map whole, so one that panicked has spoilt nothing.
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.began) >= Duration::from_secs(1) {
            window.asked.clear();
            window.began = now;
        }
        let full = window.asked.len() >= SOURCES;
        let source = match source.to_canonical() {
            _ if full => IpAddr::from([0, 0, 0, 0]),
            IpAddr::V6(address) => {
                let mut octets = address.octets();
                octets[7..].fill(0);
                IpAddr::from(octets)
            }
            v4 => v4,
        };
        let asked = window.asked.entry(source).or_default();
        *asked = asked.saturating_add(1);
        *asked <= PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(String, bool, bool)> {
        let zones = ["schools.test".parse().expect("a name"), "localhost".parse().expect("a name")];
        let place = place(&Name::from_ascii(text).expect("a name"), &zones)?;
        Some((plain(&place.apex), place.is_apex, place.holds_values))
    }

    #[test]
    fn only_delegated_names_are_ours() {
        assert_eq!(found("tok.acme.schools.test."), Some(("acme.schools.test".into(), false, true)));
        assert_eq!(found("ACME.Schools.Test."), Some(("acme.schools.test".into(), true, false)));
        assert_eq!(found("_acme-challenge.schools.test."), Some(("_acme-challenge.schools.test".into(), true, true)));
        assert_eq!(found("a.tok.acme.schools.test."), Some(("acme.schools.test".into(), false, false)));
        for other in
            ["schools.test.", "www.schools.test.", "notacme.schools.test.", "acme.notschools.test.", "acme.", "."]
        {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn a_source_that_asks_too_much_waits_and_others_do_not() {
        let limits = Limits::default();
        let now = Instant::now();
        let (loud, calm): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let admitted = (0..100).filter(|_| limits.admit_at(loud, now)).count();
        assert_eq!(admitted, PER_SECOND as usize);
        assert!(limits.admit_at(calm, now));
        assert!(limits.admit_at(loud, now + Duration::from_secs(1)));
        let neighbours = ["2001:db8::1", "2001:db8:0:ff::2"].map(|a| a.parse::<IpAddr>().expect("an address"));
        let admitted = (0..100).filter(|n| limits.admit_at(neighbours[n % 2], now + Duration::from_secs(1))).count();
        assert_eq!(admitted, PER_SECOND as usize, "one network is one source");
    }
}
