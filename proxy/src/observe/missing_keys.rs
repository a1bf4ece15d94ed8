//! Which issuers' tokens name keys that this node does not have: a sign that an issuer has a new key, or of somebody who
//! tries.

use std::sync::{Mutex, PoisonError, TryLockError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schoolgate_config::feed::MissingKey;
use schoolgate_config::model::IssuerId;
use serde::Deserialize;

/// Characters kept of a key's name: 64. It is for an operator to look at.
const LONGEST_KID: usize = 64;

/// One place per issuer of the table, never one per key: whoever sends tokens chooses the names of keys.
#[derive(Debug, Default)]
pub(super) struct MissingKeys(Mutex<Vec<MissingKey>>);

impl MissingKeys {
    /// A token of an issuer names a key that is not there. Never waits: the next such token is as good.
    pub(super) fn named_by(&self, issuer: &IssuerId, token: &[u8], now_ms: i64) {
        let mut missing = match self.0.try_lock() {
            Ok(missing) => missing,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let kid = kid(token);
        if let Some(known) = missing.iter_mut().find(|known| known.issuer == *issuer) {
            (known.kid, known.count, known.last_seen_ms) = (kid, known.count + 1, now_ms);
            return;
        }
        if missing.len() >= MissingKey::MOST
            && let Some(oldest) = (0..missing.len()).min_by_key(|at| missing[*at].last_seen_ms)
        {
            missing.swap_remove(oldest);
        }
        missing.push(MissingKey { issuer: issuer.clone(), kid, count: 1, last_seen_ms: now_ms });
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<MissingKey> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The key that a token's header names, shortened, without control characters.
fn kid(token: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Header {
        kid: Option<String>,
    }
    let header = URL_SAFE_NO_PAD.decode(token.split(|b| *b == b'.').next()?).ok()?;
    let kid = serde_json::from_slice::<Header>(&header).ok()?.kid?;
    Some(kid.chars().take(LONGEST_KID).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(kid: &str) -> Vec<u8> {
        format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(serde_json::json!({"alg": "EdDSA", "kid": kid}).to_string()))
            .into()
    }

    #[test]
    fn an_issuer_has_one_place_whatever_keys_are_named() {
        let missing = MissingKeys::default();
        let idp: IssuerId = "idp".parse().expect("a name");
        for n in 0..1_000 {
            missing.named_by(&idp, &token(&format!("k{n}")), n);
        }
        let all = missing.all();
        assert_eq!((all.len(), all[0].count, all[0].last_seen_ms), (1, 1_000, 999));
        assert_eq!(all[0].kid.as_deref(), Some("k999"));
    }

    #[test]
    fn the_issuer_not_asked_for_longest_goes_first() {
        let missing = MissingKeys::default();
        for n in 0..=i64::try_from(MissingKey::MOST).expect("small") {
            missing.named_by(&format!("idp-{n}").parse().expect("a name"), b"no token", n);
        }
        let all = missing.all();
        assert_eq!(all.len(), MissingKey::MOST);
        assert!(all.iter().all(|m| m.issuer.as_str() != "idp-0" && m.kid.is_none()));
    }

    #[test]
    fn a_name_of_a_key_is_shown_as_text_of_bounded_length() {
        assert_eq!(kid(&token("a\u{1b}[2J")).as_deref(), Some("a\u{fffd}[2J"));
        assert_eq!(kid(&token(&"x".repeat(500))).map(|kid| kid.len()), Some(LONGEST_KID));
    }
}
