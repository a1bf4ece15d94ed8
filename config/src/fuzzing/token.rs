use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, from_value, json};

use crate::identity::{Bearer, token_of};
use crate::model::{Revision, TokenIssuer};
use crate::snapshot::{Object, Snapshot};
use crate::table::{NoLive, RoutingTable};

const NOW: i64 = 1_000_000;
const LEEWAY_S: i64 = 60;

struct World {
    key: Ed25519KeyPair,
    table: RoutingTable,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes are a seed");
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": URL_SAFE_NO_PAD.encode(key.public_key())});
    let issuer: TokenIssuer = from_value(json!({
        "id": "idp", "issuer": "https://id.example", "audiences": ["gate"], "source": "inline",
        "keys": {"keys": [jwk]},
    }))
    .expect("an issuer");
    let snapshot = Snapshot { revision: Revision(1), objects: vec![Object::from(issuer)] };
    World { key, table: RoutingTable::from_snapshot(&snapshot, &NoLive, None).expect("it holds together") }
});

/// `Authorization` of a stranger, and any header and claims with a good signature: what is not signed is never taken,
/// and what is taken is signed, in force, for us, and by its issuer.
///
/// The input is a field's value, and also header and claims as two lines.
pub fn token(input: &[u8]) {
    let World { key, table } = &*WORLD;
    assert!(!matches!(Bearer::of(table, input, NOW), Bearer::Verified(_)), "nobody else has the key");
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let (Some(header), Some(claims)) = (lines.next(), lines.next()) else { return };
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    let field = format!("Bearer {signed}.{signature}");
    assert!(token_of(field.as_bytes()).is_some());
    let Bearer::Verified(verified) = Bearer::of(table, field.as_bytes(), NOW) else { return };
    let header: Value = serde_json::from_slice(header).expect("a header is JSON");
    let claims: Value = serde_json::from_slice(claims).expect("claims are JSON");
    assert_eq!(header["alg"], "EdDSA");
    assert!(header.get("kid").is_none_or(|kid| kid.is_null() || kid == "k"));
    assert_eq!(claims["iss"], "https://id.example");
    assert!(claims["exp"].is_number() && verified.expires_at > NOW);
    for begin in ["nbf", "iat"] {
        assert!(claims[begin].as_f64().is_none_or(|at| at < (NOW + LEEWAY_S + 1) as f64), "not in force yet");
    }
    let for_us = |aud: &Value| aud == "gate";
    assert!(for_us(&claims["aud"]) || claims["aud"].as_array().is_some_and(|list| list.iter().any(for_us)));
}
