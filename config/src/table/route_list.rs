//! The routes of one scope, in the order they are asked.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::model::{Route, RouteId};

/// Routes of one scope: highest priority first, then exact paths, longer prefixes, more conditions, older routes.
#[derive(Debug, Clone, Default)]
pub struct RouteList(Option<Arc<[Arc<Route>]>>);

impl RouteList {
    /// The routes in the order they are asked.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.0.iter().flat_map(|routes| routes.iter())
    }

    /// Whether there are none, as for most tenants.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The list with `route` in it, in place of an older version.
    pub(super) fn with(&self, route: &Arc<Route>) -> Self {
        let mut routes: Vec<_> = self.iter().filter(|r| r.id != route.id).cloned().collect();
        routes.push(route.clone());
        routes.sort_by_cached_key(|r| {
            let matches = &r.matches;
            let conditions = matches.headers.len() + usize::from(!matches.methods.is_empty());
            let prefix = matches.path_prefix.as_ref().map_or(0, String::len);
            (Reverse(r.priority), matches.path_exact.is_none(), Reverse(prefix), Reverse(conditions), r.id)
        });
        Self(Some(routes.into()))
    }

    /// The list without the route of that identity.
    pub(super) fn without(&self, id: RouteId) -> Self {
        let routes: Vec<_> = self.iter().filter(|r| r.id != id).cloned().collect();
        Self((!routes.is_empty()).then(|| routes.into()))
    }
}
