//! The body of a request, read whole, within what the school and the app allow.

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::context::TenantContext;
use crate::problem::Problem;

/// The longest body that is read into memory, in bytes: 1 MiB. What is larger has to be streamed, and nothing here is.
const MAX_IN_MEMORY: u64 = 1 << 20;

/// Reads a body of the given media type.
///
/// # Errors
/// 415 for another type, 413 for a body that is too long (also one without a declared length), 400 for one that broke off.
pub(crate) async fn read(request: Request, tenant: &TenantContext, media_type: &str) -> Result<Bytes, Problem> {
    let declared = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(media_type) {
        return Err(Problem::unsupported_media_type(media_type));
    }
    let limit = tenant.limits().body_bytes().unwrap_or(MAX_IN_MEMORY).min(MAX_IN_MEMORY);
    let body = Limited::new(request.into_body(), usize::try_from(limit).unwrap_or(usize::MAX));
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::body_too_large(limit)),
        Err(_) => Err(Problem::bad_request("The body broke off.")),
    }
}
