//! The climb for CAA records (RFC 8659 section 3): the name, then each of its parents, until there are some. An alias's
//! own records count for the name; its parents are not climbed.

use hickory_proto::rr::RecordType;
use schoolgate_config::model::DomainName;

use super::zone::Zone;
use super::{Asked, name};
use crate::observation::{Answer, CaaSet, Failure};

pub(super) async fn climb(zone: &Zone, resolvers: &[Asked], domain: &DomainName) -> Answer<CaaSet> {
    let mut at = Some(domain.as_str());
    while let Some(text) = at {
        match records(zone, resolvers, text).await {
            Answer::NoData | Answer::NxDomain => {}
            other => return other,
        }
        at = text.split_once('.').map(|(_, parent)| parent);
    }
    Answer::NoData
}

/// The records at one name: from those who know its zone, so that a mended one shows at once; beyond the zone, and for
/// what an alias has, from the resolvers.
async fn records(zone: &Zone, resolvers: &[Asked], at: &str) -> Answer<CaaSet> {
    let Some(asked) = name(at) else { return Answer::NoData };
    let in_zone = zone.apex.as_ref().is_some_and(|apex| apex.zone_of(&asked));
    let knowing: &[Asked] = if in_zone { &zone.servers } else { &[] };
    let mut last = Failure::Unreachable;
    for server in knowing.iter().chain(resolvers) {
        match server.said(&asked, RecordType::CAA).await {
            Ok(said) => {
                let records = said.caa();
                if !records.is_empty() {
                    return Answer::Found { value: CaaSet { at: at.to_owned(), records }, ttl: said.ttl };
                }
                // The server knows its own zone only, and the alias may lead out of it.
                if said.chain.is_empty() || !server.server.is_authoritative() {
                    return Answer::NoData;
                }
            }
            Err(failure) => last = failure,
        }
    }
    Answer::Failed(last)
}
