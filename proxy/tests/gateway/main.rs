//! The request path over real sockets: an edge, a gateway, backends.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod answers;
mod backends;
mod bodies;
mod certificates;
mod files;
mod forwarding;
mod grpc;
mod hostile;
mod identity;
mod limits;
mod response_fields;
mod shared_host;
mod site;
mod upgrades;
