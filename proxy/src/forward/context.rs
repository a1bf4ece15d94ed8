//! `X-Tenant-Context`: signed once per tenant, pool and half minute, and kept beside the tenant.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use schoolgate_config::context::{self, Claims};
use schoolgate_config::model::{Plan, PoolId};
use schoolgate_config::table::TenantEntry;

use crate::feed::SigningKey;
use crate::limit::Limiter;
use crate::live::NodeLive;

/// Seconds a signed context is used: half of its life, so that a backend never sees one with less than the other half
/// left, whatever the clocks.
const USED_FOR_S: i64 = context::LIFETIME_S / 2;

/// Pools for which one tenant's contexts are kept: its own and those of a few routes. One more drops the oldest.
const KEPT: usize = 8;

/// The claims as a compact JWS (RFC 7515 section 7.1).
fn sign(key: &SigningKey, claims: &Claims<'_>) -> Option<HeaderValue> {
    // Claims are strings and numbers; serialising them cannot fail. If it did, the backend would refuse.
    let claims = serde_json::to_vec(claims).ok()?;
    let mut token = String::with_capacity(claims.len() * 4 / 3 + 256);
    // A key's name is a DNS label, so it needs no escaping.
    URL_SAFE_NO_PAD.encode_string(format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, key.id), &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
    let signature = key.pair.sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
    let mut value = HeaderValue::try_from(token).ok()?;
    // It is a credential for a minute: no debug output shows it.
    value.set_sensitive(true);
    Some(value)
}

/// The prepared fields for a request of `tenant` to `pool` at `now_s` (seconds since 1970), signed with `key`.
pub fn context(
    key: Option<&Arc<SigningKey>>,
    limiter: &Limiter,
    tenant: &TenantEntry<NodeLive>,
    pool: &PoolId,
    now_s: i64,
) -> Context {
    let kept = tenant.live.contexts.load();
    let fits = |c: &&Context| c.fits(key, &tenant.plan, pool, now_s);
    if let Some(found) = kept.as_ref().and_then(|kept| kept.0.iter().find(fits)) {
        return found.clone();
    }
    let made = Context::new(key, limiter, tenant, pool, now_s);
    let others = kept.iter().flat_map(|kept| &kept.0).filter(|c| c.pool != *pool).take(KEPT - 1);
    let next = std::iter::once(made.clone()).chain(others.cloned()).collect();
    // Two workers may both have made one; either is good.
    tenant.live.contexts.store(Some(Arc::new(Contexts(next))));
    made
}

/// The contexts kept beside a tenant, newest first.
#[derive(Debug)]
pub(crate) struct Contexts(Vec<Context>);

/// What depends on tenant, plan and pool together.
#[derive(Debug, Clone)]
pub struct Context {
    pool: PoolId,
    /// The plan it was made of, by identity: a changed plan is another allocation while this one lives.
    plan: Arc<Plan>,
    key: Option<Arc<SigningKey>>,
    made_s: i64,
    /// `X-Tenant-Features`.
    pub(crate) features: HeaderValue,
    /// `X-Tenant-Context`; absent while no key signs.
    pub(crate) token: Option<HeaderValue>,
}

impl Context {
    fn new(
        key: Option<&Arc<SigningKey>>,
        limiter: &Limiter,
        tenant: &TenantEntry<NodeLive>,
        pool: &PoolId,
        now_s: i64,
    ) -> Self {
        // An override that begins or ends is told with the next context, half a minute later at most.
        let limits = || tenant.live.enforced(limiter, tenant, now_s.saturating_mul(1_000)).limits.clone();
        let names = context::features(&tenant.tenant, &tenant.plan).join(",");
        Self {
            pool: pool.clone(),
            plan: tenant.plan.clone(),
            key: key.cloned(),
            made_s: now_s,
            // A feature is named by an operator; a name that no header can carry is still in the signed context.
            features: HeaderValue::try_from(names).unwrap_or_else(|_| HeaderValue::from_static("")),
            token: key.and_then(|key| sign(key, &Claims::new(&tenant.tenant, &tenant.plan, limits(), pool, now_s))),
        }
    }

    fn fits(&self, key: Option<&Arc<SigningKey>>, plan: &Arc<Plan>, pool: &PoolId, now_s: i64) -> bool {
        let same_key = match (&self.key, key) {
            (Some(used), Some(key)) => Arc::ptr_eq(used, key),
            (None, None) => true,
            _ => false,
        };
        // A clock set back must not keep a token of the future in use.
        (0..USED_FOR_S).contains(&(now_s - self.made_s))
            && same_key
            && Arc::ptr_eq(&self.plan, plan)
            && self.pool == *pool
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, KeyPair, UnparsedPublicKey};

    use super::*;
    use crate::forward::request::tests::site;

    fn payload(token: &HeaderValue) -> serde_json::Value {
        let token = token.to_str().expect("ASCII");
        let middle = token.split('.').nth(1).expect("three parts");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(middle).expect("base64url")).expect("JSON")
    }

    #[test]
    fn a_context_is_signed_for_its_pool_and_verifies() {
        let site = site();
        let made = context(Some(&site.key), &Limiter::default(), &site.tenant, &site.tenant.tenant.pool, 1_000);
        let token = made.token.expect("signed");
        let text = token.to_str().expect("ASCII");
        let (signed, signature) = text.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        UnparsedPublicKey::new(&ED25519, site.key.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .expect("verifies");
        let claims = payload(&token);
        assert_eq!(claims["aud"], "shared");
        assert_eq!(claims["exp"], 1_060);
        assert_eq!(claims["slug"], "greenhill");
    }

    #[test]
    fn a_context_is_kept_for_half_its_life() {
        let site = site();
        let pool = &site.tenant.tenant.pool;
        let at = |s| context(Some(&site.key), &Limiter::default(), &site.tenant, pool, s).token.expect("signed");
        let first = at(1_000);
        assert_eq!(at(1_029), first);
        let second = at(1_030);
        assert_ne!(second, first);
        assert_ne!(at(900), second, "the clock was set back");
    }

    #[test]
    fn each_pool_has_its_own_audience() {
        let site = site();
        let other: PoolId = "other".parse().expect("a name");
        let first = context(Some(&site.key), &Limiter::default(), &site.tenant, &site.tenant.tenant.pool, 5)
            .token
            .expect("signed");
        let second = context(Some(&site.key), &Limiter::default(), &site.tenant, &other, 5).token.expect("signed");
        assert_eq!(payload(&second)["aud"], "other");
        let again = context(Some(&site.key), &Limiter::default(), &site.tenant, &site.tenant.tenant.pool, 6)
            .token
            .expect("signed");
        assert_eq!(again, first, "one pool's context does not push out another's");
    }

    #[test]
    fn without_a_key_nothing_is_signed() {
        let site = site();
        let made = context(None, &Limiter::default(), &site.tenant, &site.tenant.tenant.pool, 5);
        assert!(made.token.is_none());
    }
}
