//! Whether the client has the file already (RFC 9110 section 13.1.2).

use http::header::IF_NONE_MATCH;
use http::{HeaderMap, HeaderValue};

/// Whether one of the tags that a client has is this one; compared weakly, since it is only asked whether to send again.
pub(crate) fn has_it(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).any(|tag| {
        // Our tags have no comma, so to split at one loses none of them.
        let tag = tag.trim_ascii();
        tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_among_others_strong_or_weak() {
        let has = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|line| _ = headers.append(IF_NONE_MATCH, HeaderValue::from_static(line)));
            has_it(&headers, &HeaderValue::from_static("\"abc\""))
        };
        assert!(has(&["\"abc\""]) && has(&["W/\"abc\""]) && has(&["*"]));
        assert!(has(&["\"x,y\", W/\"z\" ,\"abc\""]) && has(&["\"x\"", "\"abc\""]));
        assert!(!has(&[]) && !has(&["\"abcd\""]) && !has(&["abc"]) && !has(&["\"ABC\""]) && !has(&["w/\"abc\""]));
    }
}
