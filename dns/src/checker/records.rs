//! The records of an answer.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record};

use crate::observation::{CaaRecord, Failure};

/// A name as text: lower case, without the final dot.
pub(super) fn plain(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').map_or(text.clone(), str::to_owned)
}

/// What a server said to one question.
#[derive(Debug)]
pub(super) struct Said {
    /// The names that the one asked for is an alias of, in order.
    pub(super) chain: Vec<Name>,
    /// Whether the name is there.
    pub(super) exists: bool,
    /// For how long the records may be kept, seconds; as long as can be when there are none.
    pub(super) ttl: u32,
    answers: Vec<Record>,
    /// Records about the zone, beside an answer without records.
    pub(super) authorities: Vec<Record>,
}

impl Said {
    /// Reads an answer to a question about `asked`.
    ///
    /// # Errors
    /// [`Failure::Loop`].
    pub(super) fn of(message: Message, asked: &Name) -> Result<Self, Failure> {
        let mut chain: Vec<Name> = Vec::new();
        let mut at = asked.clone();
        while let Some(next) = alias_of(&message.answers, &at) {
            if next == *asked || chain.contains(&next) {
                return Err(Failure::Loop);
            }
            chain.push(next.clone());
            at = next;
        }
        let ttl = message.answers.iter().map(|record| record.ttl).min().unwrap_or(u32::MAX);
        // An alias of a name that is not there is there itself.
        let exists = message.metadata.response_code != ResponseCode::NXDomain || !chain.is_empty();
        Ok(Self { chain, exists, ttl, answers: message.answers, authorities: message.authorities })
    }

    fn each<T>(&self, read: impl Fn(&RData) -> Option<T>) -> Vec<T> {
        self.answers.iter().filter_map(|record| read(&record.data)).collect()
    }

    /// IPv4 addresses, sorted.
    pub(super) fn v4(&self) -> Vec<Ipv4Addr> {
        let mut found = self.each(|data| if let RData::A(a) = data { Some(a.0) } else { None });
        found.sort_unstable();
        found
    }

    /// IPv6 addresses, sorted.
    pub(super) fn v6(&self) -> Vec<Ipv6Addr> {
        let mut found = self.each(|data| if let RData::AAAA(aaaa) = data { Some(aaaa.0) } else { None });
        found.sort_unstable();
        found
    }

    /// TXT values, each in one piece.
    pub(super) fn texts(&self) -> Vec<String> {
        self.each(|data| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        })
    }

    /// Names of servers.
    pub(super) fn servers(&self) -> Vec<Name> {
        self.each(|data| if let RData::NS(ns) = data { Some(ns.0.clone()) } else { None })
    }

    /// CAA records.
    pub(super) fn caa(&self) -> Vec<CaaRecord> {
        self.each(|data| match data {
            RData::CAA(caa) => Some(CaaRecord {
                critical: caa.issuer_critical,
                tag: caa.tag.to_ascii_lowercase(),
                value: String::from_utf8_lossy(&caa.value).into_owned(),
            }),
            _ => None,
        })
    }

    /// Where a zone begins, by a SOA record anywhere in the answer.
    pub(super) fn zone(&self) -> Option<&Name> {
        let mut all = self.answers.iter().chain(&self.authorities);
        all.find(|record| matches!(record.data, RData::SOA(_))).map(|record| &record.name)
    }
}

fn alias_of(answers: &[Record], name: &Name) -> Option<Name> {
    let mut aliases = answers.iter().filter(|record| record.name == *name);
    aliases.find_map(|record| if let RData::CNAME(alias) = &record.data { Some(alias.0.clone()) } else { None })
}
