//! Key pairs of certificates.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls_pki_types::PrivatePkcs8KeyDer;

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

    /// One that was made before; `None` when the bytes are none.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from(pkcs8);
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).ok().map(Self)
    }

    /// A signing request for a name, DER; `None` for what is no DNS name.
    pub fn signing_request(&self, name: &str) -> Option<Vec<u8>> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).ok()?;
        // Names are in the extension; CAs drop the subject.
        params.distinguished_name = DistinguishedName::new();
        Some(params.serialize_request(&self.0).ok()?.der().to_vec())
    }

    /// The public key, as certificates have it (SubjectPublicKeyInfo, DER).
    pub fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
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
