//! A request head as bytes, before anything parses it: is it whole, and is it within bounds?
//!
//! The head is looked at here and not in Pingora, which allows 1 MiB, times single reads only and has allocated a
//! session by then. Every byte of a head passes [`HeadScan::feed`] once.

use memchr::memchr;

use super::TransportLimits;

/// Why a head never became a request. Answered by the transport itself, after which it hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadFault {
    /// Not whole before the deadline: 408.
    Timeout,
    /// The request line is too long: 414.
    UriTooLong,
    /// A field or the whole head is too long, or there are too many fields: 431.
    TooLarge,
    /// Whole and within bounds, but the parser refuses it: 400.
    Invalid,
}

impl HeadFault {
    /// Every value, for a metric that wants all its series from the start.
    pub const ALL: [Self; 4] = [Self::Timeout, Self::UriTooLong, Self::TooLarge, Self::Invalid];

    /// Status, reason phrase, `error`, `message`.
    const fn row(self) -> (u16, &'static str, &'static str, &'static str) {
        match self {
            Self::Timeout => (408, "Request Timeout", "REQUEST_TIMEOUT", "The request did not arrive in time."),
            Self::UriTooLong => (414, "URI Too Long", "URI_TOO_LONG", "The address of the request is too long."),
            Self::Invalid => (400, "Bad Request", "BAD_REQUEST", "The request is not valid HTTP."),
            Self::TooLarge => {
                (431, "Request Header Fields Too Large", "HEADERS_TOO_LARGE", "The header of the request is too large.")
            }
        }
    }

    /// The status it is answered with.
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// The code in the answer, and the metric label.
    pub const fn code(self) -> &'static str {
        self.row().2
    }
}

/// The whole answer to a head that never became a request, as bytes for the wire.
pub fn raw_error(fault: HeadFault, request_id: &str) -> Vec<u8> {
    let (status, title, code, message) = fault.row();
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{status},"error":"{code}","message":"{message}","request_id":"{request_id}"}}"#
    );
    format!(
        "HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Request-ID: {request_id}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How far a head has been looked at.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Where the line begins that is not whole yet.
    line: usize,
    /// Bytes looked at.
    seen: usize,
    /// Whole lines that are not empty.
    lines: usize,
}

impl HeadScan {
    /// Looks at what is new in `head`, which grows from call to call. `Ok(true)` when the empty line is there; what
    /// follows it is the body's.
    pub(super) fn feed(&mut self, head: &[u8], limits: &TransportLimits) -> Result<bool, HeadFault> {
        while let Some(at) = memchr(b'\n', &head[self.seen..]) {
            let end = self.seen + at;
            let line = without_cr(&head[self.line..end]);
            if line.is_empty() && self.lines > 0 {
                return if end < limits.head_bytes { Ok(true) } else { Err(HeadFault::TooLarge) };
            }
            self.within(line.len(), limits)?;
            // Empty lines before the request line are skipped (RFC 9112 section 2.2).
            self.lines += usize::from(!line.is_empty());
            self.seen = end + 1;
            self.line = end + 1;
        }
        self.seen = head.len();
        self.within(without_cr(&head[self.line..]).len(), limits)?;
        if self.seen >= limits.head_bytes { Err(HeadFault::TooLarge) } else { Ok(false) }
    }

    /// Whether a line of this length may come next.
    fn within(&self, length: usize, limits: &TransportLimits) -> Result<(), HeadFault> {
        if self.lines == 0 {
            return if length > limits.request_line_bytes { Err(HeadFault::UriTooLong) } else { Ok(()) };
        }
        // `lines` counts the request line, and this line is one more field unless it is the empty one.
        if length > limits.field_bytes || (length > 0 && self.lines > limits.fields) {
            return Err(HeadFault::TooLarge);
        }
        Ok(())
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(head: &[u8], step: usize) -> Result<bool, HeadFault> {
        let limits = TransportLimits::default();
        let mut scan = HeadScan::default();
        let mut end = 0;
        while end < head.len() {
            end = (end + step).min(head.len());
            match scan.feed(&head[..end], &limits) {
                Ok(false) => {}
                done => return done,
            }
        }
        Ok(false)
    }

    #[test]
    fn a_head_is_whole_at_its_empty_line_however_it_is_cut() {
        let head = b"\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\nbody";
        for step in 1..head.len() {
            assert_eq!(scan(head, step), Ok(true), "in steps of {step}");
            assert_eq!(scan(&head[..36], step), Ok(false), "in steps of {step}");
        }
    }

    #[test]
    fn each_part_of_a_head_has_its_bound() {
        let line = |uri: usize| format!("GET /{} HTTP/1.1\r\n", "a".repeat(uri));
        let field = |length: usize| format!("x: {}\r\n", "a".repeat(length - 3));
        for (head, expected) in [
            (line(8_000) + "\r\n", Ok(true)),
            (line(8_192) + "\r\n", Err(HeadFault::UriTooLong)),
            ("a".repeat(8_193), Err(HeadFault::UriTooLong)),
            (line(1) + &field(16_384) + "\r\n", Ok(true)),
            (line(1) + &field(16_385) + "\r\n", Err(HeadFault::TooLarge)),
            (line(1) + &field(16_000) + &field(16_000) + &field(1_000), Err(HeadFault::TooLarge)),
            (line(1) + &field(10).repeat(100) + "\r\n", Ok(true)),
            (line(1) + &field(10).repeat(101) + "\r\n", Err(HeadFault::TooLarge)),
        ] {
            for step in [1, 100, 4_096, head.len()] {
                assert_eq!(scan(head.as_bytes(), step), expected, "{} bytes in steps of {step}", head.len());
            }
        }
    }

    #[test]
    fn the_answer_to_a_bad_head_is_a_problem_document() {
        let answer = String::from_utf8(raw_error(HeadFault::TooLarge, "01ARZ")).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["error"], "HEADERS_TOO_LARGE");
        assert_eq!(body["request_id"], "01ARZ");
    }
}
