//! The transport, driven over real sockets with a small app and a small origin behind it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod client;
mod drain;
mod floods;
mod handshake;
mod http1;
mod http2;
mod limits;
mod origin;
mod site;
