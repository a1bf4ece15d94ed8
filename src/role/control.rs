//! `schoolgate control`: operator API, publisher, feed server, certificate worker.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use schoolgate_acme::internal::InternalAuthority;
use schoolgate_acme::worker::Worker;
use schoolgate_config::model::Zone;
use schoolgate_config::seal::Keeper;
use schoolgate_config::settings::{Control, Issuer, Settings};
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_control_api::publish::Publisher;
use schoolgate_control_api::{
    ContextKeys, ControlError, ControlHandle, ControlOptions, ControlServer, DomainChecks, Elsewhere, EndingWatch,
    KeyRefresher, MaintenanceWindows, Migrations, OverrideTurns, Rotation, SealRotation, SilentInstances, SocketNeed,
    SocketOptions, bootstrap,
};
use schoolgate_store::{OpenMode, Store};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::certificates;
use super::data_dir::{Addresses, DataDir};
use super::dns;
use super::notify::{self, Notice};
use super::signals;
use super::start::{self, Flags, runtime};
use super::supervise::Supervisor;
use crate::cli::ControlArgs;

/// Time that what runs in the background has to end.
const BACKGROUND_WITHIN: Duration = Duration::from_secs(3);

/// Runs it until it is told to stop.
pub(crate) fn run(args: &ControlArgs) -> anyhow::Result<()> {
    let mut flags = Flags::new(&args.settings)?;
    flags.api(&args.api);
    let settings = start::begin(&args.settings, &flags)?;
    let dir = DataDir::take(&settings.data.dir)?;
    let settings = at(settings, &dir);
    runtime()?.block_on(async {
        let stop = signals::on_stop()?;
        let plane = ControlPlane::start(&settings, Pools::AreGiven).await?;
        dir.publish_addresses(&plane.addresses())?;
        notify::tell(Notice::Ready);
        info!("ready: control API on http://{}", plane.address());
        stop.cancelled().await;
        notify::tell(Notice::Stopping);
        dir.forget_addresses();
        plane.stop().await;
        Ok(())
    })
}

/// Settings whose data directory is the one that was taken, by its absolute path.
pub(super) fn at(mut settings: Settings, dir: &DataDir) -> Settings {
    settings.data.dir = dir.path().to_owned();
    settings
}

/// The store's address, its path complete.
pub(crate) fn store_url(settings: &Settings) -> anyhow::Result<String> {
    let file = settings.sqlite_file()?;
    let path = file.to_str().with_context(|| format!("{} is not text", file.display()))?;
    Ok(format!("sqlite://{path}"))
}

/// The internal CA's files: its sealed key, and the certificate that clients trust.
pub(crate) fn ca_files(settings: &Settings) -> (PathBuf, PathBuf) {
    (settings.data_file("ca/ca.key.sealed"), settings.data_file("ca.pem"))
}

/// The key-encryption key. A new one is made for a new store only: it could not open what an old store holds.
pub(super) fn keeper(settings: &Settings) -> anyhow::Result<Arc<Keeper>> {
    let (key_file, store) = (settings.key_file(), settings.sqlite_file()?);
    if !key_file.exists() && store.exists() {
        bail!(
            "the key file {} is missing, and the database {} holds keys sealed under it: restore the file from a backup",
            key_file.display(),
            store.display()
        );
    }
    Ok(Arc::new(Keeper::open_or_create(&key_file)?))
}

/// Refuses keys that cannot open what the store holds, before anything is written.
async fn check_sealed(store: &Store, keeper: &Keeper) -> anyhow::Result<()> {
    let (head, have, accounts) = (store.head(), keeper.ids(), store.acme_credentials().await?);
    let certificates = head.table.certificates().map(|certificate| certificate.key.kek_id());
    let context_keys = head.table.context_keys().map(|key| key.private.kek_id());
    let mut sealed = certificates.chain(context_keys).chain(accounts.iter().map(|account| account.sealed.kek_id()));
    if let Some(under) = sealed.find(|under| !have.iter().any(|id| id == under)) {
        bail!(
            "the key file {} has the key {}, and the database {} holds keys sealed under {under}: restore the key file \
             that belongs to it. Nothing was changed",
            keeper.path().unwrap_or(Path::new("?")).display(),
            have.join(" and "),
            store.path().display(),
        );
    }
    Ok(())
}

/// Whether this process can start instances for a pool that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pools {
    /// Yes.
    AreMade,
    /// No: operators make pools of instances that run elsewhere.
    AreGiven,
}

/// The control plane of this process.
pub(super) struct ControlPlane {
    pub(super) store: Store,
    pub(super) publisher: Publisher,
    pub(super) keeper: Arc<Keeper>,
    pub(super) migrations: Migrations,
    api: ControlHandle,
    dns: Option<SocketAddr>,
    background: Supervisor,
    stop: CancellationToken,
}

impl ControlPlane {
    /// Opens the store and starts everything that works on it.
    pub(super) async fn start(settings: &Settings, pools: Pools) -> anyhow::Result<Self> {
        let keeper = keeper(settings)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Store::open(&store_url(settings)?, OpenMode::Create).await?;
        check_sealed(&store, &keeper).await?;
        let zones = settings.platform.zones.iter().map(|name| zone(name)).collect::<anyhow::Result<Vec<_>>>()?;
        if store.seed(zones).await? {
            info!("made a new store in {}", store.path().display());
        }
        name_missing_zones(settings, &store);
        bootstrap(&store, &keeper, &settings.data.dir).await?;
        let (key_file, certificate_file) = ca_files(settings);
        let authority = InternalAuthority::open_or_create(&key_file, &certificate_file, &keeper, Arc::clone(&clock))?;
        let publisher = Publisher::load(store.clone()).await?;
        let worker = Worker::new(store.clone(), Arc::new(authority), Arc::clone(&keeper), Arc::clone(&clock));
        let certificates =
            certificates::service(settings, worker, (&store, &publisher.feed()), Arc::clone(&keeper), clock.clone())?;

        let keys = KeyRefresher::new(store.clone(), publisher.feed(), Arc::clone(&clock));
        let context_keys = ContextKeys::new(Arc::clone(&keeper), &settings.context_keys);
        let domain_checks = dns::checks(settings, pools, &store, Arc::clone(&clock))?;
        let services = (keys.clone(), domain_checks.clone());
        let responder = dns::responder(settings, &store).await?;
        let dns = responder.as_ref().map(schoolgate_dns::Responder::address);
        let sealing = (Arc::clone(&keeper), context_keys.clone());
        let api = start_api(settings, &store, &publisher, services, sealing).await?;

        let stop = CancellationToken::new();
        let background = Supervisor::new(stop.clone());
        background.serve("publisher", publisher.clone(), |publisher, stop| publisher.run(stop));
        let migrations =
            Migrations::new(store.clone(), publisher.clone(), Arc::clone(&clock), settings.migrate.clone());
        // Of many control processes one does what must not be done twice; it holds the lease under this name.
        let holder = certificates::holder(&settings.data.dir)?;
        let led = (migrations.clone(), holder.clone());
        background.serve("operations", led, |(migrations, holder), stop| migrations.run(holder, stop));
        let silent = SilentInstances::new(store.clone(), Arc::clone(&clock), settings.instances.clone());
        background.serve("instances", (silent, holder.clone()), |(silent, holder), stop| silent.run(holder, stop));
        let windows = MaintenanceWindows::new(store.clone(), Arc::clone(&clock));
        let led = (windows, holder.clone());
        background.serve("maintenance windows", led, |(windows, holder), stop| windows.run(holder, stop));
        let inputs = (store.clone(), publisher.feed(), context_keys, settings.data.dir.clone());
        background.serve("context keys", inputs, |(store, feed, context_keys, data_dir), stop| {
            Rotation::new(store, feed, context_keys, &data_dir).run(stop)
        });
        let elsewhere: Elsewhere =
            Arc::new(move |keeper| InternalAuthority::rewrap(&key_file, keeper).map_err(|error| error.to_string()));
        let inputs = (publisher.clone(), store.clone(), Arc::clone(&keeper), elsewhere);
        background.serve("sealing keys", inputs, |(publisher, store, keeper, elsewhere), stop| {
            SealRotation::new(publisher, store, keeper, elsewhere).run(stop)
        });
        background.serve("token-keys", keys, |keys, stop| keys.run(stop));
        background
            .serve("domain-checks", (domain_checks, holder.clone()), |(checks, holder), stop| checks.run(holder, stop));
        let watch = EndingWatch::new(store.clone(), Arc::clone(&clock));
        background.serve("certificate-ends", watch, |watch, stop| watch.run(stop));
        let turns = OverrideTurns::new(store.clone(), Arc::clone(&clock));
        background.serve("override-turns", (turns, holder), |(turns, holder), stop| turns.run(holder, stop));
        if let Some(responder) = responder {
            tokio::spawn(responder.run(stop.clone()));
        }
        background.serve("certificates", certificates, |certificates, stop| certificates.run(stop));
        Ok(Self { store, publisher, keeper, migrations, api, dns, background, stop })
    }

    /// Where the control API listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.api.address()
    }

    /// Says where the gateway of this process serves HTTPS.
    pub(super) fn serves_at(&self, https: SocketAddr) {
        self.api.serves_at(https);
    }

    /// Where the control API is found.
    pub(super) fn addresses(&self) -> Addresses {
        let socket = self.api.socket().map(Path::to_owned);
        Addresses { control: Some(self.address()), socket, dns: self.dns, ..Addresses::default() }
    }

    /// Stops taking requests, finishes what is in flight, closes the store.
    pub(super) async fn stop(self) {
        self.api.stop().await;
        self.stop.cancel();
        if !self.background.ended(BACKGROUND_WITHIN).await {
            warn!("background work did not end within {BACKGROUND_WITHIN:?}");
        }
        self.store.close().await;
    }
}

/// Zones of the settings are made at the first start; later the store is the truth, and an operator may have removed
/// one on purpose.
fn name_missing_zones(settings: &Settings, store: &Store) {
    let head = store.head();
    for name in settings.platform.zones.iter().filter(|name| head.table.zone(name).is_none()) {
        warn!("the zone {name} of the settings is not in the store: `schoolgate zone create {name}` makes it");
    }
}

/// The socket of the settings; none when it is empty. Where nobody set it, a path that cannot be a socket (a data
/// directory with a long name) does not keep the gateway from starting.
fn control_socket(settings: &Settings) -> Option<SocketOptions> {
    let text = &settings.control.socket;
    let need = if *text == Control::default().socket { SocketNeed::Optional } else { SocketNeed::Required };
    (!text.is_empty()).then(|| SocketOptions { path: settings.path(text), need })
}

async fn start_api(
    settings: &Settings,
    store: &Store,
    publisher: &Publisher,
    (keys, domain_checks): (KeyRefresher, DomainChecks),
    (keeper, context_keys): (Arc<Keeper>, ContextKeys),
) -> anyhow::Result<ControlHandle> {
    let options = ControlOptions {
        listen: settings.control.listen,
        socket: control_socket(settings),
        store: store.clone(),
        publisher: publisher.clone(),
        keys,
        domain_checks,
        keeper,
        issues_at_once: settings.acme.issuer == Issuer::Internal,
        context_keys,
    };
    ControlServer::start(options).await.map_err(|error| {
        let why = match &error {
            ControlError::Socket { path, source } => {
                return anyhow::anyhow!(
                    "the control socket cannot be at {}: {source}; choose another path with the setting control.socket",
                    path.display()
                );
            }
            ControlError::AddressInUse { address } => format!("{address} is in use by another process"),
            ControlError::Listen { address, source } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                format!("{address} is no address of this machine")
            }
            ControlError::Listen { address, source } => format!("{address} cannot be listened on ({source})"),
        };
        anyhow::anyhow!("{why}; choose another address for the control API with --control (setting control.listen)")
    })
}

fn zone(name: &str) -> anyhow::Result<Zone> {
    serde_json::from_value(json!({ "name": name })).with_context(|| format!("`{name}` cannot be a zone"))
}
