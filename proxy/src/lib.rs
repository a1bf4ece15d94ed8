//! The data plane.

pub mod tls;
pub mod transport;
