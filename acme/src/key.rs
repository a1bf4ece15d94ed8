//! Key pairs of certificates.

use std::fmt;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

/// A fresh P-256 key pair: the smallest and fastest to sign with that every client takes.
///
/// Rejected: Ed25519, which no browser accepts in certificates; RSA, which costs a handshake ten times as much.
pub struct LeafKey(KeyPair);

impl LeafKey {
    /// Makes one.
    pub fn generate() -> Self {
        Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("the system's random numbers are there"))
    }

    /// The private key, PKCS#8. To be sealed at once.
    pub fn pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }

    pub(crate) const fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for LeafKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeafKey")
    }
}
