//! What operators want, made into revisions.
//!
//! The life of a change:
//!
//! 1. [`server`] accepts; `http::envelope` gives the request an identity and a deadline; `http::auth` finds out who asks.
//! 2. `http::write` reads the options that all writes have and opens a transaction; the resource's file hands the body
//!    to its function in `operation`.
//! 3. `operation` checks permission and document, decides, and writes through the transaction.
//! 4. `http::write` commits (or, for a dry run, undoes), remembers the answer for an Idempotency-Key, and waits for the
//!    proxies if it was asked to.
//! 5. [`publish`] makes the next revision of what is committed and hands it to the proxies.

pub mod publish;
pub mod selftest;
pub mod server;

mod acme_metrics;
mod background;
mod bootstrap;
mod brought;
mod context_keys;
mod endings;
mod http;
mod jwks;
mod metrics;
mod moving;
mod operation;
mod sealing;
mod socket;

pub use background::{
    DomainChecks, KeyRefresher, MaintenanceWindows, NameServer, OverrideTurns, PlatformFacts, SilentInstances,
    StoredTxt,
};
pub use bootstrap::{ADMIN_TOKEN, BootstrapError, INSTANCE_TOKEN, JWKS, NODE_TOKEN, bootstrap};
pub use context_keys::{ContextKeys, Rotation};
pub use endings::EndingWatch;
pub use jwks::jwks;
pub use moving::{Migrations, PoolMaker};
pub use sealing::{Elsewhere, SealRotation};
pub use server::{ControlError, ControlHandle, ControlOptions, ControlServer, SocketNeed, SocketOptions};
pub use socket::SocketError;
