//! The data plane put together: listeners, the last good state, workers, and the tasks beside them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use pingora_core::server::configuration::ServerConf;
use schoolgate_config::model::{IdError, Limits, NodeId};
use schoolgate_config::seal::Keeper;
use schoolgate_config::settings::{AccessLog, EdgeLimits, SecurityHeaders, Settings};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::{Clock, SystemClock};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::balance::drain::Drains;
use crate::balance::health;
use crate::direct::Driver;
use crate::feed::adopt::{self, Adoption, AdoptionParts};
use crate::feed::last_good::LastGoodError;
use crate::feed::report::{self, NodeView};
use crate::feed::usage::{self, UsageParts};
use crate::feed::{Signing, SnapshotFeed, questions};
use crate::files::{Files, FilesOptions};
use crate::gateway::{Gateway, GatewayParts, SharedTable};
use crate::limit::Limiter;
use crate::limit::shared::{self, RedisOptions, SharedParts, Sharing};
use crate::live::NodeLive;
use crate::observe::status::{self, StatusParts};
use crate::observe::{AccessLogTarget, Metrics, Observe};
use crate::tls::{Certificates, Keyring, Names, NamesError};
use crate::transport::{Edge, EdgeError, EdgeHandle, EdgeOptions, ProxyProtocol, TransportLimits};

/// Connections that wait to be accepted: 4,096 (the system may allow fewer, `net.core.somaxconn`). While a node reads
/// its last good state nobody accepts, and a restart must not refuse those who come meanwhile.
const BACKLOG: i32 = 4_096;
/// Idle backend connections kept by one worker: 2,048. They are grouped by tenant and pool, so fewer would make busy
/// tenants connect anew all the time.
const IDLE_UPSTREAM: usize = 2_048;
/// Attempts Pingora allows for one request: 6. [`crate::balance::retry`] decides, and allows fewer.
const ATTEMPTS: usize = 6;
/// Pause before a background task that panicked is started again: 1 s.
const RESTART: Duration = Duration::from_secs(1);
/// Time background tasks have to end after the workers did: 2 s.
const TASKS_END: Duration = Duration::from_secs(2);

/// What a proxy is started with.
pub struct ProxyOptions {
    /// The name it reports under.
    pub node: NodeId,
    /// Address for plain HTTP.
    pub http: SocketAddr,
    /// Address for TLS.
    pub https: SocketAddr,
    /// Private address for health, metrics and status.
    pub status: SocketAddr,
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    /// Whether connections from `trusted_hops` begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Networks of proxies before us.
    pub trusted_hops: Vec<IpNet>,
    /// Time between "no more new connections" and closing idle ones when stopping.
    pub linger: Duration,
    /// Security headers, where a tenant wants no others.
    pub security: SecurityHeaders,
    /// Files that routes answer with; absent: none.
    pub files: Option<FilesOptions>,
    /// What the edge bears.
    pub limits: EdgeLimits,
    /// The most that any tenant may have.
    pub caps: Limits,
    /// Directory of the last good state.
    pub last_good: PathBuf,
    /// Time between two flushes of what tenants used.
    pub usage_flush: Duration,
    /// File of what the control plane has not taken of it.
    pub usage_file: PathBuf,
    /// Where limits are shared; absent: each node lets its part through.
    pub redis: Option<RedisOptions>,
    /// Where a line per request goes.
    pub access_log: AccessLogTarget,
    /// Tenants with metrics of their own.
    pub metrics_tenants: usize,
    /// Slugs that always have.
    pub metrics_pinned: Vec<String>,
    /// Opens sealed keys.
    pub keeper: Arc<Keeper>,
    /// Where revisions come from.
    pub feed: Arc<dyn SnapshotFeed>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl ProxyOptions {
    /// As the settings say.
    ///
    /// # Errors
    /// The node's name is no name.
    pub fn new(settings: &Settings, keeper: Arc<Keeper>, feed: Arc<dyn SnapshotFeed>) -> Result<Self, IdError> {
        let proxy = &settings.proxy;
        let telemetry = &settings.telemetry;
        Ok(Self {
            node: settings.node_name()?,
            http: proxy.http,
            https: proxy.https,
            status: proxy.status,
            workers: proxy.workers,
            proxy_protocol: proxy.proxy_protocol,
            trusted_hops: proxy.trusted_hops.clone(),
            linger: proxy.linger_s.duration(),
            security: proxy.security.clone(),
            files: FilesOptions::new(settings),
            limits: proxy.limits.clone(),
            caps: settings.platform.caps.limits(),
            last_good: settings.path(&proxy.last_good),
            usage_flush: proxy.usage_flush_s.duration(),
            usage_file: settings.path(&proxy.last_good).with_file_name("usage.json"),
            redis: settings.redis.is_used().then(|| RedisOptions {
                url: settings.redis.url.clone(),
                password_file: file(settings, &settings.redis.password_file),
                root_ca_file: file(settings, &settings.redis.root_ca_file),
                prefix: settings.redis.prefix.clone(),
            }),
            access_log: match &telemetry.access_log {
                AccessLog::Off => AccessLogTarget::Off,
                AccessLog::Stdout => AccessLogTarget::Stdout,
                AccessLog::File(path) => AccessLogTarget::File(settings.path(path)),
            },
            metrics_tenants: usize::try_from(telemetry.metrics_tenants).unwrap_or(usize::MAX),
            metrics_pinned: telemetry.metrics_pinned.clone(),
            keeper,
            feed,
            clock: Arc::new(SystemClock),
        })
    }
}

/// A file of the settings, if one is named.
fn file(settings: &Settings, text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| settings.path(text))
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// An address cannot be listened on.
    #[error("{}", listen_words(*.address, .flag, .source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The access log cannot be opened.
    #[error("the access log {target} cannot be opened; set telemetry.access_log to a file that can, to stdout or off")]
    AccessLog {
        /// Where it was to go.
        target: String,
        /// What the system said.
        source: io::Error,
    },
    /// The directory of the last good state cannot be used.
    #[error(transparent)]
    LastGood(#[from] LastGoodError),
    /// No certificate of the last good state opens, so every handshake would fail. Nothing was changed.
    #[error(
        "the certificates of the last good state are sealed under key {sealed_under}, this process has {have}: use the key file of the control plane (--keys-file)"
    )]
    WrongKey {
        /// The key they are under.
        sealed_under: String,
        /// The keys this process has.
        have: String,
    },
    /// There are no random numbers.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// The workers cannot be started.
    #[error(transparent)]
    Edge(#[from] EdgeError),
}

fn listen_words(address: SocketAddr, flag: &str, source: &io::Error) -> String {
    let setting = flag.trim_start_matches('-');
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use by another process; stop it, or choose another address with {flag} (setting proxy.{setting})"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "{address} may not be listened on by this user; choose a port from 1024 up with {flag} (setting proxy.{setting}), or give the process CAP_NET_BIND_SERVICE"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{address} is no address of this machine; choose one with {flag} (setting proxy.{setting})")
        }
        _ => format!("{address} cannot be listened on ({flag}, setting proxy.{setting})"),
    }
}

/// Where a proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyAddresses {
    /// Plain HTTP.
    pub http: SocketAddr,
    /// TLS.
    pub https: SocketAddr,
    /// Health, metrics and status.
    pub status: SocketAddr,
}

/// Serves schools. See [`ProxyServer::start`].
#[derive(Debug)]
pub struct ProxyServer;

/// A running proxy. Dropped, it stops without waiting.
pub struct ProxyHandle {
    addresses: ProxyAddresses,
    edge: EdgeHandle,
    view: Arc<NodeView<NodeLive>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    draining: CancellationToken,
    /// Stops the tasks when the handle is dropped.
    _stop_when_dropped: DropGuard,
}

impl std::fmt::Debug for ProxyHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyHandle").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl ProxyServer {
    /// Starts a proxy: it serves its last good state, if there is one, when this returns. Tasks beside the workers run
    /// on the current runtime; the workers have their own.
    ///
    /// # Errors
    /// [`ProxyError`] says what cannot be used, and which flag or setting changes it.
    pub async fn start(options: ProxyOptions) -> Result<ProxyHandle, ProxyError> {
        // Bound first: an address in use is found before a second of reading.
        let http = bind(options.http, "--http")?;
        let https = bind(options.https, "--https")?;
        let status = bind(options.status, "--status")?;
        let observe = Observe::new(options.access_log.clone(), Arc::clone(&options.clock))
            .map_err(|source| ProxyError::AccessLog { target: target_words(&options.access_log), source })?;
        let observe = Arc::new(observe);
        let table: SharedTable = Arc::new(ArcSwap::from_pointee(RoutingTable::default()));
        let keyring = Arc::new(Keyring::new(Arc::clone(&options.clock)));
        let signing = Signing::default();
        let limiter = Arc::new(Limiter::new(options.caps.clone()));
        let live = NodeLive::new(options.security.clone(), Arc::clone(&limiter));
        let live = live.with_keeper(Arc::clone(&options.keeper));
        let drains = live.drains();
        let parts = AdoptionParts {
            live,
            table: Arc::clone(&table),
            keyring: Arc::clone(&keyring),
            signing: Arc::clone(&signing),
            keeper: Arc::clone(&options.keeper),
            last_good: options.last_good.clone(),
            observe: Arc::clone(&observe),
            clock: Arc::clone(&options.clock),
        };
        let sharing = Arc::new(Sharing::new(Arc::clone(&limiter), options.redis.is_some()));
        let adoption = tokio::task::spawn_blocking(move || Adoption::load(parts)).await;
        let adoption = Arc::new(adoption.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?);

        check_key(&table.load(), &options.keeper)?;
        let files = Arc::<Files>::default();
        if let Some(options) = &options.files {
            files.read(options).await;
        }
        let names = Names::new(Arc::clone(&keyring), Arc::clone(&table), Arc::clone(&options.clock))?;
        let certificates: Arc<dyn Certificates> = Arc::new(names);
        let gateway = Gateway::new(GatewayParts {
            table: Arc::clone(&table),
            signing: Arc::clone(&signing),
            observe: Arc::clone(&observe),
            clock: Arc::clone(&options.clock),
            https_port: https.address.port(),
            certificates: Arc::clone(&certificates),
            trusted_hops: options.trusted_hops.clone(),
            limits: options.limits.clone(),
            limiter,
            files: Arc::clone(&files),
        });
        let view = Arc::new(NodeView {
            node: options.node.clone(),
            started_at_ms: options.clock.unix_ms(),
            table: Arc::clone(&table),
            keyring: Arc::clone(&keyring),
            signing,
            keeper: Arc::clone(&options.keeper),
            observe: Arc::clone(&observe),
            standing: adoption.standing(),
            sharing: Arc::clone(&sharing),
            changes: Arc::default(),
        });
        let metrics = Arc::new(Metrics::new(
            Arc::clone(&table),
            Arc::clone(&observe),
            Arc::clone(&keyring),
            Arc::clone(&options.clock),
            options.metrics_tenants,
            options.metrics_pinned.iter().cloned(),
        ));
        let addresses = ProxyAddresses { http: http.address, https: https.address, status: status.address };
        let status = status.listen()?;
        let status = tokio::net::TcpListener::from_std(status).map_err(|source| ProxyError::Listen {
            address: addresses.status,
            flag: "--status",
            source,
        })?;
        let edge = start_edge(&options, http.listen()?, https.listen()?, gateway, certificates, Arc::clone(&observe))?;
        observe.watch(edge.budget());
        info!("listening: http {}, https {}, status {}", addresses.http, addresses.https, addresses.status);

        let stop = CancellationToken::new();
        let draining = CancellationToken::new();
        let _stop_when_dropped = stop.clone().drop_guard();
        let handle =
            ProxyHandle { addresses, edge, view, tasks: TaskTracker::new(), stop, draining, _stop_when_dropped };
        if let Some(options) = options.files {
            let stop = handle.stop.clone();
            handle.supervise("files to answer with", move || Arc::clone(&files).run(options.clone(), stop.clone()));
        }
        if let Some(redis) = options.redis {
            let clock = Arc::clone(&options.clock);
            handle.spawn_leasing(SharedParts {
                sharing: Arc::clone(&sharing),
                table: Arc::clone(&table),
                clock,
                redis,
            });
        }
        let usage = UsageParts {
            node: options.node,
            table: Arc::clone(&table),
            observe: Arc::clone(&handle.view.observe),
            sharing,
            clock: options.clock,
            every: options.usage_flush,
            file: options.usage_file,
        };
        handle.spawn_usage(usage, Arc::clone(&options.feed));
        handle.spawn_tasks(adoption, options.feed, table, status, metrics);
        handle.spawn_drains(drains);
        Ok(handle)
    }
}

/// Refuses to serve certificates of which none can be opened.
fn check_key(table: &RoutingTable<NodeLive>, keeper: &Keeper) -> Result<(), ProxyError> {
    let have = keeper.ids();
    let mut under = table.certificates().map(|certificate| certificate.key.kek_id());
    match under.next() {
        Some(first) if !have.iter().any(|id| id == first) && !under.any(|kek| have.iter().any(|id| id == kek)) => {
            Err(ProxyError::WrongKey { sealed_under: first.to_owned(), have: have.join(" and ") })
        }
        _ => Ok(()),
    }
}

fn target_words(target: &AccessLogTarget) -> String {
    match target {
        AccessLogTarget::File(path) => path.display().to_string(),
        AccessLogTarget::Stdout | AccessLogTarget::Off => "stdout".to_owned(),
    }
}

fn start_edge(
    options: &ProxyOptions,
    http: TcpListener,
    https: TcpListener,
    gateway: Gateway,
    certificates: Arc<dyn Certificates>,
    observer: Arc<Observe>,
) -> Result<EdgeHandle, EdgeError> {
    let workers = match options.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let limits = TransportLimits {
        lame_duck: options.linger,
        proxy_protocol: if options.proxy_protocol {
            ProxyProtocol::From(options.trusted_hops.clone())
        } else {
            ProxyProtocol::Off
        },
        ..TransportLimits::from(&options.limits)
    };
    let conf = Arc::new(ServerConf {
        upstream_keepalive_pool_size: IDLE_UPSTREAM,
        max_retries: ATTEMPTS,
        ..ServerConf::default()
    });
    Edge::start(EdgeOptions {
        http: vec![http],
        https: vec![https],
        workers,
        certificates,
        limits,
        make_app: Arc::new(move |_| {
            let proxy = pingora_proxy::http_proxy(&conf, gateway.clone());
            Arc::new(Driver::new(gateway.clone(), proxy, IDLE_UPSTREAM))
        }),
        observer,
    })
}

impl ProxyHandle {
    fn spawn_tasks(
        &self,
        adoption: Arc<Adoption<NodeLive>>,
        feed: Arc<dyn SnapshotFeed>,
        table: SharedTable,
        status: tokio::net::TcpListener,
        metrics: Arc<Metrics<NodeLive>>,
    ) {
        let stop = self.stop.clone();
        let (following, asking) = (Arc::clone(&feed), Arc::clone(&feed));
        self.supervise("following the feed", move || {
            adopt::run(Arc::clone(&adoption), Arc::clone(&following), stop.clone())
        });
        let (view, stop) = (Arc::clone(&self.view), self.stop.clone());
        self.supervise("reporting", move || report::run(Arc::clone(&view), Arc::clone(&feed), stop.clone()));
        let (observe, stop) = (Arc::clone(&self.view.observe), self.stop.clone());
        self.supervise("answering questions", move || {
            questions::run(Arc::clone(&observe), Arc::clone(&asking), stop.clone())
        });
        let (changes, stop) = (Arc::clone(&self.view.changes), self.stop.clone());
        self.supervise("checking backends", move || {
            let (table, changes, stop) = (Arc::clone(&table), Arc::clone(&changes), stop.clone());
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = health::run(table, changes) => {}
                }
            }
        });
        let parts = Arc::new(StatusParts { view: Arc::clone(&self.view), metrics, draining: self.draining.clone() });
        let (status, stop) = (Arc::new(status), self.stop.clone());
        self.supervise("the status listener", move || {
            status::run(Arc::clone(&status), Arc::clone(&parts), stop.clone())
        });
    }

    fn spawn_drains(&self, drains: Arc<Drains>) {
        let stop = self.stop.clone();
        self.supervise("draining backends", move || {
            let (drains, stop) = (Arc::clone(&drains), stop.clone());
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = drains.run() => {}
                }
            }
        });
    }

    fn spawn_leasing(&self, parts: SharedParts) {
        let (parts, stop) = (Arc::new(parts), self.stop.clone());
        self.supervise("leasing limits", move || shared::run(Arc::clone(&parts), stop.clone()));
    }

    fn spawn_usage(&self, parts: UsageParts, feed: Arc<dyn SnapshotFeed>) {
        let (parts, stop) = (Arc::new(parts), self.stop.clone());
        self.supervise("flushing usage", move || usage::run(Arc::clone(&parts), Arc::clone(&feed), stop.clone()));
    }

    /// Runs a task until it ends by itself. One that panics is a bug, said aloud and started again: without it the
    /// node would serve and no longer follow, and nobody would know.
    fn supervise<F>(&self, what: &'static str, make: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            while let Err(panic) = tokio::spawn(make()).await {
                if !panic.is_panic() || stop.is_cancelled() {
                    return;
                }
                error!("{what} panicked and is started again");
                sleep(RESTART).await;
            }
        });
    }

    /// Where it listens.
    pub fn addresses(&self) -> ProxyAddresses {
        self.addresses
    }

    /// How it is.
    pub fn report(&self) -> schoolgate_config::feed::NodeReport {
        self.view.report()
    }

    /// Stops: takes no connection, finishes what is in flight, cuts what is left after `grace`. Says whether everything
    /// ended by itself.
    pub async fn stop(self, grace: Duration) -> bool {
        let Self { edge, view, tasks, stop, draining, _stop_when_dropped, .. } = self;
        draining.cancel();
        let drained = edge.shutdown(grace).await;
        if !drained {
            warn!("connections were cut: they had not ended within {} s", grace.as_secs());
        }
        // Last, so that the node is followed and watched while it drains.
        stop.cancel();
        tasks.close();
        let _ = timeout(TASKS_END, tasks.wait()).await;
        // The last lines are gathered for a moment before they are written; the process may end right after this.
        let _ = tokio::task::spawn_blocking(move || view.observe.flush(TASKS_END)).await;
        drained
    }
}

/// An address that is ours, and not listened on yet.
struct Bound {
    socket: Socket,
    address: SocketAddr,
    flag: &'static str,
}

fn bind(address: SocketAddr, flag: &'static str) -> Result<Bound, ProxyError> {
    let bound = || -> io::Result<Bound> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Else a restart would have to wait for the connections of the process before to be forgotten.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP address"))?;
        Ok(Bound { socket, address, flag })
    };
    bound().map_err(|source| ProxyError::Listen { address, flag, source })
}

impl Bound {
    fn listen(self) -> Result<TcpListener, ProxyError> {
        let Self { socket, address, flag } = self;
        socket.listen(BACKLOG).map_err(|source| ProxyError::Listen { address, flag, source })?;
        Ok(socket.into())
    }
}
