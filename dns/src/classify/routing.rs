//! Where a name points, and the ways it goes wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Pointing, Proof, deciding, explain_failures};
use crate::cdn;
use crate::expected::Expected;
use crate::finding::{Axis, Code, Finding, WhoActs};
use crate::observation::{Answer, Observation, Route, Server};

fn answers(observation: &Observation) -> impl Iterator<Item = (&Server, &Answer<Route>)> + Clone {
    observation.seen.iter().map(|seen| (&seen.server, &seen.route))
}

/// What counts as here.
struct Here<'a> {
    target: Option<String>,
    addresses: BTreeSet<IpAddr>,
    expected: &'a Expected,
}

impl<'a> Here<'a> {
    fn of(observation: &Observation, expected: &'a Expected) -> Self {
        let mut addresses: BTreeSet<IpAddr> = expected.addresses.iter().copied().collect();
        addresses.extend(observation.target.found().into_iter().flatten());
        Self { target: expected.target(), addresses, expected }
    }

    fn through_target(&self, route: &Route) -> bool {
        self.target.as_ref().is_some_and(|target| route.chain.contains(target))
    }

    fn pointing(&self, answer: &Answer<Route>) -> Pointing {
        match answer {
            Answer::Failed(_) => Pointing::Unknown,
            Answer::NoData | Answer::NxDomain => Pointing::Elsewhere,
            Answer::Found { value: route, .. } if self.through_target(route) => Pointing::Here,
            Answer::Found { value: route, .. } => {
                let all = route.addresses().count();
                match route.addresses().filter(|address| self.addresses.contains(address)).count() {
                    0 => Pointing::Elsewhere,
                    ours if ours == all => Pointing::Here,
                    _ => Pointing::Partial,
                }
            }
        }
    }

    /// The record to set, as a sentence has it.
    fn record(&self) -> String {
        let addresses: Vec<String> = self.expected.addresses.iter().map(ToString::to_string).collect();
        let name = &self.expected.name;
        match (&self.target, addresses.is_empty()) {
            (Some(target), true) => format!("{name} CNAME {target}"),
            (Some(target), false) => format!("{name} CNAME {target} (or the addresses {})", addresses.join(", ")),
            (None, false) => format!("{name} with the addresses {}", addresses.join(", ")),
            (None, true) => format!("{name} pointing at this gateway"),
        }
    }
}

/// Whether the name is an alias of the domain's own name of ours.
pub(super) fn alias(observation: &Observation, expected: &Expected) -> Proof {
    let here = Here::of(observation, expected);
    let deciding = deciding(answers(observation));
    let present = deciding.iter().filter(|(_, answer)| answer.found().is_some_and(|r| here.through_target(r))).count();
    match (present, deciding.len()) {
        (_, 0) => Proof::Unknown,
        (0, _) => Proof::Absent,
        (present, all) if present == all => Proof::Present,
        _ => Proof::Unknown,
    }
}

/// Where the name points, with what is wrong about it.
pub(super) fn assess(observation: &Observation, expected: &Expected, findings: &mut Vec<Finding>) -> Pointing {
    let here = Here::of(observation, expected);
    let record = here.record();
    let deciding = deciding(answers(observation));
    let Some((server, answer)) = deciding.first().copied() else {
        findings.extend(explain_failures(Axis::Routing, &record, answers(observation)));
        return Pointing::Unknown;
    };
    let verdicts: Vec<Pointing> = deciding.iter().map(|(_, answer)| here.pointing(answer)).collect();
    let source = combined(&verdicts);
    let split = verdicts.iter().any(|verdict| *verdict != verdicts[0]);
    if split {
        findings.push(split_answers(&here, &deciding, &record));
        return source;
    }
    if source == Pointing::Here {
        if here.through_target(answer.found().unwrap_or(&Route::default())) {
            if let Some(finding) = unresolved_target(observation, &here) {
                findings.push(finding);
                return Pointing::Elsewhere;
            }
            if is_apex(observation, expected) && server.is_authoritative() {
                findings.push(cname_at_apex(expected, &record).said_by(server));
            }
        }
        return lagging(observation, &here, &record, findings);
    }
    if answer.found().is_none_or(|route| route.chain.is_empty())
        && let Answer::NxDomain = observation.registered
    {
        // Said with the ownership.
        return source;
    }
    findings.push(explain(observation, &here, server, answer, &record));
    source
}

/// One verdict of many.
fn combined(verdicts: &[Pointing]) -> Pointing {
    let all = |wanted| verdicts.iter().all(|verdict| *verdict == wanted);
    match () {
        () if all(Pointing::Here) => Pointing::Here,
        () if all(Pointing::Elsewhere) => Pointing::Elsewhere,
        () => Pointing::Partial,
    }
}

/// The source is right: whether every resolver has noticed.
fn lagging(observation: &Observation, here: &Here<'_>, record: &str, findings: &mut Vec<Finding>) -> Pointing {
    let resolvers: Vec<_> = answers(observation).filter(|(server, _)| !server.is_authoritative()).collect();
    let known = answers(observation).any(|(server, answer)| server.is_authoritative() && answer.is_definite());
    let old = resolvers.iter().find(|(_, answer)| answer.is_definite() && here.pointing(answer) != Pointing::Here);
    if let Some((server, answer)) = old.filter(|_| known) {
        let (found, wait) = match answer {
            Answer::Found { value, ttl } => (shown(value), format!("at most {ttl} s more")),
            _ => ("no such name".to_owned(), "up to the negative TTL of the zone, often an hour".to_owned()),
        };
        let fix = format!("Nothing to do: the records are right, and this resolver keeps the old answer {wait}");
        findings.push(
            Finding::new(Code::TtlRunning, Axis::Routing, record, fix)
                .found(found)
                .said_by(server)
                .acts(WhoActs::Nobody),
        );
        return Pointing::Partial;
    }
    if let Some((server, _)) = resolvers.iter().find(|(_, answer)| answer.failure() == Some(crate::Failure::Bogus))
        && let Some(finding) = explain_failures(Axis::Routing, record, resolvers.iter().copied())
    {
        // Visitors behind a resolver that checks signatures cannot come.
        findings.push(finding.said_by(server));
        return Pointing::Partial;
    }
    Pointing::Here
}

fn split_answers(here: &Here<'_>, deciding: &[(&Server, &Answer<Route>)], record: &str) -> Finding {
    let wrong = deciding.iter().find(|(_, answer)| here.pointing(answer) != Pointing::Here);
    let right = deciding.iter().filter(|(_, answer)| here.pointing(answer) == Pointing::Here).count();
    let fix = "Servers that should give the same answer do not. Wait some minutes; if it stays so, ask the DNS provider why \
               its servers differ, and look for a split DNS that answers by who asks";
    let finding = Finding::new(Code::SplitAnswers, Axis::Routing, record, fix);
    let Some((server, answer)) = wrong else { return finding };
    let found = answer.found().map_or_else(|| "no such name".to_owned(), shown);
    finding.found(format!("{found}; {right} of {} servers point here", deciding.len())).said_by(server)
}

fn unresolved_target(observation: &Observation, here: &Here<'_>) -> Option<Finding> {
    let target = here.target.as_deref()?;
    if !observation.target.is_definite() || observation.target.found().is_some() {
        return None;
    }
    let fix = format!(
        "The school's record is right, but {target} has no address. In the zone of the platform, *.cname needs A and AAAA \
         records with the gateway's addresses"
    );
    let expected = format!("{target} with an address");
    let finding = Finding::new(Code::TargetUnresolved, Axis::Routing, expected, fix).found("no address");
    Some(finding.acts(WhoActs::Operator))
}

fn cname_at_apex(expected: &Expected, record: &str) -> Finding {
    let fix = format!(
        "{} is where the zone begins, and a CNAME there hides its mail and name servers (RFC 1034 section 3.6.2). Use an \
         ALIAS or ANAME record with the same value, or A and AAAA records",
        expected.name
    );
    Finding::new(Code::CnameAtApex, Axis::Routing, record, fix).found(format!("a CNAME at {}", expected.name))
}

fn is_apex(observation: &Observation, expected: &Expected) -> bool {
    observation.zone.as_deref() == Some(expected.name.as_str())
}

/// Names why a name does not point here.
fn explain(
    observation: &Observation,
    here: &Here<'_>,
    server: &Server,
    answer: &Answer<Route>,
    record: &str,
) -> Finding {
    let name = &here.expected.name;
    let new = |code, fix: String| Finding::new(code, Axis::Routing, record, fix).said_by(server);
    let Some(route) = answer.found() else {
        if let Some(stray) = observation.strays.route_zone_appended.first() {
            let zone = observation.zone.as_deref().unwrap_or_default();
            let short = name.as_str().strip_suffix(&format!(".{zone}")).unwrap_or(name.as_str());
            let fix = format!(
                "The DNS editor appends {zone} by itself, so the record went to {}. Enter the name as {short}, or as \
                 {name}. with a final dot",
                stray.name
            );
            return new(Code::CnameZoneAppended, fix).found(format!("{} {}", stray.name, stray.value));
        }
        let fix = format!("Where the DNS of {name} is managed, set this record");
        return new(Code::NotPointingHere, fix).found("no record at this name");
    };
    if let (Some(target), Some(zone)) = (&here.target, observation.zone.as_deref())
        && route.chain.contains(&format!("{target}.{zone}"))
    {
        let fix = format!("The DNS editor appended {zone} to the value: enter it as {target}. with a final dot");
        return new(Code::CnameTargetZoneAppended, fix).found(shown(route));
    }
    if let Some(platform) = &here.expected.platform_zone
        && let Some(other) = route.chain.iter().find(|alias| alias.ends_with(&format!(".cname.{platform}")))
    {
        let fix =
            "The CNAME leads to a name that was given to another domain, or to an earlier attempt. Replace its value";
        return new(Code::CnameOtherDomain, fix.to_owned()).found(format!("{name} CNAME {other}"));
    }
    if is_apex(observation, here.expected) && !route.chain.is_empty() && server.is_authoritative() {
        return cname_at_apex(here.expected, record).found(shown(route)).said_by(server);
    }
    let ours = |address: IpAddr| here.addresses.contains(&address);
    let strange_v6 = route.v6.iter().any(|address| !ours((*address).into()));
    let v4_here = !route.v4.is_empty() && route.v4.iter().all(|address| ours((*address).into()));
    if v4_here && strange_v6 {
        let old: Vec<_> = route.v6.iter().filter(|a| !ours((**a).into())).map(ToString::to_string).collect();
        let fix = format!(
            "IPv4 points here, IPv6 still elsewhere: remove the AAAA record {}. Visitors with IPv6 and the certificate \
             authority go there first",
            old.join(", ")
        );
        return new(Code::StaleAaaa, fix).found(format!("{name} AAAA {}", old.join(", ")));
    }
    let proxies = &here.expected.proxies;
    let proxy = route
        .addresses()
        .find_map(|address| proxies.of_address(address))
        .or_else(|| route.chain.iter().find_map(|a| cdn::of_alias(a)));
    if let Some(proxy) = proxy {
        let fix = format!(
            "{proxy} stands in front of {name}. Switch its proxying off for this record (at Cloudflare: the grey cloud, \
             \"DNS only\")"
        );
        return new(Code::ProxyInFront, fix).found(format!("{} of {proxy}", shown(route)));
    }
    if route.addresses().any(ours) {
        let others: Vec<_> = route.addresses().filter(|a| !ours(*a)).map(|a| a.to_string()).collect();
        let fix = format!("Remove the other addresses: {}", others.join(", "));
        return new(Code::ExtraAddress, fix).found(shown(route));
    }
    let fix = format!("Where the DNS of {name} is managed, put this record in the place of the one found");
    new(Code::NotPointingHere, fix).found(shown(route))
}

/// A route in a line.
fn shown(route: &Route) -> String {
    let addresses = route.addresses().map(|address| address.to_string());
    let parts: Vec<String> = route.chain.iter().map(|alias| format!("CNAME {alias}")).chain(addresses).collect();
    if parts.is_empty() { "no address".to_owned() } else { parts.join(", ") }
}
