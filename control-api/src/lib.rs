//! What operators want, made into revisions.
