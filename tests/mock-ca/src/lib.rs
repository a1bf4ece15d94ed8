//! A certificate authority in the test's own process: the part of RFC 8555 that clients use, renewal information (RFC
//! 9773) and profiles, with the rate limits of Let's Encrypt, CAA, and faults on demand, on a clock that the test moves.
//!
//! It is asked with [`MockCa::handle`], without a socket. What it finds when it validates is the test's to say
//! ([`Sight`]). It keeps count of everything ([`Record`]), so that a test can say what never happened.
//!
//! It is strict where a client could go wrong unnoticed: signatures, nonces, the address that was signed, the account of an
//! order, the names of a signing request.

mod authority;
mod faults;
mod jws;
mod limits;
mod record;
mod signer;

pub use authority::{MockCa, MockCaBuilder};
pub use faults::{Endpoint, Fault};
pub use record::{Issued, Record};

/// What the CA finds when it looks for a proof.
pub trait Sight: Send + Sync {
    /// Whether the proof for `name` (without `*.`) is there. `kind` is `http-01`, `dns-01` or `tls-alpn-01`;
    /// `key_authorization` is what must be shown (RFC 8555 section 8.1).
    ///
    /// # Errors
    /// The type of the problem (`dns`, `connection`, `unauthorized`) and its words.
    fn look(&self, name: &str, kind: &str, key_authorization: &str) -> Result<(), (&'static str, String)>;

    /// Whether CAA allows this CA to issue for the name.
    fn caa_allows(&self, _name: &str) -> bool {
        true
    }
}
