//! Trailers coming back downstream: a short list passes.
//!
//! Whoever merges trailers into the head would otherwise take from there what was kept out of it: framing, cookies, or our
//! own fields (RFC 9110 section 6.5.1). Trailers of requests are dropped, and so are those of chunked answers.

use http::{HeaderMap, HeaderName};

/// What is known only after a body, and means nothing but itself.
const LISTED: [&str; 8] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "server-timing",
    "etag",
    "digest",
    "content-digest",
    "repr-digest",
];

/// Drops what is not on the list.
pub(crate) fn keep_listed(trailers: &mut HeaderMap) {
    let dropped: Vec<HeaderName> = trailers.keys().filter(|name| !LISTED.contains(&name.as_str())).cloned().collect();
    for name in dropped {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_is_listed_passes() {
        let names = [
            "grpc-status",
            "server-timing",
            "etag",
            "content-length",
            "transfer-encoding",
            "set-cookie",
            "x-tenant-id",
            "x-tenant-context",
            "content-type",
            "x-anything",
            "grpc-statuses",
        ];
        let value = HeaderValue::from_static("1");
        let mut trailers: HeaderMap = names.iter().map(|name| (HeaderName::from_static(name), value.clone())).collect();
        trailers.append("server-timing", value);
        keep_listed(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["etag", "grpc-status", "server-timing"]);
        assert_eq!(trailers.get_all("server-timing").iter().count(), 2);
    }
}
