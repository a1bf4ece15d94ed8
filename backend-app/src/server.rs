//! One instance: bound, serving, stopping.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::context::Verifier;
use crate::context::keys::KeyRing;
use crate::options::{Listen, Options};
use crate::register::Registrar;
use crate::report::Reporter;
use crate::router::{App, router};
use crate::store::{CONNECTIONS_PER_SCHOOL, Schools};

/// Time that requests in flight have to finish when the instance stops: 5 s.
const GRACE: Duration = Duration::from_secs(5);

/// Time that databases have to close after that: 1 s.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Descriptors of one open SQLite database in WAL mode, per connection: the file, its log, its shared memory.
const FILES_PER_CONNECTION: u64 = 3;

/// Descriptors left for sockets and everything else.
const FILES_FOR_SOCKETS: u64 = 512;

/// File systems on which SQLite's write-ahead log is not safe, by the kernel's magic number.
const NETWORK_FILE_SYSTEMS: [(u64, &str); 5] =
    [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB"), (0x00c3_6400, "Ceph"), (0x5346_414f, "AFS")];

/// Why an instance did not start or went down.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Another process listens there. Another address, or the end of that process, mends it.
    #[error("{address} is in use by another process")]
    AddressInUse {
        /// The address as it was given.
        address: String,
    },
    /// The address cannot be had: not of this machine, or not allowed.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory cannot be made or written.
    #[error("the data directory {path} cannot be used")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Listening on every address, it does not know the one that the gateway reaches.
    #[error("listening on {address}, the instance does not know where the gateway finds it: say so with --advertise")]
    NotAdvertised {
        /// The address as it was bound.
        address: String,
    },
    /// Databases on a network file system would be damaged by a second instance.
    #[error("the data directory {path} is on {kind}; it has to be on a local disk")]
    NetworkFileSystem {
        /// The directory.
        path: PathBuf,
        /// The file system.
        kind: &'static str,
    },
    /// The listener failed for good.
    #[error("serving on {address} failed")]
    Serve {
        /// The bound address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Binds and serves until `shutdown` resolves, then finishes what is in flight.
///
/// # Errors
/// [`AppError`] when the instance cannot start, or its listener fails.
pub async fn run(options: Options, shutdown: impl Future<Output = ()> + Send) -> Result<(), AppError> {
    Server::bind(options).await?.serve(shutdown).await
}

/// An instance that is bound, and not yet serving: connections wait in the listener's queue.
pub struct Server {
    listener: Bound,
    address: Listen,
    app: Arc<App>,
    router: Router,
    reporter: Option<Reporter>,
    registrars: Vec<Registrar>,
}

enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The path of a Unix socket; removed when the instance is gone.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Someone else may have removed it already; there is nothing to do about either.
        let _ = fs::remove_file(&self.0);
    }
}

impl Server {
    /// Prepares the data directory, takes the address, and reads the keys. The source of keys may be down: requests are refused
    /// until it answers.
    ///
    /// # Errors
    /// [`AppError`] names the address or the directory that is in the way.
    pub async fn bind(options: Options) -> Result<Self, AppError> {
        let schools_dir = options.data_dir.join("schools");
        prepare_dir(&schools_dir)?;
        let max_open = max_open_schools(options.max_open_schools);
        let (listener, address) = listen(&options.listen).await?;
        let reporter = options.report_to().map(|to| Reporter::new(to, address.to_string()));
        let registrars = registrars(&options, &address)?;
        let keys = Arc::new(KeyRing::load(options.keys, &options.data_dir).await);
        let verifier = Arc::new(Verifier::new(Arc::clone(&keys), options.issuer, options.audiences));
        let app = Arc::new(App {
            schools: Arc::new(Schools::new(schools_dir, max_open)),
            keys,
            instance: address.to_string(),
            stopping: CancellationToken::new(),
            sockets: TaskTracker::new(),
        });
        let router = router(Arc::clone(&app), verifier);
        info!("school-app listens on {address}");
        Ok(Self { listener, address, app, router, reporter, registrars })
    }

    /// Where it listens, with the port that was really taken.
    pub fn addr(&self) -> &Listen {
        &self.address
    }

    /// Serves until `shutdown` resolves; then takes no more, finishes what is in flight within 5 s, and closes all databases.
    ///
    /// # Errors
    /// [`AppError::Serve`] when the listener fails for good.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), AppError> {
        let Self { listener, address, app, router, reporter, registrars } = self;
        let served = {
            tokio::select! {
                served = accept(listener, router, &app, registered(registrars, shutdown)) => served,
                () = app.keys.keep_fresh() => Ok(()),
                () = app.schools.close_idle() => Ok(()),
                () = report(reporter.as_ref(), &app) => Ok(()),
            }
        };
        // A request that outlived its grace may still hold a connection; its database is whole without being closed.
        if timeout(CLOSE_TIMEOUT, app.schools.close()).await.is_err() {
            warn!("some databases were still in use");
        }
        info!("school-app on {address} has stopped");
        served.map_err(|source| AppError::Serve { address: address.to_string(), source })
    }
}

/// Who registers this instance: one for each of its pools.
fn registrars(options: &Options, bound: &Listen) -> Result<Vec<Registrar>, AppError> {
    let Some(with) = options.register_with() else { return Ok(Vec::new()) };
    let address = match (&options.advertise, bound) {
        (Some(address), _) => address.clone(),
        (None, Listen::Unix(_)) => bound.to_string(),
        (None, Listen::Tcp(address)) if !address.ip().is_unspecified() => format!("http://{address}"),
        (None, Listen::Tcp(_)) => return Err(AppError::NotAdvertised { address: bound.to_string() }),
    };
    let of_pool = |pool: &String| Registrar::new(&with, pool.clone(), address.clone());
    Ok(options.audiences.iter().map(of_pool).collect())
}

/// Keeps the instance registered until it is told to stop; then says goodbye, while it still serves.
async fn registered(registrars: Vec<Registrar>, shutdown: impl Future<Output = ()> + Send) {
    let mut backends = vec![None; registrars.len()];
    let each = registrars.iter().zip(&mut backends).map(|(registrar, backend)| registrar.run(backend));
    tokio::select! {
        () = shutdown => {}
        _ = join_all(each), if !registrars.is_empty() => {}
    }
    let known =
        registrars.iter().zip(&backends).filter_map(|(registrar, backend)| Some((registrar, backend.as_ref()?)));
    join_all(known.map(|(registrar, backend)| registrar.leave(backend))).await;
}

/// Reports for ever, if it is wanted.
async fn report(reporter: Option<&Reporter>, app: &App) {
    match reporter {
        Some(reporter) => reporter.run(&app.schools).await,
        None => std::future::pending().await,
    }
}

async fn accept(
    listener: Bound,
    router: Router,
    app: &App,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    match listener {
        Bound::Tcp(listener) => {
            // Small answers must not wait for the acknowledgement of the one before.
            let listener = listener.tap_io(|stream| {
                if let Err(error) = stream.set_nodelay(true) {
                    warn!("TCP_NODELAY could not be set: {error}");
                }
            });
            serve_until(listener, router, app, shutdown).await
        }
        Bound::Unix(listener, _file) => serve_until(listener, router, app, shutdown).await,
    }
}

async fn serve_until<L>(
    listener: L,
    router: Router,
    app: &App,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let stopping = app.stopping.clone().cancelled_owned();
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopping).into_future();
    tokio::pin!(serving, shutdown);
    tokio::select! {
        served = &mut serving => return served,
        () = &mut shutdown => app.stopping.cancel(),
    }
    app.sockets.close();
    let finished = async {
        let served = serving.await;
        app.sockets.wait().await;
        served
    };
    timeout(GRACE, finished).await.unwrap_or_else(|_| {
        warn!("some requests did not finish within {} s", GRACE.as_secs());
        Ok(())
    })
}

async fn listen(wanted: &Listen) -> Result<(Bound, Listen), AppError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => AppError::AddressInUse { address: wanted.to_string() },
        _ => AppError::Listen { address: wanted.to_string(), source },
    };
    match wanted {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let bound: SocketAddr = listener.local_addr().map_err(failed)?;
            Ok((Bound::Tcp(listener), Listen::Tcp(bound)))
        }
        Listen::Unix(path) => {
            if is_dead_socket(path) {
                fs::remove_file(path).map_err(failed)?;
            }
            let listener = UnixListener::bind(path).map_err(failed)?;
            Ok((Bound::Unix(listener, SocketFile(path.clone())), wanted.clone()))
        }
    }
}

/// Whether the path is what a killed instance left behind: a socket that nobody answers. Any other file stays.
fn is_dead_socket(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn prepare_dir(path: &Path) -> Result<(), AppError> {
    let failed = |source| AppError::DataDir { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(failed)?;
    let probe = path.join(format!(".writable-{}", ulid::Ulid::generate()));
    fs::write(&probe, []).and_then(|()| fs::remove_file(&probe)).map_err(failed)?;
    let kind = rustix::fs::statfs(path).map_err(|error| failed(error.into()))?.f_type;
    let magic = kind as u64 & 0xffff_ffff;
    match NETWORK_FILE_SYSTEMS.iter().find(|(network, _)| *network == magic) {
        Some((_, kind)) => Err(AppError::NetworkFileSystem { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

/// Raises the limit of open files as far as it goes, and lowers the number of open schools to what fits in it.
fn max_open_schools(wanted: u32) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            warn!("the limit of open files could not be raised: {error}");
            limit.current
        }
    };
    let per_school = FILES_PER_CONNECTION * u64::from(CONNECTIONS_PER_SCHOOL);
    let fitting = files.map_or(u64::MAX, |files| (files.saturating_sub(FILES_FOR_SOCKETS) / per_school).max(1));
    let open = u64::from(wanted).min(fitting);
    if open < u64::from(wanted) {
        warn!("keeping {open} schools open instead of {wanted}: the limit of open files allows no more");
    }
    usize::try_from(open).unwrap_or(usize::MAX)
}
