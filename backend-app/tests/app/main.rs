//! The school app over real sockets: one file per promise.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod admission;
mod api;
mod keys;
mod life;
mod limits;
mod pages;
mod sharing;
mod site;
