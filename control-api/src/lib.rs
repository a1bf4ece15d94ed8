//! What operators want, made into revisions.

pub mod publish;
