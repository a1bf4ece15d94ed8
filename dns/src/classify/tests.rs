use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use schoolgate_config::model::TenantId;

use super::*;
use crate::cdn::Proxies;
use crate::finding::Hinders;
use crate::observation::{Route, Seen, Strays};

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

fn expected() -> Expected {
    Expected {
        name: "erp.greenhill.example".parse().expect("a name"),
        tenant: TenantId::from_parts(1, 1),
        token: "k7m2p9q4r6s8t3v5w2x4".to_owned(),
        platform_zone: Some("schools.example".parse().expect("a name")),
        addresses: vec![HERE.into()],
        issuers: Vec::new(),
        thumbprints: Vec::new(),
        proxies: Arc::new(Proxies::default()),
        other: None,
    }
}

fn knowing(number: u8) -> Server {
    Server::Authoritative { name: format!("ns{number}.example"), address: IpAddr::from([192, 0, 2, number]) }
}

/// A server that has the proof, and this address for the name.
fn saying(server: Server, address: Ipv4Addr) -> Seen {
    let route = Route { v4: vec![address], ..Route::default() };
    Seen {
        server,
        proof: Answer::Found { value: vec![expected().proof()], ttl: 300 },
        route: Answer::Found { value: route, ttl: 300 },
    }
}

/// A server that says nothing.
fn silent(server: Server) -> Seen {
    let failed = Failure::Timeout;
    Seen { server, proof: Answer::Failed(failed), route: Answer::Failed(failed) }
}

fn observed(seen: Vec<Seen>) -> Observation {
    Observation {
        zone: Some("greenhill.example".to_owned()),
        registered: Answer::Found { value: (), ttl: 300 },
        seen,
        target: Answer::NxDomain,
        strays: Strays::default(),
        caa: Answer::NoData,
        challenge: Answer::NoData,
        reached: Vec::new(),
    }
}

fn codes(assessment: &Assessment) -> Vec<(Axis, Code)> {
    assessment.findings.iter().map(|finding| (finding.axis, finding.code)).collect()
}

#[test]
fn servers_that_do_not_say_the_same_are_named_and_hold_an_order() {
    let seen = classify(&observed(vec![saying(knowing(1), HERE), saying(knowing(2), ELSEWHERE)]), &expected());
    assert_eq!(codes(&seen), [(Axis::Routing, Code::SplitAnswers)]);
    assert_eq!(seen.verdict.pointing, Pointing::Partial);
    let finding = &seen.findings[0];
    assert_eq!(finding.found.as_deref(), Some("198.51.100.3; 1 of 2 servers point here"));
    assert_eq!(finding.resolver.as_deref(), Some("ns2.example (192.0.2.2)"));
    assert_eq!(seen.hindrances.iter().map(|h| h.hinders).collect::<Vec<_>>(), [Hinders::Looking]);
}

#[test]
fn a_proof_that_only_some_servers_have_is_no_verdict_and_holds_no_order() {
    let without = Seen { proof: Answer::NoData, ..saying(knowing(2), HERE) };
    let seen = classify(&observed(vec![saying(knowing(1), HERE), without]), &expected());
    assert_eq!(codes(&seen), [(Axis::Ownership, Code::SplitAnswers)]);
    assert_eq!((seen.verdict.proof, seen.findings[0].who_acts), (Proof::Unknown, WhoActs::Nobody));
    assert_eq!(seen.findings[0].found.as_deref(), Some("1 of 2 name servers have it"));
    assert_eq!(seen.hindrances, []);
}

#[test]
fn silence_everywhere_is_named_for_the_operator_and_holds_no_order() {
    let resolver = Server::Resolver(IpAddr::from([192, 0, 2, 53]));
    let seen = classify(&observed(vec![silent(knowing(1)), silent(resolver)]), &expected());
    assert_eq!(codes(&seen), [(Axis::Ownership, Code::NoAnswer), (Axis::Routing, Code::NoAnswer)]);
    assert_eq!((seen.verdict.proof, seen.verdict.pointing), (Proof::Unknown, Pointing::Unknown));
    for finding in &seen.findings {
        assert_eq!(finding.who_acts, WhoActs::Operator);
        assert_eq!(finding.resolver.as_deref(), Some("ns1.example (192.0.2.1)"));
    }
    assert_eq!(seen.hindrances, [], "silence is no evidence");
}

#[test]
fn a_domain_for_which_nobody_could_be_asked_says_so() {
    let seen = classify(&observed(Vec::new()), &expected());
    assert_eq!(codes(&seen), [(Axis::Ownership, Code::NoAnswer)]);
    assert_eq!(seen.verdict.pointing, Pointing::Unknown);
}

#[test]
fn an_address_elsewhere_beside_ours_holds_what_looks_at_us() {
    let mut both = saying(knowing(1), HERE);
    both.route = Answer::Found {
        value: Route { v4: vec![HERE], v6: vec!["2001:db8::dead".parse().expect("an address")], ..Route::default() },
        ttl: 300,
    };
    let seen = classify(&observed(vec![both]), &expected());
    let held: Vec<_> = seen.hindrances.iter().map(|h| (h.ca.as_deref(), h.hinders, h.code)).collect();
    assert_eq!(held, [(None, Hinders::Looking, Code::StaleAaaa)]);
}
