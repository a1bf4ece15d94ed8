//! Signed requests (RFC 8555 section 6.2): ES256 only, which is what clients here use.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};

/// A request whose signature is not verified yet.
pub(crate) struct Signed {
    pub(crate) header: Value,
    /// `Null` for a POST-as-GET.
    pub(crate) payload: Value,
    input: String,
    signature: Vec<u8>,
}

/// The public key of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountKey {
    point: Vec<u8>,
    pub(crate) thumbprint: String,
}

fn decode(text: &Value) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_str()?).ok()
}

impl Signed {
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let payload = decode(&body["payload"])?;
        Some(Self {
            header: serde_json::from_slice(&decode(&body["protected"])?).ok()?,
            payload: if payload.is_empty() { Value::Null } else { serde_json::from_slice(&payload).ok()? },
            input: format!("{}.{}", body["protected"].as_str()?, body["payload"].as_str()?),
            signature: decode(&body["signature"])?,
        })
    }

    pub(crate) fn is_signed_by(&self, key: &AccountKey) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point);
        self.header["alg"] == "ES256" && key.verify(self.input.as_bytes(), &self.signature).is_ok()
    }
}

impl AccountKey {
    pub(crate) fn read(jwk: &Value) -> Option<Self> {
        if jwk["kty"] != "EC" || jwk["crv"] != "P-256" {
            return None;
        }
        let point = [&[4][..], &decode(&jwk["x"])?, &decode(&jwk["y"])?].concat();
        // The members in the order of RFC 7638; serde_json sorts them, and so does the RFC.
        let canonical = json!({ "crv": "P-256", "kty": "EC", "x": jwk["x"], "y": jwk["y"] }).to_string();
        Some(Self { point, thumbprint: URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes())) })
    }
}
