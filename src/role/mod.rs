//! One file per role: which services run in this process, and what they are given.

mod banner;
mod certificates;
pub(crate) mod control;
mod data_dir;
mod demo;
mod dns;
mod instances;
mod notify;
mod own_pools;
mod pools;
pub(crate) mod proxy;
pub(crate) mod school_app;
mod signals;
pub(crate) mod start;
mod supervise;
pub(crate) mod up;
