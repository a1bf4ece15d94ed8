//! From the feed to what is served, and back from disk.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod adoption;
mod last_good;
mod metrics;
mod remote;
mod scale;
mod server;
mod world;
