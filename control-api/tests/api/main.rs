//! The control API over a real socket, with a store in a temporary directory.

mod access;
mod applied;
mod documents;
mod domains;
mod reading;
mod resources;
mod server;
mod site;
mod writes;
