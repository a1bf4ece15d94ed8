//! What an observation means: a verdict on each axis, and every mistake by its name. Pure.

mod caa;
mod ownership;
mod reach;
mod routing;
#[cfg(test)]
mod tests;

use crate::expected::Expected;
use crate::finding::{Axis, Code, Finding, Hindrance, WhoActs};
use crate::observation::{Answer, Failure, Observation, Server};

/// Whether a proof of ownership is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Yes: every server that knows the zone and answered says so.
    Present,
    /// No: every server that knows the zone and answered says so.
    Absent,
    /// Nobody said, or they do not agree. No evidence either way.
    Unknown,
}

/// Where a name points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointing {
    /// At this gateway.
    Here,
    /// Some of its addresses, or some servers' answers, do.
    Partial,
    /// Elsewhere, or nowhere.
    Elsewhere,
    /// Nobody said. No evidence either way.
    Unknown,
}

/// What an observation says of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the owner's TXT record is there.
    pub proof: Proof,
    /// Whether the name is an alias of the domain's own unguessable name. Who can set that manages the name's DNS, so it
    /// keeps a proof; it does not begin one.
    pub alias: Proof,
    /// Where the name points.
    pub pointing: Pointing,
    /// Whether the TXT record of another tenant that asks for the name is there.
    pub other: Proof,
}

/// A verdict, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The verdict.
    pub verdict: Verdict,
    /// What is wrong, in the order to mend it.
    pub findings: Vec<Finding>,
    /// What an order would fail for.
    pub hindrances: Vec<Hindrance>,
    /// Whether the name where a certificate authority looks for a TXT record is an alias of ours.
    pub delegated: Proof,
}

/// What an observation means.
pub fn classify(observation: &Observation, expected: &Expected) -> Assessment {
    let mut findings = Vec::new();
    let proof = ownership::proof(observation, &expected.proof());
    if proof != Proof::Present {
        ownership::explain(observation, expected, proof, &mut findings);
    }
    let pointing = routing::assess(observation, expected, &mut findings);
    let delegated = delegated(observation, expected);
    let mut hindrances = Vec::new();
    caa::check(observation, expected, delegated == Proof::Present, (&mut findings, &mut hindrances));
    reach::check(observation, expected, &mut findings);
    // Those of CAA are by CA already.
    hindrances.extend(findings.iter().filter(|finding| finding.code != Code::CaaForbids).filter_map(Hindrance::of));
    let other = expected.other.as_ref().map_or(Proof::Absent, |other| ownership::proof(observation, &other.proof()));
    let alias = routing::alias(observation, expected);
    Assessment { verdict: Verdict { proof, alias, pointing, other }, findings, hindrances, delegated }
}

/// Whether `_acme-challenge.<name>` is an alias of our own name for it.
fn delegated(observation: &Observation, expected: &Expected) -> Proof {
    let Some(target) = expected.challenge_target() else { return Proof::Absent };
    match &observation.challenge {
        Answer::Found { value: chain, .. } if chain.contains(&target) => Proof::Present,
        Answer::Failed(_) => Proof::Unknown,
        _ => Proof::Absent,
    }
}

/// The answers of those whose word counts: servers that know the zone; resolvers only when none of those answered.
fn deciding<'a, T>(answers: impl Iterator<Item = (&'a Server, &'a Answer<T>)>) -> Vec<(&'a Server, &'a Answer<T>)> {
    let definite: Vec<_> = answers.filter(|(_, answer)| answer.is_definite()).collect();
    let knowing: Vec<_> = definite.iter().copied().filter(|(server, _)| server.is_authoritative()).collect();
    if knowing.is_empty() { definite } else { knowing }
}

/// Names what keeps servers from answering, if that is it.
fn explain_failures<'a, T: 'a>(
    axis: Axis,
    what: &str,
    answers: impl Iterator<Item = (&'a Server, &'a Answer<T>)> + Clone,
) -> Option<Finding> {
    let failed = |wanted: Failure| {
        let mut answers = answers.clone();
        answers.find(|(_, answer)| answer.failure() == Some(wanted)).map(|(server, _)| server)
    };
    if let Some(server) = failed(Failure::Bogus) {
        let fix = "Resolvers refuse the answer because its DNSSEC signatures do not hold. Where the domain is \
                   registered, compare the DS records with the keys that the DNS provider shows; after a move to \
                   another provider, remove the old DS records";
        return Some(
            Finding::new(Code::DnssecBogus, axis, what, fix)
                .found("an answer whose DNSSEC signatures do not hold")
                .said_by(server),
        );
    }
    if let Some(server) = failed(Failure::Loop) {
        let fix = "CNAME records lead in a circle. Remove all of them but the one shown";
        return Some(Finding::new(Code::CnameLoop, axis, what, fix).found("CNAMEs in a circle").said_by(server));
    }
    let (server, failure) = answers.clone().find_map(|(server, answer)| Some((server, answer.failure()?)))?;
    let finding = match failure {
        Failure::ServFail | Failure::Refused | Failure::Malformed => Finding::new(
            Code::ServerFailure,
            axis,
            what,
            "The name servers of the domain fail. Ask the DNS provider to look at the zone; nothing here changes until \
             they answer",
        ),
        _ => Finding::new(
            Code::NoAnswer,
            axis,
            what,
            "No name server answers. If only this domain is concerned, its DNS provider is down; if every domain is, \
             this gateway cannot reach the DNS",
        )
        .acts(WhoActs::Operator),
    };
    Some(finding.found(failure.to_string()).said_by(server))
}
