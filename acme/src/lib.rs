//! Certificates without hands.
//!
//! The control plane's writes say which names want a certificate, in the same transaction that makes them wanted. From
//! there a certificate's life is:
//!
//! 1. [`due`]: now, because there is none, or because two thirds of its life are over; pure.
//! 2. [`key`]: a key pair of its own, never used before.
//! 3. [`authority`]: a [`CertificateAuthority`](authority::CertificateAuthority) makes the certificate. In this
//!    release that is [`internal`], a CA in the data directory.
//! 4. [`worker`]: the certificate and its sealed key go to the store in one transaction, as a change like any other;
//!    the proxies serve it when they adopt the revision. A failure is noted, with the moment of the next attempt.

pub mod authority;
pub mod due;
pub mod internal;
pub mod key;
pub mod worker;
