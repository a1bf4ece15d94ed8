//! What servers said, as plain data.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a server gave no answer. None of it is evidence of anything but itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// It answered SERVFAIL, or another code that is no answer.
    #[error("SERVFAIL")]
    ServFail,
    /// It answers only when told not to check signatures.
    #[error("the DNSSEC signatures do not hold")]
    Bogus,
    /// It will not answer for this name.
    #[error("REFUSED")]
    Refused,
    /// It cannot be reached.
    #[error("cannot be reached")]
    Unreachable,
    /// What it sent cannot be read.
    #[error("an answer that cannot be read")]
    Malformed,
    /// One name leads to another and back, or on without end.
    #[error("a loop of CNAMEs")]
    Loop,
}

/// What one server said to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// Records.
    Found {
        /// They.
        value: T,
        /// For how long they may be kept, seconds.
        ttl: u32,
    },
    /// The name is there, and has no such record.
    NoData,
    /// The name is not there.
    NxDomain,
    /// No answer.
    Failed(Failure),
}

impl<T> Answer<T> {
    /// The records.
    pub fn found(&self) -> Option<&T> {
        match self {
            Self::Found { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Whether the server knew.
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }

    /// Why there is no answer.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Failed(failure) => Some(*failure),
            _ => None,
        }
    }
}

/// A server that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// One that knows the zone.
    Authoritative {
        /// Its name.
        name: String,
        /// Its address.
        address: IpAddr,
    },
    /// One of the configured.
    Resolver(IpAddr),
}

impl Server {
    /// Whether it knows the zone.
    pub fn is_authoritative(&self) -> bool {
        matches!(self, Self::Authoritative { .. })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authoritative { name, address } => write!(f, "{name} ({address})"),
            Self::Resolver(address) => write!(f, "resolver {address}"),
        }
    }
}

/// Where a name leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// The names it is an alias of, in order, lower case, without a final dot.
    pub chain: Vec<String>,
    /// The IPv4 addresses at the end.
    pub v4: Vec<Ipv4Addr>,
    /// The IPv6 addresses at the end.
    pub v6: Vec<Ipv6Addr>,
}

impl Route {
    /// All addresses at the end.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.v4.iter().copied().map(IpAddr::V4).chain(self.v6.iter().copied().map(IpAddr::V6))
    }
}

/// What one server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub server: Server,
    /// The TXT values at `_schoolgate.<name>`.
    pub proof: Answer<Vec<String>>,
    /// Where the name leads.
    pub route: Answer<Route>,
}

/// What is at port 80 of an address where a certificate authority would look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// This gateway: it answered with what only it knows.
    Ours,
    /// This gateway, which has not heard of the name yet.
    OursSoon,
    /// Something that sends elsewhere.
    Redirect {
        /// Where to.
        location: String,
    },
    /// Something else.
    Foreign {
        /// The status of its answer.
        status: u16,
        /// What it calls itself.
        server: Option<String>,
    },
    /// Nothing that answers, or not in time, or not HTTP.
    Unreachable(String),
}

/// An address where a certificate authority would look, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The address.
    pub address: IpAddr,
    /// What is there.
    pub reach: Reach,
}

/// A record found where it does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Where.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Records found where beginners put them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strays {
    /// TXT at `_schoolgate.<name>.<zone of the name>`: an editor appended the zone to a whole name.
    pub proof_zone_appended: Vec<Stray>,
    /// TXT at the name itself.
    pub proof_at_name: Vec<Stray>,
    /// CNAME or addresses at `<name>.<zone of the name>`.
    pub route_zone_appended: Vec<Stray>,
}

/// One CAA record (RFC 8659).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaRecord {
    /// Whether who does not know the tag must refuse.
    pub critical: bool,
    /// `issue`, `issuewild`, …, lower case.
    pub tag: String,
    /// The value.
    pub value: String,
}

/// The CAA records that count for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaSet {
    /// Where the climb found them.
    pub at: String,
    /// They.
    pub records: Vec<CaaRecord>,
}

/// What all servers said of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The zone that the name is in, lower case, without a final dot; `None` when nobody said.
    pub zone: Option<String>,
    /// Whether the registered domain above the name is known to the DNS at all.
    pub registered: Answer<()>,
    /// What each server said.
    pub seen: Vec<Seen>,
    /// Where `<token>.cname.<zone>` leads, for a CNAME to lead on.
    pub target: Answer<Vec<IpAddr>>,
    /// Records in the wrong place.
    pub strays: Strays,
    /// The CAA records that count; [`Answer::NoData`] when there are none up to the root.
    pub caa: Answer<CaaSet>,
    /// The names that `_acme-challenge.<name>` is an alias of, in order.
    pub challenge: Answer<Vec<String>>,
    /// What is at port 80 of the addresses that the name has here; empty when nobody looked.
    pub reached: Vec<Reached>,
}
