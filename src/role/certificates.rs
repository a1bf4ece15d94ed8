//! The certificate workers of a control process: the internal CA's and that of ACME CAs, under one lease.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use schoolgate_acme::directory::{Binding, Directory, read_binding_key};
use schoolgate_acme::fleet::{Adopted, Fleet};
use schoolgate_acme::orders::{Authority, Issuers, Orders, World};
use schoolgate_acme::readiness::StorePreflight;
use schoolgate_acme::transport::HttpsTransport;
use schoolgate_acme::worker::Worker;
use schoolgate_config::model::{DomainName, Revision};
use schoolgate_config::seal::Keeper;
use schoolgate_config::settings::{AcmeAuthority, Eab, Issuer, Settings};
use schoolgate_config::time::{Clock, new_ulid};
use schoolgate_control_api::publish::FeedServer;
use schoolgate_store::{Store, StoreError};
use tracing::info;

/// The right to make and order certificates: of many control processes one does.
const LEASE: &str = "certificates";

/// Age up to which a proxy that another control process serves counts as live: 20 s. That process saves what it hears
/// every five.
const HEARD_WITHIN_MS: i64 = 20_000;

/// What makes and orders certificates. A clone is another handle to the same one.
#[derive(Clone)]
pub(super) struct Certificates {
    store: Store,
    holder: String,
    worker: Worker,
    orders: Option<Orders>,
}

/// Prepares the workers that the settings ask for.
pub(super) fn service(
    settings: &Settings,
    worker: Worker,
    (store, feed): (&Store, &FeedServer),
    keeper: Arc<Keeper>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Certificates> {
    let holder = holder(&settings.data.dir)?;
    let store = store.clone();
    if settings.acme.issuer == Issuer::Internal {
        return Ok(Certificates { store, holder, worker, orders: None });
    }
    let internal = settings.acme.internal.iter().map(|name| DomainName::parse(name)).collect::<Result<_, _>>()?;
    let world = World {
        store: store.clone(),
        keeper,
        clock: Arc::clone(&clock),
        fleet: Arc::new(FeedFleet { store: store.clone(), feed: feed.clone(), clock }),
        preflight: Arc::new(StorePreflight::new(store.clone(), settings.acme.challenge)),
    };
    let authorities = authorities(settings)?;
    for authority in &authorities {
        info!("certificates come from {} ({})", authority.id, authority.directory.url());
    }
    let orders = Orders::new(world, authorities);
    let worker = worker.sharing(Issuers::acme_but(internal), orders.assigned());
    Ok(Certificates { store, holder, worker, orders: Some(orders) })
}

impl Certificates {
    /// Works whenever this process holds the lease, until `stop` is done.
    pub(super) async fn run(self, stop: impl Future<Output = ()>) {
        let Self { store, holder, worker, orders } = self;
        let work = |lease: schoolgate_store::Lease| {
            let (worker, orders) = (worker.clone(), orders.clone());
            async move {
                match orders {
                    None => worker.run(lease).await,
                    Some(orders) => {
                        tokio::join!(worker.run(lease.clone()), orders.run(lease));
                    }
                }
            }
        };
        store.while_leased(LEASE, &holder, stop, work).await;
    }
}

/// The name under which this process holds leases. It belongs to the data directory, which one process at a time has: so
/// a process that was killed is followed by itself, and need not wait until its own lease runs out.
pub(super) fn holder(data: &Path) -> anyhow::Result<String> {
    let path = data.join("holder");
    let read = || std::fs::read_to_string(&path).map(|text| text.trim().to_owned());
    match read() {
        Ok(name) if !name.is_empty() => return Ok(name),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
    let name = format!("control-{}", new_ulid().to_string().to_lowercase());
    std::fs::write(&path, format!("{name}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(name)
}

/// The CAs of the settings, the first before the second.
fn authorities(settings: &Settings) -> anyhow::Result<Vec<Authority>> {
    settings.acme.authorities().map(|asked| authority(settings, asked)).collect()
}

fn authority(settings: &Settings, asked: AcmeAuthority<'_>) -> anyhow::Result<Authority> {
    let root = (!asked.root_ca.is_empty()).then(|| settings.path(asked.root_ca));
    let transport = HttpsTransport::new(root.as_deref())?;
    Ok(Authority {
        id: asked.name.parse()?,
        directory: Directory::new(asked.directory, Arc::new(transport)),
        contact: asked.contact.to_vec(),
        binding: binding(settings, asked.eab)?,
        profile: (!asked.profile.is_empty()).then(|| asked.profile.to_owned()),
        limits: asked.limits,
    })
}

fn binding(settings: &Settings, eab: &Eab) -> anyhow::Result<Option<Binding>> {
    if eab.kid.is_empty() {
        return Ok(None);
    }
    let path = settings.path(&eab.key_file);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("the key of the external account binding {} cannot be read", path.display()))?;
    let key = read_binding_key(&text).with_context(|| {
        format!("{} does not hold the key of an external account binding: one line of base64url", path.display())
    })?;
    Ok(Some(Binding { kid: eab.kid.clone(), key }))
}

/// The proxies: those of this process as it hears them, those of others as the store knows them.
struct FeedFleet {
    store: Store,
    feed: FeedServer,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Fleet for FeedFleet {
    async fn serves(&self, change: u64) -> Result<Adopted, StoreError> {
        let Some(revision) = self.store.revision_of(change).await? else {
            return Ok(Adopted::NotYet(format!("change {change} is not published yet")));
        };
        let heard = self.feed.nodes();
        let since = self.clock.unix_ms() - HEARD_WITHIN_MS;
        let mut live = 0_usize;
        let serves = |report: Option<Revision>| report.is_some_and(|serving| serving >= revision);
        for node in heard.iter().filter(|node| node.live) {
            live += 1;
            if !serves(node.report.as_ref().map(|report| report.serving)) {
                return Ok(behind(node.node.as_str(), revision));
            }
        }
        for node in self.store.nodes().await?.iter().filter(|node| node.seen_at_ms >= since) {
            if heard.iter().any(|h| h.node == node.node && h.live) {
                continue;
            }
            live += 1;
            if !serves(node.report.as_ref().map(|report| report.serving)) {
                return Ok(behind(node.node.as_str(), revision));
            }
        }
        Ok(if live == 0 { Adopted::NotYet("no proxy is there to answer".to_owned()) } else { Adopted::Everywhere })
    }
}

fn behind(node: &str, revision: Revision) -> Adopted {
    Adopted::NotYet(format!("the proxy {node} does not serve revision {revision} yet"))
}
