//! A small real school platform to put behind the gateway: one database per school, many instances.
//!
//! The life of a request:
//!
//! 1. `server` accepts it, from TCP or a Unix socket; `/healthz` and `/readyz` are answered at once.
//! 2. `context` verifies `X-Tenant-Context`. Nothing else decides whose request it is: no host, no path, no
//!    other header. Without it the answer is 401, for every path.
//! 3. `store` opens that school's own database, made and migrated when first needed. Its only door takes the
//!    verified context.
//! 4. `api` answers JSON, `pages` HTML; both call `school`, which knows neither.
//!
//! Beside requests, `report` tells the control plane how many people each school has and how much it keeps, and
//! `register` that this instance is there.
//!
//! An instance keeps nothing that another instance would miss: what is in memory is keys, verified tokens and
//! open databases, all of which can be lost.

mod api;
mod body;
mod clock;
mod context;
mod control;
mod options;
mod pages;
mod problem;
mod register;
mod report;
mod router;
mod school;
mod server;
mod store;

pub use options::{KeySource, Listen, Options};
pub use server::{AppError, Server, run};
