//! What an HTTP/2 client can say that HTTP/1.1 cannot carry: none of it becomes a second message at a backend, or the
//! one that it should not be.

use schoolgate_testkit::Site;

use crate::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, HEADERS, Raw, field, frame, get, pseudo};
use crate::recorder::Recorder;
use crate::{HOST, gateway, with_backend};

/// What has to become of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Anything but 200, and no whole message at the backend.
    Refused,
    /// 200, and this body at the backend.
    Taken(&'static str),
}

struct Case {
    name: &'static str,
    frames: Vec<u8>,
    verdict: Verdict,
}

/// A request without a body.
fn head(name: &'static str, verdict: Verdict, block: Vec<Vec<u8>>) -> Case {
    Case { name, frames: frame(HEADERS, END_HEADERS | END_STREAM, 1, &block.concat()), verdict }
}

/// A request with a body, and possibly trailers.
fn body(name: &'static str, verdict: Verdict, fields: &[(&str, &str)], data: &[u8], trailers: Option<Vec<u8>>) -> Case {
    let fields = fields.iter().flat_map(|(name, value)| field(name, value));
    let block: Vec<u8> = pseudo("POST", "/one").into_iter().chain(fields).collect();
    let mut frames = frame(HEADERS, END_HEADERS, 1, &block);
    let last = if trailers.is_none() { END_STREAM } else { 0 };
    frames.extend(frame(DATA, last, 1, data));
    if let Some(trailers) = trailers {
        frames.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers));
    }
    Case { name, frames, verdict }
}

fn corpus() -> Vec<Case> {
    use Verdict::{Refused, Taken};
    let with = |name, fields: &[(&str, &str)]| {
        let mut block = vec![pseudo("GET", "/one")];
        block.extend(fields.iter().map(|(name, value)| field(name, value)));
        head(name, Refused, block)
    };
    let served = |name, fields: &[(&str, &str)]| Case { verdict: Taken(""), ..with(name, fields) };
    let instead = |name, method: &str, scheme: &str, authority: &str, path: &str| {
        let fields = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)];
        head(name, Refused, fields.iter().map(|(name, value)| field(name, value)).collect())
    };
    let long = "x".repeat(17_000);
    let mut cases = vec![
        // Fields of HTTP/1.1.
        with("a coding", &[("transfer-encoding", "chunked")]),
        with("connection", &[("connection", "close")]),
        with("connection naming identity", &[("connection", "x-tenant-id")]),
        with("keep-alive", &[("keep-alive", "timeout=5")]),
        with("proxy-connection", &[("proxy-connection", "close")]),
        with("upgrade", &[("upgrade", "h2c")]),
        with("te", &[("te", "gzip")]),
        with("te and more", &[("te", "trailers, gzip")]),
        // Bytes.
        with("CRLF in a value", &[("x", "a\r\nx-tenant-id: forged")]),
        with("CRLF and a request in a value", &[("x", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: ash.localhost")]),
        with("LF in a value", &[("x", "a\nb")]),
        with("CR in a value", &[("x", "a\rb")]),
        with("NUL in a value", &[("x", "a\0b")]),
        with("DEL in a value", &[("x", "a\u{7f}b")]),
        with("a space before a value", &[("x", " a")]),
        with("a tab after a value", &[("x", "a\t")]),
        with("CRLF in a name", &[("x\r\ny", "a")]),
        with("a colon in a name", &[("x: y\r\nz", "a")]),
        with("a colon at the end of a name", &[("content-length:", "5")]),
        with("a space in a name", &[("transfer-encoding ", "chunked")]),
        with("an upper case name", &[("Transfer-Encoding", "chunked")]),
        with("an empty name", &[("", "a")]),
        with("NUL in a name", &[("x\0", "a")]),
        // Pseudo-fields.
        with("two paths", &[(":path", "/two")]),
        with("a late method", &[(":method", "POST")]),
        with("an unknown pseudo-field", &[(":x", "a")]),
        with("a status", &[(":status", "200")]),
        with("a protocol", &[(":protocol", "websocket")]),
        instead("a method with a request in it", "GET / HTTP/1.1\r\nX: y\r\n\r\nGET", "https", HOST, "/one"),
        instead("a method with a space", "GET /smuggled", "https", HOST, "/one"),
        instead("CONNECT", "CONNECT", "https", HOST, "/one"),
        instead("TRACE", "TRACE", "https", HOST, "/one"),
        instead("a long method", "GETGETGETGETGETGETGETGETGETGETGETGET", "https", HOST, "/one"),
        instead("an empty method", "", "https", HOST, "/one"),
        instead("another scheme", "GET", "ftp", HOST, "/one"),
        instead("a scheme with a target in it", "GET", "https://elm.localhost/one?", HOST, "/one"),
        instead("an empty path", "GET", "https", HOST, ""),
        instead("a path with a space", "GET", "https", HOST, "/one HTTP/1.1"),
        instead("a path with CRLF", "GET", "https", HOST, "/one HTTP/1.1\r\nX-Tenant-ID: forged\r\n\r\n"),
        instead("a path with LF", "GET", "https", HOST, "/one\nx"),
        instead("a path with NUL", "GET", "https", HOST, "/one\0"),
        instead("a path with a backslash", "GET", "https", HOST, "/one\\x"),
        instead("a path in absolute form", "GET", "https", HOST, "https://elm.localhost/one"),
        instead("a path with an authority", "GET", "https", HOST, "//elm.localhost/one"),
        instead("a path that goes up", "GET", "https", HOST, "/a/../one"),
        instead("a path that goes up, escaped", "GET", "https", HOST, "/a/%2e%2E/one"),
        instead("an asterisk for GET", "GET", "https", HOST, "*"),
        instead("a path without a slash", "GET", "https", HOST, "one"),
        instead("user information", "GET", "https", "user@ash.localhost", "/one"),
        instead("two authorities", "GET", "https", "ash.localhost,elm.localhost", "/one"),
        instead("an authority with a path", "GET", "https", "ash.localhost/x", "/one"),
        instead("an authority with a port that is none", "GET", "https", "ash.localhost:x", "/one"),
        instead("an authority with CRLF", "GET", "https", "ash.localhost\r\nX: y", "/one"),
        instead("another school's authority", "GET", "https", "elm.localhost", "/one"),
        with("a host beside the authority", &[("host", "elm.localhost")]),
        with("two hosts", &[("host", HOST), ("host", HOST)]),
        with("a host with CRLF", &[("host", "ash.localhost\r\nx: y")]),
        head("no path", Refused, vec![field(":method", "GET"), field(":scheme", "https"), field(":authority", HOST)]),
        head("no method", Refused, vec![field(":scheme", "https"), field(":authority", HOST), field(":path", "/one")]),
        head("no authority", Refused, vec![field(":method", "GET"), field(":scheme", "https"), field(":path", "/one")]),
        head(
            "a pseudo-field after a field",
            Refused,
            vec![
                field(":method", "GET"),
                field("x", "y"),
                field(":scheme", "https"),
                field(":authority", HOST),
                field(":path", "/one"),
            ],
        ),
        // Sizes.
        with("a field beyond its bound", &[("x", &long[..16_300]), ("y", &long[..100]), ("z", &long[..16_300])]),
        with("a field beyond field_bytes", &[("x", &long)]),
        // Lengths.
        with("a length without a body", &[("content-length", "5")]),
        with("a length that is none", &[("content-length", "+0")]),
        with("two lengths", &[("content-length", "0"), ("content-length", "5")]),
        body("a length above the body", Refused, &[("content-length", "50")], b"hello", None),
        body("a length below the body", Refused, &[("content-length", "2")], b"hello", None),
        body("a request in the body and a length below it", Refused, &[("content-length", "3")], SMUGGLED, None),
        body("a coding beside a body", Refused, &[("transfer-encoding", "chunked")], b"0\r\n\r\n", None),
        body("a length that is a list", Refused, &[("content-length", "5, 6")], b"hello", None),
        // Trailers.
        body("a trailer with CRLF", Refused, &[], b"hello", Some(field("x", "a\r\nb"))),
        body("a coding in the trailers", Refused, &[], b"hello", Some(field("connection", "close"))),
        // What is clear.
        body("a body", Taken("hello"), &[("content-length", "5")], b"hello", None),
        body("a body without a length", Taken("hello"), &[], b"hello", None),
        body("a body that looks like chunks", Taken("0\r\n\r\n"), &[], b"0\r\n\r\n", None),
        body("a path in the trailers", Taken("hello"), &[], b"hello", Some(field(":path", "/two"))),
        body("identity in the trailers", Taken("hello"), &[], b"hello", Some(field("x-tenant-id", "forged"))),
        body("a length in the trailers", Taken("hello"), &[], b"hello", Some(field("content-length", "7"))),
        served("crumbs of a cookie", &[("cookie", "a=b"), ("cookie", "c=d")]),
        served("the same host", &[("host", HOST)]),
        served("te", &[("te", "trailers")]),
        served("identity with underscores", &[("x_tenant_id", "forged"), ("x_forwarded_for", "forged")]),
        served("identity with dots", &[("x.tenant.slug", "forged")]),
        served("who forwarded", &[("x-forwarded-for", "forged"), ("forwarded", "for=forged")]),
        served("a context", &[("x-tenant-context", "forged")]),
    ];
    // The parser cuts it off before anybody reads the path.
    let cut = instead("a path with a fragment", "GET", "https", HOST, "/one#x");
    cases.push(Case { verdict: Taken(""), ..cut });
    // A head in pieces is one head.
    let block = pseudo("GET", "/one");
    let (first, second) = block.split_at(7);
    let pieces = [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)].concat();
    cases.push(Case { name: "a head in two frames", frames: pieces, verdict: Taken("") });
    let between = [frame(HEADERS, END_STREAM, 1, first), get(3, "/two"), frame(CONTINUATION, END_HEADERS, 1, second)];
    cases.push(Case { name: "a request within a head", frames: between.concat(), verdict: Refused });
    cases
}

const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: ash.localhost\r\n\r\n";

async fn played(site: &Site, recorder: &Recorder, case: &Case) -> Result<(), String> {
    let mut raw = Raw::connect(site, &[]).await.map_err(|error| format!("no connection: {error}"))?;
    raw.send(&case.frames).await.map_err(|error| format!("not sent: {error}"))?;
    let fate = raw.fate(1).await;
    let seen: Vec<_> = recorder.take();
    let bodies: Vec<_> = seen.iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect();
    match case.verdict {
        Verdict::Refused if fate == Fate::Served || !seen.is_empty() => {
            Err(format!("{fate:?}; the backend has {seen:?}"))
        }
        Verdict::Taken(body) if fate != Fate::Served || bodies != [body] => {
            Err(format!("{fate:?}; the backend has {bodies:?}"))
        }
        _ if seen.iter().any(|message| message.target != "/one" || message.all("cookie").len() > 1) => {
            Err(format!("changed on its way: {seen:?}"))
        }
        _ => Ok(()),
    }
}

/// A request may be passed on before its body shows that the length was wrong: whole, without the body, once.
#[tokio::test]
async fn a_body_behind_a_length_of_nothing_is_no_request() {
    let recorder = Recorder::start().await;
    let site = with_backend(gateway(), recorder.addr()).await;
    let case = body("", Verdict::Refused, &[("content-length", "0")], SMUGGLED, None);
    let mut raw = Raw::connect(&site, &[]).await.expect("a connection");
    raw.send(&case.frames).await.expect("sent");
    raw.fate(1).await;
    // Whatever of it comes, comes before the answer to a later one.
    let mut later = Raw::connect(&site, &[]).await.expect("a connection");
    later.send(&get(1, "/later")).await.expect("sent");
    assert_eq!(later.fate(1).await, Fate::Served);
    let seen = recorder.take();
    let strange = seen.iter().filter(|m| m.target != "/later" && (m.target != "/one" || !m.body.is_empty()));
    assert_eq!(strange.count(), 0, "{seen:?}");
    assert!(seen.len() <= 2 && recorder.faults().is_empty(), "{seen:?}");
}

#[tokio::test]
async fn nothing_that_only_http_2_can_say_becomes_another_message() {
    let recorder = Recorder::start().await;
    let site = with_backend(gateway(), recorder.addr()).await;
    let cases = corpus();
    assert!(cases.len() >= 80, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        if let Err(how) = played(&site, &recorder, case).await {
            wrong.push(format!("{} -> {how}", case.name));
            recorder.take();
        }
    }
    wrong.extend(recorder.faults());
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Up to four times `head_bytes` the gateway answers itself; beyond it the driver does, with a bare 431; beyond what
/// CONTINUATION may carry the connection ends.
#[tokio::test]
async fn a_head_beyond_what_is_read_of_it_is_never_served() {
    let recorder = Recorder::start().await;
    let site = with_backend(gateway(), recorder.addr()).await;
    for (kib, ends) in [(40, false), (100, false), (136, false), (200, true)] {
        let mut raw = Raw::connect(&site, &[]).await.expect("a connection");
        let mut block = pseudo("GET", "/one");
        (0..kib).for_each(|n| block.extend(field(format!("x-{n}"), "y".repeat(1_000))));
        let pieces: Vec<&[u8]> = block.chunks(16_384).collect();
        let mut frames = Vec::new();
        for (place, piece) in pieces.iter().enumerate() {
            let kind = if place == 0 { HEADERS } else { CONTINUATION };
            let flags = if place + 1 == pieces.len() { END_HEADERS } else { 0 };
            frames.extend(frame(kind, if place == 0 { flags | END_STREAM } else { flags }, 1, piece));
        }
        // It may hang up before it has all of it.
        let _ = raw.send(&frames).await;
        match (raw.fate(1).await, ends) {
            (Fate::Answered, false) | (Fate::Ended(_), true) => {}
            (fate, _) => panic!("{kib} KiB: {fate:?}"),
        }
    }
    assert!(recorder.take().is_empty());
}
