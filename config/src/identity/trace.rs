//! What a decision says of itself while it is made.
//!
//! The proxy listens with [`Silent`], which the compiler removes; `explain` writes every step down. So there is one
//! decision, and what is explained is what is done.

use std::net::IpAddr;

use super::{Bearer, Named, Via};
use crate::model::{Canary, Pool, Route, Tenant, TenantState, Zone};

/// Listens to a decision.
pub trait Trace {
    /// A step was taken. Steps borrow what they speak of; saying one costs nothing.
    fn step(&mut self, step: Step<'_>);
}

/// Does not listen.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Trace for Silent {
    #[inline(always)]
    fn step(&mut self, _: Step<'_>) {}
}

/// One step of a decision.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// The authority was read.
    Authority {
        /// As sent.
        sent: Option<&'a str>,
        /// In canonical form; `None` when it is no host.
        host: Option<&'a str>,
    },
    /// A certificate authority may be asking about the host.
    Challenge {
        /// The host.
        host: &'a str,
    },
    /// Whose name the host is.
    Host {
        /// The host.
        host: &'a str,
        /// Whose.
        whose: Whose<'a>,
    },
    /// The request came in plain text.
    Plain,
    /// What the bearer token is worth.
    Token(&'a Bearer),
    /// Whether the caller may select by header and query on a shared host.
    Caller {
        /// Its address.
        client: IpAddr,
        /// The zone.
        zone: &'a Zone,
        /// Why it may.
        trust: Trust,
    },
    /// An identifier that could select on a shared host.
    Candidate {
        /// Which.
        named: &'a Named<'a>,
        /// Whom it names.
        tenant: Option<&'a Tenant>,
        /// Whether it selects; otherwise the caller is not trusted.
        counts: bool,
    },
    /// Nothing selects.
    Nobody,
    /// A tenant is selected.
    Selected {
        /// Which.
        tenant: &'a Tenant,
        /// By what.
        via: Via,
        /// The path without what named it there.
        path: &'a str,
    },
    /// The name in the handshake was compared.
    Sni {
        /// The name.
        sni: &'a str,
        /// Whether it leads to the tenant selected.
        agrees: bool,
    },
    /// An identifier was compared.
    Agreement {
        /// Which.
        named: &'a Named<'a>,
        /// Whom it names.
        tenant: Option<&'a Tenant>,
        /// Whether that is the tenant selected.
        agrees: bool,
    },
    /// The tenant's state was looked at.
    State(TenantState),
    /// Something is in maintenance.
    Maintenance {
        /// What: `platform`, `tenant` or `pool`.
        of: &'static str,
        /// Whether this client is served all the same.
        passes: bool,
    },
    /// The route was looked for.
    Route(Option<&'a Route>),
    /// The route needs a feature.
    Feature {
        /// Which.
        name: &'a str,
        /// Whether the tenant has it.
        on: bool,
    },
    /// A canary was asked.
    Canary {
        /// Which.
        canary: &'a Canary,
        /// Whether a field or a cookie sends the request there.
        is_chosen: bool,
        /// Whether the request goes there.
        goes: bool,
    },
    /// The pool was found.
    Pool(&'a Pool),
}

/// Whose name a host is.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// A tenant's own domain.
    Domain(&'a Tenant),
    /// A tenant's label in a zone.
    Zone(&'a Tenant),
    /// A zone's shared host.
    Shared(&'a Zone),
    /// Nobody's.
    Nobody,
}

/// Why a caller may select by header and query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Its address is in one of the zone's trusted networks.
    Network,
    /// It has a token that counts here.
    Token,
    /// It may not.
    None,
}
