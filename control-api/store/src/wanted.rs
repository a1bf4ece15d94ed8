//! Which names need a certificate, and how that changes: a pure function of the tables before and after a change.

use std::collections::BTreeSet;

use schoolgate_config::model::DomainName;
use schoolgate_config::snapshot::{Change, ObjectKey};
use schoolgate_config::table::RoutingTable;

/// Names that begin and cease to need a certificate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct WantedNames {
    /// Needed from now on.
    pub(crate) added: BTreeSet<String>,
    /// Needed no more.
    pub(crate) dropped: BTreeSet<String>,
}

/// What `changes` do to the names that need a certificate.
///
/// The cost follows the changes, but for a zone without a wildcard: making or removing one asks for a name per tenant.
pub(crate) fn wanted_names(before: &RoutingTable, after: &RoutingTable, changes: &[Change]) -> WantedNames {
    let mut old = BTreeSet::new();
    let mut new = BTreeSet::new();
    for change in changes {
        let key = change.key();
        names_of(before, &key, &mut old);
        names_of(after, &key, &mut new);
    }
    // A name may be needed for two reasons, such as a zone's and a domain's: ask the table, not only what changed.
    let dropped = old.difference(&new).filter(|name| !is_wanted(after, name)).cloned().collect();
    let added = new.difference(&old).filter(|name| !is_wanted(before, name)).cloned().collect();
    WantedNames { added, dropped }
}

/// Names that had an owner before `changes`, and have another, or none, after them.
pub(crate) fn changed_hands(before: &RoutingTable, after: &RoutingTable, changes: &[Change]) -> Vec<String> {
    let owner = |table: &RoutingTable, name: &DomainName| {
        table.domain(name.as_str()).filter(|domain| domain.is_routable()).map(|domain| domain.tenant)
    };
    let lost = |change: &Change| match change.key() {
        ObjectKey::Domain(name) => {
            let (old, new) = (owner(before, &name), owner(after, &name));
            (old.is_some() && old != new).then(|| name.to_string())
        }
        ObjectKey::Zone(name) if after.zone(name.as_str()).is_none() => Some(format!("*.{name}")),
        _ => None,
    };
    changes.iter().filter_map(lost).collect()
}

/// The names that an object asks for.
fn names_of(table: &RoutingTable, key: &ObjectKey, names: &mut BTreeSet<String>) {
    match key {
        ObjectKey::Domain(name) => {
            let routable = table.domain(name.as_str()).filter(|domain| domain.is_routable());
            names.extend(routable.map(|domain| domain.name.to_string()));
        }
        ObjectKey::Tenant(id) => {
            let Some(entry) = table.tenant(id) else { return };
            let slug = entry.tenant.slug.as_str();
            for zone in table.zones().filter(|zone| !zone.takes_wildcard() && !zone.reserves(slug)) {
                names.insert(format!("{slug}.{}", zone.name));
            }
        }
        ObjectKey::Zone(name) => {
            let Some(zone) = table.zone(name.as_str()) else { return };
            if zone.takes_wildcard() {
                names.insert(format!("*.{name}"));
                return;
            }
            names.extend(zone.shared_host.as_ref().map(ToString::to_string));
            let slugs = table.tenants().map(|entry| entry.tenant.slug.as_str());
            names.extend(slugs.filter(|slug| !zone.reserves(slug)).map(|slug| format!("{slug}.{name}")));
        }
        _ => {}
    }
}

/// Whether anything in the table asks for a name.
fn is_wanted(table: &RoutingTable, name: &str) -> bool {
    if let Some(zone) = name.strip_prefix("*.") {
        return table.zone(zone).is_some_and(|zone| zone.takes_wildcard());
    }
    let in_zone = || {
        let (label, parent) = name.split_once('.')?;
        let zone = table.zone(parent).filter(|zone| !zone.takes_wildcard())?;
        let tenant = !zone.reserves(label) && table.tenant_by_slug(label).is_some();
        Some(tenant || zone.shared_host.as_ref().is_some_and(|host| host.as_str() == name))
    };
    table.domain(name).is_some_and(|domain| domain.is_routable()) || in_zone().unwrap_or(false)
}
