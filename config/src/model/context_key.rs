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
    /// When it came to its states. Keys of releases that did not rotate have none.
    #[serde(default)]
    pub times: ContextKeyTimes,
}

impl ContextKey {
    /// What the private half is sealed for; see [`crate::seal`].
    pub const KEY_PURPOSE: &'static str = "tenant-context";
}

/// When a signing key comes to its states, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContextKeyTimes {
    /// Since when backends can fetch it.
    pub published_ms: i64,
    /// Since when it signs; while it is next: not before this.
    pub signs_ms: i64,
    /// Since when another signs in its place.
    pub retired_ms: Option<i64>,
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
