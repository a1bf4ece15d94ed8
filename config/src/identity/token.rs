//! Bearer tokens: JSON Web Tokens (RFC 7519) in compact form, checked against the issuers of a table.
//!
//! A pure function of table, token and time. The algorithm is the key's, never the token's: a header that names another
//! one, or one that the issuer is not allowed, is refused before anything is computed. Keys are prepared when an issuer
//! enters the table's snapshot; signatures are checked by ring.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::UnparsedPublicKey;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::model::{PublicKey, TokenIssuer, TokenKey};
use crate::table::{Live, RoutingTable};

/// Bytes of a token that are looked at: 8 KiB. Real ones have 300 to 2,000.
const LONGEST_TOKEN: usize = 8 * 1024;

/// What a request's `Authorization` is worth.
#[derive(Debug, Clone)]
pub enum Bearer {
    /// There is none, or none of the scheme `Bearer`.
    Absent,
    /// Nobody that this table knows issued it, as far as can be seen.
    Stranger(TokenError),
    /// It claims to be of an issuer that the table knows, and is not good.
    Refused {
        /// Whose it claims to be.
        issuer: Arc<TokenIssuer>,
        /// Why it is not good.
        error: TokenError,
    },
    /// Its issuer signed it, for us, and it is in force.
    Verified(Arc<VerifiedToken>),
    /// There are several `Authorization` fields: a backend could read another one than we.
    Several,
}

/// A token that is good.
#[derive(Debug)]
pub struct VerifiedToken {
    /// Who issued it.
    pub issuer: Arc<TokenIssuer>,
    /// Every tenant it names, as written: its claims in the order of the issuer's list, then the issuer's own tenant.
    pub names: Vec<Box<str>>,
    /// Until when it is good, the leeway included: seconds since 1970.
    pub expires_at: i64,
}

/// Why a token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum TokenError {
    /// Not three parts in base64url, of which the first two are JSON objects without repeated members.
    #[error("not a JSON Web Token")]
    Format,
    /// No issuer has its `iss`.
    #[error("its issuer is not known")]
    Issuer,
    /// `alg` is `none`, symmetric, or not among those that the issuer may use.
    #[error("its algorithm is not one that the issuer may use")]
    Algorithm,
    /// It needs an extension that we do not have (RFC 7515 section 4.1.11).
    #[error("it needs an extension (crit) that is not supported")]
    Critical,
    /// The issuer has no such key (`kid`); without `kid`, it has more than one.
    #[error("the issuer has no such key")]
    Key,
    /// The signature is another one's.
    #[error("its signature is not the issuer's")]
    Signature,
    /// It is meant for somebody else.
    #[error("it is meant for another audience")]
    Audience,
    /// `exp` is not there.
    #[error("it has no expiry (exp)")]
    NoExpiry,
    /// It was good until some time ago.
    #[error("it has expired")]
    Expired,
    /// It is not good yet (`nbf`), or comes from the future (`iat`).
    #[error("it is not in force yet")]
    NotYet,
}

impl Bearer {
    /// What the value of an `Authorization` field is worth at `now` (seconds since 1970).
    pub fn of<L: Live>(table: &RoutingTable<L>, authorization: &[u8], now: i64) -> Self {
        token_of(authorization).map_or(Self::Absent, |token| Self::of_token(table, token, now))
    }

    /// What a token is worth at `now` (seconds since 1970).
    pub fn of_token<L: Live>(table: &RoutingTable<L>, token: &[u8], now: i64) -> Self {
        let parts = match Parts::of(token) {
            Ok(parts) => parts,
            Err(error) => return Self::Stranger(error),
        };
        let Some(issuer) = parts.claims.text("iss").and_then(|iss| table.issuer_of(iss)) else {
            return Self::Stranger(TokenError::Issuer);
        };
        match parts.verify(issuer, now) {
            Ok(verified) => Self::Verified(Arc::new(verified)),
            Err(error) => Self::Refused { issuer: issuer.clone(), error },
        }
    }
}

/// The token in a field of the scheme `Bearer` (RFC 6750 section 2.1).
pub fn token_of(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = authorization.split_at_checked(b"bearer".len())?;
    let token = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer") && rest.first() == Some(&b' ') && !token.is_empty()).then_some(token)
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

/// A token taken apart; nothing of it is believed yet.
struct Parts<'a> {
    header: Header,
    claims: Claims,
    /// Header and claims as they were signed.
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a [u8]) -> Result<Self, TokenError> {
        if token.len() > LONGEST_TOKEN {
            return Err(TokenError::Format);
        }
        let mut dots = token.iter().enumerate().filter(|(_, b)| **b == b'.').map(|(at, _)| at);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(TokenError::Format);
        };
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Format);
        let header = serde_json::from_slice(&decode(&token[..first])?).map_err(|_| TokenError::Format)?;
        let claims = serde_json::from_slice(&decode(&token[first + 1..second])?).map_err(|_| TokenError::Format)?;
        Ok(Self { header, claims, signed: &token[..second], signature: decode(&token[second + 1..])? })
    }

    fn verify(&self, issuer: &Arc<TokenIssuer>, now: i64) -> Result<VerifiedToken, TokenError> {
        if self.header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let algorithm = issuer.algorithms.iter().find(|a| a.as_str() == self.header.alg);
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
        let keys = || issuer.keys.keys().iter().filter(|key| key.key.algorithm() == *algorithm);
        let key = match &self.header.kid {
            Some(kid) => keys().find(|key| key.kid.as_ref() == Some(kid)),
            // Trying one key after the other would make it cheap to keep us busy.
            None => keys().next().filter(|_| keys().count() == 1),
        };
        if !key.ok_or(TokenError::Key)?.signed(self.signed, &self.signature) {
            return Err(TokenError::Signature);
        }
        let expires_at = self.claims.in_force(i64::from(issuer.leeway_s), now)?;
        if !self.claims.is_for(&issuer.audiences) {
            return Err(TokenError::Audience);
        }
        let mut names: Vec<Box<str>> = issuer.claims.iter().filter_map(|claim| self.claims.name(claim)).collect();
        names.extend(issuer.tenant.map(|tenant| tenant.to_string().into()));
        Ok(VerifiedToken { issuer: issuer.clone(), names, expires_at })
    }
}

impl TokenKey {
    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.key {
            PublicKey::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            PublicKey::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            PublicKey::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
        };
        verified.is_ok()
    }
}

/// The claims of a token. A repeated one is no claim: two readers could take two values.
struct Claims(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Claims;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(de::Error::custom("repeated"));
                    }
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Claims {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A NumericDate (RFC 7519 section 2): seconds, possibly with a fraction.
    fn date(&self, name: &str) -> Result<Option<i64>, TokenError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let whole = value.as_i64();
                #[expect(clippy::cast_possible_truncation, reason = "checked to be far within the range")]
                let fraction = || value.as_f64().filter(|s| s.abs() < 1e15).map(|s| s.floor() as i64);
                whole.or_else(fraction).map(Some).ok_or(TokenError::Format)
            }
        }
    }

    /// Until when it is in force.
    fn in_force(&self, leeway: i64, now: i64) -> Result<i64, TokenError> {
        let expires_at = self.date("exp")?.ok_or(TokenError::NoExpiry)?.saturating_add(leeway);
        if expires_at <= now {
            return Err(TokenError::Expired);
        }
        for begin in [self.date("nbf")?, self.date("iat")?].into_iter().flatten() {
            if begin > now.saturating_add(leeway) {
                return Err(TokenError::NotYet);
            }
        }
        Ok(expires_at)
    }

    fn is_for(&self, audiences: &[String]) -> bool {
        let ours = |value: &Value| value.as_str().is_some_and(|aud| audiences.iter().any(|a| a == aud));
        match self.0.get("aud") {
            None | Some(Value::Null) => audiences.is_empty(),
            Some(Value::Array(list)) => list.iter().any(ours),
            Some(one) => ours(one),
        }
    }

    /// What a claim names. Something that is no text names nobody there is, and so disagrees with everybody.
    fn name(&self, claim: &str) -> Option<Box<str>> {
        match self.0.get(claim)? {
            Value::Null => None,
            Value::String(text) => Some(text.as_str().into()),
            other => Some(other.to_string().into()),
        }
    }
}
