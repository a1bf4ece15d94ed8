//! The public halves of the keys that sign `X-Tenant-Context`, as backends fetch them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use schoolgate_config::table::RoutingTable;

/// All keys of a table as a JWK Set (RFC 7517, RFC 8037): those that sign, those that will, and those that have.
pub fn jwks(table: &RoutingTable) -> Value {
    let mut keys: Vec<_> = table.context_keys().collect();
    keys.sort_by(|a, b| a.id.cmp(&b.id));
    let keys = keys.iter().map(|key| {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "kid": key.id,
            "x": URL_SAFE_NO_PAD.encode(&*key.public),
        })
    });
    json!({ "keys": keys.collect::<Vec<_>>() })
}
