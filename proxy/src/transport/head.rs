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

/// A head that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    /// Where it ends, its empty line included.
    pub(super) end: usize,
    /// How many bytes of body follow; `None` when the head does not say, or says it twice.
    pub(super) body: Option<u64>,
}

/// What a head says of its body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Framing {
    /// Nothing, so there is none.
    #[default]
    Nothing,
    Length(u64),
    /// In chunks, until an upgrade, or in a way that only the parser may judge.
    Other,
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
    framing: Framing,
}

impl HeadScan {
    /// Whether there is more than the empty lines that may come before a request line.
    pub(super) fn has_begun(&self) -> bool {
        self.lines > 0 || self.seen > self.line + 1
    }

    /// Looks at what is new in `head`, which grows from call to call. `None` while the empty line at its end is not
    /// there.
    pub(super) fn feed(&mut self, head: &[u8], limits: &TransportLimits) -> Result<Option<Whole>, HeadFault> {
        while let Some(at) = memchr(b'\n', &head[self.seen..]) {
            let end = self.seen + at;
            let line = without_cr(&head[self.line..end]);
            if line.is_empty() && self.lines > 0 {
                let whole = Whole { end: end + 1, body: self.framing.length() };
                return if end < limits.head_bytes { Ok(Some(whole)) } else { Err(HeadFault::TooLarge) };
            }
            self.within(line.len(), limits)?;
            if self.lines > 0 {
                self.framing.learn(line);
            }
            // Empty lines before the request line are skipped (RFC 9112 section 2.2).
            self.lines += usize::from(!line.is_empty());
            self.seen = end + 1;
            self.line = end + 1;
        }
        self.seen = head.len();
        self.within(without_cr(&head[self.line..]).len(), limits)?;
        if self.seen >= limits.head_bytes { Err(HeadFault::TooLarge) } else { Ok(None) }
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

impl Framing {
    fn length(self) -> Option<u64> {
        match self {
            Self::Nothing => Some(0),
            Self::Length(bytes) => Some(bytes),
            Self::Other => None,
        }
    }

    /// Looks at one field.
    fn learn(&mut self, field: &[u8]) {
        // Most fields are none of these; the first byte tells.
        if !matches!(field[0], b'c' | b'C' | b't' | b'T' | b'u' | b'U') {
            return;
        }
        if let Some(value) = value_of(field, "content-length") {
            let digits = value.trim_ascii();
            let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let bytes = std::str::from_utf8(digits).ok().filter(|_| plain).and_then(|digits| digits.parse().ok());
            *self = bytes.filter(|_| *self == Self::Nothing).map_or(Self::Other, Self::Length);
        } else if value_of(field, "transfer-encoding").is_some() || value_of(field, "upgrade").is_some() {
            *self = Self::Other;
        }
    }
}

/// What follows the colon, if the field has this name.
fn value_of<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, rest) = field.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &[u8], step: usize) -> Result<Option<Whole>, HeadFault> {
        let limits = TransportLimits::default();
        let mut scan = HeadScan::default();
        let mut end = 0;
        while end < head.len() {
            end = (end + step).min(head.len());
            match scan.feed(&head[..end], &limits) {
                Ok(None) => {}
                done => return done,
            }
        }
        Ok(None)
    }

    fn scan(head: &[u8], step: usize) -> Result<bool, HeadFault> {
        parse(head, step).map(|whole| whole.is_some())
    }

    #[test]
    fn the_length_of_a_body_is_known_when_the_head_says_it_once_and_plainly() {
        for (fields, expected) in [
            ("Host: a\r\n", Some(0)),
            ("content-LENGTH: 12\r\n", Some(12)),
            ("Content-Length:0\n", Some(0)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", None),
            ("Content-Length: +5\r\n", None),
            ("Content-Length: \r\n", None),
            ("Content-Length: 99999999999999999999\r\n", None),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", None),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", None),
            ("Upgrade: websocket\r\n", None),
            ("Content-Type: 7\r\nContent-Lengthy: 7\r\nX-Content-Length: 7\r\n", Some(0)),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            for step in [1, 7, 1_000] {
                let whole = parse(head.as_bytes(), step).expect("within bounds").expect("whole");
                assert_eq!(whole, Whole { end: head.len(), body: expected }, "{fields:?}");
            }
        }
    }

    #[test]
    fn empty_lines_are_not_the_begin_of_a_head() {
        let limits = TransportLimits::default();
        let mut scan = HeadScan::default();
        for (bytes, begun) in [("\r\n", false), ("\r\n\r", false), ("\r\n\r\n", false), ("\r\n\r\nGE", true)] {
            assert_eq!(scan.feed(bytes.as_bytes(), &limits), Ok(None));
            assert_eq!(scan.has_begun(), begun, "{bytes:?}");
        }
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
