//! The keys that sign `X-Tenant-Context`: made, taking turns, gone.
//!
//! A key is published in the JWKS first, and signs when every backend that keeps the JWKS no longer than it may knows
//! it ([`schedule`]). The one before stays published until the last token it signed is dead. [`rotation`] takes these
//! steps; an operator, or the age of the key that signs, begins them.

mod rotation;
pub(crate) mod schedule;

use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_bytes::ByteBuf;

use schoolgate_config::context::LIFETIME_S;
use schoolgate_config::model::{ContextKey, ContextKeyState, ContextKeyTimes, KeyId};
use schoolgate_config::seal::Keeper;
use schoolgate_config::settings;
use schoolgate_config::time::new_ulid;

pub use rotation::Rotation;

/// Seconds by which backends may let a token outlive its `exp`: what ours and the examples allow.
const LEEWAY_S: i64 = 5;

/// How the keys of a control plane are made and take turns.
#[derive(Clone)]
pub struct ContextKeys {
    keeper: Arc<Keeper>,
    pub(crate) times: Times,
}

/// How long a key is in each of its states, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// Signing, before the next is made; `None`: until an operator asks.
    pub(crate) rotate_ms: Option<i64>,
    /// How long backends may keep the JWKS.
    pub(crate) max_age_ms: i64,
    /// Published before it signs.
    pub(crate) publish_ms: i64,
    /// Published after the last proxy stopped signing with it.
    pub(crate) retire_ms: i64,
}

impl std::fmt::Debug for ContextKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContextKeys").field("times", &self.times).finish_non_exhaustive()
    }
}

impl ContextKeys {
    /// Keys sealed by `keeper`, with the times of the settings.
    pub fn new(keeper: Arc<Keeper>, settings: &settings::ContextKeys) -> Self {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let times = Times {
            rotate_ms: (settings.rotate_days > 0).then(|| i64::from(settings.rotate_days) * 86_400_000),
            max_age_ms: ms(settings.max_age_s.duration()),
            publish_ms: ms(settings.publish_s.duration()),
            retire_ms: ms(settings.retire_s.duration()),
        };
        if times.retire_ms < (LIFETIME_S + LEEWAY_S) * 1_000 {
            tracing::warn!("context_keys.retire_s is shorter than a token lives: a rotation may refuse requests");
        }
        Self { keeper, times }
    }

    /// What seals keys.
    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// What backends are told about keeping the JWKS.
    pub(crate) fn cache_control(&self) -> String {
        format!("public, max-age={}", self.times.max_age_ms / 1_000)
    }

    /// A new key that is published and will sign.
    pub(crate) fn next(&self, now_ms: i64) -> ContextKey {
        let signs_ms = now_ms.saturating_add(self.times.publish_ms);
        make(&self.keeper, ContextKeyState::Next, ContextKeyTimes { published_ms: now_ms, signs_ms, retired_ms: None })
    }
}

/// The first key of an installation, which signs at once: no backend knows another.
pub(crate) fn first(keeper: &Keeper, now_ms: i64) -> ContextKey {
    let times = ContextKeyTimes { published_ms: now_ms, signs_ms: now_ms, retired_ms: None };
    make(keeper, ContextKeyState::Active, times)
}

fn make(keeper: &Keeper, state: ContextKeyState, times: ContextKeyTimes) -> ContextKey {
    let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the system's random numbers are there");
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).expect("it was made a line above");
    let kid = format!("ctx-{}", new_ulid().to_string().to_ascii_lowercase());
    let id: KeyId = kid.parse().expect("a ULID in lower case is a label");
    ContextKey {
        public: ByteBuf::from(pair.public_key().as_ref()),
        private: keeper.seal(ContextKey::KEY_PURPOSE, id.as_str(), private.as_ref()),
        state,
        times,
        id,
    }
}
