//! The control API over a real socket, with a store in a temporary directory.

mod access;
mod applied;
mod certificates;
mod documents;
mod domains;
mod instances;
mod limits;
mod pools;
mod reading;
mod resources;
mod routing;
mod seen_by_proxies;
mod server;
mod site;
mod token_issuers;
mod usage;
mod writes;
