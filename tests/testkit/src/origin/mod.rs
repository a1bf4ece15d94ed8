//! A backend that does what a test tells it.
//!
//! What a path answers (every answer names the origin in `x-origin`):
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200, unless [`Origin::set_healthy`] says otherwise |
//! | `/delay/{ms}` | the echo, later |
//! | `/status/{code}` | that status |
//! | `/bytes/{n}` | `n` bytes with a length |
//! | `/flow/{n}` | `n` bytes with a length, made as they are taken: for more than memory holds |
//! | `/sink` | how many bytes the request body had, read and thrown away |
//! | `/stream/{chunks}/{ms}` | as many lines `chunk 0`, `chunk 1`, …, so long apart, without a length |
//! | `/sse/{events}/{ms}`, `/sse` | server-sent events `data: 0`, …; without numbers one per 50 ms, without end |
//! | `/slow-body` | 1,000 bytes with a length, 100 per 100 ms |
//! | `/cut/{n}` | announces `n` bytes, sends half and closes |
//! | `/close` | closes without an answer |
//! | `/early/{code}` | that status, without reading the request body |
//! | `/trailers` | a body, then the trailer `grpc-status: 0` |
//! | `/trailers/forged` | the same, with trailers that nobody may believe |
//! | `/duplex` | the request body, piece by piece as it comes |
//! | `/ws` | a WebSocket that echoes |
//! | anything else | the echo: a JSON object of [`RequestHead`] with `body_bytes`, `body_sha256` and `origin` |

mod behaviour;
mod process;
mod server;

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use process::OriginProcess;

use http::StatusCode;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::Identity;

/// Request heads kept. A test that needs older ones asks too late.
const KEPT: usize = 1024;

/// What the origin does with every request but `/healthz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// Answers as its paths say.
    #[default]
    Well,
    /// Reads requests and never answers.
    Hang,
    /// Answers this status to everything.
    Failing(u16),
    /// Closes the connection instead of answering.
    Close,
    /// Answers so many milliseconds late.
    Slow(u64),
    /// Resets connections (RST) instead of answering.
    Reset,
    /// Answers something that is not HTTP.
    Garbage,
    /// Announces 1,000 bytes, sends ten and closes.
    Truncated,
    /// Answers with both a length and chunks, which contradict each other.
    TwoLengths,
}

impl Mood {
    /// What is answered on the bare connection, instead of by the paths.
    fn raw(self) -> Option<&'static [u8]> {
        match self {
            Self::Reset => Some(b""),
            Self::Garbage => Some(b"\x16\x03\x01 this is no answer\r\n\r\n"),
            Self::Truncated => Some(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nten bytes!"),
            Self::TwoLengths => Some(
                b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ),
            _ => None,
        }
    }
}

/// A request as the origin saw it.
#[derive(Debug, Clone, Serialize)]
pub struct RequestHead {
    /// The method.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// What stands after `?`.
    pub query: Option<String>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// The `:authority` of HTTP/2, or of an absolute target.
    pub authority: Option<String>,
    /// Names in lower case. In the order received, values of one name together.
    pub headers: Vec<(String, String)>,
    /// Which connection carried it, counted from 1.
    pub connection: u64,
}

impl RequestHead {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every value of this name.
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }
}

/// A prepared answer; see [`Origin::answer`].
#[derive(Debug, Clone)]
pub struct Answer {
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// An empty answer with this status.
    ///
    /// # Panics
    /// When HTTP has no such status.
    pub fn new(status: u16) -> Self {
        Self { status: StatusCode::from_u16(status).expect("a status code"), headers: Vec::new(), body: Vec::new() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// A running backend. It stops when dropped.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    state: Arc<State>,
    accepting: tokio::sync::Mutex<Option<AbortOnDropHandle<()>>>,
}

/// How an [`Origin`] begins.
#[derive(Debug, Clone)]
pub struct OriginBuilder {
    name: String,
    mood: Mood,
    healthy: bool,
    listen: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// What requests read and tests change.
#[derive(Debug)]
struct State {
    name: String,
    tls: Option<Arc<rustls::ServerConfig>>,
    mood: watch::Sender<Mood>,
    healthy: AtomicBool,
    requests: AtomicU64,
    health_checks: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
    in_flight: AtomicU64,
    seen: Mutex<VecDeque<RequestHead>>,
    answers: Mutex<HashMap<String, Answer>>,
    /// Cancelled to drop what is open; replaced at once.
    life: watch::Sender<CancellationToken>,
}

impl Origin {
    /// A backend called `origin` on a free port, for HTTP/1.1 and HTTP/2 without TLS.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A backend with this name.
    pub async fn named(name: &str) -> Self {
        Self::builder().name(name).start().await
    }

    /// Settings first.
    pub fn builder() -> OriginBuilder {
        OriginBuilder {
            name: "origin".to_owned(),
            mood: Mood::Well,
            healthy: true,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            tls: None,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://…`, as pools take it.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// `https://…`, as pools take it.
    pub fn https_url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// `h2c://…`, as pools take it.
    pub fn h2c_url(&self) -> String {
        format!("h2c://{}", self.addr)
    }

    /// What it writes into `x-origin`.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Requests seen, health checks aside.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Requests of `/healthz` seen.
    pub fn health_checks(&self) -> u64 {
        self.state.health_checks.load(Ordering::Relaxed)
    }

    /// Requests that have no whole answer yet.
    pub fn in_flight(&self) -> u64 {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> u64 {
        self.state.open.load(Ordering::Relaxed)
    }

    /// The last 1,024 requests, oldest first, health checks aside.
    pub fn seen(&self) -> Vec<RequestHead> {
        locked(&self.state.seen).iter().cloned().collect()
    }

    /// The last request.
    ///
    /// # Panics
    /// When there was none.
    pub fn last(&self) -> RequestHead {
        locked(&self.state.seen).back().cloned().expect("a request has been seen")
    }

    /// Forgets the requests seen; counters stay.
    pub fn forget(&self) {
        locked(&self.state.seen).clear();
    }

    /// From now on this path (without query) answers so.
    pub fn answer(&self, path: &str, answer: Answer) {
        locked(&self.state.answers).insert(path.to_owned(), answer);
    }

    /// From now on requests are treated so; requests that hang are let go.
    pub fn set_mood(&self, mood: Mood) {
        self.state.set_mood(mood);
    }

    /// What `/healthz` answers: 200 or 503.
    pub fn set_healthy(&self, healthy: bool) {
        self.state.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Refuses new connections; the open ones go on.
    pub async fn refuse(&self) {
        if let Some(task) = self.accepting.lock().await.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Refuses new connections and drops the open ones, as a killed process does.
    pub async fn die(&self) {
        self.refuse().await;
        self.state.life.send_replace(CancellationToken::new()).cancel();
    }

    /// Listens again on the same port.
    ///
    /// # Panics
    /// When another process took the port meanwhile.
    pub async fn come_back(&self) {
        let mut accepting = self.accepting.lock().await;
        if accepting.is_none() {
            let listener = TcpListener::bind(self.addr).await.expect("the port is still ours");
            *accepting = Some(server::accept(listener, Arc::clone(&self.state)));
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.state.life.borrow().cancel();
    }
}

impl OriginBuilder {
    /// What it writes into `x-origin`.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// How it begins.
    #[must_use]
    pub fn mood(mut self, mood: Mood) -> Self {
        self.mood = mood;
        self
    }

    /// `/healthz` answers 503 until told otherwise.
    #[must_use]
    pub fn unhealthy(mut self) -> Self {
        self.healthy = false;
        self
    }

    /// Where it listens, instead of a free port.
    #[must_use]
    fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = addr;
        self
    }

    /// Speaks TLS with this identity, HTTP/2 and HTTP/1.1 by ALPN. With `clients`, only to those who show a certificate of
    /// that authority (PEM).
    ///
    /// # Panics
    /// When that is no PEM.
    #[must_use]
    pub fn tls(mut self, identity: &Identity, clients: Option<&str>) -> Self {
        self.tls = Some(Arc::new(server_config(identity, clients)));
        self
    }

    /// Listens on a free port.
    pub async fn start(self) -> Origin {
        let state = Arc::new(State {
            name: self.name,
            tls: self.tls,
            mood: watch::Sender::new(self.mood),
            healthy: AtomicBool::new(self.healthy),
            requests: AtomicU64::new(0),
            health_checks: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            seen: Mutex::default(),
            answers: Mutex::default(),
            life: watch::Sender::new(CancellationToken::new()),
        });
        let listener = TcpListener::bind(self.listen).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let accepting = tokio::sync::Mutex::new(Some(server::accept(listener, Arc::clone(&state))));
        Origin { addr, state, accepting }
    }
}

fn server_config(identity: &Identity, clients: Option<&str>) -> rustls::ServerConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).map(|der| der.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(der.expect("PEM")).expect("a CA certificate");
            }
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("an authority"))
        }
    };
    let mut config = builder.with_single_cert(chain, key).expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

impl State {
    fn set_mood(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    fn remember(&self, head: RequestHead) {
        let mut seen = locked(&self.seen);
        if seen.len() == KEPT {
            seen.pop_front();
        }
        seen.push_back(head);
    }
}

/// What a test that panicked left behind is still what it was.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    use super::*;
    use crate::{Client, Http};

    #[tokio::test]
    async fn an_origin_echoes_counts_and_remembers() {
        let origin = Origin::named("a").await;
        let client = Client::plain(origin.addr());
        let answer = client.request(reqwest::Method::POST, "/x?y=1").header("X-Two", "b").body("abc").send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.headers()["x-origin"], "a");
        let echo: serde_json::Value = answer.json().await.expect("JSON");
        assert_eq!((&echo["method"], &echo["path"], &echo["query"]), (&"POST".into(), &"/x".into(), &"y=1".into()));
        assert_eq!(echo["body_bytes"], 3);
        assert_eq!(echo["body_sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(origin.last().header("x-two"), Some("b"));
        assert_eq!((origin.requests(), origin.connections(), origin.in_flight()), (1, 1, 0));
    }

    #[tokio::test]
    async fn an_origin_speaks_http_2_without_tls() {
        let origin = Origin::start().await;
        let base = format!("http://{}", origin.addr());
        let client = Client::builder(origin.addr()).base(base).http(Http::Two).build();
        assert_eq!(client.get_json("/").await["version"], "HTTP/2.0");
    }

    #[tokio::test]
    async fn an_origin_dies_and_comes_back_on_the_same_port() {
        let origin = Origin::start().await;
        let client = Client::plain(origin.addr());
        client.get("/").await;
        origin.die().await;
        assert!(client.try_get("/").await.is_err());
        crate::eventually(Duration::from_secs(5), || async { origin.open_connections() == 0 }).await;
        origin.come_back().await;
        assert_eq!(client.get("/status/204").await.status(), 204);
        origin.set_mood(Mood::Failing(500));
        assert_eq!(client.get("/").await.status(), 500);
        assert_eq!(client.get("/healthz").await.status(), 200);
        origin.set_healthy(false);
        assert_eq!(client.get("/healthz").await.status(), 503);
        assert_eq!(origin.health_checks(), 2);
    }

    #[tokio::test]
    async fn an_origin_streams_cuts_and_closes() {
        let origin = Origin::start().await;
        let client = Client::plain(origin.addr());
        assert_eq!(client.get("/bytes/70000").await.bytes().await.expect("whole").len(), 70_000);
        assert_eq!(client.get("/stream/3/1").await.text().await.expect("whole"), "chunk 0\nchunk 1\nchunk 2\n");
        assert_eq!(client.get("/sse/2/1").await.text().await.expect("whole"), "data: 0\n\ndata: 1\n\n");
        assert!(client.get("/cut/1000").await.bytes().await.is_err());
        assert!(client.try_get("/close").await.is_err());
        origin.answer("/made", Answer::new(201).header("set-cookie", "a=1").body("made"));
        let made = client.get("/made").await;
        assert_eq!((made.status().as_u16(), made.headers()["set-cookie"].as_bytes()), (201, b"a=1".as_slice()));
    }

    #[tokio::test]
    async fn an_origin_echoes_web_sockets() {
        let origin = Origin::start().await;
        let tcp = tokio::net::TcpStream::connect(origin.addr()).await.expect("connects");
        let (mut socket, _) = tokio_tungstenite::client_async("ws://origin/ws", tcp).await.expect("upgrades");
        socket.send(Message::text("hello")).await.expect("sent");
        let back = socket.next().await.expect("not closed").expect("a frame");
        assert_eq!(back.into_text().expect("text").as_str(), "hello");
    }
}
