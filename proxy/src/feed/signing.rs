//! The key that signs `X-Tenant-Context`, opened when it is adopted so that no request has to.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ring::signature::Ed25519KeyPair;
use schoolgate_config::model::KeyId;

/// An opened signing key.
#[derive(Debug)]
pub struct SigningKey {
    /// The `kid` of what it signs.
    pub id: KeyId,
    /// The key itself; its `Debug` shows the public half only.
    pub pair: Ed25519KeyPair,
}

/// The key that signs now; none before the first table.
pub type Signing = Arc<ArcSwapOption<SigningKey>>;
