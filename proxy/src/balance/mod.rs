//! Which backend takes a request: what this node knows of a pool, the choice, checks, ejection, retries.

pub mod health;
mod outlier;
mod pick;
mod pool;
pub(crate) mod queue;
pub(crate) mod retry;

pub(crate) use pick::NoBackend;
pub(crate) use pool::InFlight;
pub use pool::{LiveBackend, LivePool, Member};
