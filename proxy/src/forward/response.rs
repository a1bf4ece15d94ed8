//! Headers coming back downstream: what belonged to the hop between us and the backend ends here.

use bytes::BytesMut;
use http::header::{CONNECTION, PROXY_AUTHENTICATE, SERVER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use schoolgate_config::model::Route;

use super::request::{self, X_REQUEST_ID, X_TENANT_CONTEXT};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Rewrites the fields of a response for the client. Framing stays: the server side frames anew by it.
pub(crate) fn rewrite(headers: &mut HeaderMap, status: StatusCode, request_id: &HeaderValue) {
    // A switched protocol needs `Connection` and `Upgrade`; everywhere else they were said to us.
    if status != StatusCode::SWITCHING_PROTOCOLS {
        if headers.contains_key(CONNECTION) {
            remove_nominated(headers);
        }
        headers.remove(UPGRADE);
    }
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
    headers.remove(PROXY_AUTHENTICATE);
    // What a backend runs on is nobody's business.
    headers.remove(SERVER);
    // An application that echoes its request must not hand out a credential.
    headers.remove(&X_TENANT_CONTEXT);
    headers.insert(X_REQUEST_ID.clone(), request_id.clone());
}

/// What a route sets and removes, after everything else: an operator who writes a route means it.
pub(crate) fn apply_route(headers: &mut HeaderMap, route: &Route) {
    let action = &route.action;
    request::apply_route(headers, &action.set_response_headers, &action.remove_response_headers);
}

/// Prepares the fields for HTTP/2, whose encoder (RFC 7541) keeps what it sends in a table of the connection.
///
/// A value read from a backend is a slice of the 4 KiB buffer its head came in, and would pin that for as long as the
/// connection lives: the values are copied together, so that they pin no more than themselves (measured: 4 KiB of the
/// 34 KiB of an idle connection). The request id is never the same twice, so it is kept out of the table.
pub(crate) fn for_http2(headers: &mut HeaderMap) {
    if let Some(id) = headers.get_mut(&X_REQUEST_ID) {
        id.set_sensitive(true);
    }
    let mut all = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    headers.values().for_each(|value| all.extend_from_slice(value.as_bytes()));
    let mut all = all.freeze();
    for value in headers.values_mut() {
        // The bytes are those of a value, so they make one.
        if let Ok(mut own) = HeaderValue::from_maybe_shared(all.split_to(value.len())) {
            own.set_sensitive(value.is_sensitive());
            *value = own;
        }
    }
}

/// HTTP/1.0 knows no chunks: the end of such an answer is the end of the connection (RFC 9112 section 6.1).
pub(crate) fn without_chunks(headers: &mut HeaderMap) {
    headers.remove(TRANSFER_ENCODING);
}

fn remove_nominated(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = request::nominated(headers)
        // Framing and meaning are not the backend's to hide.
        .filter(|n| !matches!(n.as_str(), "content-length" | "transfer-encoding" | "content-type" | "set-cookie"))
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(status: u16, fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers: HeaderMap =
            fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
        let status = StatusCode::from_u16(status).expect("a status");
        rewrite(&mut headers, status, &HeaderValue::from_static("ID"));
        headers
    }

    #[test]
    fn what_belonged_to_one_hop_is_removed() {
        let headers = rewritten(
            200,
            &[
                ("connection", "keep-alive, x-hop, Content-Length"),
                ("keep-alive", "timeout=5"),
                ("x-hop", "1"),
                ("upgrade", "h2c"),
                ("server", "app/1.2"),
                ("x-tenant-context", "a.b.c"),
                ("content-length", "3"),
                ("set-cookie", "a=b"),
            ],
        );
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "set-cookie", "x-request-id"]);
    }

    #[test]
    fn on_http2_the_values_stay_what_they_are_and_the_request_id_is_never_indexed() {
        let mut headers = rewritten(200, &[("content-type", "text/html"), ("set-cookie", "a=b"), ("x-empty", "")]);
        headers.append("set-cookie", HeaderValue::from_static("c=d"));
        let before = headers.clone();
        for_http2(&mut headers);
        assert_eq!(headers, before);
        let sensitive: Vec<_> = headers.iter().filter(|(_, v)| v.is_sensitive()).map(|(n, _)| n.as_str()).collect();
        assert_eq!(sensitive, ["x-request-id"]);
    }

    #[test]
    fn a_switched_protocol_keeps_what_switches_it() {
        let headers = rewritten(101, &[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert!(headers.contains_key("connection") && headers.contains_key("upgrade"));
    }
}
