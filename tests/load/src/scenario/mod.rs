//! What is measured, one file each.

mod change;
mod handshake;
mod idle;
mod latency;
mod memory;
mod noisy;
mod start;
mod table;
mod throughput;

pub(crate) use change::change;
pub(crate) use handshake::{handshakes, handshakes_once};
pub(crate) use idle::idle;
pub(crate) use latency::latency;
pub(crate) use memory::memory;
pub(crate) use noisy::noisy;
pub(crate) use start::start;
pub(crate) use table::table;
pub(crate) use throughput::{h1, h2};

/// Forward in even rounds, backward in odd ones, so that no server always follows the same other.
fn alternating<T>(round: usize, all: &[T]) -> Box<dyn Iterator<Item = &T> + '_> {
    if round.is_multiple_of(2) { Box::new(all.iter()) } else { Box::new(all.iter().rev()) }
}

/// Names that a client asks a server for: many, but no more than it keeps connections.
fn names(server: &crate::server::Server, at_most: usize) -> usize {
    server.names.min(at_most)
}
