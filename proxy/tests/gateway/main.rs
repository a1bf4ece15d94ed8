//! The request path over real sockets: an edge, a gateway, backends.

mod answers;
mod backends;
mod bodies;
mod forwarding;
mod identity;
mod site;
mod upgrades;
