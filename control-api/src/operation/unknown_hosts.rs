//! Hosts that clients ask for and no tenant has: what all proxies saw, and what an operator decides about it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use schoolgate_config::feed::UnknownHost;
use schoolgate_config::model::{DomainName, NodeId};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::rfc3339;
use schoolgate_store::IgnoredHost;

use super::permission::Subject;
use super::{Done, Refusal, What, Work, domains};

/// Hosts that may be ignored: 10,000. Who would ignore more has somebody else's names pointing here, and should see it.
const MOST_IGNORED: usize = 10_000;

/// A host that no tenant has.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UnknownHostView {
    /// Its name.
    name: DomainName,
    /// How often it was asked for, on all nodes, since each of them started.
    count: u64,
    /// By how much `count` may be too high: nodes keep the most wanted names only.
    overcount: u64,
    /// When it was first asked for; `null` when it is ignored and nobody asks for it.
    #[schema(format = DateTime)]
    first_seen: Option<String>,
    /// When it was last asked for.
    #[schema(format = DateTime)]
    last_seen: Option<String>,
    /// Nodes that were asked for it.
    nodes: Vec<NodeId>,
    /// Whether somebody said that it does not matter.
    ignored: bool,
}

/// Which hosts are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Those that nobody ignores.
    Heeded,
    /// All of them.
    All,
}

#[derive(Debug, Default)]
struct Sum {
    count: u64,
    overcount: u64,
    first_ms: Option<i64>,
    last_ms: Option<i64>,
    nodes: Vec<NodeId>,
}

/// What all nodes saw, the most wanted first. A host that somebody has by now is left out.
pub(crate) fn merged<'a>(
    seen: impl Iterator<Item = (&'a NodeId, &'a UnknownHost)>,
    ignored: &[IgnoredHost],
    shown: Shown,
    table: &RoutingTable,
) -> Vec<UnknownHostView> {
    let mut sums: BTreeMap<DomainName, Sum> = BTreeMap::new();
    for (node, host) in seen {
        let sum = sums.entry(host.name.clone()).or_default();
        sum.count = sum.count.saturating_add(host.count);
        sum.overcount = sum.overcount.saturating_add(host.overcount);
        sum.first_ms = Some(sum.first_ms.map_or(host.first_seen_ms, |first| first.min(host.first_seen_ms)));
        sum.last_ms = sum.last_ms.max(Some(host.last_seen_ms));
        sum.nodes.push(node.clone());
    }
    let is_ignored = |name: &DomainName| ignored.binary_search_by(|host| host.name.cmp(name)).is_ok();
    if shown == Shown::All {
        for host in ignored {
            sums.entry(host.name.clone()).or_default();
        }
    }
    sums.retain(|name, _| !is_known(name, table) && (shown == Shown::All || !is_ignored(name)));
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse((sum.count.saturating_sub(sum.overcount), sum.last_ms)));
    let view = |(name, sum): (DomainName, Sum)| UnknownHostView {
        count: sum.count,
        overcount: sum.overcount,
        first_seen: sum.first_ms.map(rfc3339),
        last_seen: sum.last_ms.map(rfc3339),
        nodes: sum.nodes,
        ignored: is_ignored(&name),
        name,
    };
    sums.into_iter().map(view).collect()
}

/// Whether a name is somebody's since it was asked for, even if it is not served yet.
fn is_known(name: &DomainName, table: &RoutingTable) -> bool {
    let name = name.as_str();
    table.domain(name).is_some()
        || table.tenant_of_zone_name(name).is_some()
        || table.zone_of_shared_host(name).is_some()
}

/// Gives a host to a tenant: makes the domain, as `POST domains` does.
///
/// # Errors
/// Those of a new domain.
pub(crate) async fn adopt(work: &mut Work, name: &DomainName, body: Value) -> Result<Done, Refusal> {
    let mut document = body;
    match &mut document {
        Value::Object(members) => match members.get("name").and_then(Value::as_str) {
            Some(other) if other != name.as_str() => {
                let (here, there) = (name.to_string(), other.to_owned());
                return Err(Refusal::Elsewhere { field: "name", here, there });
            }
            _ => {
                members.insert("name".to_owned(), name.as_str().into());
            }
        },
        Value::Null => document = json!({ "name": name }),
        _ => {}
    }
    let done = domains::create(work, &document).await?;
    work.transaction.heed_host(name).await?;
    Ok(done)
}

/// Takes a host off the list.
///
/// # Errors
/// [`Refusal::Forbidden`]; [`Refusal::Conflict`] when too many are ignored.
pub(crate) async fn ignore(work: &mut Work, name: &DomainName) -> Result<Done, Refusal> {
    work.operator.may_everywhere(Subject::Domains.write())?;
    let ignored = work.store.ignored_hosts().await?;
    if ignored.len() >= MOST_IGNORED && !ignored.iter().any(|host| host.name == *name) {
        let message = format!("{MOST_IGNORED} hosts are ignored: take some back before you ignore more");
        return Err(Refusal::Conflict { code: "TOO_MANY_IGNORED", message, pointer: None });
    }
    let (at_ms, actor) = (work.transaction.now_ms(), work.operator.name.clone());
    work.transaction.ignore_host(&IgnoredHost { name: name.clone(), at_ms, actor: actor.clone() }).await?;
    let object = json!({ "name": name, "ignored": true, "ignored_at": rfc3339(at_ms), "ignored_by": actor });
    Ok(done(name, What::Changed, "ignore", object))
}

/// Puts a host on the list again.
///
/// # Errors
/// [`Refusal::Forbidden`]; [`Refusal::NotFound`] when nobody ignores it.
pub(crate) async fn heed(work: &mut Work, name: &DomainName) -> Result<Done, Refusal> {
    work.operator.may_everywhere(Subject::Domains.write())?;
    if !work.transaction.heed_host(name).await? {
        return Err(Refusal::not_found(&format!("an ignored host {name}")));
    }
    Ok(done(name, What::Removed, "heed", Value::Null))
}

fn done(name: &DomainName, what: What, verb: &str, object: Value) -> Done {
    Done {
        what,
        object,
        version: None,
        path: format!("unknown-hosts/{name}"),
        action: format!("unknown_host.{verb}"),
        about: format!("unknown host {name}"),
        summary: Value::Null,
        names: Vec::new(),
        again: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, count: u64, overcount: u64, seen: (i64, i64)) -> UnknownHost {
        UnknownHost {
            name: name.parse().expect("a name"),
            count,
            overcount,
            first_seen_ms: seen.0,
            last_seen_ms: seen.1,
        }
    }

    fn ignored(name: &str) -> IgnoredHost {
        IgnoredHost { name: name.parse().expect("a name"), at_ms: 1, actor: "ada".into() }
    }

    #[test]
    fn what_nodes_saw_is_added_up_and_the_most_wanted_is_first() {
        let nodes: [NodeId; 2] = ["n1", "n2"].map(|n| n.parse().expect("a name"));
        let seen = [
            (&nodes[0], host("new.example", 3, 0, (2_000, 5_000))),
            (&nodes[0], host("late.example", 900, 899, (0, 9_000))),
            (&nodes[1], host("new.example", 4, 1, (1_000, 4_000))),
            (&nodes[1], host("noise.example", 50, 0, (1_000, 4_000))),
        ];
        let seen = || seen.iter().map(|(node, host)| (*node, host));
        let table = RoutingTable::default();
        let list = merged(seen(), &[ignored("noise.example")], Shown::Heeded, &table);
        let names: Vec<_> = list.iter().map(|h| (h.name.as_str(), h.count, h.overcount)).collect();
        assert_eq!(names, [("new.example", 7, 1), ("late.example", 900, 899)], "what is certain counts");
        assert_eq!(list[0].nodes, nodes);
        assert_eq!(list[0].first_seen.as_deref(), Some(rfc3339(1_000).as_str()));
        assert_eq!(list[0].last_seen.as_deref(), Some(rfc3339(5_000).as_str()));

        let all = merged(seen(), &[ignored("noise.example"), ignored("silent.example")], Shown::All, &table);
        let names: Vec<_> = all.iter().map(|h| (h.name.as_str(), h.ignored)).collect();
        let expected =
            [("noise.example", true), ("new.example", false), ("late.example", false), ("silent.example", true)];
        assert_eq!(names, expected);
        assert_eq!(all[3].last_seen, None);
    }
}
