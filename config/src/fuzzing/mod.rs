//! What the fuzzers in `fuzz/` do with bytes: one function per target, which panics when a promise is broken.
//!
//! Compiled by cargo-fuzz (`--cfg fuzzing`) and for tests, which run each over the stored corpus and over random bytes.
//! So a target cannot rot, and what a fuzzer once found stays found.

mod authority;
mod decision;
mod settings;
#[cfg(test)]
mod tests;
mod token;
mod wire;

pub use authority::authority;
pub use decision::decision;
pub use settings::settings;
pub use token::token;
pub use wire::wire;
