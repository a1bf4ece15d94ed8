//! Looks at a domain from every side.

mod caa;
mod probe;
mod records;
mod zone;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use hickory_proto::rr::{Name, RecordType};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::ask::{Asking, ask, usable};
use crate::expected::Expected;
use crate::observation::{Answer, Failure, Observation, Reached, Route, Seen, Server, Stray, Strays};
pub use probe::{Probe, ProbeOptions};
use records::{Said, plain};
use zone::Zone;

/// Domains looked at in one moment: 16. One takes some thirty questions, most of them to other people's servers.
const AT_ONCE: usize = 16;

/// Resolvers asked for one domain: four.
const RESOLVERS: usize = 4;

/// Time that each part of a look may take: 8 s, so that who asks for one waits half a minute at most.
const PART: Duration = Duration::from_secs(8);

/// Aliases followed, one to the next: ten, as many as Let's Encrypt follows.
const ALIASES: usize = 10;

/// How a checker asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckerOptions {
    /// The resolvers; at least one.
    pub resolvers: Vec<SocketAddr>,
    /// The port at which servers that know a zone are asked: 53, but for tests.
    pub authoritative_port: u16,
    /// Whether and where it looks what is at port 80 of the addresses found.
    pub probe: ProbeOptions,
}

/// Looks at domains. A clone is another handle to the same one.
#[derive(Debug, Clone)]
pub struct Checker {
    options: Arc<CheckerOptions>,
    places: Arc<Semaphore>,
}

/// One server, and how it is asked.
#[derive(Debug, Clone)]
struct Asked {
    server: Server,
    address: SocketAddr,
}

impl Asked {
    /// What the server says; of a resolver that refuses for DNSSEC: that.
    async fn said(&self, name: &Name, kind: RecordType) -> Result<Said, Failure> {
        if self.server.is_authoritative() {
            let message = ask(self.address, name, kind, Asking::Authoritative).await?;
            usable(&message)?;
            // One that does not know the zone it is said to know (a lame delegation).
            return if message.metadata.authoritative { Said::of(message, name) } else { Err(Failure::Refused) };
        }
        let message = ask(self.address, name, kind, Asking::Resolver).await?;
        match usable(&message) {
            Ok(()) => Said::of(message, name),
            Err(Failure::ServFail) => {
                let unchecked = ask(self.address, name, kind, Asking::ResolverUnchecked).await;
                let answers = unchecked.is_ok_and(|message| usable(&message).is_ok());
                Err(if answers { Failure::Bogus } else { Failure::ServFail })
            }
            Err(other) => Err(other),
        }
    }
}

impl Checker {
    /// A checker.
    pub fn new(options: CheckerOptions) -> Self {
        Self { options: Arc::new(options), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    fn resolvers(&self) -> Vec<Asked> {
        let addresses = self.options.resolvers.iter().take(RESOLVERS).copied();
        addresses.map(|address| Asked { server: Server::Resolver(address.ip()), address }).collect()
    }

    /// Asks everybody, and writes down what they said. Takes seconds at most; a server that does not answer is in what
    /// was seen.
    pub async fn look(&self, expected: &Expected) -> Observation {
        // Never closed.
        let _place = self.places.acquire().await;
        let resolvers = self.resolvers();
        let finding = zone::find(&resolvers, self.options.authoritative_port, &expected.name);
        let zone = timeout(PART, finding).await.unwrap_or_else(|_| Zone::unknown());
        let all: Vec<&Asked> = zone.servers.iter().chain(&resolvers).collect();
        let seen = join_all(all.iter().map(|asked| see(asked, &resolvers, &zone, expected)));
        let target = timeout(PART, target(&resolvers, expected));
        let caa = timeout(PART, caa::climb(&zone, &resolvers, &expected.name));
        let challenge = timeout(PART, challenge(&all, expected));
        let (seen, (target, (caa, challenge))) = join(seen, join(target, join(caa, challenge))).await;
        let target = target.unwrap_or(Answer::Failed(Failure::Timeout));
        let caa = caa.unwrap_or(Answer::Failed(Failure::Timeout));
        let challenge = challenge.unwrap_or(Answer::Failed(Failure::Timeout));
        let reached = self.reached(expected, &seen, &target).await;
        let strays = timeout(PART, strays(&zone, &resolvers, expected, &seen)).await.unwrap_or_default();
        Observation {
            registered: zone.registered,
            zone: zone.apex.as_ref().map(plain),
            seen,
            target,
            strays,
            caa,
            challenge,
            reached,
        }
    }

    /// What is at port 80 of the name's addresses here. Those elsewhere are not touched: they are not ours to knock at,
    /// and what is wrong about them is known.
    async fn reached(&self, expected: &Expected, seen: &[Seen], target: &Answer<Vec<IpAddr>>) -> Vec<Reached> {
        let of_target = || target.found().into_iter().flatten().copied();
        let ours: BTreeSet<IpAddr> = expected.addresses.iter().copied().chain(of_target()).collect();
        let alias = expected.target();
        let mut addresses = BTreeSet::new();
        for route in seen.iter().filter_map(|seen| seen.route.found()) {
            addresses.extend(route.addresses().filter(|address| ours.contains(address)));
            if alias.as_ref().is_some_and(|alias| route.chain.contains(alias)) {
                addresses.extend(of_target());
            }
        }
        self.options.probe.look(&expected.name, &addresses, &expected.thumbprints).await
    }
}

/// What one server says of a domain.
async fn see(asked: &Asked, resolvers: &[Asked], zone: &Zone, expected: &Expected) -> Seen {
    let proof = async {
        match name(&expected.proof_name()) {
            Some(at) => answer(asked.said(&at, RecordType::TXT).await, Said::texts),
            None => Answer::Failed(Failure::Malformed),
        }
    };
    let route = async {
        match name(expected.name.as_str()) {
            Some(at) => route(asked, resolvers, zone, &at, expected).await,
            None => Answer::Failed(Failure::Malformed),
        }
    };
    let (proof, route) = join(timeout(PART, proof), timeout(PART, route)).await;
    Seen {
        server: asked.server.clone(),
        proof: proof.unwrap_or(Answer::Failed(Failure::Timeout)),
        route: route.unwrap_or(Answer::Failed(Failure::Timeout)),
    }
}

/// Where a name leads by one server's word. What lies beyond its zone is the resolvers' to say.
async fn route(asked: &Asked, resolvers: &[Asked], zone: &Zone, at: &Name, expected: &Expected) -> Answer<Route> {
    let mut route = Route::default();
    let mut ttl = u32::MAX;
    let mut here = at.clone();
    let mut asked = asked;
    let mut existed = false;
    loop {
        let (v4, v6) = join(asked.said(&here, RecordType::A), asked.said(&here, RecordType::AAAA)).await;
        let v4 = match v4 {
            Ok(said) => said,
            Err(failure) => return Answer::Failed(failure),
        };
        // Some name servers fail for AAAA alone; visitors get by with IPv4 then.
        let v6 = v6.ok();
        let chain = if v4.chain.is_empty() { v6.as_ref().map_or(&v4.chain, |said| &said.chain) } else { &v4.chain };
        for alias in chain {
            let alias = plain(alias);
            if alias == plain(at) || route.chain.contains(&alias) || route.chain.len() >= ALIASES {
                return Answer::Failed(Failure::Loop);
            }
            route.chain.push(alias);
        }
        ttl = ttl.min(v4.ttl).min(v6.as_ref().map_or(u32::MAX, |said| said.ttl));
        existed |= v4.exists;
        route.v4 = v4.v4();
        route.v6 = v6.as_ref().map(Said::v6).unwrap_or_default();
        let Some(last) = chain.last().cloned() else { break };
        let ours = expected.target().is_some_and(|target| route.chain.contains(&target));
        if !asked.server.is_authoritative() || ours || route.addresses().next().is_some() {
            break;
        }
        // The server knows its own zone only.
        if !zone.apex.as_ref().is_some_and(|apex| apex.zone_of(&last)) {
            match resolvers.first() {
                Some(resolver) => asked = resolver,
                None => break,
            }
        }
        here = last;
    }
    if route == Route::default() {
        return if existed { Answer::NoData } else { Answer::NxDomain };
    }
    Answer::Found { value: route, ttl }
}

/// Where our own name for the domain leads.
async fn target(resolvers: &[Asked], expected: &Expected) -> Answer<Vec<IpAddr>> {
    let Some(at) = expected.target().as_deref().and_then(name) else { return Answer::NoData };
    let mut last = Answer::Failed(Failure::Unreachable);
    for resolver in resolvers {
        let (v4, v6) = join(resolver.said(&at, RecordType::A), resolver.said(&at, RecordType::AAAA)).await;
        let v4 = answer(v4, Said::v4);
        let v6 = answer(v6, Said::v6);
        let addresses: Vec<_> = (v4.found().into_iter().flatten().copied().map(IpAddr::V4))
            .chain(v6.found().into_iter().flatten().copied().map(IpAddr::V6))
            .collect();
        if !addresses.is_empty() {
            return Answer::Found { value: addresses, ttl: 0 };
        }
        last = match v4 {
            Answer::Failed(failure) => Answer::Failed(failure),
            _ => return Answer::NoData,
        };
    }
    last
}

/// What the name that proves the domain to a certificate authority is an alias of, by the first who knows.
async fn challenge(all: &[&Asked], expected: &Expected) -> Answer<Vec<String>> {
    let Some(at) = name(&expected.challenge_name()) else { return Answer::NoData };
    let mut last = Answer::Failed(Failure::Unreachable);
    for asked in all {
        match asked.said(&at, RecordType::CNAME).await {
            Ok(said) if said.chain.is_empty() => return Answer::NoData,
            Ok(said) => return Answer::Found { value: said.chain.iter().map(plain).collect(), ttl: said.ttl },
            Err(failure) => last = Answer::Failed(failure),
        }
    }
    last
}

/// Looks where beginners put records, when they are not where they should be.
async fn strays(zone: &Zone, resolvers: &[Asked], expected: &Expected, seen: &[Seen]) -> Strays {
    let mut strays = Strays::default();
    let Some(asked) = zone.servers.first().or(resolvers.first()) else { return strays };
    let apex = zone.apex.as_ref().map(plain);
    let proof = expected.proof();
    if !seen.iter().all(|seen| seen.proof.found().is_some_and(|values| values.contains(&proof))) {
        if let Some(apex) = &apex {
            strays.proof_zone_appended = texts_at(asked, &format!("{}.{apex}", expected.proof_name())).await;
        }
        strays.proof_at_name = texts_at(asked, expected.name.as_str()).await;
    }
    let nowhere = seen.iter().any(|seen| matches!(seen.route, Answer::NxDomain | Answer::NoData));
    if let Some(apex) = apex.filter(|_| nowhere) {
        let at = format!("{}.{apex}", expected.name);
        let Some(wrong) = name(&at) else { return strays };
        if let Ok(said) = asked.said(&wrong, RecordType::A).await {
            let aliases = said.chain.iter().map(|alias| format!("CNAME {}", plain(alias)));
            let addresses = said.v4().into_iter().map(|address| format!("A {address}"));
            let values = aliases.chain(addresses);
            strays.route_zone_appended = values.map(|value| Stray { name: at.clone(), value }).collect();
        }
    }
    strays
}

async fn texts_at(asked: &Asked, at: &str) -> Vec<Stray> {
    let Some(wrong) = name(at) else { return Vec::new() };
    let said = asked.said(&wrong, RecordType::TXT).await;
    let texts = said.map(|said| said.texts()).unwrap_or_default();
    texts.into_iter().map(|value| Stray { name: at.to_owned(), value }).collect()
}

/// What a server said, as an answer; no value is an answer without records.
fn answer<T>(said: Result<Said, Failure>, value: impl FnOnce(&Said) -> Vec<T>) -> Answer<Vec<T>> {
    match said {
        Ok(said) => {
            let value = value(&said);
            match (value.is_empty(), said.exists) {
                (false, _) => Answer::Found { value, ttl: said.ttl },
                (true, true) => Answer::NoData,
                (true, false) => Answer::NxDomain,
            }
        }
        Err(failure) => Answer::Failed(failure),
    }
}

/// A name as it is asked for; `None` for one that is too long with what we put before or behind it.
fn name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}
