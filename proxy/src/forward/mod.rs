//! On the way up and down: how a backend is reached, and what of a message is passed on.

pub mod context;
pub(crate) mod peer;
pub mod request;
pub(crate) mod request_id;
pub(crate) mod response;
pub(crate) mod security;
mod trace;
pub(crate) mod trailers;
pub(crate) mod upstream_tls;
