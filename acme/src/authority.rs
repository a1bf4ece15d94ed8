//! What we need of a certificate authority.

use async_trait::async_trait;

use crate::key::LeafKey;

/// Makes certificates.
#[async_trait]
pub trait CertificateAuthority: Send + Sync {
    /// What a certificate's `issuer` says: `internal` or `acme`.
    fn name(&self) -> &'static str;

    /// Certifies that whoever holds `key` answers for `names` (DNS names; a wildcard is written `*.zone`).
    ///
    /// # Errors
    /// [`NotIssued`] has a reason that an operator can act on; asking again later is always allowed.
    async fn issue(&self, names: &[String], key: &LeafKey) -> Result<Issued, NotIssued>;
}

/// A certificate fresh from its authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// Begin of its validity, seconds since 1970.
    pub not_before: i64,
    /// End of its validity, seconds since 1970.
    pub not_after: i64,
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotIssued {
    /// For an operator.
    pub reason: String,
}
