//! Every mistake that a school makes in its DNS is made here, and called by its name.

mod mistakes;
mod reach;
mod responder;
mod world;
