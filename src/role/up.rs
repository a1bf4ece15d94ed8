//! `schoolgate up`: both planes, the certificate worker and supervised school-app instances, in one process tree.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use schoolgate_config::feed::{FeedAnswer, NodeReport, ReportTaken, RequestAnswer};
use schoolgate_config::model::{BackendAddress, NodeId, PoolId, PoolKind, Revision};
use schoolgate_config::settings::Settings;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_config::usage::{QuotaUse, UsageFlush, UsageTaken};
use schoolgate_control_api::INSTANCE_TOKEN;
use schoolgate_control_api::publish::FeedServer;
use schoolgate_proxy::feed::{FeedError, SnapshotFeed};
use schoolgate_store::{Store, StoreError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::control::{self, ControlPlane, Pools};
use super::data_dir::{Addresses, DataDir};
use super::instances::{Common, Instances, Moved};
use super::notify::{self, Notice};
use super::own_pools::OwnPools;
use super::proxy::{addresses, start_proxy, stop_proxy};
use super::start::{self, Flags, runtime};
use super::supervise::Backoff;
use super::{banner, demo, pools, signals};
use crate::cli::UpArgs;

/// The pool that tenants share.
pub(super) const SHARED_POOL: &str = "shared";

/// Reserved for what is not on the public Internet (RFC 6761): here they count as owned and pointing at this gateway.
const LOCAL_SUFFIXES: [&str; 2] = ["localhost", "test"];

/// Time that what the store holds may take to be served: certificates issued, published, adopted.
const SERVED_WITHIN: Duration = Duration::from_secs(30);

/// Runs everything until it is told to stop.
pub(crate) fn run(args: &UpArgs) -> anyhow::Result<()> {
    let mut flags = Flags::new(&args.settings)?;
    flags.listen(&args.listen);
    flags.api(&args.api);
    let mut settings = start::begin(&args.settings, &flags)?;
    for suffix in LOCAL_SUFFIXES {
        if !settings.platform.assume_owned.iter().any(|owned| owned == suffix) {
            settings.platform.assume_owned.push(suffix.to_owned());
        }
    }
    let dir = DataDir::take(&settings.data.dir)?;
    let settings = control::at(settings, &dir);
    runtime()?.block_on(async {
        let stop = signals::on_stop()?;
        // Before it is ready a stop ends it without ceremony: nobody is being served.
        let site = tokio::select! {
            site = Site::start(&settings, args.demo) => site?,
            () = stop.cancelled() => return Ok(()),
        };
        let addresses = site.addresses();
        dir.publish_addresses(&addresses)?;
        notify::tell(Notice::Ready);
        banner::print(&addresses, dir.path(), args.demo)?;
        stop.cancelled().await;
        notify::tell(Notice::Stopping);
        dir.forget_addresses();
        site.stop(&settings).await;
        info!("stopped");
        Ok(())
    })
}

/// Everything of one `up`.
struct Site {
    plane: ControlPlane,
    proxy: schoolgate_proxy::server::ProxyHandle,
    instances: Instances,
    follower: JoinHandle<()>,
}

impl Site {
    async fn start(settings: &Settings, with_demo: bool) -> anyhow::Result<Self> {
        let plane = ControlPlane::start(settings, Pools::AreMade).await?;
        let (instances, moves) = Instances::new(Common {
            program: std::env::current_exe().context("this program cannot be found")?,
            data_dir: settings.data.dir.clone(),
            keys: format!("http://{}/.well-known/schoolgate/jwks.json", reachable(plane.address())),
            report_url: format!("http://{}/internal/v1/usage", reachable(plane.address())),
            report_token_file: settings.data_file(INSTANCE_TOKEN),
            log: settings.telemetry.log.clone(),
        })?;
        // Before the proxy: it would find its backends dead, and tell so to the first visitors of a second start.
        let own = Arc::new(OwnPools::new(plane.store.clone(), instances.starter(), settings.school_app.listen));
        start_instances(settings, &own, with_demo).await?;
        plane.migrations.make_pools_with(own);
        if with_demo {
            demo::make_schools(&plane.store).await?;
        }
        let follower = tokio::spawn(follow_moves(plane.store.clone(), moves));
        let feed = InProcessFeed { node: settings.node_name()?, server: plane.publisher.feed() };
        let proxy = start_proxy(settings, Arc::new(feed), Arc::clone(&plane.keeper)).await?;
        let site = Self { plane, proxy, instances, follower };
        site.plane.serves_at(reachable(site.proxy.addresses().https));
        site.served().await;
        Ok(site)
    }

    /// Waits until the proxy serves all that is in the store, certificates included.
    async fn served(&self) {
        let all = async {
            loop {
                // What an ACME CA makes may take long, and nobody has to wait for it here.
                if self.plane.store.certificates_due(SystemClock.unix_ms(), 1).await?.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let change = self.plane.store.head().change;
            let published = self.plane.publisher.wait_published(change, SERVED_WITHIN).await;
            // The proxy itself is asked: the control plane may not have heard of it yet.
            while published.is_some_and(|revision| self.proxy.report().serving < revision) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok::<_, schoolgate_store::StoreError>(())
        };
        match tokio::time::timeout(SERVED_WITHIN, all).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "cannot tell whether all is served: {error}"),
            Err(_) => warn!("not everything is served yet; `schoolgate status` shows what is missing"),
        }
    }

    fn addresses(&self) -> Addresses {
        let Addresses { control, socket, dns, .. } = self.plane.addresses();
        Addresses { control, socket, dns, ..addresses(&self.proxy) }
    }

    /// The proxy first, so that requests in flight still find their backends; the control plane last.
    async fn stop(self, settings: &Settings) {
        stop_proxy(self.proxy, settings).await;
        self.instances.stop().await;
        self.follower.abort();
        self.plane.stop().await;
    }
}

/// Starts the instances of every pool that has some.
async fn start_instances(settings: &Settings, own: &OwnPools, with_demo: bool) -> anyhow::Result<()> {
    let shared: PoolId = SHARED_POOL.parse().expect("a label");
    let dedicated = demo::dedicated_pool();
    let wanted = settings.school_app.instances;
    own.start(&shared, PoolKind::Shared, wanted).await?;
    if with_demo {
        own.start(&dedicated, PoolKind::Dedicated, wanted.min(1)).await?;
    }
    // Those of schools that moved to one of their own; the demo's school stays when the next start does without --demo.
    for (pool, kind) in own.known().await? {
        if pool != shared && !(with_demo && pool == dedicated) {
            own.start(&pool, kind, wanted.min(1)).await?;
        }
    }
    Ok(())
}

/// Brings pools in step with instances that had to move. A store that does not answer is asked again: until it does the
/// instance serves nobody.
async fn follow_moves(store: Store, mut moves: mpsc::Receiver<Moved>) {
    while let Some(Moved { pool, from, to }) = moves.recv().await {
        let (from, to) = (BackendAddress::Http(from), BackendAddress::Http(to));
        let mut backoff = Backoff::new();
        while let Err(error) = pools::moved(&store, &pool, &from, &to).await {
            error!(pool.id = %pool, "the pool {pool} cannot follow its instance from {from} to {to}: {error:#}");
            tokio::time::sleep(backoff.after(Duration::ZERO)).await;
        }
    }
}

/// An address that a process on this machine reaches.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

/// The feed of a proxy that lives with its control plane: no wire between.
struct InProcessFeed {
    node: NodeId,
    server: FeedServer,
}

fn unreachable(source: StoreError) -> FeedError {
    FeedError::Unreachable { from: "the store".to_owned(), source: source.into() }
}

#[async_trait]
impl SnapshotFeed for InProcessFeed {
    async fn next(&self, after: Revision, wait: Duration) -> Result<FeedAnswer, FeedError> {
        Ok(self.server.next(&self.node, after, wait).await)
    }

    async fn report(&self, report: NodeReport) -> Result<ReportTaken, FeedError> {
        Ok(self.server.report(report))
    }

    async fn quotas(&self, after: Option<&QuotaUse>) -> Result<Vec<QuotaUse>, FeedError> {
        self.server.quotas(after).await.map_err(unreachable)
    }

    async fn usage(&self, flush: &UsageFlush) -> Result<UsageTaken, FeedError> {
        self.server.count_usage(flush).await.map_err(unreachable)
    }

    async fn questions(&self, wait: Duration) -> Result<Vec<String>, FeedError> {
        Ok(self.server.questions(&self.node, wait).await)
    }

    async fn answer(&self, answers: Vec<RequestAnswer>) -> Result<(), FeedError> {
        self.server.answer(&self.node, answers);
        Ok(())
    }
}
