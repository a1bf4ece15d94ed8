//! What a proxy must know to answer a certificate authority that asks whether a name is here (RFC 8555 section 8).
//!
//! A proxy never holds the key of an ACME account: HTTP-01 needs only its thumbprint, TLS-ALPN-01 only a digest.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::id::as_string;
use super::{CaId, DomainName};

/// Our account at a certificate authority, as far as a proxy needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcmeAccount {
    /// Which authority.
    pub ca: CaId,
    /// Of the account's public key.
    pub thumbprint: Thumbprint,
    /// Whether it answers for names without a [`Challenge`] of their own. At most one account is.
    pub primary: bool,
}

/// An authorization of a name that an authority may be checking now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Challenge {
    /// The name that is checked.
    pub name: DomainName,
    /// What to answer.
    pub answer: ChallengeAnswer,
    /// When it is over if nobody removes it before, seconds since 1970.
    pub expires_at: i64,
}

/// What an authority wants to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeAnswer {
    /// Over HTTP, the token asked for and the thumbprint of the account at this authority (RFC 8555 section 8.3).
    Http01 {
        /// Whose account.
        ca: CaId,
    },
    /// In a TLS handshake, a certificate with this digest (RFC 8737).
    TlsAlpn01 {
        /// SHA-256 of the key authorization.
        #[serde(with = "hex_digest")]
        #[schema(value_type = String)]
        digest: [u8; 32],
    },
}

/// Why a text is not the thumbprint of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 43 characters of base64url (a SHA-256, RFC 7638)")]
pub struct ThumbprintError;

/// The thumbprint of an account's public key: base64url of its SHA-256, 43 characters (RFC 7638).
#[derive(Clone, PartialEq, Eq)]
pub struct Thumbprint(Box<str>);

impl Thumbprint {
    /// The thumbprint as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for Thumbprint {
    type Err = ThumbprintError;
    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        let digest = URL_SAFE_NO_PAD.decode(text).map_err(|_| ThumbprintError)?;
        if digest.len() == 32 { Ok(Self(text.into())) } else { Err(ThumbprintError) }
    }
}
as_string!(Thumbprint, ThumbprintError, "SHA-256 of the account's public key, base64url (RFC 7638)");

/// A digest as 64 hexadecimal digits: what an operator can compare, where serde would write a list of numbers.
mod hex_digest {
    use super::*;

    pub(super) fn serialize<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut digest = [0; 32];
        hex::decode_to_slice(text.as_ref(), &mut digest).map_err(de::Error::custom)?;
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_thumbprint_is_a_sha_256_in_base64url() {
        let good = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        assert_eq!(good.parse::<Thumbprint>().expect("RFC 7638 section 3.1").to_string(), good);
        for bad in ["", "abc", &good[1..], &format!("{good}A"), &format!("{}=", &good[1..]), &good.replace('-', "+")] {
            assert_eq!(bad.parse::<Thumbprint>(), Err(ThumbprintError), "{bad} was taken");
        }
    }

    #[test]
    fn a_challenge_reads_back_and_a_damaged_digest_does_not() {
        let challenge = Challenge {
            name: "erp.greenhill.example".parse().expect("a name"),
            answer: ChallengeAnswer::TlsAlpn01 { digest: [7; 32] },
            expires_at: 1_800_000_000,
        };
        let mut value = json!(challenge);
        assert_eq!(serde_json::from_value::<Challenge>(value.clone()).expect("reads"), challenge);
        value["answer"]["tls_alpn01"]["digest"] = json!("07");
        assert!(serde_json::from_value::<Challenge>(value).is_err());
    }
}
