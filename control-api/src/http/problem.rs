//! Any error → an RFC 9457 problem document; details stay in the log.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_store::StoreError;

use crate::operation::Refusal;
use crate::operation::document::FieldError;

/// A problem, before it is known in which request it arose.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    /// The status answered.
    pub(crate) status: StatusCode,
    /// The code that a script decides by.
    pub(crate) code: &'static str,
    /// The problem in words.
    pub(crate) message: String,
    /// What is wrong with the body.
    pub(crate) errors: Vec<FieldError>,
    /// Seconds after which it makes sense to try again.
    pub(crate) retry_after_s: Option<u32>,
}

/// A problem as it is answered (RFC 9457, and `error`, `message` as older scripts read them).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument<'a> {
    /// Always `about:blank`: `error` tells problems apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'a str,
    /// The status.
    status: u16,
    /// The problem in words.
    detail: &'a str,
    /// The code that a script decides by.
    error: &'a str,
    /// The problem in words, again.
    message: &'a str,
    /// The request, as in the log.
    request_id: &'a str,
    /// What is wrong with the body, place by place.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// A problem without further detail.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), errors: Vec::new(), retry_after_s: None }
    }

    /// A request that cannot be read.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }

    /// A fault of ours; what it was is in the log.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "something went wrong here; it is in the log")
    }

    /// The same, worth trying again after some seconds.
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// What a status without a body of ours stands for.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let (code, message) = match status {
            StatusCode::NOT_FOUND => ("NOT_FOUND", "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => ("METHOD_NOT_ALLOWED", "this path does not take this method"),
            StatusCode::PAYLOAD_TOO_LARGE => ("BODY_TOO_LARGE", "the body is too large"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ("UNSUPPORTED_MEDIA_TYPE", "send application/json"),
            StatusCode::REQUEST_TIMEOUT => ("REQUEST_TIMEOUT", "the request took too long"),
            status if status.is_client_error() => ("BAD_REQUEST", "the request cannot be read"),
            _ => return Self { status, ..Self::internal() },
        };
        Self::new(status, code, message)
    }

    /// The answer to a request.
    pub(crate) fn answer(&self, request_id: &str) -> Response {
        let document = ProblemDocument {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.message,
            error: self.code,
            message: &self.message,
            request_id,
            errors: &self.errors,
        };
        let body = serde_json::to_vec(&document).expect("our types serialise");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"schoolgate\""));
        }
        response
    }
}

/// Leaves the body to [`super::envelope`], which knows the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Invalid(errors) => {
                let message = match errors.as_slice() {
                    [only] if only.pointer.is_empty() => only.message.clone(),
                    [only] => format!("{}: {}", only.pointer, only.message),
                    several => format!("{} errors; see `errors`", several.len()),
                };
                let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_FAILED", message);
                Self { errors, ..problem }
            }
            Refusal::Elsewhere { field, .. } => {
                let pointer = format!("/{field}");
                let error = FieldError { pointer, code: "mismatch".to_owned(), message: message.clone() };
                Self { errors: vec![error], ..Self::bad_request(message) }
            }
            Refusal::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message),
            Refusal::Conflict { code, message, pointer } => {
                let errors = pointer.map(|pointer| FieldError {
                    pointer: pointer.to_owned(),
                    code: "taken".to_owned(),
                    message: message.clone(),
                });
                Self { errors: errors.into_iter().collect(), ..Self::new(StatusCode::CONFLICT, code, message) }
            }
            Refusal::Stale { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED", message),
            Refusal::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message),
            Refusal::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => {
                tracing::warn!("the store does not answer: {error}");
                let message = "the control plane's database does not answer; what is published stays in service";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "STORE_UNAVAILABLE", message).retry_after(1)
            }
            StoreError::Taken { .. }
            | StoreError::NotFound { .. }
            | StoreError::Stale { .. }
            | StoreError::Violations(_) => Refusal::from(error).into(),
            other => {
                tracing::error!("the store failed: {other}");
                Self::internal()
            }
        }
    }
}
