//! Clients that do no more than they are told.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn config(roots: RootCertStore, alpn: &[&str]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub(crate) async fn handshake(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    timeout(PATIENCE, TlsConnector::from(config).connect(name, tcp)).await?
}

/// HTTP/1.1 as text.
pub(crate) struct H1<S>(pub(crate) S);

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> H1<S> {
    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match timeout(PATIENCE, self.0.read_u8()).await.expect("an answer in time") {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(head).unwrap()
    }

    /// A response with a Content-Length. `None` when the connection ends first.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let head = self.head().await;
        let lower = head.to_ascii_lowercase();
        let length = lower.split_once("content-length: ")?.1.split("\r\n").next()?.parse().ok()?;
        let mut body = vec![0; length];
        timeout(PATIENCE, self.0.read_exact(&mut body)).await.expect("a body in time").ok()?;
        Some(Answer { head, body })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Option<Answer> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
        self.answer().await
    }

    /// Whether the other side hangs up within the time, whatever it says before.
    pub(crate) async fn ends_within(&mut self, time: Duration) -> bool {
        let mut sink = [0; 4096];
        timeout(time, async { while matches!(self.0.read(&mut sink).await, Ok(1..)) {} }).await.is_ok()
    }

    pub(crate) async fn text(&mut self, length: usize) -> String {
        let mut text = vec![0; length];
        timeout(PATIENCE, self.0.read_exact(&mut text)).await.expect("in time").unwrap();
        String::from_utf8(text).unwrap()
    }
}

pub(crate) type Sender = h2::client::SendRequest<Bytes>;

/// An HTTP/2 connection with its driver spawned; the handle ends when the connection does.
pub(crate) async fn h2(
    address: SocketAddr,
    roots: RootCertStore,
) -> (Sender, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let tls = handshake(address, config(roots, &["h2"]), "a.example").await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = h2::client::handshake(tls).await.unwrap();
    (sender, tokio::spawn(connection))
}

pub(crate) fn request(path: &str) -> http::Request<()> {
    http::Request::get(format!("https://a.example{path}")).body(()).unwrap()
}

pub(crate) async fn whole(mut body: h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

pub(crate) async fn h2_get(sender: &mut Sender, path: &str) -> Result<(u16, Vec<u8>), h2::Error> {
    let mut ready = sender.clone().ready().await?;
    let (answer, _) = ready.send_request(request(path), true)?;
    let answer = timeout(PATIENCE, answer).await.expect("an answer in time")?;
    let status = answer.status().as_u16();
    Ok((status, timeout(PATIENCE, whole(answer.into_body())).await.expect("a body in time")?))
}
