//! Tokens that were verified, remembered until they expire.
//!
//! The gateway sends the same token with all requests of a school for up to a minute; checking its signature once
//! instead of each time is most of what admission costs. Only tokens that hold are kept, so nobody but the gateway can fill it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use super::TenantContext;
use super::token::is_over;

/// Shards, so that worker threads seldom wait for each other.
const SHARDS: usize = 16;

/// Tokens kept in a shard: 64, so 1,024 in all, near 2 MiB. More schools than that in one minute only cost signature checks.
const PER_SHARD: usize = 64;

/// Verified tokens by their exact text.
#[derive(Debug)]
pub(super) struct VerifiedTokens {
    shards: [Mutex<HashMap<Box<str>, Verified, RandomState>>; SHARDS],
    hasher: RandomState,
}

#[derive(Debug, Clone)]
struct Verified {
    context: Arc<TenantContext>,
    expires_at: i64,
}

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        let hasher = RandomState::new();
        Self { shards: std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))), hasher }
    }

    /// The context of a token that was verified before and has not expired at `now`.
    pub(super) fn get(&self, token: &str, now: i64) -> Option<Arc<TenantContext>> {
        let shard = self.shard(token).lock().unwrap_or_else(PoisonError::into_inner);
        shard.get(token).filter(|verified| !is_over(verified.expires_at, now)).map(|verified| verified.context.clone())
    }

    /// Remembers a token that holds until `expires_at`. A full shard first forgets what has expired, then what expires next.
    pub(super) fn insert(&self, token: &str, context: Arc<TenantContext>, expires_at: i64, now: i64) {
        let mut shard = self.shard(token).lock().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= PER_SHARD {
            shard.retain(|_, verified| !is_over(verified.expires_at, now));
        }
        if shard.len() >= PER_SHARD {
            let next = shard.iter().min_by_key(|(_, verified)| verified.expires_at).map(|(token, _)| token.clone());
            if let Some(next) = next {
                shard.remove(&next);
            }
        }
        shard.insert(token.into(), Verified { context, expires_at });
    }

    /// By the end of the token, where the signature is: its bytes are as good as random, and there are few to hash.
    fn shard(&self, token: &str) -> &Mutex<HashMap<Box<str>, Verified, RandomState>> {
        let tail = &token.as_bytes()[token.len().saturating_sub(16)..];
        let shard = self.hasher.hash_one(tail) % SHARDS as u64;
        &self.shards[usize::try_from(shard).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, TenantId, Theme};
    use super::*;

    fn context() -> Arc<TenantContext> {
        Arc::new(TenantContext {
            tenant_id: TenantId::parse("tnt_01JD0000000000000000000001").unwrap(),
            slug: "greenhill".to_owned(),
            name: "Greenhill".to_owned(),
            plan: "basic".to_owned(),
            isolation: "database".to_owned(),
            features: Vec::new(),
            limits: Limits::default(),
            theme: Theme::default(),
        })
    }

    #[test]
    fn a_token_is_remembered_by_all_of_its_bytes_until_it_expires() {
        let tokens = VerifiedTokens::new();
        tokens.insert("a.b.c", context(), 100, 40);
        assert!(tokens.get("a.b.c", 104).is_some());
        assert!(tokens.get("a.b.c", 105).is_none());
        assert!(tokens.get("a.x.c", 50).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let tokens = VerifiedTokens::new();
        for n in 0..10_000 {
            tokens.insert(&format!("a.b.{n}"), context(), 100 + n, 50);
        }
        let kept: usize = tokens.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS * PER_SHARD);
        assert!(tokens.get("a.b.9999", 50).is_some());
    }
}
