//! The DNS of a control process: whom it asks about domains, and what it answers itself.

use std::sync::Arc;

use schoolgate_config::model::DomainName;
use schoolgate_config::settings::{Issuer, Settings};
use schoolgate_config::time::Clock;
use schoolgate_control_api::{DomainChecks, PlatformFacts, StoredTxt};
use schoolgate_dns::{CaIdentity, Checker, CheckerOptions, Responder, ResponderOptions, resolvers_of_system};
use schoolgate_store::Store;

use super::control::Pools;

/// The checks of domains as the settings want them.
pub(super) fn checks(
    settings: &Settings,
    pools: Pools,
    store: &Store,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<DomainChecks> {
    let dns = &settings.dns;
    let resolvers = if dns.resolvers.is_empty() { resolvers_of_system() } else { dns.resolvers.clone() };
    let checker = Checker::new(CheckerOptions { resolvers, authoritative_port: dns.authoritative_port });
    let owned = settings.platform.assume_owned.iter();
    let facts = PlatformFacts {
        assume_owned: owned.map(|suffix| DomainName::parse(suffix)).collect::<Result<_, _>>()?,
        addresses: settings.platform.addresses.clone(),
        issuers: issuers(settings),
        caps: settings.platform.caps.limits(),
        makes_pools: pools == Pools::AreMade,
    };
    Ok(DomainChecks::new(store.clone(), checker, facts, clock))
}

/// The CAs that CAA records must let issue. The internal one asks nobody.
fn issuers(settings: &Settings) -> Vec<CaIdentity> {
    match settings.acme.issuer {
        Issuer::Internal => Vec::new(),
        Issuer::Acme if settings.dns.caa_identities.is_empty() => {
            CaIdentity::of_directory(&settings.acme.directory).into_iter().collect()
        }
        Issuer::Acme => settings.dns.caa_identities.iter().map(|name| CaIdentity::named(name)).collect(),
    }
}

/// Our own authoritative server, if the settings want it.
pub(super) async fn responder(settings: &Settings, store: &Store) -> anyhow::Result<Option<Responder>> {
    let Some(listen) = settings.dns.listen else { return Ok(None) };
    let name = &settings.dns.name;
    let name = if name.is_empty() { None } else { Some(DomainName::parse(name)?) };
    let source = Arc::new(StoredTxt::new(store.clone()));
    let started = Responder::start(ResponderOptions { listen, name }, source).await;
    let responder = started.map_err(|error| {
        anyhow::anyhow!("{error}; choose another address with the setting dns.listen, or remove it")
    })?;
    Ok(Some(responder))
}
