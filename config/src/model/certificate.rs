//! Certificates: what is known of one, and the material a proxy needs to serve it.

use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;
use utoipa::ToSchema;

use super::{DomainName, Fingerprint};
use crate::seal::SealedKey;

/// What is known of a certificate; never a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateRef {
    /// SHA-256 of the leaf.
    pub fingerprint: Fingerprint,
    /// DNS names it is for; a wildcard is written `*.zone`.
    pub names: Vec<String>,
    /// Begin of its validity, seconds since 1970.
    pub not_before: i64,
    /// End of its validity, seconds since 1970.
    pub not_after: i64,
    /// Where it comes from: `internal`, `acme` or [`CertificateRef::UPLOADED`].
    pub issuer: String,
}

impl CertificateRef {
    /// The issuer of one that an operator brought. While it is valid it goes before those that were issued for the same
    /// names, which stand by.
    pub const UPLOADED: &'static str = "uploaded";

    /// Whether an operator brought it.
    pub fn is_uploaded(&self) -> bool {
        self.issuer == Self::UPLOADED
    }

    /// The names without those that are wildcards.
    pub fn exact_names(&self) -> impl Iterator<Item = DomainName> + '_ {
        self.names.iter().filter_map(|name| DomainName::parse(name).ok())
    }
}

/// A certificate with its chain and its sealed key: what a proxy needs to serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// What is known of it.
    pub about: CertificateRef,
    /// Leaf first, without the root.
    pub chain: Vec<Der>,
    /// PKCS#8, sealed for the purpose [`Certificate::KEY_PURPOSE`] and the fingerprint.
    pub key: SealedKey,
}

impl Certificate {
    /// What the key is sealed for; see [`crate::seal`].
    pub const KEY_PURPOSE: &'static str = "tls-certificate";
}

/// One certificate of a chain in DER. A clone is another handle to the same bytes: a hundred thousand certificates have
/// a handful of intermediates between them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Der(Arc<[u8]>);

impl Der {
    /// Whether two handles share their bytes.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<Vec<u8>> for Der {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Deref for Der {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Der {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Der({} bytes)", self.0.len())
    }
}

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(ByteBuf::deserialize(deserializer)?.into_vec().into())
    }
}
