//! The handshake: SNI → certificate of the current keyring, or a refusal.

use std::io;
use std::sync::Arc;

use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::Certificates;
use super::tickets::BoundTickets;
use crate::transport::{HandshakeResult, TlsVersion};

/// The fatal alert `unrecognized_name` (RFC 6066 section 3) as a record. rustls itself would say `access_denied`.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The fatal alert `no_application_protocol` (RFC 7301 section 3.2) as a record.
const NO_APPLICATION_PROTOCOL: [u8; 7] = [21, 3, 3, 0, 2, 2, 120];

/// ALPN of HTTP/2.
const H2: &[u8] = b"h2";

/// ALPN of HTTP/1.1.
const H1: &[u8] = b"http/1.1";

/// ALPN of an authority's check (RFC 8737).
const ACME: &[u8] = b"acme-tls/1";

/// Answers a handshake from the certificates of this moment.
struct BySni(Arc<dyn Certificates>);

impl std::fmt::Debug for BySni {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BySni")
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.resolve(&asked_for(&hello)?)
    }
}

/// Answers a handshake with one certificate.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Whether an authority looks for the name: it offers `acme-tls/1` and nothing else (RFC 8737 section 3).
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME) && offered.next().is_none())
}

/// The name in a hello, lower case, without a final dot.
fn asked_for(hello: &ClientHello<'_>) -> Option<Arc<str>> {
    let name = hello.server_name()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(name.to_ascii_lowercase().into());
    }
    Some(name.into())
}

/// Ends handshakes; one for all workers, so that a ticket of one is good for the others.
pub(crate) struct Terms {
    certificates: Arc<dyn Certificates>,
    config: ServerConfig,
    /// Without tickets, and with HTTP/1.1 alone, for a name that waits for its certificate: such a connection serves one
    /// answer, and nothing of it must outlast the wait.
    waiting: ServerConfig,
    /// Without tickets, for an authority that looks for a name.
    challenge: ServerConfig,
}

/// A handshake that succeeded.
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) sni: Arc<str>,
    pub(crate) version: TlsVersion,
    pub(crate) resumed: bool,
    pub(crate) h2: bool,
    /// Under a stand-in: the name has no certificate yet.
    pub(crate) waiting: bool,
}

/// A handshake that failed.
pub(crate) struct Failed {
    pub(crate) result: HandshakeResult,
    /// The name that was asked for, if that is why.
    pub(crate) unknown: Option<Arc<str>>,
}

impl From<HandshakeResult> for Failed {
    fn from(result: HandshakeResult) -> Self {
        Self { result, unknown: None }
    }
}

impl Terms {
    /// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, tickets instead of a session store, no early data.
    ///
    /// A ticket is good for the name it was made for and no other (rustls compares them), while that name is the same
    /// tenant's ([`BoundTickets`]); on both protocols; on every worker of this process, and on no other node: its keys never leave the memory they were made
    /// in. A visitor who comes to another node shakes hands in full.
    ///
    /// # Errors
    /// rustls refuses the combination or has no random numbers for ticket keys.
    pub(crate) fn new(certificates: Arc<dyn Certificates>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(BySni(Arc::clone(&certificates))));
        // Their resolvers are replaced for each handshake.
        let without_tickets = |alpn: &[u8]| {
            let mut config = config.clone();
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config.alpn_protocols = vec![alpn.to_vec()];
            config
        };
        let (waiting, challenge) = (without_tickets(H1), without_tickets(ACME));
        config.alpn_protocols = vec![H2.to_vec(), H1.to_vec()];
        // Keys of 12 hours that change every 6; nothing is held per session.
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // One: browsers speak HTTP/2 here and open one connection, and each ticket costs a seal and 100 bytes.
        config.send_tls13_tickets = 1;
        Ok(Self { certificates, config, waiting, challenge })
    }

    /// Shakes hands. The caller sets the deadline.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> Result<Accepted, Failed> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp);
        let start = start.await.map_err(|error| classify(&error))?;
        let Some(sni) = asked_for(&start.client_hello()) else {
            return Err(refuse(start.io, HandshakeResult::NoSni, UNRECOGNIZED_NAME).await.into());
        };
        if is_challenge(&start.client_hello()) {
            return Err(self.prove(start, &sni).await.into());
        }
        // Looked up again by rustls when it is a full handshake; here so that the refusal has the right alert, and so
        // that a ticket does not outlive its certificate.
        let issued = self.certificates.resolve(&sni).is_some();
        let config = if issued {
            self.bound_to(self.certificates.holder(&sni))
        } else if let Some(stand_in) = self.certificates.stand_in(&sni) {
            with_only(&self.waiting, stand_in)
        } else {
            let result = refuse(start.io, HandshakeResult::UnknownSni, UNRECOGNIZED_NAME).await;
            return Err(Failed { result, unknown: Some(sni) });
        };
        let stream = start.into_stream(config).await.map_err(|error| classify(&error))?;
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V12,
            _ => TlsVersion::V13,
        };
        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let h2 = session.alpn_protocol() == Some(H2);
        Ok(Accepted { stream, sni, version, resumed, h2, waiting: !issued })
    }

    /// The terms of an ordinary handshake, whose tickets are good for this holder of the name. A copy of the settings: three
    /// small allocations beside a key exchange.
    fn bound_to(&self, holder: u128) -> Arc<ServerConfig> {
        let mut config = self.config.clone();
        config.ticketer = Arc::new(BoundTickets::new(config.ticketer, holder));
        Arc::new(config)
    }

    /// Shows an authority that the name is here, and hangs up: nothing is said on such a connection (RFC 8737 section 3).
    async fn prove(&self, start: StartHandshake<TcpStream>, name: &str) -> HandshakeResult {
        let Some(certificate) = self.certificates.challenge(name) else {
            return refuse(start.io, HandshakeResult::Incompatible, NO_APPLICATION_PROTOCOL).await;
        };
        match start.into_stream(with_only(&self.challenge, certificate)).await {
            Ok(mut stream) => {
                let _ = stream.shutdown().await;
                HandshakeResult::Challenge
            }
            Err(error) => classify(&error),
        }
    }
}

fn with_only(config: &ServerConfig, certificate: Arc<CertifiedKey>) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.cert_resolver = Arc::new(Only(certificate));
    Arc::new(config)
}

/// Says an alert and hangs up; whether the client hears it changes nothing.
async fn refuse(mut tcp: TcpStream, why: HandshakeResult, alert: [u8; 7]) -> HandshakeResult {
    let _ = tcp.write_all(&alert).await;
    let _ = tcp.shutdown().await;
    why
}

/// What to count for a failed handshake.
fn classify(error: &io::Error) -> HandshakeResult {
    use rustls::Error as Tls;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) {
        Some(Tls::PeerIncompatible(_) | Tls::NoApplicationProtocol) => HandshakeResult::Incompatible,
        Some(Tls::AlertReceived(_)) | None => HandshakeResult::Aborted,
        Some(_) => HandshakeResult::Malformed,
    }
}
