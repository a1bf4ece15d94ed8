//! Which routes of a list have something to do with a path: a trie over its segments.
//!
//! A look-up walks the path once and stops where no route goes on, so it costs what the path shares with the routes,
//! however many there are and however long a client makes its path.

use foldhash::fast::RandomState;
use std::collections::HashMap;

use crate::model::RouteMatch;

/// A position in the list; the lower is asked first.
type Rank = u32;

/// A trie over the segments of paths.
#[derive(Debug, Default)]
pub(super) struct RouteTrie {
    /// Routes for any path.
    anywhere: Vec<Rank>,
    /// The first is the root: nothing of the path is read yet.
    nodes: Vec<Node>,
}

/// What is known where some segments are read. Ranks ascend.
#[derive(Debug, Default)]
struct Node {
    /// By the next segment. Operators choose these, so a fast hash is enough; what clients send is only looked up.
    next: HashMap<Box<str>, u32, RandomState>,
    /// The path ends here: `path_exact`.
    exact: Vec<Rank>,
    /// The path ends here or goes on: `path_prefix` without a final slash.
    prefix: Vec<Rank>,
    /// The path goes on: `path_prefix` with one.
    below: Vec<Rank>,
}

impl RouteTrie {
    /// The trie of routes that match so, in the order they are asked.
    pub(super) fn of<'m>(matches: impl Iterator<Item = &'m RouteMatch>) -> Self {
        let mut trie = Self { anywhere: Vec::new(), nodes: vec![Node::default()] };
        for (rank, matches) in (0..).zip(matches) {
            match (&matches.path_exact, matches.path_prefix.as_deref()) {
                (Some(exact), _) => trie.node(exact).exact.push(rank),
                (None, None | Some("")) => trie.anywhere.push(rank),
                (None, Some(prefix)) => match prefix.strip_suffix('/') {
                    Some(above) => trie.node(above).below.push(rank),
                    None => trie.node(prefix).prefix.push(rank),
                },
            }
        }
        trie
    }

    /// The node where all of a path is read; the root for an empty one.
    fn node(&mut self, path: &str) -> &mut Node {
        let mut at = 0;
        for segment in path.split('/').skip(1) {
            let new = u32::try_from(self.nodes.len()).expect("a list has fewer than 2^32 segments");
            let next = *self.nodes[at].next.entry(segment.into()).or_insert(new);
            if next == new {
                self.nodes.push(Node::default());
            }
            at = next as usize;
        }
        &mut self.nodes[at]
    }

    /// The first rank whose route takes `path` and `holds`.
    pub(super) fn first(&self, path: &str, holds: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best = Rank::MAX;
        let mut consider = |ranks: &[Rank]| {
            let earlier = ranks.iter().take_while(|rank| **rank < best).find(|rank| holds(**rank as usize));
            best = earlier.copied().unwrap_or(best);
        };
        consider(&self.anywhere);
        let mut node = self.nodes.first();
        let mut rest = path.strip_prefix('/');
        while let (Some(here), Some(left)) = (node, rest) {
            consider(&here.below);
            let (segment, more) = left.split_once('/').map_or((left, None), |(segment, more)| (segment, Some(more)));
            node = here.next.get(segment).and_then(|next| self.nodes.get(*next as usize));
            if let Some(there) = node {
                consider(&there.prefix);
                if more.is_none() {
                    consider(&there.exact);
                }
            }
            rest = more;
        }
        (best != Rank::MAX).then_some(best as usize)
    }
}
