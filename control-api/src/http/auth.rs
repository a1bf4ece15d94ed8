//! A bearer token → the [`Operator`] who holds it, or the node. Through the Unix socket no token is needed: the system has
//! asked already.

use axum::extract::FromRequestParts;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::request::Parts as RequestParts;

use schoolgate_store::{Token, TokenKind};

use super::envelope::{Peer, RequestId};
use super::problem::Problem;
use super::{Api, Stop};
use crate::operation::instances::Caller;
use crate::operation::permission::{Operator, Role, Via, is_from};
use crate::operation::tokens::{prefix, secret_hash};

impl FromRequestParts<Api> for Operator {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut RequestParts, api: &Api) -> Result<Self, Stop> {
        let peer = parts.extensions.get::<Peer>().copied();
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        if peer == Some(Peer::Socket) && !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(Self::of_socket(request_id));
        }
        let token = bearer(parts, api, TokenKind::Operator).await?;
        let Ok(role) = token.role.parse::<Role>() else {
            // Written by another release: what it means here is unknown, so it opens nothing.
            tracing::warn!(token.id = %token.id, "the token {} has the unknown role {}", token.id, token.role);
            return Err(Problem::new(StatusCode::FORBIDDEN, "FORBIDDEN", "this release does not know the role").into());
        };
        Ok(Self {
            name: token.name,
            token: token.id,
            role,
            scopes: token.scopes,
            tenants: token.tenants,
            via: Via::Api,
            request_id,
            client_ip: peer.and_then(Peer::ip),
        })
    }
}

/// A proxy with a node token.
pub(crate) struct Node;

impl FromRequestParts<Api> for Node {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut RequestParts, api: &Api) -> Result<Self, Stop> {
        bearer(parts, api, TokenKind::Node).await?;
        Ok(Self)
    }
}

/// An instance of the app with its token.
pub(crate) struct Instance(pub(crate) Caller);

impl FromRequestParts<Api> for Instance {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut RequestParts, api: &Api) -> Result<Self, Stop> {
        let ip = parts.extensions.get::<Peer>().and_then(|peer| peer.ip());
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        Ok(Self(Caller { token: bearer(parts, api, TokenKind::Instance).await?, ip, request_id }))
    }
}

/// The token of a request, if it is good.
///
/// # Errors
/// The codes of DESIGN.md section 5.
async fn bearer(parts: &RequestParts, api: &Api, kind: TokenKind) -> Result<Token, Stop> {
    let refuse = |code, message: &str| Stop::from(Problem::new(StatusCode::UNAUTHORIZED, code, message));
    let Some(header) = parts.headers.get(AUTHORIZATION) else {
        return Err(refuse("MISSING_TOKEN", "send `Authorization: Bearer <token>`"));
    };
    let text = header.to_str().ok().and_then(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let split = text.and_then(|text| {
        let (id, secret) = text.strip_prefix(prefix(kind))?.strip_prefix('_')?.split_once('_')?;
        // Longer than any of ours; not worth a look into the store.
        (!id.is_empty() && id.len() <= 64 && (1..=256).contains(&secret.len())).then_some((id, secret))
    });
    let Some((id, secret)) = split else {
        let message = format!("expected `Bearer {}_<id>_<secret>`", prefix(kind));
        return Err(refuse("INVALID_TOKEN_FORMAT", &message));
    };
    let unknown = || refuse("INVALID_TOKEN", "this token opens nothing");
    let token = api.store.token(id).await?;
    // An unknown id costs the same hash and comparison as a wrong secret.
    let held = token.as_ref().map_or([0; 32], |token| token.secret_hash);
    let is_right = equal(&held, &secret_hash(secret));
    let token = token.filter(|token| is_right && token.kind == kind).ok_or_else(unknown)?;
    if token.expires_at_ms.is_some_and(|end| end <= api.clock.unix_ms()) {
        return Err(refuse("TOKEN_EXPIRED", "this token has expired"));
    }
    let peer = parts.extensions.get::<Peer>().and_then(|peer| peer.ip());
    if !is_from(&token.networks, peer) {
        let message = "this token is not for the address you come from";
        return Err(Problem::new(StatusCode::FORBIDDEN, "FORBIDDEN", message).into());
    }
    Ok(token)
}

/// Compares in a time that does not depend on where two hashes differ.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}
