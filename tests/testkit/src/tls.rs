//! A TLS connection that carries hand-written bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;

/// Longest wait for a handshake or an answer. A test that needs longer is a broken one.
const PATIENCE: Duration = Duration::from_secs(30);

/// A WebSocket over TLS.
pub type WebSocket = WebSocketStream<TlsStream<TcpStream>>;

/// The settings of a TLS client that trusts the certificates of `ca_pem` and nothing else.
///
/// # Panics
/// When `ca_pem` holds no certificate.
pub fn client_config(ca_pem: &str, alpn: &[&str]) -> rustls::ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("a CA certificate");
    }
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// An open TLS connection.
#[derive(Debug)]
pub struct TlsConn {
    stream: TlsStream<TcpStream>,
    /// Read, but not yet taken.
    ahead: Vec<u8>,
}

/// An answer read by [`TlsConn::read_response`].
#[derive(Debug, Clone)]
pub struct RawResponse {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl RawResponse {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// Shows a body that is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }
}

impl TlsConn {
    /// Connects to `addr`, asks for `sni` and verifies the certificate for it against `ca_pem`.
    ///
    /// # Errors
    /// What TCP or TLS said. A refused handshake is `InvalidData` and names the alert.
    pub async fn connect(addr: SocketAddr, sni: &str, alpn: &[&str], ca_pem: &str) -> io::Result<Self> {
        Self::connect_with(addr, sni, client_config(ca_pem, alpn)).await
    }

    /// Connects without server name indication; the certificate must be good for `name` all the same.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_without_sni(addr: SocketAddr, name: &str, ca_pem: &str) -> io::Result<Self> {
        let mut config = client_config(ca_pem, &["http/1.1"]);
        config.enable_sni = false;
        Self::connect_with(addr, name, config).await
    }

    /// Connects with settings of the caller's own: a TLS version, a client certificate, a session cache to resume from.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_with(
        addr: SocketAddr,
        sni: &str,
        config: impl Into<Arc<rustls::ClientConfig>>,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(sni.to_owned()).map_err(io::Error::other)?;
        let connecting = async {
            let tcp = TcpStream::connect(addr).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(config.into()).connect(name, tcp).await
        };
        let stream = patiently(connecting).await?;
        Ok(Self { stream, ahead: Vec::new() })
    }

    /// The protocol agreed, such as `h2`.
    pub fn alpn(&self) -> Option<String> {
        self.stream.get_ref().1.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned())
    }

    /// The server's certificate and what it sent beside it, as DER.
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        let sent = self.stream.get_ref().1.peer_certificates().unwrap_or_default();
        sent.iter().map(|certificate| certificate.to_vec()).collect()
    }

    /// The TLS state of the connection.
    pub fn session(&self) -> &rustls::ClientConnection {
        self.stream.get_ref().1
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Sends a `GET` with this `Host` and keeps the connection.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::read_response`].
    pub async fn get(&mut self, host: &str, path: &str) -> io::Result<RawResponse> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await?;
        self.read_response().await
    }

    /// Reads one HTTP/1.1 answer (to anything but `HEAD`); what follows it stays for the next call.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends before the answer does, `InvalidData` when it is no HTTP,
    /// `TimedOut` after 30 s.
    pub async fn read_response(&mut self) -> io::Result<RawResponse> {
        patiently(self.read_response_unbounded()).await
    }

    /// Reads until the server closes.
    ///
    /// # Errors
    /// `TimedOut` after 30 s. A reset counts as the end.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        patiently(async {
            while self.fill().await.unwrap_or(0) > 0 {}
            Ok(std::mem::take(&mut self.ahead))
        })
        .await
    }

    /// What lies underneath, and what was read from it but not taken.
    pub fn into_parts(self) -> (TlsStream<TcpStream>, Vec<u8>) {
        (self.stream, self.ahead)
    }

    /// Becomes a WebSocket at `wss://{host}{path}`.
    ///
    /// # Errors
    /// `tungstenite::Error::Http` holds the refusal of the server.
    pub async fn websocket(self, host: &str, path: &str) -> Result<WebSocket, tungstenite::Error> {
        let (socket, _) = tokio_tungstenite::client_async(format!("wss://{host}{path}"), self.stream).await?;
        Ok(socket)
    }

    async fn read_response_unbounded(&mut self) -> io::Result<RawResponse> {
        let head_len = loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                break end + 4;
            }
            self.fill_some().await?;
        };
        let head: Vec<u8> = self.ahead.drain(..head_len).collect();
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, head.to_string()))?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = RawResponse { status, headers, body: Vec::new() };
        if status < 200 || status == 204 || status == 304 {
            return Ok(response);
        }
        if response.header("transfer-encoding").is_some_and(|t| t.eq_ignore_ascii_case("chunked")) {
            response.body = self.read_chunks().await?;
        } else if let Some(length) = response.header("content-length").and_then(|n| n.parse::<usize>().ok()) {
            while self.ahead.len() < length {
                self.fill_some().await?;
            }
            response.body = self.ahead.drain(..length).collect();
        } else {
            while self.fill().await? > 0 {}
            response.body = std::mem::take(&mut self.ahead);
        }
        Ok(response)
    }

    async fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            if size == 0 {
                while !self.read_line().await?.is_empty() {}
                return Ok(body);
            }
            while self.ahead.len() < size + 2 {
                self.fill_some().await?;
            }
            body.extend(self.ahead.drain(..size));
            self.ahead.drain(..2);
        }
    }

    async fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill_some().await?;
        }
    }

    async fn fill_some(&mut self) -> io::Result<()> {
        match self.fill().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.ahead).await
    }
}

async fn patiently<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Answers these bytes on each connection, after one request head.
    async fn server(answer: &'static [u8]) -> (SocketAddr, String) {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        });
        (addr, made.cert.pem())
    }

    #[tokio::test]
    async fn answers_with_a_length_with_chunks_and_without_either_are_read() {
        let (addr, ca) = server(
            b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi\
              HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n\
              HTTP/1.1 500 No\r\n\r\nrest",
        )
        .await;
        let mut conn = TlsConn::connect(addr, "a.test", &[], &ca).await.expect("a handshake");
        let first = conn.get("a.test", "/").await.expect("an answer");
        assert_eq!((first.status, first.header("x-a"), first.text().as_str()), (200, Some("1"), "hi"));
        let second = conn.read_response().await.expect("an answer");
        assert_eq!((second.status, second.text().as_str()), (404, "abc"));
        let third = conn.read_response().await.expect("an answer");
        assert_eq!((third.status, third.text().as_str()), (500, "rest"));
        assert_eq!(conn.read_response().await.expect_err("nothing left").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_refused() {
        let (addr, ca) = server(b"").await;
        assert!(TlsConn::connect(addr, "b.test", &[], &ca).await.is_err());
    }
}
