//! Certificates without hands.
//!
//! The control plane's writes say which names want a certificate, in the same transaction that makes them wanted. One
//! control process, the holder of a lease, works on them.
//!
//! Names of this machine and of test zones get theirs from [`internal`], a CA in the data directory, through [`worker`].
//! All others come from a CA that speaks ACME (RFC 8555), and live like this:
//!
//! 1. The store has the queue: who expires first, then who waits for a new name, then renewals; tenants in turn.
//! 2. [`readiness`]: is the name proven and does it point here? Nothing else reaches a CA. [`budget`]: do the CA's limits
//!    allow it? [`breaker`]: is the CA well, or may the second step in?
//! 3. [`orders`] makes key and signing request, keeps them sealed, and only then places the order through [`directory`].
//!    [`order`] says what is next, from what the CA says; at any step another process can go on.
//! 4. What the CA will look for goes to the proxies as a change, or to DNS; the CA is told when every live proxy serves it
//!    ([`fleet`]).
//! 5. [`chain`] checks what came back; certificate, sealed key and the end of the order are one transaction, and travel
//!    like any change.
//! 6. [`failure`] sorts what went wrong: what the school can mend, what the CA limits, what is nobody's fault.
//! 7. [`renewal`]: when the CA suggests (RFC 9773), else when a third of the life is left.

pub mod authority;
pub mod breaker;
pub mod budget;
pub mod chain;
pub mod directory;
pub mod due;
pub mod failure;
pub mod fleet;
pub mod internal;
pub mod key;
pub mod order;
pub mod orders;
pub mod readiness;
pub mod renewal;
pub mod transport;
pub mod worker;
