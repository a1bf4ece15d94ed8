//! The edge of a node: its listeners, its workers, and how they stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use pingora_core::protocols::tls::SslDigest;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::admission::{Admission, Permit};
use super::handshakes::Handshakes;
use super::{Budget, ConnInfo, Serve, TlsVersion, TransportLimits, TransportObserver, connection};
use crate::tls::Certificates;
use crate::tls::sni::Terms;

/// Streams of a new HTTP/2 connection while more than 80 % of the connections are taken: 32.
const CROWDED_STREAMS: u32 = 32;

/// Pause of an accept loop that the system refuses a descriptor: 50 ms. Without it the loop would spin, since the
/// connection it could not take stays at the head of the queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Makes what serves the requests of the worker with this number, on the worker's own thread and runtime. One per
/// worker, so that a pooled backend connection is never used from another runtime than the one it is registered with.
pub type MakeApp<A> = Arc<dyn Fn(usize) -> Arc<A> + Send + Sync>;

/// What an edge is started with.
pub struct EdgeOptions<A> {
    /// Bound listeners for plain HTTP.
    pub http: Vec<TcpListener>,
    /// Bound listeners for TLS.
    pub https: Vec<TcpListener>,
    /// Threads that serve; at least one.
    pub workers: usize,
    /// Where handshakes find certificates.
    pub certificates: Arc<dyn Certificates>,
    /// What a connection may take.
    pub limits: TransportLimits,
    /// Makes what serves each worker's requests.
    pub make_app: MakeApp<A>,
    /// Told what happens.
    pub observer: Arc<dyn TransportObserver>,
}

/// Why an edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A listener could not be duplicated or registered.
    #[error("a listener cannot be used")]
    Listener(#[source] io::Error),
    /// No thread or runtime for a worker.
    #[error("a worker cannot be started")]
    Worker(#[source] io::Error),
    /// The terms of TLS do not hold together, or there are no random numbers.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Serves downstream connections. See [`Edge::start`].
#[derive(Debug)]
pub struct Edge;

/// A running edge. Dropped, it stops without waiting.
pub struct EdgeHandle {
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    workers: Vec<oneshot::Receiver<bool>>,
}

impl std::fmt::Debug for EdgeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeHandle").field("http", &self.http).field("https", &self.https).finish_non_exhaustive()
    }
}

/// What all workers have in common.
pub(super) struct Shared {
    pub(super) limits: TransportLimits,
    pub(super) terms: Terms,
    pub(super) observer: Arc<dyn TransportObserver>,
    /// The digest Pingora wants of a TLS connection, by version: 1.2, 1.3. Shared, since it is the same for all.
    pub(super) ssl: [Arc<SslDigest>; 2],
    pub(super) handshakes: Handshakes,
    pub(super) budget: Arc<Budget>,
    admission: Arc<Admission>,
    next_connection: AtomicU64,
    /// When connections are cut; set before the stop is announced.
    stop_by: OnceLock<Instant>,
}

/// One thread's share of the edge.
pub(super) struct Worker<A> {
    pub(super) shared: Arc<Shared>,
    pub(super) app: Arc<A>,
    /// True once the edge is stopping. Pingora looks at it too.
    pub(super) stop: watch::Receiver<bool>,
    /// Connections and HTTP/2 streams that are being served.
    pub(super) tasks: TaskTracker,
}

/// Which kind of listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listens {
    Http,
    Https,
}

impl Shared {
    /// How long a connection may idle now.
    pub(super) fn idle(&self) -> Duration {
        if self.admission.is_crowded() { self.limits.idle_crowded.min(self.limits.idle) } else { self.limits.idle }
    }

    /// When a connection that idles since `since` has to be looked at again: soon enough to see that it got crowded.
    pub(super) fn look_again(&self, since: Instant) -> Instant {
        (since + self.idle()).min(Instant::now() + self.limits.idle_crowded)
    }

    /// Streams that a new HTTP/2 connection may have open.
    pub(super) fn streams(&self) -> u32 {
        let streams = self.limits.h2_streams;
        if self.admission.is_crowded() { streams.min(CROWDED_STREAMS) } else { streams }
    }

    /// Whether a connection has lived so long that it should go, at `now`. Up to a tenth is added, so that those who came
    /// together do not come again together.
    pub(super) fn has_aged(&self, connection: &ConnInfo, now: Instant) -> bool {
        let lifetime = self.limits.lifetime;
        now.saturating_duration_since(connection.opened)
            >= lifetime + lifetime / 640 * u32::from(connection.id as u8 % 64)
    }

    pub(super) fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }
}

impl Edge {
    /// Starts the workers. Listeners are served when this returns.
    ///
    /// # Errors
    /// [`EdgeError`] says what the system refused; workers started before it are stopped.
    pub fn start<A: Serve>(options: EdgeOptions<A>) -> Result<EdgeHandle, EdgeError> {
        let EdgeOptions { http, https, workers, certificates, limits, make_app, observer } = options;
        let addresses = |listeners: &[TcpListener]| -> Result<Vec<SocketAddr>, EdgeError> {
            listeners.iter().map(|listener| listener.local_addr().map_err(EdgeError::Listener)).collect()
        };
        let (http_addresses, https_addresses) = (addresses(&http)?, addresses(&https)?);
        let most = limits.connections.unwrap_or_else(most_connections);
        let digest = |version: TlsVersion| {
            let name = if version == TlsVersion::V12 { "TLSv1.2" } else { "TLSv1.3" };
            Arc::new(SslDigest::new("", name, None, None, Vec::new()))
        };
        let shared = Arc::new(Shared {
            terms: Terms::new(certificates).map_err(EdgeError::Tls)?,
            observer,
            ssl: [digest(TlsVersion::V12), digest(TlsVersion::V13)],
            admission: Arc::new(Admission::new(most, limits.connections_per_address)),
            handshakes: Handshakes::new(limits.handshakes, limits.failing_handshakes),
            budget: Arc::new(Budget::new(limits.buffered_bytes)),
            next_connection: AtomicU64::new(1),
            stop_by: OnceLock::new(),
            limits,
        });
        let (stop, stopped) = watch::channel(false);
        let mut handle = EdgeHandle {
            http: http_addresses,
            https: https_addresses,
            shared: Arc::clone(&shared),
            stop,
            workers: Vec::with_capacity(workers),
        };
        let kinds = http.iter().map(|l| (Listens::Http, l)).chain(https.iter().map(|l| (Listens::Https, l)));
        let kinds: Vec<_> = kinds.collect();
        for number in 0..workers.max(1) {
            let mut listeners = Vec::with_capacity(kinds.len());
            for (kind, listener) in &kinds {
                let own = listener.try_clone().map_err(EdgeError::Listener)?;
                own.set_nonblocking(true).map_err(EdgeError::Listener)?;
                listeners.push((*kind, own));
            }
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EdgeError::Worker)?;
            let listeners = {
                let _entered = runtime.enter();
                let own = listeners.into_iter().map(|(kind, own)| Ok((kind, tokio::net::TcpListener::from_std(own)?)));
                own.collect::<io::Result<Vec<_>>>().map_err(EdgeError::Listener)?
            };
            let (drained, done) = oneshot::channel();
            let (shared, stop, make_app) = (Arc::clone(&shared), stopped.clone(), Arc::clone(&make_app));
            let thread = thread::Builder::new().name(format!("edge-{number}"));
            let serve = move || {
                let worker = async {
                    let worker = Worker { shared, app: make_app(number), stop, tasks: TaskTracker::new() };
                    run(Arc::new(worker), listeners).await
                };
                let all = runtime.block_on(worker);
                // Drops what did not end in time.
                drop(runtime);
                let _ = drained.send(all);
            };
            thread.spawn(serve).map_err(EdgeError::Worker)?;
            handle.workers.push(done);
        }
        Ok(handle)
    }
}

impl EdgeHandle {
    /// Where plain HTTP is served.
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Where TLS is served.
    pub fn https(&self) -> &[SocketAddr] {
        &self.https
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.shared.admission.open()
    }

    /// What is held for clients.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    /// Drains: takes no connection, finishes what is in flight, cuts what is left after `grace`. Says whether
    /// everything ended by itself.
    pub async fn shutdown(mut self, grace: Duration) -> bool {
        let _ = self.shared.stop_by.set(Instant::now() + grace);
        self.stop.send_replace(true);
        let mut drained = true;
        for worker in std::mem::take(&mut self.workers) {
            // An error means that the worker's thread panicked.
            drained &= worker.await.unwrap_or(false);
        }
        drained
    }
}

impl Drop for EdgeHandle {
    fn drop(&mut self) {
        let _ = self.shared.stop_by.set(Instant::now());
        self.stop.send_replace(true);
    }
}

/// 80 % of the limit on open files: the rest is for backend connections and files.
fn most_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX)) / 5 * 4
}

/// A worker's life. Says whether all its connections ended by themselves.
async fn run<A: Serve>(worker: Arc<Worker<A>>, listeners: Vec<(Listens, tokio::net::TcpListener)>) -> bool {
    for (kind, listener) in listeners {
        worker.tasks.spawn(accept(Arc::clone(&worker), kind, listener));
    }
    let mut stop = worker.stop.clone();
    // An error means that the handle is gone, which is a stop too.
    let _ = stop.wait_for(|stopping| *stopping).await;
    let stop_by = worker.shared.stop_by.get().copied().unwrap_or_else(Instant::now);
    worker.tasks.close();
    // The connections see the stop themselves: an idle one closes after the lame duck time, a busy one after its
    // request. Only then is Pingora told to drop what waits for a request.
    let lame_duck = stop_by.min(Instant::now() + worker.shared.limits.lame_duck);
    let _ = timeout_at(lame_duck, worker.tasks.wait()).await;
    worker.app.let_go().await;
    let drained = timeout_at(stop_by, worker.tasks.wait()).await.is_ok();
    debug!(drained, left = worker.tasks.len(), "a worker of the edge has stopped");
    drained
}

/// Accepts until the stop.
async fn accept<A: Serve>(worker: Arc<Worker<A>>, kind: Listens, listener: tokio::net::TcpListener) {
    let mut stop = worker.stop.clone();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stopping| *stopping) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                failing = false;
                match worker.shared.admission.enter() {
                    Ok(permit) => open(&worker, kind, tcp, peer, permit),
                    Err(why) => worker.shared.observer.connection_refused(why),
                }
            }
            // The client was gone before we came; it says nothing of the listener.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                if !failing {
                    warn!(error = %error, "no connection can be accepted now: {error}");
                }
                failing = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn open<A: Serve>(
    worker: &Arc<Worker<A>>,
    kind: Listens,
    tcp: tokio::net::TcpStream,
    peer: SocketAddr,
    permit: Permit,
) {
    worker.tasks.spawn(connection::serve(Arc::clone(worker), kind, tcp, peer, permit));
}
