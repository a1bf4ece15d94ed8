//! Orders against a CA in this process, on a clock that the tests move: limits, windows, faults, crashes.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not there")]

mod checks;
mod crashes;
mod faults;
mod life;
mod limits;
mod renewing;
mod rotation;
mod simulation;
mod world;
