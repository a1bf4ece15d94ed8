//! Commands that do one thing and exit.

pub(crate) mod check;
pub(crate) mod snapshot;
