//! Whether a name may be ordered, asked before each order: cheap, and nothing of it reaches the CA.
//!
//! The checks of domains look at the DNS and at the gateway from outside; what they found is in the store, and is what is
//! asked here. An order that they say would fail is not placed.

use async_trait::async_trait;
use schoolgate_config::model::{CaId, Domain, DomainName, Ownership, Routing};
use schoolgate_config::settings::AcmeChallenge;
use schoolgate_config::table::RoutingTable;
use schoolgate_store::acme::{NOT_READY, Setback};
use schoolgate_store::{Hindered, Hindrance, OrderFacts, Store};

use crate::directory::Method01;

/// What is known of a name before it is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It may be ordered, and is proven this way. For DNS: under which name the TXT record is looked for.
    Ready(Method01, Option<String>),
    /// Not at this CA; another may be asked.
    NotHere(Setback),
    /// Not now.
    NotReady(Setback),
}

/// Looks at a name before it is ordered.
#[async_trait]
pub trait Preflight: Send + Sync {
    /// Whether `name` may be ordered at `ca`.
    async fn check(&self, name: &str, ca: &CaId) -> Readiness;
}

/// What the store knows: a proven domain that points here, or whose challenges are delegated to us; or a name of the
/// platform's own zones.
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
    async fn check(&self, name: &str, ca: &CaId) -> Readiness {
        let facts = match DomainName::parse(name) {
            Ok(name) => self.store.domain_check(&name).await,
            // A wildcard: nobody checks the platform's own zones.
            Err(_) => Ok(None),
        };
        match facts {
            Ok(check) => {
                let facts = check.map(|check| check.order_facts).unwrap_or_default();
                readiness(&self.store.head().table, name, ca, (self.method, &facts))
            }
            Err(error) => not_ready("operator", format!("what is known of {name} cannot be read: {error}")),
        }
    }
}

fn not_ready(who_acts: &'static str, message: String) -> Readiness {
    Readiness::NotReady(Setback { reason: NOT_READY, message, who_acts, link: None })
}

/// Whether a name may be ordered, as far as the table and the checks know.
fn readiness(table: &RoutingTable, name: &str, ca: &CaId, (method, facts): (Method01, &OrderFacts)) -> Readiness {
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
    of_domain(domain, ca, (method, facts))
}

/// Whether a school's domain may be ordered: by what a CA sees at this gateway, else by the challenge that the school
/// delegated to us.
fn of_domain(domain: &Domain, ca: &CaId, (method, facts): (Method01, &OrderFacts)) -> Readiness {
    let name = &domain.name;
    if domain.ownership != Ownership::Proven {
        return not_ready("school", format!("the ownership of {name} is not proven"));
    }
    let hindrance = |of: Hindered| {
        let concerns = |found: &&Hindrance| found.hinders == of && found.ca.as_ref().is_none_or(|only| only == ca);
        facts.hindrances.iter().find(concerns)
    };
    if let Some(found) = hindrance(Hindered::Everything) {
        return hindered(found);
    }
    // The name has the domain's token in it: after a transfer it is another's.
    let ours = |at: &&String| at.strip_prefix(&domain.token).is_some_and(|rest| rest.starts_with('.'));
    let delegated = facts.delegated_to.as_ref().filter(ours);
    match (domain.routing, hindrance(Hindered::Looking), delegated) {
        (Routing::Left, ..) => {
            not_ready("school", format!("{name} has left this gateway: its certificate is not renewed any more"))
        }
        (Routing::Here, None, _) => Readiness::Ready(method, None),
        (_, _, Some(at)) => Readiness::Ready(Method01::Dns, Some(at.clone())),
        (Routing::Here, Some(found), None) => hindered(found),
        (_, _, None) => {
            not_ready("school", format!("{name} does not point at this gateway: set the records it was given"))
        }
    }
}

fn hindered(found: &Hindrance) -> Readiness {
    let who_acts = match found.who_acts.as_str() {
        "school" => "school",
        "operator" => "operator",
        _ => "nobody",
    };
    let setback = Setback { reason: NOT_READY, message: found.message.clone(), who_acts, link: None };
    if found.ca.is_some() { Readiness::NotHere(setback) } else { Readiness::NotReady(setback) }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::TenantId;

    use super::*;

    const DELEGATED: &str = "t0k3n.acme.schools.example";

    fn domain(routing: Routing) -> Domain {
        Domain {
            name: DomainName::parse("erp.greenhill.example").unwrap(),
            tenant: TenantId::generate(),
            primary: false,
            ownership: Ownership::Proven,
            routing,
            token: "t0k3n".into(),
        }
    }

    fn hindrance(ca: Option<&str>, hinders: Hindered) -> Hindrance {
        let ca = ca.map(|ca| ca.parse().unwrap());
        Hindrance { ca, hinders, message: "CODE: mend it".to_owned(), who_acts: "school".to_owned() }
    }

    fn facts(delegated: Option<&str>, hindrances: Vec<Hindrance>) -> OrderFacts {
        OrderFacts { delegated_to: delegated.map(str::to_owned), hindrances }
    }

    fn check(domain: &Domain, facts: &OrderFacts) -> Readiness {
        of_domain(domain, &"first".parse().unwrap(), (Method01::Http, facts))
    }

    fn why(readiness: &Readiness) -> &str {
        match readiness {
            Readiness::NotReady(why) | Readiness::NotHere(why) => &why.message,
            ready @ Readiness::Ready(..) => panic!("{ready:?}"),
        }
    }

    #[test]
    fn only_a_proven_domain_that_points_here_is_ordered() {
        let none = OrderFacts::default();
        assert_eq!(check(&domain(Routing::Here), &none), Readiness::Ready(Method01::Http, None));
        for routing in [Routing::Elsewhere, Routing::Partial, Routing::Drifted, Routing::Left] {
            assert!(why(&check(&domain(routing), &none)).contains("erp.greenhill.example"), "{routing:?}");
        }
        for ownership in [Ownership::Unproven, Ownership::Lapsed] {
            let unproven = Domain { ownership, ..domain(Routing::Here) };
            let delegated = facts(Some(DELEGATED), Vec::new());
            assert!(why(&check(&unproven, &delegated)).contains("not proven"), "{ownership:?}");
        }
    }

    #[test]
    fn what_a_check_found_holds_an_order_and_is_said() {
        let found = facts(None, vec![hindrance(None, Hindered::Looking)]);
        let held = check(&domain(Routing::Here), &found);
        assert!(matches!(held, Readiness::NotReady(_)) && why(&held) == "CODE: mend it", "{held:?}");
        let everything = facts(Some(DELEGATED), vec![hindrance(None, Hindered::Everything)]);
        assert!(matches!(check(&domain(Routing::Here), &everything), Readiness::NotReady(_)));
    }

    #[test]
    fn what_one_ca_may_not_another_may() {
        let other = facts(None, vec![hindrance(Some("second"), Hindered::Everything)]);
        assert_eq!(check(&domain(Routing::Here), &other), Readiness::Ready(Method01::Http, None));
        let this = facts(None, vec![hindrance(Some("first"), Hindered::Everything)]);
        assert!(matches!(check(&domain(Routing::Here), &this), Readiness::NotHere(_)));
    }

    #[test]
    fn a_delegated_challenge_is_used_where_a_look_at_us_would_fail() {
        let by_dns = Readiness::Ready(Method01::Dns, Some(DELEGATED.to_owned()));
        let delegated = facts(Some(DELEGATED), Vec::new());
        assert_eq!(check(&domain(Routing::Here), &delegated), Readiness::Ready(Method01::Http, None));
        for routing in [Routing::Elsewhere, Routing::Partial, Routing::Drifted] {
            assert_eq!(check(&domain(routing), &delegated), by_dns, "{routing:?}: before the move, or beside a proxy");
        }
        let hindered = facts(Some(DELEGATED), vec![hindrance(None, Hindered::Looking)]);
        assert_eq!(check(&domain(Routing::Here), &hindered), by_dns);
        assert!(matches!(check(&domain(Routing::Left), &delegated), Readiness::NotReady(_)), "who left is not renewed");
        let anothers = facts(Some("t0k3nother.acme.schools.example"), Vec::new());
        assert!(matches!(check(&domain(Routing::Elsewhere), &anothers), Readiness::NotReady(_)));
    }

    #[test]
    fn a_name_that_nobody_has_is_not_ordered() {
        let (table, none) = (RoutingTable::default(), OrderFacts::default());
        for name in ["stranger.example", "*.stranger.example", "localhost"] {
            let readiness = readiness(&table, name, &"first".parse().unwrap(), (Method01::Http, &none));
            assert!(matches!(readiness, Readiness::NotReady(_)), "{name}");
        }
    }
}
