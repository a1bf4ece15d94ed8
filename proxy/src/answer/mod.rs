//! What the gateway says itself.

mod accept;
mod challenge;
mod early;
mod page;
mod redirect;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LOCATION, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use schoolgate_config::model::{FilesAnswer, FixedAnswer, Route, Tenant};

pub(crate) use early::early;
pub(crate) use redirect::{https_location, route_location, slash_location};

use crate::fault::Fault;
use crate::files::{self, Held};
use crate::forward::request::X_REQUEST_ID;
use crate::forward::request_id::RequestId;
use crate::forward::response;
use crate::forward::security::{Prepared, Transport};
use crate::limit::Limited;

/// Bytes of an unread request body that are read and thrown away so that the connection can go on: 64 KiB. Closing
/// with unread bytes makes the kernel reset the connection, and the answer may be lost with it.
const DRAIN_BYTES: usize = 64 * 1024;

/// How long that may take: 1 s.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// The body's type and bytes.
struct Body {
    content_type: HeaderValue,
    bytes: Bytes,
}

/// What an answer says of this case, beside what its fault always says.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// When it is worth trying again, in seconds.
    pub(crate) retry_after_s: Option<u32>,
    /// A sentence for the one who asked, as plain text.
    pub(crate) message: Option<String>,
}

/// An answer of ours.
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Option<Body>,
    /// The route whose answer it is: what it sets and removes comes last.
    route: Option<Arc<Route>>,
}

impl Answer {
    /// What a fault looks like: a problem document (RFC 9457), or a page in the tenant's colours for who prefers HTML; in
    /// words of this case where there are some.
    pub(crate) fn fault(
        fault: Fault,
        said: &Said,
        id: &RequestId,
        tenant: Option<&Tenant>,
        request: &HeaderMap,
    ) -> Self {
        let row = fault.row();
        let message = said.message.as_deref().unwrap_or(row.message);
        let body = if accept::prefers_html(accept::lines(request)) {
            Body {
                content_type: HeaderValue::from_static("text/html; charset=utf-8"),
                bytes: page::html(&row, message, id, tenant).into(),
            }
        } else {
            Body {
                content_type: HeaderValue::from_static("application/problem+json"),
                bytes: page::problem(&row, message, id).into(),
            }
        };
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(VARY, HeaderValue::from_static("accept"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
        if let Some(challenge) = fault.challenge() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(methods) = fault.allows() {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if let Some(seconds) = said.retry_after_s.or(row.retry_after_s) {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, headers, Some(body), id)
    }

    /// The answer to a request above a limit: when it may come again, and how its limits stand.
    pub(crate) fn limited(mut self, limited: Option<&Limited>) -> Self {
        if let Some(limited) = limited {
            self.headers.insert(RETRY_AFTER, limited.retry_after_s.into());
            limited.told.set(&mut self.headers);
        }
        self
    }

    /// The answer as the tenant's pages are: its security headers beside ours.
    pub(crate) fn secured(mut self, security: Option<&Prepared>, transport: Transport) -> Self {
        if let Some(security) = security {
            security.set(&mut self.headers, transport);
        }
        if let Some(route) = &self.route {
            response::apply_route(&mut self.headers, route);
        }
        self
    }

    /// The answer as its route wants it, once it is [secured](Self::secured).
    pub(crate) fn of_route(self, route: &Arc<Route>) -> Self {
        Self { route: Some(Arc::clone(route)), ..self }
    }

    /// Somewhere else.
    pub(crate) fn redirect(status: u16, location: HeaderValue, id: &RequestId) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(LOCATION, location);
        Self::new(status, headers, None, id)
    }

    /// What a route says by itself.
    pub(crate) fn fixed(answer: &FixedAnswer, id: &RequestId) -> Self {
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // A status without content has none, whatever the route says (RFC 9110 section 6.4.1).
        let is_empty = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
        let body = (!is_empty && !answer.body.is_empty()).then(|| Body {
            content_type: HeaderValue::from_str(&answer.content_type)
                .unwrap_or_else(|_| HeaderValue::from_static("text/plain; charset=utf-8")),
            bytes: Bytes::copy_from_slice(answer.body.as_bytes()),
        });
        Self::new(status, headers, body, id)
    }

    /// A file, unless the client has it already.
    pub(crate) fn file(file: Held, rule: &FilesAnswer, request: &HeaderMap, id: &RequestId) -> Self {
        let Held { bytes, content_type, etag } = file;
        let status = if files::has_it(request, &etag) { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let mut headers = HeaderMap::with_capacity(10);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(ETAG, etag);
        let body = (status == StatusCode::OK).then_some(Body { content_type, bytes });
        let mut answer = Self::new(status, headers, body, id);
        // A number is a value.
        if let Ok(cache) = HeaderValue::try_from(format!("max-age={}", rule.max_age_s)) {
            answer.headers.insert(CACHE_CONTROL, cache);
        }
        answer
    }

    /// Nothing more to say: the answer to `OPTIONS *`.
    pub(crate) fn no_content(id: &RequestId) -> Self {
        Self::new(StatusCode::NO_CONTENT, HeaderMap::new(), None, id)
    }

    fn new(status: StatusCode, mut headers: HeaderMap, body: Option<Body>, id: &RequestId) -> Self {
        // An answer of ours says how things stand now.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID.clone(), id.header());
        if let Some(body) = &body {
            headers.insert(CONTENT_TYPE, body.content_type.clone());
        }
        // Neither has a body; of the second the length would be that of the answer it stands for.
        if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            headers.insert(CONTENT_LENGTH, body.as_ref().map_or(0, |b| b.bytes.len()).into());
        }
        Self { status, headers, body, route: None }
    }

    /// Sends the answer. `keep` says whether the connection may go on after it; a request body that was not read ends
    /// it unless it is short.
    ///
    /// # Errors
    /// The client is gone.
    pub(crate) async fn send(self, session: &mut ServerSession, keep: bool) -> Result<()> {
        let keep = keep && body_is_short(session);
        if keep {
            // What is left of the body is read after the answer.
            session.set_close_on_response_before_downstream_finish(false);
        } else {
            session.set_keepalive(None);
        }
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = self.status;
        parts.headers = self.headers;
        let head = Box::new(ResponseHeader::from(parts));
        let body = self.body.filter(|_| session.req_header().method != Method::HEAD);
        let mut tasks = vec![HttpTask::Header(head, body.is_none())];
        tasks.extend(body.map(|body| HttpTask::Body(Some(body.bytes), true)));
        session.response_duplex_vec(tasks).await?;
        session.set_total_drain_timeout(Some(DRAIN_TIME));
        if !session.is_body_done() {
            drain(session).await;
        }
        Ok(())
    }
}

/// Whether what is left of the request body can be read for the next request's sake. A client that waits for
/// `100 Continue` may or may not send its body after our answer, so nobody knows where its next request begins.
fn body_is_short(session: &mut ServerSession) -> bool {
    if session.is_body_done() {
        return true;
    }
    let headers = &session.req_header().headers;
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    length.is_some_and(|l| l <= DRAIN_BYTES) && !headers.contains_key(http::header::EXPECT)
}

async fn drain(session: &mut ServerSession) {
    let reading = async {
        let mut read = 0;
        while read < DRAIN_BYTES {
            match session.read_request_body().await {
                Ok(Some(piece)) => read += piece.len(),
                // The end, or a client that is gone: either way there is no more.
                Ok(None) | Err(_) => break,
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}
