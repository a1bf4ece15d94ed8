//! What the DNS says of a domain, and what we say in it.
//!
//! The life of a check:
//!
//! 1. [`Checker::look`] asks the authoritative servers of the name and the configured resolvers, one question at a time
//!    ([`ask`]), and writes down what each of them said: an [`Observation`], plain data.
//! 2. [`classify`] compares it with what should be ([`Expected`]): a [`Verdict`] on each axis, and [`Finding`]s that call
//!    every mistake by its name and say who must do what. Pure.
//! 3. [`Life::step`] decides what becomes of the domain, and when to look again. Pure, and slow to believe bad news: a
//!    server that fails proves nothing, and one answer changes nothing that works.
//!
//! [`Responder`] is the other direction: a small authoritative server for the names that schools delegate to us.
//!
//! This crate alone knows hickory. It asks raw questions rather than through a stub resolver: a check needs to know which
//! server said what, with which code and which TTL, and a resolver's cache hides just that.

pub mod ask;
pub mod life;
pub mod names;

mod cdn;
mod checker;
mod classify;
mod expected;
mod finding;
mod observation;
mod responder;
mod system;

pub use cdn::Proxies;
pub use checker::{Checker, CheckerOptions, Probe, ProbeOptions};
pub use classify::{Assessment, Pointing, Proof, Verdict, classify};
pub use expected::{CaIdentity, Expected, OtherClaim};
pub use finding::{Axis, Code, Finding, Hinders, Hindrance, WhoActs};
pub use life::{Life, Standing};
pub use observation::{
    Answer, CaaRecord, CaaSet, Failure, Observation, Reach, Reached, Route, Seen, Server, Stray, Strays,
};
pub use responder::{Responder, ResponderError, ResponderOptions, TxtSource, Unavailable};
pub use system::resolvers_of_system;
