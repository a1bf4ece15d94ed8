//! Somebody who issues tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

/// Made for tests, and of use nowhere else: ring makes no RSA keys. `openssl genpkey -algorithm RSA`, 2048 bits, PKCS#8.
const RSA: &[u8] = include_bytes!("rsa-key.der");

/// Signs JSON Web Tokens (RFC 7519) with a key of its own.
#[derive(Debug)]
pub struct TokenSigner(Key);

#[derive(Debug)]
enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl TokenSigner {
    /// For RS256; the same key each time.
    pub fn rsa() -> Self {
        Self(Key::Rsa(RsaKeyPair::from_pkcs8(RSA).expect("a key")))
    }

    /// For ES256, with a new key.
    pub fn p256() -> Self {
        let (rng, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).expect("random numbers");
        Self(Key::P256(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).expect("a key")))
    }

    /// For EdDSA, with a new key.
    pub fn ed25519() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random numbers");
        Self(Key::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key")))
    }

    /// One of each kind.
    pub fn each() -> [Self; 3] {
        [Self::rsa(), Self::p256(), Self::ed25519()]
    }

    /// The algorithm of its key.
    pub fn alg(&self) -> &'static str {
        match &self.0 {
            Key::Rsa(_) => "RS256",
            Key::P256(_) => "ES256",
            Key::Ed25519(_) => "EdDSA",
        }
    }

    /// The public half as a JSON Web Key (RFC 7517).
    pub fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.0 {
            Key::Rsa(pair) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "kid": kid, "n": text(&public.n), "e": text(&public.e)})
            }
            Key::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Key::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(pair.public_key().as_ref())})
            }
        }
    }

    /// A token of this header and these claims, whatever they say.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = match &self.0 {
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("signed");
                signature
            }
            Key::P256(pair) => pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("signed").as_ref().to_vec(),
            Key::Ed25519(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token of these claims, with the header that its key asks for.
    pub fn token(&self, kid: &str, claims: &Value) -> String {
        self.sign(&json!({"alg": self.alg(), "kid": kid, "typ": "JWT"}), claims)
    }
}
