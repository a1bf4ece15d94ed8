//! One connection to the gateway: the name in the handshake and the host are the caller's to choose.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::poll_fn;
use http::{HeaderName, HeaderValue, Request, Version};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::cases::{Case, H2Request, Protocol, Requests};

/// Time that one trick has, from the connection to the last byte: 10 s.
const WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read: 256 KiB. What is longer is no answer of `/whoami`.
const LONGEST: usize = 256 << 10;

/// What came of a trick.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    /// An answer. A body that is empty is `null`, one that is not JSON an empty text.
    Answer { status: u16, body: Value },
    /// The gateway broke the handshake off.
    HandshakeRefused(String),
    /// The gateway closed instead of answering.
    Closed,
    /// Somebody answered who has no certificate for the name asked for.
    Certificate(String),
    /// Nothing came in time.
    Silent,
    /// Nobody there.
    Unreachable(String),
}

/// Tries a trick.
pub(super) async fn ask(https: SocketAddr, case: &Case) -> Reply {
    timeout(WITHIN, converse(https, case)).await.unwrap_or(Reply::Silent)
}

async fn converse(https: SocketAddr, case: &Case) -> Reply {
    let tcp = match TcpStream::connect(https).await {
        Ok(tcp) => tcp,
        Err(error) => return Reply::Unreachable(error.to_string()),
    };
    let Ok(name) = ServerName::try_from(case.sni.clone()) else {
        return Reply::Unreachable(format!("`{}` cannot be asked for in a handshake", case.sni));
    };
    let tls = match TlsConnector::from(config(case.protocol())).connect(name.clone(), tcp).await {
        Ok(tls) => tls,
        Err(error) => return Reply::HandshakeRefused(error.to_string()),
    };
    let session = tls.get_ref().1;
    let leaf = session.peer_certificates().and_then(|chain| ParsedCertificate::try_from(chain.first()?).ok());
    if leaf.is_none_or(|leaf| verify_server_name(&leaf, &name).is_err()) {
        return Reply::Certificate(case.sni.clone());
    }
    match &case.requests {
        Requests::H1(requests) => over_h1(tls, requests).await,
        Requests::H2(_) if session.alpn_protocol() != Some(b"h2") => Reply::Unreachable("no HTTP/2 there".to_owned()),
        Requests::H2(requests) => over_h2(tls, requests).await,
    }
}

async fn over_h1(mut tls: TlsStream<TcpStream>, requests: &[Vec<u8>]) -> Reply {
    let mut read = Vec::new();
    let mut reply = Reply::Closed;
    for (n, request) in requests.iter().enumerate() {
        if n > 0 && !matches!(reply, Reply::Answer { .. }) {
            return Reply::Unreachable("the request before the trick was not answered".to_owned());
        }
        let sent = async {
            tls.write_all(request).await?;
            tls.flush().await
        };
        // A gateway may refuse before it has read everything: its answer counts.
        let _ = sent.await;
        reply = match h1_answer(&mut tls, &mut read).await {
            Ok((status, body)) => answer(status, &body),
            Err(_) => Reply::Closed,
        };
    }
    reply
}

/// Reads one answer; what follows it stays in `read`.
async fn h1_answer(tls: &mut TlsStream<TcpStream>, read: &mut Vec<u8>) -> io::Result<(u16, Vec<u8>)> {
    let head = until(tls, read, b"\r\n\r\n").await?;
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let status = head.split(' ').nth(1).and_then(|code| code.trim().parse().ok()).ok_or_else(bad)?;
    let field = |name: &str| head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()));
    let mut body = Vec::new();
    if field("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
        loop {
            let line = until(tls, read, b"\r\n").await?;
            let size = String::from_utf8_lossy(&line);
            let size = size.split([';', '\r']).next().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
            let size = size.filter(|size| *size <= LONGEST).ok_or_else(bad)?;
            let chunk = exactly(tls, read, size + 2).await?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
            if body.len() > LONGEST {
                return Err(bad());
            }
        }
    } else if let Some(length) = field("content-length") {
        let length = length.parse().ok().filter(|length| *length <= LONGEST).ok_or_else(bad)?;
        body = exactly(tls, read, length).await?;
    } else {
        while more(tls, read).await? {}
        body = std::mem::take(read);
    }
    Ok((status, body))
}

async fn until(tls: &mut TlsStream<TcpStream>, read: &mut Vec<u8>, end: &[u8]) -> io::Result<Vec<u8>> {
    loop {
        if let Some(at) = read.windows(end.len()).position(|window| window == end) {
            return Ok(read.drain(..at + end.len()).collect());
        }
        some(tls, read).await?;
    }
}

async fn exactly(tls: &mut TlsStream<TcpStream>, read: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    while read.len() < length {
        some(tls, read).await?;
    }
    Ok(read.drain(..length).collect())
}

async fn some(tls: &mut TlsStream<TcpStream>, read: &mut Vec<u8>) -> io::Result<()> {
    if more(tls, read).await? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn more(tls: &mut TlsStream<TcpStream>, read: &mut Vec<u8>) -> io::Result<bool> {
    if read.len() > 2 * LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(tls.read_buf(read).await? > 0)
}

async fn over_h2(tls: TlsStream<TcpStream>, requests: &[H2Request]) -> Reply {
    let Ok((mut client, connection)) = h2::client::handshake(tls).await else { return Reply::Closed };
    let exchange = async {
        let mut reply = Reply::Closed;
        for (n, request) in requests.iter().enumerate() {
            if n > 0 && !matches!(reply, Reply::Answer { .. }) {
                return Reply::Unreachable("the request before the trick was not answered".to_owned());
            }
            let request = match h2_request(request) {
                Ok(request) => request,
                Err(error) => return Reply::Unreachable(format!("the trick cannot be said over HTTP/2: {error}")),
            };
            reply = match h2_answer(&mut client, request).await {
                Ok((status, body)) => answer(status, &body),
                Err(_) => Reply::Closed,
            };
        }
        reply
    };
    tokio::select! {
        reply = exchange => reply,
        // Driven beside the exchange; it ends by itself only when the gateway closes.
        _ = connection => Reply::Closed,
    }
}

fn h2_request(asked: &H2Request) -> Result<Request<()>, http::Error> {
    let mut request =
        Request::builder().version(Version::HTTP_2).uri(format!("https://{}{}", asked.authority, asked.path));
    for (name, value) in &asked.fields {
        request = request.header(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    request.body(())
}

async fn h2_answer(
    client: &mut h2::client::SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(u16, Vec<u8>), h2::Error> {
    poll_fn(|context| client.poll_ready(context)).await?;
    let (answer, _) = client.send_request(request, true)?;
    let answer = answer.await?;
    let status = answer.status().as_u16();
    let mut stream = answer.into_body();
    let mut body = Vec::new();
    while let Some(mut piece) = stream.data().await.transpose()? {
        stream.flow_control().release_capacity(piece.remaining())?;
        if body.len() <= LONGEST {
            body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
        }
    }
    Ok((status, body))
}

fn answer(status: u16, body: &[u8]) -> Reply {
    let not_json = || Value::String(String::new());
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap_or_else(|_| not_json()) };
    Reply::Answer { status, body }
}

fn config(protocol: Protocol) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyAuthority(provider)))
        .with_no_client_auth();
    config.alpn_protocols = match protocol {
        Protocol::H1 => vec![b"http/1.1".to_vec()],
        Protocol::H2 => vec![b"h2".to_vec()],
    };
    Arc::new(config)
}

/// Takes a certificate of any authority: the connection goes to this machine, and what is tested is not who signed.
/// Whether it is for the name asked for is looked at after the handshake.
#[derive(Debug)]
struct AnyAuthority(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyAuthority {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
