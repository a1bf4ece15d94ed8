//! The listener of the control API: connections in, a graceful stop out.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use schoolgate_config::seal::Keeper;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_store::Store;

use crate::background::{DomainChecks, KeyRefresher};
use crate::context_keys::ContextKeys;
use crate::http::envelope::Peer;
use crate::http::router::router;
use crate::http::{Api, Parts};
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::socket::{Socket, SocketError};

/// Connections at once: 4096. Every proxy holds one for its long poll.
const CONNECTIONS: usize = 4_096;

/// Time a client has to send the head of a request: 75 s. hyper closes an idle connection after it too, and a shorter
/// one would cut what clients keep open to use again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Time that requests in flight have to end after a stop: 3 s. Long polls and waits end at once.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Bytes of a request's head.
const HEAD_MAX: usize = 64 << 10;

/// Time between two looks for answers that are too old to be given again, and for old events: an hour.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// Time for which an Idempotency-Key is remembered: a day, in milliseconds.
const ANSWERS_KEPT_MS: i64 = 24 * 3_600 * 1_000;

/// What a control server is given.
#[derive(Debug)]
pub struct ControlOptions {
    /// Where to listen; port 0 is any.
    pub listen: SocketAddr,
    /// Where the machine's own administrator finds it; `None`: nowhere.
    pub socket: Option<SocketOptions>,
    /// The truth.
    pub store: Store,
    /// Makes revisions of it; [`Publisher::run`] is the caller's to start.
    pub publisher: Publisher,
    /// Reads the keys of issuers of tokens; [`KeyRefresher::run`] is the caller's to start.
    pub keys: KeyRefresher,
    /// Checks domains, and knows the platform that they belong to; [`DomainChecks::run`] is the caller's to start.
    pub domain_checks: DomainChecks,
    /// Whether a worker issues certificates within seconds, so that `?wait=applied` should wait for them.
    pub issues_at_once: bool,
    /// Seals private keys.
    pub keeper: Arc<Keeper>,
    /// How the keys of `X-Tenant-Context` take turns; [`crate::Rotation::run`] is the caller's to start.
    pub context_keys: ContextKeys,
}

/// The Unix socket of a control server.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// Where.
    pub path: PathBuf,
    /// What to do when it cannot be there.
    pub need: SocketNeed,
}

/// What to do when a socket cannot be where it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketNeed {
    /// Say so in the log, and go on without: nobody asked for it.
    Optional,
    /// Not start.
    Required,
}

/// Why a control server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another process listens there.
    #[error(
        "the control API cannot listen on {address}: another process does; stop it, or choose another address with --control"
    )]
    AddressInUse {
        /// Which address.
        address: SocketAddr,
    },
    /// There can be no socket.
    #[error("the control API cannot listen on the socket {}: {source}", path.display())]
    Socket {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: SocketError,
    },
    /// The system refuses for another reason.
    #[error("the control API cannot listen on {address}: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A control server that runs. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct ControlHandle {
    address: SocketAddr,
    socket: Option<PathBuf>,
    gateway: Arc<OnceLock<SocketAddr>>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

/// The control API as a server.
#[derive(Debug)]
pub struct ControlServer;

impl ControlServer {
    /// Listens and answers, until the handle is stopped.
    ///
    /// # Errors
    /// [`ControlError`] names the address.
    pub async fn start(options: ControlOptions) -> Result<ControlHandle, ControlError> {
        let address = options.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ControlError::AddressInUse { address },
            _ => ControlError::Listen { address, source },
        })?;
        let address = listener.local_addr().map_err(|source| ControlError::Listen { address, source })?;
        let socket = options.socket.map_or(Ok(None), open_socket)?;
        let stop = CancellationToken::new();
        let store = options.store.clone();
        let feed = options.publisher.feed();
        let gateway = Arc::default();
        let api = Api::new(Parts {
            store: options.store,
            publisher: options.publisher,
            feed,
            keys: options.keys,
            platform: options.domain_checks.platform(),
            domain_checks: options.domain_checks,
            issues_at_once: options.issues_at_once,
            keeper: options.keeper,
            context_keys: options.context_keys,
            metrics: Metrics::new(),
            visitors: Default::default(),
            turns: Default::default(),
            clock: Arc::new(SystemClock),
            gateway: Arc::clone(&gateway),
            stop: stop.clone(),
        });
        let tracker = TaskTracker::new();
        let router = router(api);
        let socket_path = socket.as_ref().map(|socket| socket.path().to_owned());
        if let Some(socket) = socket {
            tracker.spawn(accept(Listener::Socket(socket), router.clone(), stop.clone(), tracker.clone()));
        }
        tracker.spawn(accept(Listener::Network(listener), router, stop.clone(), tracker.clone()));
        tracker.spawn(sweep(store, stop.clone()));
        tracker.close();
        tracing::info!("the control API listens on http://{address}");
        Ok(ControlHandle { address, socket: socket_path, gateway, stop, tracker })
    }
}

impl ControlHandle {
    /// The address really bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says where the gateway that lives with this control plane serves HTTPS: what a self-test drives when it is told
    /// nothing else. Once.
    pub fn serves_at(&self, https: SocketAddr) {
        let _ = self.gateway.set(https);
    }

    /// The Unix socket, if there is one.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Takes no more requests, lets those in flight end, and gives up on them after 3 s.
    pub async fn stop(self) {
        self.stop.cancel();
        if timeout(STOP_GRACE + Duration::from_secs(1), self.tracker.wait()).await.is_err() {
            tracing::warn!("requests to the control API were cut off by the stop");
        }
    }
}

impl Drop for ControlHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn open_socket(options: SocketOptions) -> Result<Option<Socket>, ControlError> {
    let SocketOptions { path, need } = options;
    match (Socket::bind(&path), need) {
        (Ok(socket), _) => Ok(Some(socket)),
        (Err(source), SocketNeed::Required) => Err(ControlError::Socket { path, source }),
        (Err(source), SocketNeed::Optional) => {
            tracing::warn!(
                "no control socket at {}: {source}; without it a lost admin token cannot be replaced: set control.socket",
                path.display()
            );
            Ok(None)
        }
    }
}

/// Where requests come in.
enum Listener {
    /// From the network.
    Network(TcpListener),
    /// From this machine's administrator.
    Socket(Socket),
}

impl Listener {
    async fn accept(&self) -> io::Result<(impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Peer)> {
        match self {
            Self::Network(listener) => {
                let (stream, address) = listener.accept().await?;
                // Small answers should not wait for the acknowledgement of the last one.
                let _ = stream.set_nodelay(true);
                Ok((Either::Left(stream), Peer::Network(address)))
            }
            Self::Socket(socket) => Ok((Either::Right(socket.accept().await?), Peer::Socket)),
        }
    }
}

async fn accept(listener: Listener, router: Router, stop: CancellationToken, tracker: TaskTracker) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, stop) = (router.clone(), stop.clone());
                tracker.spawn(async move {
                    serve(stream, peer, router, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, or a connection that was gone before it came: neither ends the server.
                tracing::warn!("the control API cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    stop: CancellationToken,
) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let router = router.clone();
        router.oneshot(request.map(Body::new) as Request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(STOP_GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client.addr = ?peer, "a connection to the control API ended: {error}");
    }
}

/// Forgets answers that nobody asks for again, old events, and usage that was kept long enough.
async fn sweep(store: Store, stop: CancellationToken) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = store.forget_answers(SystemClock.unix_ms() - ANSWERS_KEPT_MS).await {
            tracing::warn!("old answers cannot be forgotten: {error}");
        }
        if let Err(error) = store.forget_events().await {
            tracing::warn!("old events cannot be forgotten: {error}");
        }
        loop {
            match store.forget_usage().await {
                Ok(true) if !stop.is_cancelled() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!("old usage cannot be forgotten: {error}");
                    break;
                }
            }
        }
    }
}
