//! The data plane.

pub mod feed;
pub mod observe;
pub mod tls;
pub mod transport;
