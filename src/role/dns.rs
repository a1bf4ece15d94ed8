//! The DNS of a control process: whom it asks about domains, and what it answers itself.

use std::sync::Arc;

use schoolgate_config::model::DomainName;
use schoolgate_config::settings::{AcmeAuthority, AcmeChallenge, DnsProbe, Issuer, Settings};
use schoolgate_config::time::Clock;
use schoolgate_control_api::{DomainChecks, NameServer, PlatformFacts, StoredTxt};
use schoolgate_dns::{
    CaIdentity, Checker, CheckerOptions, Probe, ProbeOptions, Proxies, Responder, ResponderOptions, resolvers_of_system,
};
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
    let probe = probe(settings);
    let checker = Checker::new(CheckerOptions { resolvers, authoritative_port: dns.authoritative_port, probe });
    let owned = settings.platform.assume_owned.iter();
    let facts = PlatformFacts {
        assume_owned: owned.map(|suffix| DomainName::parse(suffix)).collect::<Result<_, _>>()?,
        addresses: settings.platform.addresses.clone(),
        issuers: issuers(settings),
        name_server: if dns.listen.is_some() { NameServer::Answers } else { NameServer::Absent },
        proxies: Arc::new(Proxies::new(dns.cdn_networks()?)),
        caps: settings.platform.caps.limits(),
        makes_pools: pools == Pools::AreMade,
        instances: settings.instances.clone(),
    };
    Ok(DomainChecks::new(store.clone(), checker, facts, clock))
}

/// What is looked at over plain HTTP: nothing, where no CA will look there.
fn probe(settings: &Settings) -> ProbeOptions {
    let looks = settings.acme.issuer == Issuer::Acme && settings.acme.challenge == AcmeChallenge::Http01;
    let probe = match settings.dns.probe {
        DnsProbe::Public if looks => Probe::Public,
        DnsProbe::Any if looks => Probe::Any,
        _ => Probe::Off,
    };
    ProbeOptions { probe, port: settings.dns.probe_port }
}

/// The CAs that CAA records must let issue. The internal one asks nobody.
fn issuers(settings: &Settings) -> Vec<CaIdentity> {
    if settings.acme.issuer == Issuer::Internal {
        return Vec::new();
    }
    let direct = match settings.acme.challenge {
        AcmeChallenge::Http01 => "http-01",
        AcmeChallenge::TlsAlpn01 => "tls-alpn-01",
    };
    let delegated = settings.dns.listen.map(|_| "dns-01");
    let methods: Vec<String> = [direct].into_iter().chain(delegated).map(str::to_owned).collect();
    let given = [&settings.dns.caa_identities, &settings.acme.fallback.caa_identities];
    let identity = |(asked, names): (AcmeAuthority<'_>, &Vec<String>)| {
        let known = CaIdentity::name_of_directory(asked.directory).map(str::to_owned);
        let names = if names.is_empty() { known.into_iter().collect() } else { names.clone() };
        CaIdentity { ca: asked.name.to_owned(), names, account_uri: None, methods: methods.clone() }
    };
    settings.acme.authorities().zip(given).map(identity).collect()
}

/// Our own authoritative server, if the settings want it.
pub(super) async fn responder(settings: &Settings, store: &Store) -> anyhow::Result<Option<Responder>> {
    let Some(listen) = settings.dns.listen else { return Ok(None) };
    let name = &settings.dns.name;
    let name = if name.is_empty() { None } else { Some(DomainName::parse(name)?) };
    let source = Arc::new(StoredTxt::new(store.clone()));
    let started = Responder::start(ResponderOptions { listen, name }, source).await;
    let responder = started
        .map_err(|error| anyhow::anyhow!("{error}; choose another address with --dns (setting dns.listen), or none"))?;
    Ok(Some(responder))
}
