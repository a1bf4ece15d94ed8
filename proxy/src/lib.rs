//! The data plane.

mod admit;
mod answer;
pub mod balance;
pub mod direct;
pub mod exchange;
pub mod fault;
pub mod feed;
pub mod files;
pub mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gateway;
pub mod limit;
pub mod live;
pub mod observe;
pub mod server;
pub mod tls;
pub mod transport;
