//! The routes of one scope, in the order they are asked.

use std::cmp::Reverse;
use std::sync::Arc;

use super::route_trie::RouteTrie;
use crate::model::{Route, RouteId};

/// Routes up to which a list is searched from its beginning: 8. With so few that is as fast as the trie, and most
/// tenants have none or one (`benches/table.rs`, "route").
const SCANNED: usize = 8;

/// Routes of one scope: highest priority first, then exact paths, longer prefixes, more conditions, older routes.
#[derive(Debug, Clone, Default)]
pub struct RouteList(Option<Arc<Ordered>>);

#[derive(Debug)]
struct Ordered {
    routes: Vec<Arc<Route>>,
    /// Which of them have something to do with a path; `None` for a short list.
    trie: Option<RouteTrie>,
}

/// Why a route cannot stand beside another of its scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteConflict {
    /// That one is for the same requests at the same priority.
    Same(RouteId),
    /// That one is asked earlier and leaves it no request.
    ShadowedBy(RouteId),
    /// It is asked earlier and leaves that one no request.
    Shadows(RouteId),
}

impl RouteList {
    /// The routes in the order they are asked.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.0.iter().flat_map(|ordered| &ordered.routes)
    }

    /// Whether there are none, as for most tenants.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The first route that takes `path` and whose other conditions hold, as `holds` says.
    pub fn find(&self, path: &str, holds: impl Fn(&Route) -> bool) -> Option<&Arc<Route>> {
        let Ordered { routes, trie } = &**self.0.as_ref()?;
        match trie {
            Some(trie) => routes.get(trie.first(path, |rank| holds(&routes[rank]))?),
            None => routes.iter().find(|route| route.matches.takes_path(path) && holds(route)),
        }
    }

    /// What stands in the way of `route` in this list, whether it is in it already or not.
    pub fn conflict(&self, route: &Route) -> Option<RouteConflict> {
        self.iter().filter(|other| other.id != route.id).find_map(|other| {
            let covers = route.matches.covers(&other.matches);
            let covered = other.matches.covers(&route.matches);
            if covers && covered && route.priority == other.priority {
                return Some(RouteConflict::Same(other.id));
            }
            let is_asked_later = rank(other) < rank(route);
            match (is_asked_later, covered, covers) {
                (true, true, _) => Some(RouteConflict::ShadowedBy(other.id)),
                (false, _, true) => Some(RouteConflict::Shadows(other.id)),
                _ => None,
            }
        })
    }

    /// The list without the routes of `gone`, and with those of `put` in place of older versions.
    pub(super) fn changed(&self, gone: &[RouteId], put: &[Arc<Route>]) -> Self {
        let stays = |route: &&Arc<Route>| !gone.contains(&route.id) && put.iter().all(|new| new.id != route.id);
        let mut routes: Vec<_> = self.iter().filter(stays).cloned().collect();
        routes.extend_from_slice(put);
        if routes.is_empty() {
            return Self(None);
        }
        routes.sort_by(|a, b| rank(a).cmp(&rank(b)));
        let trie = (routes.len() > SCANNED).then(|| RouteTrie::of(routes.iter().map(|route| &route.matches)));
        Self(Some(Arc::new(Ordered { routes, trie })))
    }
}

/// What a list is sorted by.
fn rank(route: &Route) -> impl Ord {
    let matches = &route.matches;
    let prefix = matches.path_prefix.as_ref().map_or(0, String::len);
    let is_exact = matches.path_exact.is_some();
    (Reverse(route.priority), Reverse(is_exact), Reverse(prefix), Reverse(matches.conditions()), route.id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn route(n: u128, priority: i32, matches: serde_json::Value) -> Arc<Route> {
        let route = json!({
            "id": RouteId::from_parts(1, n), "priority": priority, "match": matches, "action": {"maintenance": true},
        });
        Arc::new(serde_json::from_value(route).expect("a route"))
    }

    fn list(routes: &[Arc<Route>]) -> RouteList {
        RouteList::default().changed(&[], routes)
    }

    fn id(n: u128) -> RouteId {
        RouteId::from_parts(1, n)
    }

    #[test]
    fn a_route_that_could_never_match_is_found() {
        let all = list(&[route(1, 0, json!({"path_prefix": "/api"})), route(2, 5, json!({"path_exact": "/login"}))]);
        let conflict = |priority, matches| all.conflict(&route(9, priority, matches));
        assert_eq!(conflict(0, json!({"path_prefix": "/api"})), Some(RouteConflict::Same(id(1))));
        assert_eq!(conflict(-1, json!({"path_prefix": "/api/v1"})), Some(RouteConflict::ShadowedBy(id(1))));
        assert_eq!(conflict(0, json!({"path_prefix": "/api/v1"})), None, "longer prefixes are asked first");
        assert_eq!(conflict(0, json!({"path_prefix": "/"})), None, "shorter ones last");
        assert_eq!(conflict(1, json!({"path_prefix": "/"})), Some(RouteConflict::Shadows(id(1))));
        assert_eq!(conflict(6, json!({"methods": ["GET"]})), None, "other methods are left to the rest");
        assert_eq!(all.conflict(&route(1, 0, json!({"path_prefix": "/api"}))), None, "a route is not in its own way");
    }

    fn a_match() -> impl Strategy<Value = serde_json::Value> {
        let path = prop::collection::vec(prop::sample::select(vec!["a", "b", ""]), 1..4)
            .prop_map(|segments| format!("/{}", segments.join("/")));
        (prop::option::of(path), any::<bool>(), prop::option::of(prop::sample::select(vec!["GET", "PUT"]))).prop_map(
            |(path, exact, method)| {
                let mut matches = json!({});
                if let Some(path) = path {
                    matches[if exact { "path_exact" } else { "path_prefix" }] = path.into();
                }
                if let Some(method) = method {
                    matches["methods"] = json!([method]);
                }
                matches
            },
        )
    }

    fn paths() -> Vec<String> {
        let segments = ["a", "b", "", "c"];
        let mut all = vec!["/".to_owned()];
        for one in segments {
            all.push(format!("/{one}"));
            for two in segments {
                all.push(format!("/{one}/{two}"));
                all.extend(segments.iter().map(|three| format!("/{one}/{two}/{three}")));
            }
        }
        all
    }

    proptest! {
        #[test]
        fn the_trie_finds_what_a_plain_search_finds(routes in prop::collection::vec((-2_i32..3, a_match()), 9..40)) {
            let routes: Vec<_> = (1..).zip(routes).map(|(n, (priority, m))| route(n, priority, m)).collect();
            let list = list(&routes);
            prop_assert!(list.0.as_ref().is_some_and(|ordered| ordered.trie.is_some()));
            for path in paths() {
                for method in ["GET", "PUT"] {
                    let plain = list.iter().find(|r| r.matches.takes_path(&path) && r.matches.takes_method(method));
                    let found = list.find(&path, |r| r.matches.takes_method(method));
                    prop_assert_eq!(found.map(|r| r.id), plain.map(|r| r.id), "{} {}", method, path);
                }
            }
        }

        #[test]
        fn a_route_called_dead_never_matches(routes in prop::collection::vec((-1_i32..2, a_match()), 1..8)) {
            let routes: Vec<_> = (1..).zip(routes).map(|(n, (priority, m))| route(n, priority, m)).collect();
            let list = list(&routes);
            for route in &routes {
                let Some(RouteConflict::ShadowedBy(_)) = list.conflict(route) else { continue };
                for path in paths() {
                    for method in ["GET", "PUT"] {
                        let found = list.find(&path, |r| r.matches.takes_method(method)).map(|r| r.id);
                        prop_assert_ne!(found, Some(route.id), "{} {}", method, path);
                    }
                }
            }
        }
    }
}
