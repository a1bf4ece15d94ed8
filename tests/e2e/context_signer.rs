//! What the gateway signs with, taken from where it keeps it: for contexts that the gateway itself would never make.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::Ed25519KeyPair;
use schoolgate_config::context::Claims;
use schoolgate_config::model::{ContextKey, ContextKeyState};
use schoolgate_config::seal::Keeper;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_store::{Head, OpenMode, Store};
use schoolgate_testkit::Site;
use serde_json::{Value, json};
use std::sync::Arc;

/// Signs as the gateway does.
pub(crate) struct ContextSigner {
    pair: Ed25519KeyPair,
    /// The `kid` of the key that signs.
    pub(crate) kid: String,
    /// The 32 bytes of its public half.
    pub(crate) public: Vec<u8>,
    head: Arc<Head>,
}

impl ContextSigner {
    /// The signer of a site.
    pub(crate) async fn of(site: &Site) -> Self {
        let url = format!("sqlite://{}", site.control_data().join("control.db").display());
        let store = Store::open(&url, OpenMode::Existing).await.expect("its store");
        let head = store.head();
        let active = head.table.context_keys().find(|key| key.state == ContextKeyState::Active);
        let key = Arc::clone(active.expect("a key that signs"));
        let keeper = Keeper::open(&site.control_data().join("keys/kek")).expect("its key-encryption key");
        let private = keeper.open_key(ContextKey::KEY_PURPOSE, key.id.as_str(), &key.private).expect("opened");
        let pair = Ed25519KeyPair::from_pkcs8(&private).expect("an Ed25519 key");
        Self { pair, kid: key.id.to_string(), public: key.public.to_vec(), head }
    }

    /// The claims about a school for a pool, made so many seconds ago.
    pub(crate) fn claims(&self, slug: &str, pool: &str, age_s: i64) -> Value {
        let tenant = self.head.table.tenant_by_slug(slug).expect("a school");
        let made_s = SystemClock.unix_ms() / 1_000 - age_s;
        let claims = Claims::new(
            &tenant.tenant,
            &tenant.plan,
            tenant.plan.limits.clone(),
            &pool.parse().expect("a name"),
            made_s,
        );
        serde_json::to_value(claims).expect("JSON")
    }

    /// The header of a context.
    pub(crate) fn header(&self) -> Value {
        json!({"alg": "EdDSA", "typ": "JWT", "kid": self.kid})
    }

    /// A compact JWS of these.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = unsigned(header, claims);
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(text.as_bytes()));
        format!("{text}.{signature}")
    }
}

/// What a signature is over.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}
