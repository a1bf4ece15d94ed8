//! Where the zone of a name begins, and who knows it.

use std::net::{IpAddr, SocketAddr};

use futures_util::future::join_all;
use hickory_proto::rr::{Name, RecordType};
use schoolgate_config::model::DomainName;

use super::records::{Said, plain};
use super::{Asked, name};
use crate::ask::{Asking, ask, usable};
use crate::names::registrable;
use crate::observation::{Answer, Failure, Server};

/// Name servers of a zone that are asked: four of what are mostly two to four.
const SERVERS: usize = 4;

/// The zone of a name.
#[derive(Debug)]
pub(super) struct Zone {
    /// Where it begins.
    pub(super) apex: Option<Name>,
    /// Who knows it.
    pub(super) servers: Vec<Asked>,
    /// Whether the registered domain is known at all.
    pub(super) registered: Answer<()>,
}

impl Zone {
    /// One that nobody told in time.
    pub(super) fn unknown() -> Self {
        Self { apex: None, servers: Vec::new(), registered: Answer::Failed(Failure::Timeout) }
    }
}

/// Finds the zone of a domain. DNSSEC does not matter here: whether signatures hold is seen by the questions themselves.
pub(super) async fn find(resolvers: &[Asked], port: u16, domain: &DomainName) -> Zone {
    let registered = registered(resolvers, domain).await;
    let mut zone = Zone { apex: None, servers: Vec::new(), registered };
    let lowest = registrable(domain).unwrap_or(domain.as_str());
    let mut at = Some(domain.as_str());
    while let Some(text) = at {
        let Some(here) = name(text) else { return zone };
        if let Ok(said) = unchecked(resolvers, &here, RecordType::SOA).await
            && let Some(apex) = said.zone().filter(|apex| apex.zone_of(&here))
        {
            zone.apex = Some(apex.to_lowercase());
            break;
        }
        at = if text == lowest { None } else { text.split_once('.').map(|(_, parent)| parent) };
    }
    if let Some(apex) = &zone.apex {
        zone.servers = servers(resolvers, port, apex).await;
    }
    zone
}

/// Whether the registered domain is in the DNS.
async fn registered(resolvers: &[Asked], domain: &DomainName) -> Answer<()> {
    let Some(at) = registrable(domain).and_then(name) else { return Answer::NoData };
    match unchecked(resolvers, &at, RecordType::NS).await {
        Ok(said) if said.exists => Answer::Found { value: (), ttl: said.ttl },
        Ok(_) => Answer::NxDomain,
        Err(failure) => Answer::Failed(failure),
    }
}

async fn servers(resolvers: &[Asked], port: u16, apex: &Name) -> Vec<Asked> {
    let Ok(said) = unchecked(resolvers, apex, RecordType::NS).await else { return Vec::new() };
    let mut names = said.servers();
    names.sort_unstable();
    names.truncate(SERVERS);
    let addresses = join_all(names.iter().map(|name| address(resolvers, name))).await;
    let found = names.iter().zip(addresses).filter_map(|(name, address)| {
        let address = address?;
        let server = Server::Authoritative { name: plain(name), address };
        Some(Asked { server, address: SocketAddr::new(address, port) })
    });
    found.collect()
}

/// The address to ask a server at: IPv4 where it has it, for not every gateway has IPv6.
async fn address(resolvers: &[Asked], server: &Name) -> Option<IpAddr> {
    let v4 = unchecked(resolvers, server, RecordType::A).await.ok().and_then(|said| said.v4().first().copied());
    if let Some(v4) = v4 {
        return Some(v4.into());
    }
    let v6 = unchecked(resolvers, server, RecordType::AAAA).await.ok()?;
    v6.v6().first().copied().map(IpAddr::V6)
}

/// The first resolver's answer.
async fn unchecked(resolvers: &[Asked], at: &Name, kind: RecordType) -> Result<Said, Failure> {
    let mut last = Failure::Unreachable;
    for resolver in resolvers {
        match ask(resolver.address, at, kind, Asking::ResolverUnchecked).await {
            Ok(message) => match usable(&message) {
                Ok(()) => return Said::of(message, at),
                Err(failure) => last = failure,
            },
            Err(failure) => last = failure,
        }
    }
    Err(last)
}
