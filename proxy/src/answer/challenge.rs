//! The answer to a certificate authority that looks whether a name is here (RFC 8555 section 8.3).

use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderMap, HeaderValue, StatusCode};
use schoolgate_config::identity::KeyAuthorization;

use super::{Answer, Body};
use crate::forward::request_id::RequestId;

impl Answer {
    /// The key authorization, as bytes that no browser makes anything of: part of it came with the request.
    pub(crate) fn challenge(authorization: &KeyAuthorization<'_, '_>, id: &RequestId) -> Self {
        let mut headers = HeaderMap::with_capacity(5);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let body = Body {
            content_type: HeaderValue::from_static("application/octet-stream"),
            bytes: authorization.to_string().into(),
        };
        Self::new(StatusCode::OK, headers, Some(body), id)
    }
}
