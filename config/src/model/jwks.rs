//! Public keys of somebody who issues tokens: a JSON Web Key Set (RFC 7517), read once where it enters.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::TokenAlgorithm;
use super::id::shortened;

/// Bytes of a document: 256 KiB. Most issuers publish a few kilobytes; certificate chains beside the keys (`x5c`), which
/// are passed over, make some far larger.
pub const JWKS_BYTES: usize = 256 * 1024;
/// Keys of a set: 32. An issuer that rotates has two or three.
const MOST_KEYS: usize = 32;
/// Characters of a key's name: 256.
const LONGEST_KID: usize = 256;
/// Bytes of an RSA modulus: 2,048 to 8,192 bits. Below it is too weak (RFC 7518 section 3.3), above it a signature check
/// costs a request too much, and ring has none.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Keys that signatures are checked with. Every one is usable: what is not was left out when the set was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Jwks(Vec<TokenKey>);

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// Its name in the headers of tokens.
    pub kid: Option<String>,
    /// The key itself.
    pub key: PublicKey,
}

/// A public key; its kind decides the one algorithm it is used with.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// For RS256: modulus and exponent, big endian, without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// For ES256: an uncompressed point of the curve P-256 (SEC 1 section 2.3.3).
    P256([u8; 65]),
    /// For EdDSA: an Ed25519 key (RFC 8032).
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// The algorithm that the key is for.
    pub const fn algorithm(&self) -> TokenAlgorithm {
        match self {
            Self::Rsa { .. } => TokenAlgorithm::Rs256,
            Self::P256(_) => TokenAlgorithm::Es256,
            Self::Ed25519(_) => TokenAlgorithm::EdDsa,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())
    }
}

/// Why a document is no set of keys that we take.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// It is larger than [`JWKS_BYTES`].
    #[error("the document has {0} bytes; at most {JWKS_BYTES} are read")]
    TooLarge(usize),
    /// It is not JSON, or not of the form of RFC 7517 section 5.
    #[error("not a JSON Web Key Set ({{\"keys\": […]}}): {0}")]
    NotJwks(#[from] serde_json::Error),
    /// It has more keys than [`Jwks`] holds.
    #[error("{0} keys; at most {MOST_KEYS} are taken")]
    TooMany(usize),
    /// A private key: whoever reads it could sign for every school.
    #[error("{key} holds a private key: publish the public half only, and replace the pair")]
    Private {
        /// Which one.
        key: KeyName,
    },
    /// A shared secret: whoever checks signatures with it could make them too.
    #[error("{key} is a shared secret (kty oct): use RS256, ES256 or EdDSA")]
    Secret {
        /// Which one.
        key: KeyName,
    },
    /// Two usable keys have one name.
    #[error("two keys are called `{0}`")]
    Twice(String),
    /// Nothing can be used.
    #[error("no usable key: {}", listed(.0))]
    NoneUsable(Vec<Unusable>),
}

/// Which key of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName {
    /// Its place, from 0.
    pub at: usize,
    /// Its `kid`, shortened.
    pub kid: Option<String>,
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "key {} (`{kid}`)", self.at),
            None => write!(f, "key {}", self.at),
        }
    }
}

/// A key that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Which one.
    pub key: KeyName,
    /// Why.
    pub why: &'static str,
}

fn listed(unusable: &[Unusable]) -> String {
    if unusable.is_empty() {
        return "the set is empty".to_owned();
    }
    let shown: Vec<_> = unusable.iter().take(3).map(|u| format!("{} {}", u.key, u.why)).collect();
    let more = unusable.len().saturating_sub(3);
    if more > 0 { format!("{}; and {more} more", shown.join("; ")) } else { shown.join("; ") }
}

impl Jwks {
    /// Reads a document as its issuer publishes it. Keys for other purposes or of other kinds are left out, as RFC 7517
    /// section 5 wants.
    ///
    /// # Errors
    /// [`JwksError`], also when nothing usable is left.
    pub fn parse(document: &[u8]) -> Result<Self, JwksError> {
        if document.len() > JWKS_BYTES {
            return Err(JwksError::TooLarge(document.len()));
        }
        Self::read(serde_json::from_slice(document)?)
    }

    fn read(document: Document) -> Result<Self, JwksError> {
        if document.keys.len() > MOST_KEYS {
            return Err(JwksError::TooMany(document.keys.len()));
        }
        let (mut usable, mut unusable) = (Vec::new(), Vec::new());
        for (at, jwk) in document.keys.into_iter().enumerate() {
            let key = KeyName { at, kid: jwk.kid.as_deref().map(shortened) };
            if jwk.kty == "oct" {
                return Err(JwksError::Secret { key });
            }
            if jwk.d.is_some() {
                return Err(JwksError::Private { key });
            }
            match jwk.usable() {
                Ok(key) => usable.push(key),
                Err(why) => unusable.push(Unusable { key, why }),
            }
        }
        for (i, key) in usable.iter().enumerate() {
            if let Some(kid) = &key.kid
                && usable[..i].iter().any(|other| other.kid.as_ref() == Some(kid))
            {
                return Err(JwksError::Twice(shortened(kid)));
            }
        }
        if usable.is_empty() { Err(JwksError::NoneUsable(unusable)) } else { Ok(Self(usable)) }
    }

    /// The keys, in the order of their document.
    pub fn keys(&self) -> &[TokenKey] {
        &self.0
    }

    /// Whether there are none: they have not been fetched yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

/// A key as it is written. Members that are not here are ignored (RFC 7517 section 4).
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Jwk {
    kty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    purpose: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_ops: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    /// The private half; only looked for.
    #[serde(skip_serializing)]
    d: Option<de::IgnoredAny>,
}

impl Jwk {
    fn usable(self) -> Result<TokenKey, &'static str> {
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err("is not for signatures");
        }
        if self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err("is not for checking signatures");
        }
        if self.kid.as_ref().is_some_and(|kid| kid.chars().count() > LONGEST_KID) {
            return Err("has a kid of more than 256 characters");
        }
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => self.rsa()?,
            ("EC", Some("P-256")) => self.p256()?,
            ("OKP", Some("Ed25519")) => {
                PublicKey::Ed25519(octets(self.x.as_deref())?.try_into().map_err(|_| "has an x that is not 32 bytes")?)
            }
            ("EC" | "OKP", _) => return Err("is on a curve other than P-256 and Ed25519"),
            _ => return Err("is of a kind other than RSA, EC and OKP"),
        };
        if self.alg.as_deref().is_some_and(|alg| alg != key.algorithm().as_str()) {
            return Err("is for an algorithm other than RS256, ES256 and EdDSA");
        }
        Ok(TokenKey { kid: self.kid, key })
    }

    fn rsa(&self) -> Result<PublicKey, &'static str> {
        let without_zeros = |bytes: Vec<u8>| bytes.into_iter().skip_while(|b| *b == 0).collect::<Vec<u8>>();
        let n = without_zeros(octets(self.n.as_deref())?);
        let e = without_zeros(octets(self.e.as_deref())?);
        if !RSA_BYTES.contains(&n.len()) || (n.len() == *RSA_BYTES.start() && n[0] < 0x80) {
            return Err("is not an RSA key of 2048 to 8192 bits");
        }
        // 3 at least, odd, below 2^33: what ring and RFC 8017 section 3.1 agree on.
        let odd = e.last().is_some_and(|last| last % 2 == 1);
        if !odd || e.len() > 5 || e == [1] {
            return Err("has an RSA exponent that is not odd and between 3 and 2^33");
        }
        Ok(PublicKey::Rsa { n, e })
    }

    fn p256(&self) -> Result<PublicKey, &'static str> {
        let (x, y) = (octets(self.x.as_deref())?, octets(self.y.as_deref())?);
        if (x.len(), y.len()) != (32, 32) {
            return Err("has coordinates that are not 32 bytes");
        }
        let mut point = [4; 65];
        point[1..33].copy_from_slice(&x);
        point[33..].copy_from_slice(&y);
        Ok(PublicKey::P256(point))
    }

    fn of(key: &TokenKey) -> Self {
        let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        let jwk = Self {
            kid: key.kid.clone(),
            purpose: Some("sig".to_owned()),
            alg: Some(key.key.algorithm().as_str().to_owned()),
            ..Self::default()
        };
        match &key.key {
            PublicKey::Rsa { n, e } => Self { kty: "RSA".to_owned(), n: text(n), e: text(e), ..jwk },
            PublicKey::P256(point) => Self {
                kty: "EC".to_owned(),
                crv: Some("P-256".to_owned()),
                x: text(&point[1..33]),
                y: text(&point[33..]),
                ..jwk
            },
            PublicKey::Ed25519(x) => Self { kty: "OKP".to_owned(), crv: Some("Ed25519".to_owned()), x: text(x), ..jwk },
        }
    }
}

fn octets(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or("lacks a member of its kind")?;
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| "has a member that is not base64url")
}

/// As a document of RFC 7517 that has only what is used.
impl Serialize for Jwks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Document { keys: self.0.iter().map(Jwk::of).collect() }.serialize(serializer)
    }
}

/// As [`Jwks::parse`] reads it, save that a set without keys is taken: one that is still to be fetched.
impl<'de> Deserialize<'de> for Jwks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Document::deserialize(deserializer)?;
        if document.keys.is_empty() {
            return Ok(Self::default());
        }
        Self::read(document).map_err(de::Error::custom)
    }
}

impl PartialSchema for Jwks {
    fn schema() -> RefOr<Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::Object)
            .description(Some("A JSON Web Key Set (RFC 7517) of public RSA, P-256 or Ed25519 keys"))
            .into()
    }
}
impl ToSchema for Jwks {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn parse(keys: serde_json::Value) -> Result<Jwks, String> {
        Jwks::parse(json!({ "keys": keys }).to_string().as_bytes()).map_err(|e| e.to_string())
    }

    fn rsa(bits: usize) -> serde_json::Value {
        json!({"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode(vec![0xff; bits / 8]), "e": "AQAB"})
    }

    #[test]
    fn each_kind_of_key_is_read_and_written_as_it_was() {
        let coordinate = URL_SAFE_NO_PAD.encode([7; 32]);
        let keys = parse(json!([
            rsa(2048),
            {"kty": "EC", "crv": "P-256", "kid": "e", "x": coordinate, "y": coordinate, "use": "sig", "alg": "ES256"},
            {"kty": "OKP", "crv": "Ed25519", "x": X, "x5c": ["ignored"]},
        ]))
        .expect("usable");
        let algorithms: Vec<_> = keys.keys().iter().map(|k| k.key.algorithm().as_str()).collect();
        assert_eq!(algorithms, ["RS256", "ES256", "EdDSA"]);
        let json: Jwks = serde_json::from_str(&serde_json::to_string(&keys).expect("JSON")).expect("reads back");
        assert_eq!(json, keys);
        let packed: Jwks = rmp_serde::from_slice(&rmp_serde::to_vec_named(&keys).expect("bytes")).expect("reads back");
        assert_eq!(packed, keys);
    }

    #[test]
    fn secrets_are_refused_even_beside_good_keys() {
        let good = json!({"kty": "OKP", "crv": "Ed25519", "x": X});
        let shared = parse(json!([good, {"kty": "oct", "kid": "s", "k": "c2VjcmV0"}]));
        assert!(shared.expect_err("refused").starts_with("key 1 (`s`) is a shared secret"));
        let private = parse(json!([{"kty": "OKP", "crv": "Ed25519", "x": X, "d": X}, good]));
        assert!(private.expect_err("refused").starts_with("key 0 holds a private key"));
    }

    #[test]
    fn what_cannot_be_used_is_left_out_or_named() {
        let good = json!({"kty": "OKP", "crv": "Ed25519", "x": X, "kid": "g"});
        for (bad, why) in [
            (rsa(1024), "is not an RSA key of 2048 to 8192 bits"),
            (rsa(16384), "is not an RSA key of 2048 to 8192 bits"),
            (json!({"kty": "RSA", "n": rsa(2048)["n"], "e": "AQ"}), "exponent"),
            (json!({"kty": "RSA", "e": "AQAB"}), "lacks a member"),
            (json!({"kty": "EC", "crv": "P-384", "x": X, "y": X}), "is on a curve other than"),
            (json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}), "coordinates"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}), "32 bytes"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": "!"}), "not base64url"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": X, "use": "enc"}), "is not for signatures"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": X, "key_ops": ["sign"]}), "is not for checking"),
            (json!({"kty": "RSA", "n": rsa(2048)["n"], "e": "AQAB", "alg": "PS256"}), "is for an algorithm other"),
            (json!({"kty": "quantum"}), "is of a kind other"),
        ] {
            let alone = parse(json!([bad])).expect_err("refused");
            assert!(alone.starts_with("no usable key: key 0") && alone.contains(why), "{alone}");
            assert_eq!(parse(json!([bad, good])).expect("the other is usable").keys().len(), 1);
        }
    }

    #[test]
    fn a_set_has_bounds() {
        let key = |n: usize| json!({"kty": "OKP", "crv": "Ed25519", "x": X, "kid": format!("k{n}")});
        assert!(parse((0..32).map(key).collect()).is_ok());
        assert!(parse((0..33).map(key).collect()).expect_err("refused").starts_with("33 keys"));
        assert_eq!(parse(json!([key(1), key(1)])).expect_err("refused"), "two keys are called `k1`");
        assert_eq!(parse(json!([])).expect_err("refused"), "no usable key: the set is empty");
        assert!(Jwks::parse(&vec![b' '; JWKS_BYTES + 1]).is_err());
        assert!(Jwks::parse(b"-----BEGIN PUBLIC KEY-----").is_err());
        assert!(Jwks::parse(b"[]").is_err());
    }
}
