//! The keys that sign `X-Tenant-Context`.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use utoipa::ToSchema;

use super::KeyId;
use crate::seal::SealedKey;

/// An Ed25519 key pair (RFC 8032) that signs tenant contexts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextKey {
    /// The `kid` of what it signs.
    pub id: KeyId,
    /// The 32 bytes of the public key.
    pub public: ByteBuf,
    /// PKCS#8, sealed for the purpose [`ContextKey::KEY_PURPOSE`] and the `kid`.
    pub private: SealedKey,
    /// Whether it signs.
    pub state: ContextKeyState,
}

impl ContextKey {
    /// What the private half is sealed for; see [`crate::seal`].
    pub const KEY_PURPOSE: &'static str = "tenant-context";
}

/// The life of a signing key: published before it signs, and for a while after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContextKeyState {
    /// Published, not signing yet.
    Next,
    /// Signing.
    Active,
    /// Published so that what it signed still verifies.
    Retired,
}
