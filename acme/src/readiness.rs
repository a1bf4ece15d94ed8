//! Whether a name may be ordered, asked before each order: cheap, and nothing of it reaches the CA.

use async_trait::async_trait;
use schoolgate_config::model::{CaId, Domain, Ownership, Routing};
use schoolgate_config::settings::AcmeChallenge;
use schoolgate_config::table::RoutingTable;
use schoolgate_store::Store;
use schoolgate_store::acme::{NOT_READY, Setback};

use crate::directory::Method01;

/// What is known of a name before it is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It may be ordered, and is proven this way. For DNS: under which name the TXT record is looked for.
    Ready(Method01, Option<String>),
    /// Not now.
    NotReady(Setback),
}

/// Looks at a name before it is ordered.
#[async_trait]
pub trait Preflight: Send + Sync {
    /// Whether `name` may be ordered at `ca`.
    async fn check(&self, name: &str, ca: &CaId) -> Readiness;
}

/// What the store knows: a proven domain that points here, or a name of the platform's own zones.
#[derive(Debug, Clone)]
pub struct StorePreflight {
    store: Store,
    method: Method01,
}

impl StorePreflight {
    /// Names of this store, proven this way.
    pub fn new(store: Store, challenge: AcmeChallenge) -> Self {
        let method = match challenge {
            AcmeChallenge::Http01 => Method01::Http,
            AcmeChallenge::TlsAlpn01 => Method01::TlsAlpn,
        };
        Self { store, method }
    }
}

#[async_trait]
impl Preflight for StorePreflight {
    async fn check(&self, name: &str, _ca: &CaId) -> Readiness {
        readiness(&self.store.head().table, name, self.method)
    }
}

/// Whether a name may be ordered, as far as the table knows.
fn readiness(table: &RoutingTable, name: &str, method: Method01) -> Readiness {
    let not_ready =
        |who_acts, message: String| Readiness::NotReady(Setback { reason: NOT_READY, message, who_acts, link: None });
    if let Some(zone) = name.strip_prefix("*.") {
        return match table.zone(zone) {
            Some(_) => Readiness::Ready(Method01::Dns, Some(format!("_acme-challenge.{zone}"))),
            None => not_ready("nobody", format!("{zone} is no zone of this platform")),
        };
    }
    let Some(domain) = table.domain(name) else {
        let in_zone = name.split_once('.').is_some_and(|(_, zone)| table.zone(zone).is_some());
        return match in_zone {
            true => Readiness::Ready(method, None),
            false => not_ready("nobody", format!("{name} belongs to no school")),
        };
    };
    match standing(domain) {
        Ok(()) => Readiness::Ready(method, None),
        Err(message) => not_ready("school", message),
    }
}

/// Why a domain cannot be ordered.
fn standing(domain: &Domain) -> Result<(), String> {
    let name = &domain.name;
    match (domain.ownership, domain.routing) {
        (Ownership::Proven, Routing::Here) => Ok(()),
        (Ownership::Proven, Routing::Left) => {
            Err(format!("{name} has left this gateway: its certificate is not renewed any more"))
        }
        (Ownership::Proven, _) => Err(format!("{name} does not point at this gateway: set the records it was given")),
        (Ownership::Unproven | Ownership::Lapsed, _) => Err(format!("the ownership of {name} is not proven")),
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::{DomainName, TenantId};

    use super::*;

    #[test]
    fn only_a_proven_domain_that_points_here_is_ordered() {
        let mut domain = Domain {
            name: DomainName::parse("erp.greenhill.example").unwrap(),
            tenant: TenantId::generate(),
            primary: false,
            ownership: Ownership::Proven,
            routing: Routing::Here,
            token: "t".into(),
        };
        assert_eq!(standing(&domain), Ok(()));
        for routing in [Routing::Elsewhere, Routing::Partial, Routing::Drifted, Routing::Left] {
            domain.routing = routing;
            assert!(standing(&domain).unwrap_err().contains("erp.greenhill.example"), "{routing:?}");
        }
        domain.routing = Routing::Here;
        for ownership in [Ownership::Unproven, Ownership::Lapsed] {
            domain.ownership = ownership;
            assert!(standing(&domain).unwrap_err().contains("not proven"));
        }
    }

    #[test]
    fn a_name_that_nobody_has_is_not_ordered() {
        let table = RoutingTable::default();
        for name in ["stranger.example", "*.stranger.example", "localhost"] {
            assert!(matches!(readiness(&table, name, Method01::Http), Readiness::NotReady(_)), "{name}");
        }
    }
}
