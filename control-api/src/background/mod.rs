//! Reconcilers: woken or on their period, they read what is, compare it with what should be, and do one idempotent step.

mod key_schedule;
mod key_source;
mod token_keys;

pub(crate) use key_source::KeySourceError;
pub use token_keys::KeyRefresher;
pub(crate) use token_keys::RefreshRefusal;
