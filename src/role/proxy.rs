//! `schoolgate proxy`: data plane alone, remote feed.

use std::sync::Arc;

use anyhow::Context;
use schoolgate_config::seal::Keeper;
use schoolgate_config::settings::Settings;
use schoolgate_proxy::feed::SnapshotFeed;
use schoolgate_proxy::feed::remote::RemoteFeed;
use schoolgate_proxy::server::{ProxyHandle, ProxyOptions, ProxyServer};
use tracing::info;

use super::control::at;
use super::data_dir::{Addresses, DataDir};
use super::notify::{self, Notice};
use super::signals;
use super::start::{self, Flags, runtime};
use crate::cli::ProxyArgs;

/// Runs it until it is told to stop.
pub(crate) fn run(args: &ProxyArgs) -> anyhow::Result<()> {
    let mut flags = Flags::new(&args.settings)?;
    flags.listen(&args.listen);
    flags.list("proxy.control", &args.control_urls);
    flags.path("proxy.node_token_file", args.node_token_file.as_deref())?;
    let settings = start::begin(&args.settings, &flags)?;
    let dir = DataDir::take(&settings.data.dir)?;
    let settings = at(settings, &dir);
    let keeper = Keeper::open(&settings.key_file())
        .context("a proxy opens certificates with the key file of its control plane (--keys-file)")?;
    let feed = remote_feed(&settings)?;
    runtime()?.block_on(async {
        let stop = signals::on_stop()?;
        let proxy = start_proxy(&settings, feed, Arc::new(keeper)).await?;
        let addresses = addresses(&proxy);
        dir.publish_addresses(&addresses)?;
        notify::tell(Notice::Ready);
        info!(
            "ready: https on {}, http on {}, status on {}",
            shown(addresses.https),
            shown(addresses.http),
            shown(addresses.status)
        );
        stop.cancelled().await;
        notify::tell(Notice::Stopping);
        dir.forget_addresses();
        stop_proxy(proxy, &settings).await;
        Ok(())
    })
}

fn shown(address: Option<std::net::SocketAddr>) -> String {
    address.map(|a| a.to_string()).unwrap_or_default()
}

fn remote_feed(settings: &Settings) -> anyhow::Result<Arc<dyn SnapshotFeed>> {
    let token_file = settings.path(&settings.proxy.node_token_file);
    let token = std::fs::read_to_string(&token_file).with_context(|| {
        format!(
            "the node token {} cannot be read: the control process writes it into its data directory; copy it, or say \
             where it is with --node-token-file",
            token_file.display()
        )
    })?;
    Ok(Arc::new(RemoteFeed::new(settings.node_name()?, &settings.proxy.control, token.trim())?))
}

/// Starts the data plane of this process.
pub(super) async fn start_proxy(
    settings: &Settings,
    feed: Arc<dyn SnapshotFeed>,
    keeper: Arc<Keeper>,
) -> anyhow::Result<ProxyHandle> {
    let options = ProxyOptions::new(settings, keeper, feed)?;
    Ok(ProxyServer::start(options).await?)
}

/// Stops taking connections, finishes what is in flight.
pub(super) async fn stop_proxy(proxy: ProxyHandle, settings: &Settings) {
    // It says itself what it had to cut.
    proxy.stop(settings.proxy.drain_s.duration()).await;
}

/// Where it listens.
pub(super) fn addresses(proxy: &ProxyHandle) -> Addresses {
    let bound = proxy.addresses();
    Addresses { http: Some(bound.http), https: Some(bound.https), status: Some(bound.status), ..Addresses::default() }
}
