//! The data plane.

pub mod feed;
pub mod observe;
pub mod tls;
pub mod transport;
mod admit;
mod answer;
pub mod balance;
pub mod exchange;
pub mod fault;
pub mod forward;
pub mod gateway;
pub mod live;
pub mod server;
