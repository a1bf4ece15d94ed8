//! Site, Origin, Client, Link: what the end-to-end tests drive.
