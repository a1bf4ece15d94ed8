//! The answer to a request that never became one: whole, as bytes for the wire of HTTP/1.1.

use super::{accept, page};
use crate::fault::Fault;
use crate::forward::request_id::RequestId;

/// The answer to a head of which `head` had arrived, after which the connection ends. It is a page if the head got as far
/// as to ask for one.
pub(crate) fn early(fault: Fault, head: &[u8], id: &RequestId) -> Vec<u8> {
    let row = fault.row();
    let html = accept::prefers_html(accepted(head));
    let (content_type, body) = if html {
        ("text/html; charset=utf-8", page::html(&row, row.message, id, None))
    } else {
        ("application/problem+json", page::problem(&row, row.message, id))
    };
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Vary: accept\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: {}\r\nX-Request-ID: {id}\r\n\
         Connection: close\r\n\r\n",
        row.status,
        row.title,
        body.len(),
        page::POLICY,
    )
    .into_bytes();
    // What follows the head of an answer to HEAD would be read as the next answer.
    if !head.trim_ascii_start().starts_with(b"HEAD ") {
        answer.extend_from_slice(body.as_bytes());
    }
    answer
}

/// The values of `Accept` in what has arrived of a head.
fn accepted(head: &[u8]) -> impl Iterator<Item = &str> {
    const NAME: &[u8] = b"accept:";
    head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then(|| std::str::from_utf8(value).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(head: &[u8]) -> (String, String) {
        let answer = String::from_utf8(early(Fault::HeadersTooLarge, head, &RequestId::new(1))).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn a_program_gets_a_problem_document() {
        let (head, body) = answer(b"GET / HTTP/1.1\r\nX: accept: text/html");
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["error"], "HEADERS_TOO_LARGE");
    }

    #[test]
    fn a_browser_gets_a_page_if_its_head_got_so_far() {
        let (head, body) = answer(b"GET / HTTP/1.1\r\nACCEPT: text/html,*/*;q=0.8\r\nX: aaaa");
        assert!(head.contains("Content-Type: text/html"), "{head}");
        assert!(body.contains("HEADERS_TOO_LARGE"), "{body}");
        assert!(!answer(b"GET /aaaaaa").1.contains("<html"));
    }

    #[test]
    fn head_gets_no_body() {
        let (head, body) = answer(b"HEAD / HTTP/1.1\r\nX: aaaa");
        assert!(body.is_empty() && !head.contains("Content-Length: 0"), "{head}");
    }
}
