//! No handler runs without a verified tenant context, nor with a body that is longer than the school may send.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{Instrument, error_span, warn};

use super::TenantContext;
use super::token::TokenError;
use super::verifier::{Refusal, Verifier};
use crate::problem::Problem;

/// The school of the request; what handlers take to learn it.
#[derive(Debug, Clone)]
pub(crate) struct Tenant(pub(crate) Arc<TenantContext>);

impl<S: Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Missing only for a route outside `admit`, which is a mistake in the router.
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::internal)
    }
}

/// Lets a request in with its [`Tenant`], or answers why not. What comes back is one school's: nothing on the way may keep it unless
/// the handler said so.
pub(crate) async fn admit(State(verifier): State<Arc<Verifier>>, mut request: Request, next: Next) -> Response {
    let context = match verifier.verify(request.headers()).await {
        Ok(context) => context,
        Err(refusal) => {
            warn!("refused a request: {refusal}");
            return problem(refusal).into_response();
        }
    };
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let (Some(declared), Some(limit)) = (declared, context.limits().body_bytes())
        && declared > limit
    {
        return Problem::body_too_large(limit).into_response();
    }
    let span = error_span!("request", tenant.id = %context.tenant_id(), request.id = request_id(request.headers()));
    let tenant = Tenant(context);
    request.extensions_mut().insert(tenant.clone());
    let mut response = next.run(request).instrument(span).await;
    response.extensions_mut().insert(tenant);
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-store"));
    headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    response
}

/// The gateway's id of the request, for the log.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-request-id").and_then(|id| id.to_str().ok())
}

/// What the client reads: which kind of trouble, nothing of our insides.
fn problem(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Missing => {
            Problem::unauthorized("MISSING_TOKEN", "This app is reached through the gateway of its platform.")
        }
        Refusal::Several | Refusal::Token(TokenError::Format) => {
            Problem::unauthorized("INVALID_TOKEN_FORMAT", "The tenant context is malformed.")
        }
        Refusal::Token(TokenError::Expired) => {
            Problem::unauthorized("TOKEN_EXPIRED", "The tenant context has expired.")
        }
        Refusal::Token(_) | Refusal::UnknownKey => {
            Problem::unauthorized("INVALID_TOKEN", "The tenant context is not valid here.")
        }
        Refusal::NoKeys => Problem::unavailable("KEYS_UNAVAILABLE", "This instance cannot verify requests yet."),
    }
}
