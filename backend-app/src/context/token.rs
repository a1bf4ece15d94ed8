//! A tenant context as it travels: a compact JWS, taken apart and judged.
//!
//! Pure: keys and the time are arguments. The checks are in the order in which they stop trusting the sender least:
//! shape, algorithm, key, signature, and only then what the claims say.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Limits, TenantContext, TenantId, Theme};

/// How far the gateway's clock and ours may differ when a token expires: 5 s.
pub(super) const LEEWAY_S: i64 = 5;

/// How far in the future a token may have been issued: 60 s, a token's whole life. More is a broken clock.
const ISSUED_AHEAD_S: i64 = 60;

/// The longest token read, in bytes: 16 KiB. The gateway's own are near 1 KiB; the largest header it accepts is below this.
const MAX_LEN: usize = 16 * 1024;

/// A token taken apart, not yet believed.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// Header and claims as they were signed: `base64.base64`.
    signed: &'a str,
    claims: &'a str,
    signature: &'a str,
    algorithm: String,
    key_id: Option<String>,
    critical: bool,
}

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// Not a compact JWS, or not of a tenant context.
    #[error("the tenant context is not a compact JWS")]
    Format,
    /// Only EdDSA is accepted: `none` and shared secrets never.
    #[error("the tenant context is not signed with EdDSA")]
    Algorithm,
    /// Without a key id there is no key to check with.
    #[error("the tenant context names no key")]
    NoKeyId,
    /// An extension (`crit`) that we do not know must not be ignored (RFC 7515, 4.1.11).
    #[error("the tenant context has critical extensions")]
    Critical,
    /// Signed by another, or changed on the way.
    #[error("the signature of the tenant context does not hold")]
    Signature,
    /// Signed by the gateway, but not a tenant context that we know.
    #[error("the claims of the tenant context are not what they must be")]
    Claims,
    /// Another `iss`.
    #[error("the tenant context is from another issuer")]
    Issuer,
    /// Meant for the instances of another pool.
    #[error("the tenant context is for another pool")]
    Audience,
    /// `tenant_id` is malformed or not the `sub`.
    #[error("the tenant context names no valid tenant")]
    Tenant,
    /// `exp` has passed.
    #[error("the tenant context has expired")]
    Expired,
    /// `iat` is too far ahead.
    #[error("the tenant context was issued in the future")]
    Future,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    exp: i64,
    tenant_id: String,
    slug: String,
    name: String,
    plan: String,
    isolation: String,
    features: Option<Vec<String>>,
    limits: Option<Limits>,
    theme: Option<Theme>,
}

/// A token that holds: whose it is, and until when.
pub(super) struct Accepted {
    pub(super) context: TenantContext,
    /// `exp`, in seconds since 1970.
    pub(super) expires_at: i64,
}

/// What a token must say to be for this instance.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) issuer: String,
    pub(super) audiences: Vec<String>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`TokenError::Format`] when it is not a compact JWS with a JSON header.
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_LEN {
            return Err(TokenError::Format);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Format)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Format)?;
        if claims.contains('.') || signature.is_empty() {
            return Err(TokenError::Format);
        }
        let Header { alg, kid, crit } = decode(header)?;
        Ok(Self { signed, claims, signature, algorithm: alg, key_id: kid, critical: crit.is_some() })
    }

    /// The key that must have signed it.
    ///
    /// # Errors
    /// [`TokenError`] when the header asks for anything but EdDSA with a named key.
    pub(super) fn key_id(&self) -> Result<&str, TokenError> {
        if self.algorithm != "EdDSA" {
            return Err(TokenError::Algorithm);
        }
        if self.critical {
            return Err(TokenError::Critical);
        }
        self.key_id.as_deref().filter(|kid| !kid.is_empty()).ok_or(TokenError::NoKeyId)
    }

    /// Checks the signature, then the claims, at `now` (seconds since 1970).
    ///
    /// # Errors
    /// The first [`TokenError`] found.
    pub(super) fn accept(&self, key: &DecodingKey, expected: &Expected, now: i64) -> Result<Accepted, TokenError> {
        let genuine = jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), key, Algorithm::EdDSA);
        if !genuine.unwrap_or(false) {
            return Err(TokenError::Signature);
        }
        let claims: Claims = decode(self.claims).map_err(|_| TokenError::Claims)?;
        if claims.iss != expected.issuer {
            return Err(TokenError::Issuer);
        }
        if !expected.audiences.contains(&claims.aud) {
            return Err(TokenError::Audience);
        }
        if is_over(claims.exp, now) {
            return Err(TokenError::Expired);
        }
        if claims.iat > now.saturating_add(ISSUED_AHEAD_S) {
            return Err(TokenError::Future);
        }
        let tenant_id = TenantId::parse(&claims.tenant_id).map_err(|_| TokenError::Tenant)?;
        if claims.sub != claims.tenant_id {
            return Err(TokenError::Tenant);
        }
        Ok(Accepted {
            expires_at: claims.exp,
            context: TenantContext {
                tenant_id,
                slug: claims.slug,
                name: claims.name,
                plan: claims.plan,
                isolation: claims.isolation,
                features: claims.features.unwrap_or_default(),
                limits: claims.limits.unwrap_or_default(),
                theme: claims.theme.unwrap_or_default(),
            },
        })
    }
}

/// Whether a token that expires at `expires_at` no longer counts at `now`.
pub(super) fn is_over(expires_at: i64, now: i64) -> bool {
    now >= expires_at.saturating_add(LEEWAY_S)
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Format)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_compact_jws_has_no_parts() {
        for text in ["", "a", "a.b", "..", "a.b.c", "e30.e30.", "e30.e30.a.b", &"x".repeat(MAX_LEN + 1)] {
            assert_eq!(Token::parse(text).unwrap_err(), TokenError::Format, "{text:?}");
        }
    }

    #[test]
    fn the_header_must_ask_for_eddsa_with_a_named_key() {
        let key_id = |header: &str| {
            let text = format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(header));
            Token::parse(&text).unwrap().key_id().map(str::to_owned)
        };
        assert_eq!(key_id(r#"{"alg":"EdDSA","kid":"k1"}"#), Ok("k1".to_owned()));
        assert_eq!(key_id(r#"{"alg":"none","kid":"k1"}"#), Err(TokenError::Algorithm));
        assert_eq!(key_id(r#"{"alg":"HS256","kid":"k1"}"#), Err(TokenError::Algorithm));
        assert_eq!(key_id(r#"{"alg":"EdDSA"}"#), Err(TokenError::NoKeyId));
        assert_eq!(key_id(r#"{"alg":"EdDSA","kid":""}"#), Err(TokenError::NoKeyId));
        assert_eq!(key_id(r#"{"alg":"EdDSA","kid":"k1","crit":["b64"]}"#), Err(TokenError::Critical));
    }

    #[test]
    fn a_token_is_over_five_seconds_after_its_end() {
        assert!(!is_over(100, 104));
        assert!(is_over(100, 105));
    }
}
