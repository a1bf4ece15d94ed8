//! What the end-to-end tests drive: a running gateway, and the world around it.
//!
//! * [`Site`]: the real binary in a directory of its own, as one process (`up`) or as two (`control` and `proxy`).
//! * [`Origin`]: a backend that echoes, streams, waits, lies, refuses, dies and comes back.
//! * [`OriginProcess`]: the same in a process of its own: killed, paused, started again.
//! * [`Client`], [`TlsConn`]: the outside. Names resolve to the site whatever they are.
//! * [`Link`]: a TCP path that delays, stalls, cuts and refuses.
//! * [`Dns`]: a DNS of the test's own: zones that it edits, one server that knows them and resolvers that may lag or lie.
//! * [`Redis`]: a server that a test starts, pauses, kills.
//! * [`TokenSigner`]: somebody who issues tokens.
//! * [`Pebble`]: a CA that speaks ACME, and the DNS that it asks.
//! * [`ReservedPort`]: a port that nobody else gets.
//! * [`eventually`]: waits for a state; nothing here waits for a while.
//!
//! What cannot go on panics and says what was missing: this crate is for tests only.

mod api;
mod authority;
mod client;
mod dns;
mod eventually;
mod link;
mod origin;
mod pebble;
mod port;
mod process;
mod redis;
mod site;
mod tls;
mod token_signer;

pub use api::{Api, ApiAnswer};
pub use authority::{Authority, Identity};
pub use client::{Client, ClientBuilder, Http};
pub use dns::{Dns, Records, Trouble};
pub use eventually::{eventually, until};
pub use link::Link;
pub use origin::{Answer, Mood, Origin, OriginBuilder, OriginProcess, RequestHead};
pub use pebble::{Pebble, PebbleBuilder};
pub use port::ReservedPort;
pub use process::{Process, StartError};
pub use redis::Redis;
pub use site::{AnotherProxy, Site, SiteBuilder};
pub use tls::{RawResponse, TlsConn, WebSocket, client_config};
pub use token_signer::TokenSigner;
