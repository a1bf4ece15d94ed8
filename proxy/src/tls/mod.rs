//! Handshakes: which certificate answers which name, and under which terms.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

pub mod keyring;
pub(crate) mod sni;

pub use keyring::{Keyring, KeyringError, Material, Parsed};

/// Where a handshake finds the certificate for a name.
pub trait Certificates: Send + Sync {
    /// The certificate for `sni`: lower case, without a final dot. Asked once per handshake; must not block.
    fn resolve(&self, sni: &str) -> Option<Arc<CertifiedKey>>;
}
