//! The target and the fields of a request, changed in place.

use http::HeaderMap;
use http::header::{CONNECTION, UPGRADE};
use pingora_http::RequestHeader;

use crate::admit::gate;
use crate::exchange::Exchange;
use crate::forward::request;

/// Forgets everything before the path of a target in absolute form.
pub(super) fn to_origin_form(request: &mut RequestHeader) {
    let target = gate::origin_form(request.raw_path()).to_vec();
    // The gate has read it already.
    let _ = request.set_raw_path(&target);
}

/// Forgets a wish for another protocol that nobody is to grant.
pub(super) fn forget_upgrade(request: &mut RequestHeader) {
    request.remove_header(&UPGRADE);
    request.remove_header("http2-settings");
}

/// Forgets what `Connection` says of fields that are not passed on.
pub(super) fn forget_nominations(request: &mut RequestHeader) {
    let kept: Vec<_> = request.headers.get_all(CONNECTION).iter().filter_map(gate::without_unwanted).collect();
    request.remove_header(&CONNECTION);
    for value in kept {
        // What was a value of this field is one without some of its words.
        let _ = request.append_header(CONNECTION, value);
    }
}

/// The target towards the backend, if the route changes it.
pub(crate) fn rewritten_target(request: &RequestHeader, exchange: &Exchange) -> Option<String> {
    let target = exchange.target.as_ref()?;
    let cut = target.cut.as_ref().map(|cut| cut.target.as_str());
    let sent = cut.or_else(|| request.uri.path_and_query().map(|t| t.as_str()))?;
    let routed = target.route.as_ref().and_then(|route| request::rewritten_target(route, sent));
    routed.or_else(|| cut.map(str::to_owned))
}

/// Forgets how names were spelled: every later copy and change is half the work.
pub(super) fn forget_case(request: &mut RequestHeader) {
    if request.has_case() && request.raw_path_is_utf8() {
        change_fields(request, |_| {});
    }
}

/// Lets `change` at the fields of a request. What comes back has no spelling of its own for names.
pub(super) fn change_fields(request: &mut RequestHeader, change: impl FnOnce(&mut HeaderMap)) {
    let (empty, ()) = http::Request::new(()).into_parts();
    let end_stream = request.send_end_stream();
    let mut parts: http::request::Parts = std::mem::replace(request, RequestHeader::from(empty)).into();
    change(&mut parts.headers);
    *request = RequestHeader::from(parts);
    if let Some(end_stream) = end_stream {
        request.set_send_end_stream(end_stream);
    }
}

/// Replaces path and query, and keeps the authority of an HTTP/2 target.
pub(super) fn set_target(request: &mut RequestHeader, target: &str) {
    let Ok(target) = target.parse::<http::uri::PathAndQuery>() else { return };
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = Some(target);
    if let Ok(uri) = http::Uri::from_parts(parts) {
        request.set_uri(uri);
    }
}
