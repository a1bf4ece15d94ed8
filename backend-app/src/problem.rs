//! What the app says when it does not do what was asked: RFC 9457 documents, or a page for people.
//!
//! A handler returns a [`Problem`]; [`render`], outermost, writes it with the id of the request, in the form the client asked for.

use axum::extract::Request;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::{error, warn};
use ulid::Ulid;

use crate::context::admission::Tenant;
use crate::pages;
use crate::school::FieldError;
use crate::store::StoreError;

/// Seconds after which trouble of ours is worth another try: 5.
const RETRY_AFTER_S: u16 = 5;

/// The longest request id repeated in an answer, in bytes; the gateway's are ULIDs of 26.
const MAX_REQUEST_ID: usize = 128;

/// One way of not doing what was asked.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    error: &'static str,
    message: String,
    errors: Vec<FieldError>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    error: &'static str,
    message: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into(), errors: Vec::new() }
    }

    pub(crate) fn unauthorized(error: &'static str, message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error, message)
    }

    pub(crate) fn bad_request(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }

    /// The body was understood, but these fields of it are wrong.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let errors_of = if errors.len() == 1 { "field is" } else { "fields are" };
        let message = format!("{} {errors_of} not valid.", errors.len());
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, "VALIDATION_FAILED", message) }
    }

    pub(crate) fn conflict(error: FieldError) -> Self {
        let message = error.message.clone();
        Self { errors: vec![error], ..Self::new(StatusCode::CONFLICT, "CONFLICT", message) }
    }

    /// The school's plan allows no more people.
    pub(crate) fn user_limit(error: FieldError) -> Self {
        let message = error.message.clone();
        Self { errors: vec![error], ..Self::new(StatusCode::FORBIDDEN, "USER_LIMIT_REACHED", message) }
    }

    pub(crate) fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "There is nothing here.")
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "This cannot be done here.")
    }

    pub(crate) fn unsupported_media_type(expected: &str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", format!("The body must be {expected}."))
    }

    pub(crate) fn body_too_large(limit: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", format!("A body may have {limit} bytes."))
    }

    pub(crate) fn unavailable(error: &'static str, message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error, message)
    }

    /// Something of ours went wrong; what it was is in the log.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "TENANT_PROCESSING_ERROR", "Something went wrong on our side.")
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    fn json(&self, request_id: &str) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            error: self.error,
            message: &self.message,
            request_id,
            errors: &self.errors,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        (self.status, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let source = &error as &dyn std::error::Error;
        if error.is_passing() {
            warn!(error = source, "the school's database is not available: {error}");
            return Self::unavailable("SCHOOL_UNAVAILABLE", "This school is busy. Please try again in a moment.");
        }
        error!(error = source, "the school's database failed: {error}");
        Self::internal()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the [`Problem`] of a response, if it is one.
pub(crate) async fn render(request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers());
    let for_people = prefers_html(request.headers());
    let response = next.run(request).await;
    let Some(problem) = response.extensions().get::<Problem>() else {
        return response;
    };
    let written = match response.extensions().get::<Tenant>() {
        Some(Tenant(context)) if for_people => pages::problem_page(context, problem, &request_id),
        _ => problem.json(&request_id),
    };
    // What was there says more than what is written now, such as `Allow`; only the empty body goes.
    let (mut head, _) = response.into_parts();
    let (written_head, body) = written.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.extend(written_head.headers);
    head.headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if head.status == StatusCode::SERVICE_UNAVAILABLE {
        head.headers.insert(RETRY_AFTER, RETRY_AFTER_S.into());
    }
    Response::from_parts(head, body)
}

/// The id that the gateway gave the request, or one of ours for a request that did not pass it.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let well_formed =
        |id: &&str| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|c| c.is_ascii_graphic());
    given.filter(well_formed).map_or_else(|| Ulid::generate().to_string(), str::to_owned)
}

/// Whether the client is a browser: it names HTML before JSON, or names no JSON.
fn prefers_html(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()) else {
        return false;
    };
    match (accept.find("text/html"), accept.find("json")) {
        (Some(html), Some(json)) => html < json,
        (html, _) => html.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn browsers_get_pages_and_programs_get_documents() {
        assert!(prefers_html(&headers("accept", "text/html,application/xhtml+xml,*/*;q=0.8")));
        assert!(!prefers_html(&headers("accept", "application/json, text/html")));
        assert!(!prefers_html(&headers("accept", "*/*")));
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn a_malformed_request_id_is_not_repeated() {
        assert_eq!(request_id(&headers("x-request-id", "01JD0000000000000000000001")), "01JD0000000000000000000001");
        assert_ne!(request_id(&headers("x-request-id", "two words")), "two words");
        assert_eq!(request_id(&headers("x-request-id", &"x".repeat(200))).len(), 26);
    }
}
