//! What the fuzzers in `fuzz/` do with bytes: one function per target, which panics when a promise is broken.
//!
//! Compiled by cargo-fuzz (`--cfg fuzzing`) and for tests, which run each over the stored corpus and over random bytes.
//! So a target cannot rot, and what a fuzzer once found stays found.

#[cfg(test)]
mod tests;

pub use crate::direct::fuzzing::answer;
pub use crate::transport::fuzzing::{chunks, frames, request};
