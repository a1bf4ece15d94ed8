//! Which backend takes a request: what this node knows of a pool, the choice, checks, ejection, retries.

pub mod changes;
pub(crate) mod circuit;
pub(crate) mod drain;
pub mod health;
mod outlier;
mod pick;
mod pool;
mod probe;
pub(crate) mod queue;
mod rendezvous;
pub(crate) mod retry;
pub(crate) mod sticky;

pub(crate) use circuit::{Avoided, Circuits, Trouble};
pub(crate) use outlier::{NoConnection, Whose};
pub(crate) use pick::{Choice, NoBackend};
#[cfg(test)]
pub(crate) use pool::Arrival;
pub(crate) use pool::Equipment;
pub(crate) use pool::InFlight;
pub use pool::{LiveBackend, LivePool, Member};
pub(crate) use rendezvous::Point;
