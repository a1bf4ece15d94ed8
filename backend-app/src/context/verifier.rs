//! From the headers of a request to the school it is for.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};

use super::TenantContext;
use super::keys::KeyRing;
use super::token::{Expected, Token, TokenError};
use super::verified::VerifiedTokens;
use crate::clock;

/// The header that carries the token.
const TENANT_CONTEXT: HeaderName = HeaderName::from_static("x-tenant-context");

/// Verifies tenant contexts for one instance.
pub(crate) struct Verifier {
    keys: Arc<KeyRing>,
    expected: Expected,
    verified: VerifiedTokens,
}

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It did not come through the gateway.
    #[error("the request carries no tenant context")]
    Missing,
    /// Whoever added a second one wants us to pick the wrong one.
    #[error("the request carries several tenant contexts")]
    Several,
    /// The one it carries does not count.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The gateway has no such key, or we did not hear of it yet.
    #[error("the tenant context is signed with an unknown key")]
    UnknownKey,
    /// We never got any keys; not the request's fault.
    #[error("this instance has no keys to verify requests with")]
    NoKeys,
}

impl Verifier {
    pub(crate) fn new(keys: Arc<KeyRing>, issuer: String, audiences: Vec<String>) -> Self {
        Self { keys, expected: Expected { issuer, audiences }, verified: VerifiedTokens::new() }
    }

    /// The school that the gateway sent this request for.
    ///
    /// # Errors
    /// [`Refusal`] when the request does not say, or cannot be believed.
    pub(crate) async fn verify(&self, headers: &HeaderMap) -> Result<Arc<TenantContext>, Refusal> {
        let mut tokens = headers.get_all(TENANT_CONTEXT).iter();
        let token = tokens.next().ok_or(Refusal::Missing)?;
        if tokens.next().is_some() {
            return Err(Refusal::Several);
        }
        let text = token.to_str().map_err(|_| TokenError::Format)?;
        let now = clock::unix_now();
        if let Some(context) = self.verified.get(text, now) {
            return Ok(context);
        }
        let token = Token::parse(text)?;
        let key_id = token.key_id()?;
        let key = match self.keys.get(key_id) {
            Some(key) => key,
            None => self.keys.seek(key_id).await.ok_or_else(|| self.unknown_key())?,
        };
        let accepted = token.accept(&key, &self.expected, now)?;
        let context = Arc::new(accepted.context);
        self.verified.insert(text, context.clone(), accepted.expires_at, now);
        Ok(context)
    }

    fn unknown_key(&self) -> Refusal {
        if self.keys.is_empty() { Refusal::NoKeys } else { Refusal::UnknownKey }
    }
}
