//! A corpus of HTTP/1.1 requests that two parsers could read differently, through the gateway to a backend that records.
//!
//! Every doubtful request is followed by `GET /smuggled` on the same connection. Either the gateway refuses: 400 (or what
//! the case says), the connection closed, and nothing at the backend. Or it takes the request, and then the backend has
//! exactly the messages that the case names. The tricks are those of the public collections (smuggler.py's mutations,
//! HTTP Garden, RFC 9112's own warnings), written down here rather than fetched.

use std::collections::HashSet;
use std::time::Duration;

use schoolgate_testkit::{Site, eventually};

use crate::recorder::Recorder;
use crate::{HOST, gateway, with_backend};

/// What has to become of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// This status, the connection closed, nothing at the backend.
    Refused(u16),
    /// These bodies and targets at the backend, in this order.
    Taken(Vec<(&'static str, &'static str)>),
}

struct Case {
    name: String,
    bytes: Vec<u8>,
    verdict: Verdict,
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: ash.localhost\r\n\r\n";
const AFTER: &str = "GET /after HTTP/1.1\r\nHost: ash.localhost\r\n\r\n";

/// A request that has to be refused, with another one behind it.
fn refused(group: &str, request: impl Into<Vec<u8>>) -> Case {
    refused_with(400, group, request)
}

fn refused_with(status: u16, group: &str, request: impl Into<Vec<u8>>) -> Case {
    let mut bytes = request.into();
    let name = format!("{group}: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(160)]));
    bytes.extend_from_slice(SMUGGLED.as_bytes());
    Case { name, bytes, verdict: Verdict::Refused(status) }
}

/// A request that is unusual and clear, with an ordinary one behind it.
fn taken(group: &str, request: impl Into<Vec<u8>>, target: &'static str, body: &'static str) -> Case {
    let mut bytes = request.into();
    let name = format!("{group}: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(160)]));
    bytes.extend_from_slice(AFTER.as_bytes());
    Case { name, bytes, verdict: Verdict::Taken(vec![(target, body), ("/after", "")]) }
}

/// Fields that are, or look like, a coding; each beside a length and alone.
fn codings(cases: &mut Vec<Case>) {
    const DOUBTFUL: &[&str] = &[
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunk",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: \u{c}chunked",
        "Transfer-Encoding:\u{a0}chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: \0chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, cow",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding:",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: identity",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chu\r\n nked",
        "X: x\r\n Transfer-Encoding: chunked",
        "\tTransfer-Encoding: chunked",
        " Transfer-Encoding: chunked",
        "X: x\nTransfer-Encoding: chunked",
        "X: x\rTransfer-Encoding: chunked",
        "X: x\r\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding\r\n: chunked",
        "Transfer-Encoding chunked",
        "Transfer-Encoding=chunked",
        "Transfer-Enc\u{7f}oding: chunked",
        "Transfer-Encoding\u{a0}: chunked",
        ": chunked",
        "Transfer-Encoding: chunked\nX: x",
    ];
    for field in DOUBTFUL {
        let head = format!("POST /one HTTP/1.1\r\nHost: {HOST}\r\n");
        cases.push(refused("coding and length", format!("{head}Content-Length: 5\r\n{field}\r\n\r\n0\r\n\r\n")));
        cases.push(refused("coding alone", format!("{head}{field}\r\n\r\n0\r\n\r\n")));
    }
    for field in ["Transfer-Encoding: chunked", "transfer-encoding:CHUNKED", "TRANSFER-ENCODING:\tchunked "] {
        let head = format!("POST /one HTTP/1.1\r\nHost: {HOST}\r\n");
        cases.push(refused("both", format!("{head}Content-Length: 5\r\n{field}\r\n\r\n0\r\n\r\n")));
        cases.push(refused("both", format!("{head}{field}\r\nContent-Length: 5\r\n\r\n0\r\n\r\n")));
        cases.push(taken("a coding", format!("{head}{field}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "/one", "abc"));
        let old = format!("POST /one HTTP/1.0\r\nHost: {HOST}\r\n{field}\r\n\r\n0\r\n\r\n");
        cases.push(refused("a coding in HTTP/1.0", old));
    }
    // No coding at all, whatever a sloppy reader takes it for: the length counts, and an underscore goes no further.
    for field in ["Transfer_Encoding: chunked", "X-Transfer-Encoding: chunked", "Transfer-Encodings: chunked"] {
        let head = format!("POST /one HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n{field}\r\n\r\n");
        cases.push(taken("no coding", format!("{head}0\r\n\r\n"), "/one", "0\r\n\r\n"));
    }
}

fn lengths(cases: &mut Vec<Case>) {
    const DOUBTFUL: &[&str] = &[
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5.0",
        "Content-Length: 5e0",
        "Content-Length: 5 5",
        "Content-Length: 5;",
        "Content-Length: \"5\"",
        "Content-Length: five",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Content-Length: \u{663}",
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Content-Length: 5\0",
        "Content-Length: \u{b}5",
        "Content-Length:\r\n 5",
        "Content-Length: 5\r\n 6",
        " Content-Length: 5",
        "X: x\nContent-Length: 5",
        "X: x\rContent-Length: 5",
    ];
    for field in DOUBTFUL {
        let head = format!("POST /one HTTP/1.1\r\nHost: {HOST}\r\n{field}\r\n\r\n");
        cases.push(refused("length", format!("{head}hello")));
        cases.push(refused("length of a GET", head.replace("POST", "GET")));
    }
    for (field, body) in
        [("Content-Length: 5", "hello"), ("content-length:\t00005 ", "hello"), ("Content-Length:0", "")]
    {
        let head = format!("POST /one HTTP/1.1\r\nHost: {HOST}\r\n{field}\r\n\r\n{body}");
        cases.push(taken("a length", head, "/one", body));
    }
    let get = format!("GET /one HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello");
    cases.push(taken("a GET with a body", get, "/one", "hello"));
    let twin = format!("POST /one HTTP/1.1\r\nHost: {HOST}\r\nContent_Length: 99\r\nContent-Length: 5\r\n\r\nhello");
    cases.push(taken("a length with an underscore", twin, "/one", "hello"));
    cases.push(refused("HTTP/1.0 without a length", format!("POST /one HTTP/1.0\r\nHost: {HOST}\r\n\r\nhello")));
}

fn chunks(cases: &mut Vec<Case>) {
    let head = format!("POST /one HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    const DOUBTFUL: &[&str] = &[
        "\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\t\r\nabc\r\n0\r\n\r\n",
        "3 ;x\r\nabc\r\n0\r\n\r\n",
        "g\r\nabc\r\n0\r\n\r\n",
        "3_0\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\r\nabc\r\n0\r\n\r\n",
        "3;x\nabc\r\n0\r\n\r\n",
        "3;\0\r\nabc\r\n0\r\n\r\n",
        "3;a=\"\r\nabc\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff3\r\nabc\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\r\nX: a\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\n folded: a\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX: a\0\r\n\r\n",
        "0\r\nX: a\r\r\n\r\n",
        "\0\r\n\r\n",
        "0\r\n\r",
    ];
    for body in DOUBTFUL {
        cases.push(refused("chunks", format!("{head}{body}")));
    }
    let long = "x".repeat(300);
    cases.push(refused("an extension beyond its bound", format!("{head}3;{long}\r\nabc\r\n0\r\n\r\n")));
    let zeros = "0".repeat(20);
    cases.push(refused("more digits than a size has", format!("{head}{zeros}3\r\nabc\r\n0\r\n\r\n")));
    cases.push(refused("trailers beyond their bound", format!("{head}0\r\nX: {}\r\n\r\n", "x".repeat(9_000))));
    for (body, decoded) in [
        ("3;x=y\r\nabc\r\n0\r\n\r\n", "abc"),
        ("3;x=\"a b\"\r\nabc\r\n0;y\r\n\r\n", "abc"),
        ("00000003\r\nabc\r\n000\r\n\r\n", "abc"),
        ("1\r\n\r\r\n2\r\n\n0\r\n0\r\n\r\n", "\r\n0"),
        ("3\r\nabc\r\n0\r\nX-Tenant-ID: forged\r\nContent-Length: 7\r\n\r\n", "abc"),
        ("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
        ("0\r\n\r\n", ""),
    ] {
        cases.push(taken("a body in chunks", format!("{head}{body}"), "/one", decoded));
    }
}

fn heads(cases: &mut Vec<Case>) {
    let host = format!("Host: {HOST}\r\n");
    // Lines.
    for head in [
        format!("GET /one HTTP/1.1\n{host}\r\n"),
        format!("GET /one HTTP/1.1\r\nHost: {HOST}\n\r\n"),
        format!("GET /one HTTP/1.1\r\nHost: {HOST}\n\n"),
        format!("GET /one HTTP/1.1\r\n{host}\n"),
        format!("GET /one HTTP/1.1\r\n{host}X: a\rY: b\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}X: a\r\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}X: a\0b\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}X: a\u{7f}b\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}X: a\u{1}b\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}X: a\r\n folded\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}X: a\r\n\tfolded\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n X: first\r\n{host}\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}X : a\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}: nameless\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}no colon\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}X(y): a\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}X\u{fc}: a\r\n\r\n"),
        format!("GET /one HTTP/1.1\r\n{host}X\0: a\r\n\r\n"),
    ] {
        cases.push(refused("lines", head));
    }
    // Request lines.
    for line in [
        "GET  /one HTTP/1.1",
        "GET /one  HTTP/1.1",
        "GET\t/one HTTP/1.1",
        " GET /one HTTP/1.1",
        "GET /one HTTP/1.1 ",
        "GET /one",
        "GET /one HTTP/1.2",
        "GET /one HTTP/2.0",
        "GET /one HTTP/0.9",
        "GET /one http/1.1",
        "GET /one HTTP/1.10",
        "GET /one HTTP/1,1",
        "GET /o ne HTTP/1.1",
        "GET /one\u{1} HTTP/1.1",
        "GET /one\0 HTTP/1.1",
        "GET /\u{fc} HTTP/1.1",
        "GET /one#a HTTP/1.1",
        "GET /one\\..\\two HTTP/1.1",
        "GET //evil.example/one HTTP/1.1",
        "GET /a/../one HTTP/1.1",
        "GET /a/%2e%2e/one HTTP/1.1",
        "GET /a/.%2E/one HTTP/1.1",
        "GET /%00 HTTP/1.1",
        "GET one HTTP/1.1",
        "GET * HTTP/1.1",
        "GET ?x HTTP/1.1",
        "GET ash.localhost:443 HTTP/1.1",
        "CONNECT ash.localhost:443 HTTP/1.1",
        "TRACE /one HTTP/1.1",
        "PRI * HTTP/2.0",
        "G@T /one HTTP/1.1",
        "GETGETGETGETGETGETGETGETGETGETGETGET /one HTTP/1.1",
    ] {
        cases.push(refused("request line", format!("{line}\r\n{host}\r\n")));
    }
    // Hosts.
    for hosts in [
        format!("{host}{host}"),
        format!("{host}Host: elm.localhost\r\n"),
        format!("Host: elm.localhost\r\n{host}"),
        format!("{host}host:\r\n"),
        format!("Host : {HOST}\r\n"),
        format!("Host:\r\n {HOST}\r\n"),
        format!("Host: {HOST}, elm.localhost\r\n"),
        format!("Host: {HOST} elm.localhost\r\n"),
        format!("Host: user@{HOST}\r\n"),
        format!("Host: {HOST}:\r\n"),
        format!("Host: {HOST}:0\r\n"),
        format!("Host: {HOST}:abc\r\n"),
        format!("Host: {HOST}:65536\r\n"),
        format!("Host: {HOST}:443:443\r\n"),
        format!("Host: {HOST}/\r\n"),
        format!("Host: {HOST}?\r\n"),
        format!("Host: {HOST}..\r\n"),
        format!("Host: .{HOST}\r\n"),
        format!("Host: {HOST}%00.elm.localhost\r\n"),
        format!("Host: {HOST}\0elm.localhost\r\n"),
        "Host: [::1]\r\n".to_owned(),
        "Host: ash_school.localhost\r\n".to_owned(),
    ] {
        cases.push(refused("host", format!("GET /one HTTP/1.1\r\n{hosts}\r\n")));
    }
    // Absolute form.
    for target in [
        "http://elm.localhost/one",
        "https://elm.localhost/one",
        "https://ash.localhost:444/one",
        "https://user@ash.localhost/one",
        "https://ash.localhost@elm.localhost/one",
        "https:/ash.localhost/one",
        "https:///one",
        "ftp://ash.localhost/one",
        "https://ash.localhost?x",
        "https://ash.localhost//elm.localhost/one",
        "https://ash.localhost/a/../one",
        "//ash.localhost/one",
        "HTTP://ASH.localhost/one",
    ] {
        cases.push(refused("absolute form", format!("GET {target} HTTP/1.1\r\n{host}\r\n")));
    }
    cases.push(refused("absolute form", "GET https://ash.localhost/one HTTP/1.1\r\n\r\n"));
    for target in ["https://ash.localhost/one", "http://ash.localhost/one"] {
        let head = format!("GET {target} HTTP/1.1\r\n{host}\r\n");
        cases.push(taken("absolute form", head, "/one", ""));
    }
    // Hop by hop.
    for name in ["Host", "Content-Length", "Transfer-Encoding", "Cookie", "Authorization", "content-type", "a b"] {
        let head = format!("GET /one HTTP/1.1\r\n{host}Connection: close, {name}\r\n\r\n");
        cases.push(refused("a nominated field", head));
    }
    for field in [
        "X-Tenant-Slug: ash\r\nConnection: keep-alive, X-Tenant-Slug",
        "X-Tenant-Context: forged\r\nConnection: x-tenant-context",
        "X_Tenant_ID: forged",
        "x.tenant.id: forged",
        "X-Tenant-Context: forged\r\nX-Tenant-Context: forged",
        "X-Forwarded-For: forged\r\nForwarded: for=forged\r\nX-Real-IP: forged",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 0",
        "Upgrade: websocket, h2c\r\nConnection: Upgrade",
        "Expect: 200-ok",
        "Trailer: Content-Length",
        "TE: trailers, gzip",
        "Keep-Alive: timeout=forged",
        "Proxy-Connection: forged",
    ] {
        cases.push(taken("a field", format!("GET /one HTTP/1.1\r\n{host}{field}\r\n\r\n"), "/one", ""));
    }
    cases.push(refused("two wishes", format!("GET /one HTTP/1.1\r\n{host}Upgrade: websocket\r\nUpgrade: h2c\r\n\r\n")));
    cases.push(taken("empty lines first", format!("\r\n\r\nGET /one HTTP/1.1\r\n{host}\r\n"), "/one", ""));
    cases.push(refused_with(414, "a long target", format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(9_000))));
    let many = "X: y\r\n".repeat(120);
    cases.push(refused_with(431, "many fields", format!("GET /one HTTP/1.1\r\n{host}{many}\r\n")));
    let long = "y".repeat(17_000);
    cases.push(refused_with(431, "a long field", format!("GET /one HTTP/1.1\r\n{host}X: {long}\r\n\r\n")));
}

fn corpus() -> Vec<Case> {
    let mut cases = Vec::new();
    codings(&mut cases);
    lengths(&mut cases);
    chunks(&mut cases);
    heads(&mut cases);
    cases
}

#[test]
fn the_corpus_is_as_large_as_it_says() {
    let cases = corpus();
    let mut different = HashSet::new();
    for case in &cases {
        assert!(different.insert(&case.bytes), "twice: {}", case.name);
    }
    assert!(cases.len() >= 300, "{}", cases.len());
}

/// What is wrong with the way a case was answered.
async fn played(site: &Site, recorder: &Recorder, case: &Case) -> Result<(), String> {
    let mut tls = site.tls(HOST).await.map_err(|error| format!("no handshake: {error}"))?;
    tls.send(&case.bytes).await.map_err(|error| format!("not sent: {error}"))?;
    match &case.verdict {
        Verdict::Refused(status) => {
            let answer = tls.read_response().await.map_err(|error| format!("no answer: {error}"))?;
            if (answer.status, answer.header("connection")) != (*status, Some("close")) {
                return Err(format!("{} {:?}", answer.status, answer.header("connection")));
            }
            if answer.header("content-type") != Some("application/problem+json") || answer.header("server").is_some() {
                return Err(format!("not our answer: {:?}", answer.headers));
            }
            let rest = tls.read_to_end().await.map_err(|error| format!("not closed: {error}"))?;
            if !rest.is_empty() {
                return Err(format!("a second answer: {:?}", String::from_utf8_lossy(&rest)));
            }
        }
        Verdict::Taken(messages) => {
            for (target, _) in messages {
                let answer = tls.read_response().await.map_err(|error| format!("no answer to {target}: {error}"))?;
                if answer.status != 200 {
                    return Err(format!("{target} got {}", answer.status));
                }
            }
        }
    }
    let seen = recorder.take();
    let seen: Vec<_> = seen.iter().map(|m| (&*m.target, String::from_utf8_lossy(&m.body).into_owned())).collect();
    let expected = match &case.verdict {
        Verdict::Refused(_) => Vec::new(),
        Verdict::Taken(messages) => messages.iter().map(|(target, body)| (*target, (*body).to_owned())).collect(),
    };
    if seen == expected { Ok(()) } else { Err(format!("the backend has {seen:?}")) }
}

#[tokio::test]
async fn what_reaches_a_backend_is_one_message_read_alike() {
    let recorder = Recorder::start().await;
    let site = with_backend(gateway(), recorder.addr()).await;
    let mut wrong = Vec::new();
    for case in corpus() {
        if let Err(how) = played(&site, &recorder, &case).await {
            wrong.push(format!("{} -> {how}", case.name));
            recorder.take();
        }
    }
    wrong.extend(recorder.faults());
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(recorder.unfinished().is_empty(), "begun and not finished: {:?}", recorder.unfinished());
}

/// A head in chunks is passed on before its first chunk is here. What comes of a bad one: the backend never has a whole
/// message, and its connection is closed, so it cannot take the next bytes for another.
#[tokio::test]
async fn a_bad_chunk_behind_a_head_that_was_passed_on_leaves_no_whole_message() {
    for bad in ["+3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n+0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "0\r\n\n"] {
        let recorder = Recorder::start().await;
        let site = with_backend(gateway(), recorder.addr()).await;
        let mut tls = site.tls(HOST).await.expect("a handshake");
        let head = format!("POST /one HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
        tls.send(head).await.expect("sent");
        eventually(Duration::from_secs(20), || async { !recorder.unfinished().is_empty() }).await;
        tls.send(format!("{bad}{SMUGGLED}")).await.expect("sent");
        let said = String::from_utf8(tls.read_to_end().await.expect("a close")).expect("text");
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{bad:?}: {said}");
        assert!(said.matches("HTTP/1.1 ").count() <= 1, "{bad:?}: {said}");
        eventually(Duration::from_secs(20), || async { recorder.unfinished().iter().all(|(_, closed)| *closed) }).await;
        assert!(recorder.take().is_empty(), "{bad:?}: a whole message reached the backend");
        assert!(recorder.faults().is_empty(), "{bad:?}: {:?}", recorder.faults());
        let left = recorder.unfinished();
        assert!(left.iter().all(|(bytes, _)| !bytes.ends_with(b"0\r\n\r\n")), "{bad:?}: {left:?}");
    }
}
