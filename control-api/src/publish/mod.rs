//! Committed changes → the next revision → the proxies.
//!
//! The [`Publisher`] is woken by every commit, folds what is not published into one delta, checks the whole graph once
//! more, records the revision in the store and wakes the feeds. The [`FeedServer`] hands each proxy the deltas after
//! the revision it holds, or everything when it is too far behind, and remembers what each proxy says it serves.
//!
//! Several control processes may publish from one store: a revision's number is a key there, so one of them is first,
//! and the others read what it published.

mod backends;
mod feed;
mod history;
mod news;
mod nodes;
mod publisher;
mod questions;
mod quotas;
mod recent;
mod saving;
#[cfg(test)]
mod tests;

pub use feed::FeedServer;
pub use history::PastError;
pub use nodes::{LaggingNode, NodeStatus};
pub use publisher::{Publisher, PublisherStatus, Unpublished};
pub use questions::Found;
