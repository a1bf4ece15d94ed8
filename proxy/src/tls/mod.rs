//! Handshakes: which certificate answers which name, and under which terms.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

pub mod keyring;
mod names;
pub(crate) mod sni;
mod stand_in;
mod tickets;

pub use keyring::{Keyring, KeyringError, Material, Parsed};
pub use names::{Names, NamesError};

/// Where a handshake finds the certificate for a name.
pub trait Certificates: Send + Sync {
    /// The certificate for `sni`: lower case, without a final dot. Asked once per handshake; must not block.
    fn resolve(&self, sni: &str) -> Option<Arc<CertifiedKey>>;

    /// Whose name `sni` is, as a number that nobody else has: what a session ticket is good for. 0: nobody's, or everybody's.
    fn holder(&self, sni: &str) -> u128 {
        let _ = sni;
        0
    }

    /// What stands in for a certificate of `sni` that is still to be issued; `None` for a name that is not known. Asked
    /// when there is none. A connection under it gets a page of ours, whatever it asks.
    fn stand_in(&self, sni: &str) -> Option<Arc<CertifiedKey>> {
        let _ = sni;
        None
    }

    /// What an authority that looks for `sni` by TLS-ALPN-01 wants to see (RFC 8737); `None` when none should be looking.
    fn challenge(&self, sni: &str) -> Option<Arc<CertifiedKey>> {
        let _ = sni;
        None
    }
}
