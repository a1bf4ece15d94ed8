//! Bearer tokens: checked once, remembered until they expire or their issuer changes.
//!
//! A signature costs 37 µs (RS256), 77 µs (EdDSA) or 91 µs (ES256) of a core, the hash of a token of 600 bytes 0.7 µs
//! (ring 0.17 on a busy machine, release build); so a token that was found good is kept under its hash. What is not good
//! is not kept: an attacker would fill the memory with it.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::digest::{SHA256, digest};
use schoolgate_config::identity::{self, Bearer, TokenError, VerifiedToken};
use schoolgate_config::table::{Live, RoutingTable};

use crate::observe::Observe;

/// Parts of the memory, each behind a lock of its own: 16, so that two workers seldom want one at once.
const SHARDS: usize = 16;
/// Tokens of one generation in one part: 1,024. Two generations are kept, so 32,768 tokens in all; about 300 bytes each,
/// 10 MB.
const GENERATION: usize = 1_024;

type Hash = [u8; 32];
type Generation = HashMap<Hash, Arc<VerifiedToken>, RandomState>;

/// Tokens that were found good.
#[derive(Default)]
pub(crate) struct TokenCache {
    shards: [Mutex<Shard>; SHARDS],
}

/// The tokens used lately, and those before them; the old are forgotten all at once.
#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
}

impl Shard {
    fn get(&mut self, hash: &Hash) -> Option<Arc<VerifiedToken>> {
        if let Some(found) = self.young.get(hash) {
            return Some(found.clone());
        }
        let found = self.old.remove(hash)?;
        self.put(*hash, found.clone());
        Some(found)
    }

    fn put(&mut self, hash: Hash, token: Arc<VerifiedToken>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, token);
    }
}

impl TokenCache {
    /// What a token is worth at `now` (seconds since 1970).
    fn bearer<L: Live>(&self, table: &RoutingTable<L>, token: &[u8], now: i64) -> Bearer {
        if table.has_no_issuers() {
            return Bearer::of_token(table, token, now);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        let shard = &self.shards[usize::from(hash[0]) % SHARDS];
        let kept = shard.lock().unwrap_or_else(PoisonError::into_inner).get(&hash);
        // Another version of the issuer may have other keys: what the old one signed is looked at again.
        if let Some(token) = kept
            && let Some(issuer) = table.issuer(&token.issuer.id)
            && Arc::ptr_eq(issuer, &token.issuer)
        {
            return if now < token.expires_at {
                Bearer::Verified(token)
            } else {
                Bearer::Refused { issuer: issuer.clone(), error: TokenError::Expired }
            };
        }
        let bearer = Bearer::of_token(table, token, now);
        if let Bearer::Verified(token) = &bearer {
            shard.lock().unwrap_or_else(PoisonError::into_inner).put(hash, token.clone());
        }
        bearer
    }
}

/// The token that a request presents.
pub(crate) struct Presented<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) cache: &'a TokenCache,
    /// Seconds since 1970.
    pub(crate) now: i64,
    /// Told of tokens whose key the issuer does not have.
    pub(crate) observe: &'a Observe,
    /// What it was found to be worth, once somebody has asked.
    pub(crate) found: OnceCell<Bearer>,
}

impl Presented<'_> {
    fn worth<L: Live>(&self, table: &RoutingTable<L>, token: &[u8]) -> Bearer {
        let bearer = self.cache.bearer(table, token, self.now);
        if let Bearer::Refused { issuer, error: TokenError::Key } = &bearer {
            self.observe.key_missing(&issuer.id, token);
        }
        bearer
    }
}

impl identity::Token for Presented<'_> {
    fn bearer<L: Live>(&self, table: &RoutingTable<L>) -> Bearer {
        let mut lines = self.headers.get_all(AUTHORIZATION).iter();
        let bearer = match (lines.next(), lines.next()) {
            (None, _) => Bearer::Absent,
            (Some(_), Some(_)) => Bearer::Several,
            (Some(line), None) => {
                identity::token_of(line.as_bytes()).map_or(Bearer::Absent, |token| self.worth(table, token))
            }
        };
        self.found.get_or_init(|| bearer).clone()
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::{Revision, TokenIssuer};
    use schoolgate_config::snapshot::{Change, Object, Snapshot};
    use schoolgate_config::table::NoLive;
    use schoolgate_testkit::TokenSigner;
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn issuer(signer: &TokenSigner) -> Object {
        let keys = json!({"keys": [signer.jwk("k")]});
        let issuer: TokenIssuer =
            serde_json::from_value(json!({"id": "idp", "issuer": "idp", "source": "inline", "keys": keys}))
                .expect("an issuer");
        issuer.into()
    }

    fn table(signer: &TokenSigner) -> RoutingTable {
        let snapshot = Snapshot { revision: Revision(1), objects: vec![issuer(signer)] };
        RoutingTable::from_snapshot(&snapshot, &NoLive, None).expect("holds together")
    }

    fn token(signer: &TokenSigner, n: usize) -> String {
        signer.token("k", &json!({"iss": "idp", "exp": NOW + 300, "tenantId": format!("school-{n}")}))
    }

    fn kept(cache: &TokenCache) -> usize {
        let count = |shard: &Mutex<Shard>| {
            let shard = shard.lock().expect("not poisoned");
            shard.young.len() + shard.old.len()
        };
        cache.shards.iter().map(count).sum()
    }

    #[test]
    fn a_good_token_is_checked_once_and_expires_all_the_same() {
        let (signer, cache) = (TokenSigner::ed25519(), TokenCache::default());
        let (table, token) = (table(&signer), token(&signer, 1));
        let Bearer::Verified(first) = cache.bearer(&table, token.as_bytes(), NOW) else { panic!("it is good") };
        let Bearer::Verified(again) = cache.bearer(&table, token.as_bytes(), NOW + 1) else { panic!("it is good") };
        assert!(Arc::ptr_eq(&first, &again), "the second time it was remembered");
        let late = cache.bearer(&table, token.as_bytes(), NOW + 360);
        assert!(matches!(late, Bearer::Refused { error: TokenError::Expired, .. }));
    }

    #[test]
    fn a_key_that_was_replaced_is_not_remembered() {
        let (old, new, cache) = (TokenSigner::ed25519(), TokenSigner::ed25519(), TokenCache::default());
        let (table, token) = (table(&old), token(&old, 1));
        assert!(matches!(cache.bearer(&table, token.as_bytes(), NOW), Bearer::Verified(_)));
        let rotated = table.with_changes(Revision(2), &[Change::Put(issuer(&new))], &NoLive).expect("holds together");
        let refused = cache.bearer(&rotated, token.as_bytes(), NOW);
        assert!(matches!(refused, Bearer::Refused { error: TokenError::Signature, .. }));
    }

    #[test]
    fn what_is_not_good_takes_no_room_and_what_is_good_is_bounded() {
        let (signer, cache) = (TokenSigner::ed25519(), TokenCache::default());
        let table = table(&signer);
        for n in 0..100 {
            let mut bad = token(&signer, n);
            bad.push('A');
            assert!(!matches!(cache.bearer(&table, bad.as_bytes(), NOW), Bearer::Verified(_)));
        }
        assert_eq!(kept(&cache), 0);
        let Bearer::Verified(good) = cache.bearer(&table, token(&signer, 1).as_bytes(), NOW) else {
            panic!("it is good")
        };
        let mut shard = Shard::default();
        for n in 0..10 * GENERATION {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            shard.put(hash, good.clone());
            assert!(shard.get(&[0; 32]).is_some(), "what is used is kept");
            assert!(shard.young.len() + shard.old.len() <= 2 * GENERATION);
        }
    }
}
