//! The gate: what a request head must be before anything is decided on it.
//!
//! One pure function over the parsed head, the same for HTTP/1.1 and HTTP/2. What two parsers could read differently
//! is refused here rather than repaired, so that a backend never sees what another part of the path read otherwise.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora_http::RequestHeader;

use crate::fault::Fault;
use crate::forward::request::is_unwanted;

/// Longest method: `PROPPATCH` has 9; no registered one has more than 17.
const METHOD_LENGTH: usize = 32;

/// What a head must stay below. The transport holds HTTP/1.1 heads to the same before they are parsed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes of the request target.
    pub(crate) target_bytes: usize,
    /// Header fields.
    pub(crate) fields: usize,
    /// Bytes of one field, with its name.
    pub(crate) field_bytes: usize,
    /// Bytes of an HTTP/2 header list (RFC 9113 section 6.5.2: 32 bytes are added for each field).
    pub(crate) list_bytes: usize,
}

/// What the gate learned on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The announced length of the body.
    pub(crate) content_length: Option<u64>,
    /// The body comes in chunks, or in frames without an announced length.
    pub(crate) chunked: bool,
    /// The client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
    /// The client wants to switch to WebSocket.
    pub(crate) upgrade: bool,
    /// There is a wish for another protocol, which is forgotten.
    pub(crate) ignored_upgrade: bool,
    /// There are fields that are not passed on: ours, or with `_` in their names.
    pub(crate) has_unwanted: bool,
    /// `Connection` names fields that are not passed on.
    pub(crate) nominates_unwanted: bool,
    /// Several `Cookie` fields, as HTTP/2 sends them.
    pub(crate) cookie_crumbs: bool,
    /// The target is in absolute form.
    pub(crate) absolute_form: bool,
    /// `OPTIONS *`.
    pub(crate) asterisk: bool,
}

/// Checks a head. `raw` gives the bytes of an HTTP/1.1 head, where fields that the parser dropped can still be seen.
///
/// # Errors
/// A [`Fault`]; the connection must not be used further, for where the next message begins is not sure.
pub(crate) fn check(
    request: &RequestHeader,
    raw: impl FnOnce() -> Option<Bytes>,
    limits: &HeadLimits,
) -> Result<Head, Fault> {
    let h2 = request.version == Version::HTTP_2;
    if !h2 && !matches!(request.version, Version::HTTP_10 | Version::HTTP_11) {
        return Err(Fault::BadRequest);
    }
    check_method(&request.method)?;
    let mut head = Head::default();
    check_target(request, limits, &mut head)?;
    check_fields(request, h2, limits, &mut head)?;
    if head.chunked && raw().is_some_and(|raw| names_content_length(&raw)) {
        // The parser has dropped the length by now (RFC 9112 section 6.3 allows it); a proxy before us may have
        // believed it.
        return Err(Fault::BadRequest);
    }
    Ok(head)
}

fn check_method(method: &Method) -> Result<(), Fault> {
    // `http` has made sure that it is a token.
    let refused = matches!(*method, Method::CONNECT | Method::TRACE) || method.as_str() == "PRI";
    if refused || method.as_str().len() > METHOD_LENGTH { Err(Fault::BadRequest) } else { Ok(()) }
}

fn check_target(request: &RequestHeader, limits: &HeadLimits, head: &mut Head) -> Result<(), Fault> {
    if request.version == Version::HTTP_2 && request.uri.scheme_str().is_some_and(|s| !matches!(s, "https" | "http")) {
        return Err(Fault::BadRequest);
    }
    let raw = request.raw_path();
    if raw.len() > limits.target_bytes {
        return Err(Fault::UriTooLong);
    }
    if raw == b"*" {
        head.asterisk = true;
        return if request.method == Method::OPTIONS { Ok(()) } else { Err(Fault::BadRequest) };
    }
    let target = match raw.first() {
        Some(b'/') => raw,
        Some(_) if request.version != Version::HTTP_2 => {
            head.absolute_form = true;
            absolute_target(request, raw)?
        }
        _ => return Err(Fault::BadRequest),
    };
    if target.starts_with(b"//") {
        // `//name/path` is a reference to another host for many a library.
        return Err(Fault::BadRequest);
    }
    let mut escaped = false;
    for byte in target {
        match byte {
            0..=b' ' | b'#' | b'\\' | 0x7f.. => return Err(Fault::BadRequest),
            b'%' => escaped = true,
            _ => {}
        }
    }
    let path = target.split(|b| *b == b'?').next().unwrap_or(target);
    if escaped && target.windows(3).any(|w| w == b"%00") {
        return Err(Fault::BadRequest);
    }
    if path.contains(&b'.') || escaped {
        check_segments(path)?;
    }
    Ok(())
}

/// A path with `.` or `..` in it means one thing to a router and another to a file system; clients resolve them before
/// they ask (RFC 3986 section 5.2.4).
fn check_segments(path: &[u8]) -> Result<(), Fault> {
    let is_dots = |segment: &[u8]| {
        let (mut rest, mut dots) = (segment, 0);
        while let Some(next) =
            rest.strip_prefix(b".").or_else(|| rest.strip_prefix(b"%2e")).or_else(|| rest.strip_prefix(b"%2E"))
        {
            (rest, dots) = (next, dots + 1);
        }
        rest.is_empty() && (1..=2).contains(&dots)
    };
    if path.split(|b| *b == b'/').any(is_dots) { Err(Fault::BadRequest) } else { Ok(()) }
}

/// The origin form of an absolute target that names the same authority as `Host`.
fn absolute_target<'r>(request: &'r RequestHeader, raw: &'r [u8]) -> Result<&'r [u8], Fault> {
    let after = |scheme: &[u8]| {
        raw.get(..scheme.len()).filter(|s| s.eq_ignore_ascii_case(scheme)).map(|_| &raw[scheme.len()..])
    };
    let rest = after(b"http://").or_else(|| after(b"https://")).ok_or(Fault::BadRequest)?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let host = request.headers.get(HOST).ok_or(Fault::BadRequest)?;
    if !host.as_bytes().eq_ignore_ascii_case(&rest[..end]) {
        return Err(Fault::BadRequest);
    }
    match &rest[end..] {
        [] => Ok(b"/"),
        [b'/', ..] => Ok(&rest[end..]),
        // `http://name?query` has an empty path.
        _ => Err(Fault::BadRequest),
    }
}

/// The origin form of what [`check`] found to be in absolute form.
pub(crate) fn origin_form(raw: &[u8]) -> &[u8] {
    let authority = raw.windows(3).position(|w| w == b"://").map_or(0, |at| at + 3);
    raw[authority..].iter().position(|b| *b == b'/').map_or(b"/", |at| &raw[authority + at..])
}

fn check_fields(request: &RequestHeader, h2: bool, limits: &HeadLimits, head: &mut Head) -> Result<(), Fault> {
    let headers = &request.headers;
    if headers.len() > limits.fields {
        return Err(Fault::HeadersTooLarge);
    }
    if h2 && list_bytes(headers) > limits.list_bytes {
        return Err(Fault::HeadersTooLarge);
    }
    let (mut hosts, mut lengths, mut codings, mut cookies) = (0, 0, 0, 0);
    for (name, value) in headers {
        let bytes = value.as_bytes();
        // As on the wire of HTTP/1.1: a colon and a space between.
        if name.as_str().len() + 2 + bytes.len() > limits.field_bytes {
            return Err(Fault::HeadersTooLarge);
        }
        if bytes.iter().any(|b| (*b < b' ' && *b != b'\t') || *b == 0x7f) {
            return Err(Fault::BadRequest);
        }
        if h2 && (is_space(bytes.first()) || is_space(bytes.last())) {
            // RFC 9113 section 8.2.1; on HTTP/1.1 it is not part of the value.
            return Err(Fault::BadRequest);
        }
        if *name == HOST {
            hosts += 1;
        } else if *name == COOKIE {
            cookies += 1;
        } else if *name == CONTENT_LENGTH {
            lengths += 1;
            head.content_length = Some(parse_length(value)?);
        } else if *name == TRANSFER_ENCODING {
            codings += 1;
            if h2 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::BadRequest);
            }
        } else if *name == CONNECTION {
            if h2 {
                return Err(Fault::BadRequest);
            }
            head.nominates_unwanted |= check_connection(value)?;
        } else if *name == UPGRADE {
            if h2 {
                return Err(Fault::BadRequest);
            }
            // A backend that took up `h2c` would be spoken to past all that is checked here.
            let websocket = value.as_bytes().eq_ignore_ascii_case(b"websocket");
            head.upgrade |= websocket;
            head.ignored_upgrade |= !websocket;
        } else if *name == TE {
            if h2 && !value.as_bytes().eq_ignore_ascii_case(b"trailers") {
                return Err(Fault::BadRequest);
            }
        } else if *name == EXPECT {
            head.expects_continue = true;
        } else if is_unwanted(name) {
            head.has_unwanted = true;
        } else if h2 && matches!(name.as_str(), "keep-alive" | "proxy-connection") {
            // RFC 9113 section 8.2.2.
            return Err(Fault::BadRequest);
        }
    }
    head.cookie_crumbs = cookies > 1;
    head.chunked = codings > 0;
    // A protocol is not switched in the middle of a body.
    let wish = head.upgrade || head.ignored_upgrade;
    head.upgrade &= !head.ignored_upgrade && !head.chunked && head.content_length.is_none_or(|length| length == 0);
    head.ignored_upgrade = wish && !head.upgrade;
    let http10_coding = request.version == Version::HTTP_10 && codings > 0;
    if hosts > 1 || lengths > 1 || codings > 1 || (lengths > 0 && codings > 0) || http10_coding {
        return Err(Fault::BadRequest);
    }
    Ok(())
}

fn list_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

fn is_space(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b' ' | b'\t'))
}

/// 1-19 digits, so that every parser reads the same number.
fn parse_length(value: &HeaderValue) -> Result<u64, Fault> {
    let digits = value.as_bytes();
    if !(1..=19).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::BadRequest);
    }
    Ok(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// `Connection` may name what belongs to one hop, never what a message means: a proxy would remove it. What it says of
/// our own fields is said of the client's copies, which are removed in any case; says whether it does.
fn check_connection(value: &HeaderValue) -> Result<bool, Fault> {
    let mut unwanted = false;
    for token in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
        if matches!(token.len(), 0 | 5 | 7 | 10)
            && (token.is_empty()
                || token.eq_ignore_ascii_case(b"close")
                || token.eq_ignore_ascii_case(b"upgrade")
                || token.eq_ignore_ascii_case(b"keep-alive"))
        {
            continue;
        }
        let name = HeaderName::from_bytes(token).map_err(|_| Fault::BadRequest)?;
        let protected = matches!(
            name.as_str(),
            "host" | "content-length" | "transfer-encoding" | "content-type" | "cookie" | "authorization"
        );
        if protected {
            return Err(Fault::BadRequest);
        }
        unwanted |= is_unwanted(&name);
    }
    Ok(unwanted)
}

/// `Connection` without the fields that are not passed on: nobody after us may take it for a word on ours.
pub(crate) fn without_unwanted(connection: &HeaderValue) -> Option<HeaderValue> {
    let tokens = connection.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let wanted = tokens.filter(|token| HeaderName::from_bytes(token).is_ok_and(|name| !is_unwanted(&name)));
    let joined = wanted.collect::<Vec<_>>().join(&b", "[..]);
    HeaderValue::from_bytes(&joined).ok().filter(|value| !value.is_empty())
}

fn names_content_length(raw: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length";
    raw.split(|b| *b == b'\n').any(|line| {
        line.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME))
            && matches!(line.get(NAME.len()), Some(b':' | b' ' | b'\t'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits =
        HeadLimits { target_bytes: 8 * 1024, fields: 100, field_bytes: 16 * 1024, list_bytes: 32 * 1024 };

    fn request(method: &str, target: &str, fields: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).expect("parsed");
        request.set_version(Version::HTTP_11);
        for (name, value) in fields {
            request.append_header(*name, *value).expect("a field");
        }
        request
    }

    fn verdict(request: &RequestHeader) -> Result<Head, Fault> {
        check(request, || None, &LIMITS)
    }

    fn fields(list: &[(&'static str, &'static str)]) -> Result<Head, Fault> {
        verdict(&request("POST", "/", list))
    }

    #[test]
    fn an_ordinary_request_passes() {
        let head = fields(&[("host", "a.example"), ("content-length", "12"), ("cookie", "a=b"), ("accept", "*/*")]);
        assert_eq!(head, Ok(Head { content_length: Some(12), ..Head::default() }));
    }

    #[test]
    fn a_name_of_ours_is_seen_in_every_spelling() {
        for name in ["x-tenant-id", "x_tenant_id", "x.tenant.id", "x-tenant'slug", "forwarded", "any_thing"] {
            let head = fields(&[("host", "a.example"), (name, "1")]).expect("it passes");
            assert!(head.has_unwanted, "{name} would be passed on");
        }
        assert!(!fields(&[("host", "a.example"), ("x.request", "1")]).expect("it passes").has_unwanted);
    }

    #[test]
    fn of_protocols_only_websocket_is_asked_for() {
        let wish = |list: &[(&'static str, &'static str)]| {
            let head = fields(list).expect("it passes");
            (head.upgrade, head.ignored_upgrade)
        };
        assert_eq!(wish(&[("upgrade", "WebSocket")]), (true, false));
        assert_eq!(wish(&[("upgrade", "websocket"), ("content-length", "5")]), (false, true));
        for other in ["h2c", "websocket, h2c", "TLS/1.0", ""] {
            assert_eq!(wish(&[("upgrade", other)]), (false, true), "{other}");
            assert_eq!(wish(&[("upgrade", "websocket"), ("upgrade", other)]), (false, true), "{other}");
        }
    }

    #[test]
    fn a_length_is_said_once_and_in_digits() {
        for bad in ["", "+1", "-1", "1,1", "0x1", "1 2", "99999999999999999999"] {
            assert_eq!(fields(&[("content-length", bad)]), Err(Fault::BadRequest), "{bad:?} was taken");
        }
        assert_eq!(fields(&[("content-length", "1"), ("content-length", "1")]), Err(Fault::BadRequest));
    }

    #[test]
    fn length_and_coding_together_are_refused_even_when_the_parser_dropped_one() {
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(fields(&[("content-length", "1"), chunked]), Err(Fault::BadRequest));
        let parsed = request("POST", "/", &[chunked]);
        let raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(check(&parsed, || Some(Bytes::from_static(raw)), &LIMITS), Err(Fault::BadRequest));
        let raw = b"POST / HTTP/1.1\r\nHost: a\r\nX-Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(check(&parsed, || Some(Bytes::from_static(raw)), &LIMITS).is_ok());
    }

    #[test]
    fn the_only_coding_is_chunked_once() {
        for bad in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "xchunked", ""] {
            assert_eq!(fields(&[("transfer-encoding", bad)]), Err(Fault::BadRequest), "{bad:?} was taken");
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(fields(&twice), Err(Fault::BadRequest));
        let mut old = request("POST", "/", &[("transfer-encoding", "chunked")]);
        old.set_version(Version::HTTP_10);
        assert_eq!(verdict(&old), Err(Fault::BadRequest));
    }

    #[test]
    fn methods_that_tunnel_or_mirror_are_refused() {
        for bad in ["TRACE", "PRI", "CONNECT", "A234567890123456789012345678901234"] {
            assert!(verdict(&request(bad, "/", &[])).is_err(), "{bad} was taken");
        }
        assert!(verdict(&request("PROPFIND", "/", &[])).is_ok());
    }

    #[test]
    fn a_target_means_one_thing() {
        for bad in [
            "//other.example/",
            "/a/../b",
            "/..",
            "/a/./b",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a\\b",
            "/a%00b",
            "name:443",
            "!",
            "*",
        ] {
            assert!(verdict(&request("GET", bad, &[])).is_err(), "{bad} was taken");
        }
        for good in ["/", "/a%2fb", "/.well-known/x", "/a..b", "/...", "/a?x=../y", "/a//b"] {
            assert!(verdict(&request("GET", good, &[])).is_ok(), "{good} was refused");
        }
        assert!(verdict(&request("OPTIONS", "*", &[])).is_ok_and(|h| h.asterisk));
        let long = format!("/{}", "a".repeat(LIMITS.target_bytes));
        assert_eq!(verdict(&request("GET", &long, &[])), Err(Fault::UriTooLong));
    }

    #[test]
    fn an_absolute_target_must_name_the_host() {
        let head = verdict(&request("GET", "http://a.example/x?y", &[("host", "a.example")]));
        assert!(head.is_ok_and(|h| h.absolute_form));
        assert_eq!(origin_form(b"http://a.example/x?y"), b"/x?y");
        assert_eq!(origin_form(b"http://a.example"), b"/");
        for (target, host) in [
            ("http://b.example/", "a.example"),
            ("http://a.example@b.example/", "a.example"),
            ("ftp://a.example/", "a.example"),
            ("http://a.example/../x", "a.example"),
        ] {
            let mut bad = request("GET", target, &[]);
            bad.append_header("host", host).expect("a field");
            assert!(verdict(&bad).is_err(), "{target} was taken");
        }
    }

    #[test]
    fn connection_may_not_name_what_a_message_means() {
        for bad in ["Host", "close, cookie", "Content-Length", "Authorization", "transfer-encoding", "a b"] {
            let mut head = request("GET", "/", &[]);
            head.append_header("connection", bad).expect("a field");
            assert_eq!(verdict(&head), Err(Fault::BadRequest), "{bad} was taken");
        }
        assert!(fields(&[("connection", "keep-alive, Upgrade, x-hop")]).is_ok_and(|head| !head.nominates_unwanted));
    }

    #[test]
    fn what_connection_says_of_our_fields_is_forgotten() {
        for ours in ["X-Tenant-ID", "x_tenant_id", "Forwarded", "X-Forwarded-For", "X.Tenant.Slug"] {
            let mut head = request("GET", "/", &[]);
            head.append_header("connection", ours).expect("a field");
            assert!(verdict(&head).is_ok_and(|head| head.nominates_unwanted), "{ours}");
        }
        let without = |text| without_unwanted(&HeaderValue::from_static(text));
        assert_eq!(without("close, X-Tenant-ID,x-hop"), Some(HeaderValue::from_static("close, x-hop")));
        assert_eq!(without("x_forwarded_for"), None);
    }

    #[test]
    fn fields_of_one_hop_do_not_exist_in_http_2() {
        for (name, value) in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("keep-alive", "timeout=5"),
        ] {
            let mut head = request("GET", "/", &[]);
            head.append_header(name, value).expect("a field");
            head.set_version(Version::HTTP_2);
            assert_eq!(verdict(&head), Err(Fault::BadRequest), "{name} was taken");
        }
        let mut head = request("GET", "/", &[("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2")]);
        head.set_version(Version::HTTP_2);
        assert!(verdict(&head).is_ok_and(|h| h.cookie_crumbs));
    }

    #[test]
    fn more_fields_than_allowed_are_refused() {
        let mut many = request("GET", "/", &[]);
        for n in 0..=LIMITS.fields {
            many.append_header(format!("x-{n}"), "1").expect("a field");
        }
        assert_eq!(verdict(&many), Err(Fault::HeadersTooLarge));
    }

    #[test]
    fn a_header_list_beyond_its_bound_is_refused_on_http_2() {
        let mut long = request("GET", "/", &[]);
        for n in 0..20 {
            long.append_header(format!("x-{n}"), "a".repeat(2_000)).expect("a field");
        }
        assert!(verdict(&long).is_ok(), "the transport has counted the bytes of HTTP/1.1");
        long.set_version(Version::HTTP_2);
        assert_eq!(verdict(&long), Err(Fault::HeadersTooLarge));
    }

    #[test]
    fn a_value_with_space_around_it_is_malformed_on_http_2() {
        for bad in [" a", "a ", "\ta"] {
            let mut head = request("GET", "/", &[]);
            head.append_header("x", bad).expect("a field");
            head.set_version(Version::HTTP_2);
            assert_eq!(verdict(&head), Err(Fault::BadRequest), "{bad:?}");
        }
    }

    #[test]
    fn names_with_underscores_and_ours_are_noted() {
        assert!(fields(&[("x_tenant_id", "a")]).is_ok_and(|h| h.has_unwanted));
        assert!(fields(&[("x-tenant-id", "a")]).is_ok_and(|h| h.has_unwanted));
        assert!(fields(&[("x-other", "a")]).is_ok_and(|h| !h.has_unwanted));
    }
}
