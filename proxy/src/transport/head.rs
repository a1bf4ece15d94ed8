//! A request head as bytes, before anything parses it: is it whole, within bounds, and does every parser read it alike?
//!
//! The head is looked at here and not in Pingora, which allows 1 MiB, times single reads only, has allocated a session
//! by then, and repairs what two parsers could read differently: it takes a bare LF, escapes a target, drops the length
//! that stands beside a coding. Every byte of a head passes [`HeadScan::feed`] once. What a parsed head still has to be
//! is the gate's ([`crate::admit`]).

use memchr::memchr;

use super::TransportLimits;
use crate::fault::Fault;

/// Why a head never became a request. Answered by the transport itself, after which it hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadFault {
    /// Not whole before the deadline: 408.
    Timeout,
    /// The request line is too long: 414.
    UriTooLong,
    /// A field or the whole head is too long, or there are too many fields: 431.
    TooLarge,
    /// It breaks a rule of HTTP, or two parsers could read it differently: 400.
    Invalid,
    /// It did not come at once, and as much is held for clients as may be: 503.
    Overloaded,
}

impl HeadFault {
    /// Every value, for a metric that wants all its series from the start.
    pub const ALL: [Self; 5] = [Self::Timeout, Self::UriTooLong, Self::TooLarge, Self::Invalid, Self::Overloaded];

    /// What it is for the client.
    pub const fn fault(self) -> Fault {
        match self {
            Self::Timeout => Fault::RequestTimeout,
            Self::UriTooLong => Fault::UriTooLong,
            Self::TooLarge => Fault::HeadersTooLarge,
            Self::Invalid => Fault::BadRequest,
            Self::Overloaded => Fault::Overloaded,
        }
    }

    /// The status it is answered with.
    pub const fn status(self) -> u16 {
        self.fault().status()
    }
}

/// A head that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    /// Where it ends, its empty line included.
    pub(super) end: usize,
    /// What follows.
    pub(super) body: Framing,
}

/// What a head says of its body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing, so there is none.
    #[default]
    Nothing,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// No body, and a wish to switch protocols: what follows may be anything.
    Open,
}

impl Framing {
    /// Whether nothing follows that is not the next request.
    pub(super) const fn is_empty(self) -> bool {
        matches!(self, Self::Nothing | Self::Length(0))
    }
}

/// The version of a request line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Minor {
    Zero,
    #[default]
    One,
}

/// Whether a head asks for another protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    None,
    /// The one that is passed on.
    WebSocket,
    /// Any other. Nobody hears of it: a backend that took up `h2c` would be spoken to past all that is checked here.
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
    meaning: Meaning,
}

/// What the lines so far mean for framing and routing.
#[derive(Debug, Default)]
struct Meaning {
    minor: Minor,
    /// The method is one that sends a body.
    sends_body: bool,
    body: Framing,
    host: bool,
    wish: Wish,
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
            // httparse takes a bare LF for a line's end; a proxy before us may not (RFC 9112 section 2.2).
            let line = head[self.line..end].strip_suffix(b"\r").ok_or(HeadFault::Invalid)?;
            if line.is_empty() && self.lines > 0 {
                let whole = Whole { end: end + 1, body: self.meaning.body()? };
                return if end < limits.head_bytes { Ok(Some(whole)) } else { Err(HeadFault::TooLarge) };
            }
            self.within(line.len(), limits)?;
            // Empty lines before the request line are skipped (RFC 9112 section 2.2).
            if !line.is_empty() {
                if self.lines == 0 {
                    self.meaning.request_line(line)?
                } else {
                    self.meaning.field(line)?
                }
                self.lines += 1;
            }
            self.seen = end + 1;
            self.line = end + 1;
        }
        self.seen = head.len();
        let rest = &head[self.line..];
        // What does not begin like a method is not HTTP: a TLS hello on the plain port waits for no deadline.
        if self.lines == 0 && rest.first().is_some_and(|first| *first != b'\r' && !is_token(*first)) {
            return Err(HeadFault::Invalid);
        }
        self.within(rest.strip_suffix(b"\r").unwrap_or(rest).len(), limits)?;
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

impl Meaning {
    /// `method SP target SP HTTP/1.x`, one space each. The target has no byte that Pingora would escape and nothing a
    /// URI cannot have; which form it is in is the gate's to say.
    fn request_line(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        let (rest, version) = line.split_last_chunk::<9>().ok_or(HeadFault::Invalid)?;
        self.minor = match version {
            b" HTTP/1.1" => Minor::One,
            b" HTTP/1.0" => Minor::Zero,
            _ => return Err(HeadFault::Invalid),
        };
        let at = memchr(b' ', rest).ok_or(HeadFault::Invalid)?;
        let (method, target) = (&rest[..at], &rest[at + 1..]);
        let of_uri = |bad: bool, byte: &u8| bad | !matches!(byte, b'!'..=b'~') | matches!(byte, b'#' | b'\\');
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(HeadFault::Invalid);
        }
        if target.is_empty() || target.iter().fold(false, of_uri) {
            return Err(HeadFault::Invalid);
        }
        // A tunnel, an echo and the HTTP/2 preface are nothing for a gateway.
        if matches!(method, b"CONNECT" | b"TRACE" | b"PRI") {
            return Err(HeadFault::Invalid);
        }
        self.sends_body = matches!(method, b"POST" | b"PUT" | b"PATCH");
        Ok(())
    }

    /// `name: value`. A line that is folded begins with a space, which no name has.
    fn field(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        let colon = line.iter().position(|byte| !is_token(*byte)).ok_or(HeadFault::Invalid)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || line[colon] != b':' {
            return Err(HeadFault::Invalid);
        }
        // Without a branch, so that it takes sixteen bytes at once.
        let control = |bad: bool, byte: &u8| bad | ((*byte < b' ') & (*byte != b'\t')) | (*byte == 0x7f);
        if value.iter().fold(false, control) {
            return Err(HeadFault::Invalid);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value.trim_ascii()),
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade(value.trim_ascii()),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(value.trim_ascii()),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.coding(value.trim_ascii()),
            _ => Ok(()),
        }
    }

    /// Once, and nothing but what a name and a port are made of. Names beyond ASCII are read as such later on.
    fn host(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let of_host = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | 0x80..);
        if self.host || !value.iter().all(of_host) || std::str::from_utf8(value).is_err() {
            return Err(HeadFault::Invalid);
        }
        self.host = true;
        Ok(())
    }

    /// Once.
    fn upgrade(&mut self, protocol: &[u8]) -> Result<(), HeadFault> {
        if self.wish != Wish::None {
            return Err(HeadFault::Invalid);
        }
        self.wish = if protocol.eq_ignore_ascii_case(b"websocket") { Wish::WebSocket } else { Wish::Other };
        Ok(())
    }

    /// Once, as 1-19 digits, and not beside a coding.
    fn length(&mut self, digits: &[u8]) -> Result<(), HeadFault> {
        let plain = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        if self.body != Framing::Nothing || !plain {
            return Err(HeadFault::Invalid);
        }
        let bytes = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        self.body = Framing::Length(bytes);
        Ok(())
    }

    /// Once, `chunked`, in HTTP/1.1, and not beside a length.
    fn coding(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let known = self.minor == Minor::One && value.eq_ignore_ascii_case(b"chunked");
        if self.body != Framing::Nothing || !known {
            return Err(HeadFault::Invalid);
        }
        self.body = Framing::Chunked;
        Ok(())
    }

    /// What follows the head.
    fn body(&self) -> Result<Framing, HeadFault> {
        match self.body {
            // HTTP/1.0 has no other way to say where a body ends that leaves room for an answer (RFC 1945 section 7.2.2).
            Framing::Nothing if self.sends_body && self.minor == Minor::Zero => Err(HeadFault::Invalid),
            // With a body the wish is not passed on.
            Framing::Nothing | Framing::Length(0) if self.wish == Wish::WebSocket => Ok(Framing::Open),
            body => Ok(body),
        }
    }
}

/// Whether a name or a method may have this byte (RFC 9110 section 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            #[expect(clippy::cast_possible_truncation, reason = "below 256")]
            let this = byte as u8;
            table[byte] = this.is_ascii_alphanumeric()
                || matches!(
                    this,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
            byte += 1;
        }
        table
    };
    TOKEN[byte as usize]
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
    fn what_follows_a_head_is_known() {
        for (fields, expected) in [
            ("Host: a\r\n", Framing::Nothing),
            ("content-LENGTH: 12\r\n", Framing::Length(12)),
            ("Content-Length:0\r\n", Framing::Length(0)),
            ("Transfer-Encoding:\tChunked \r\n", Framing::Chunked),
            ("Upgrade: WebSocket \r\n", Framing::Open),
            ("Upgrade: h2c\r\n", Framing::Nothing),
            ("Upgrade: websocket, h2c\r\n", Framing::Nothing),
            ("Upgrade: h2c\r\nContent-Length: 5\r\n", Framing::Length(5)),
            ("Content-Type: 7\r\nContent-Lengthy: 7\r\nX-Content-Length: 7\r\n", Framing::Nothing),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            for step in [1, 7, 1_000] {
                let whole = parse(head.as_bytes(), step).expect("within bounds").expect("whole");
                assert_eq!(whole, Whole { end: head.len(), body: expected }, "{fields:?}");
            }
        }
    }

    /// Heads that two parsers could read differently. `|` ends a line.
    const DOUBTFUL: &[&str] = &[
        "GET / HTTP/1.1|Upgrade: websocket|Upgrade: h2c||",
        "GET / HTTP/1.1|Content-Length: 5|Content-Length: 5||",
        "GET / HTTP/1.1|Content-Length: 5|Content-Length: 6||",
        "GET / HTTP/1.1|Content-Length: 5, 5||",
        "GET / HTTP/1.1|Content-Length: +5||",
        "GET / HTTP/1.1|Content-Length: 0x5||",
        "GET / HTTP/1.1|Content-Length: ||",
        "GET / HTTP/1.1|Content-Length: 99999999999999999999||",
        "POST / HTTP/1.1|Content-Length: 5|Transfer-Encoding: chunked||",
        "POST / HTTP/1.1|Transfer-Encoding: chunked|Content-Length: 5||",
        "POST / HTTP/1.1|Transfer-Encoding: chunked|Transfer-Encoding: chunked||",
        "POST / HTTP/1.1|Transfer-Encoding: chunked, chunked||",
        "POST / HTTP/1.1|Transfer-Encoding: gzip, chunked||",
        "POST / HTTP/1.1|Transfer-Encoding: identity||",
        "POST / HTTP/1.1|Transfer-Encoding: \u{b}chunked||",
        "POST / HTTP/1.1|Transfer-Encoding||",
        "POST / HTTP/1.0|Transfer-Encoding: chunked||",
        "POST / HTTP/1.0|Host: a||",
        "GET / HTTP/1.1|Content-Length : 5||",
        "GET / HTTP/1.1|Content-Length\t: 5||",
        "GET / HTTP/1.1| Host: a||",
        "GET / HTTP/1.1|X: a| folded||",
        "GET / HTTP/1.1|X: a|\tfolded||",
        "GET / HTTP/1.1|: nameless||",
        "GET / HTTP/1.1|no colon||",
        "GET / HTTP/1.1|X: a\0b||",
        "GET / HTTP/1.1|X\0: a||",
        "GET / HTTP/1.1|X: a\rY: b||",
        "GET / HTTP/1.1\rHost: a||",
        "GET / HTTP/1.1|X: a\nY: b||",
        "GET / HTTP/1.1\nHost: a||",
        "\nGET / HTTP/1.1|Host: a||",
        "GET / HTTP/1.1|Host: a|Host: a||",
        "GET / HTTP/1.1|Host: a|host: b||",
        "GET / HTTP/1.1|Host: u@a||",
        "GET / HTTP/1.1|Host: a/b||",
        "GET / HTTP/1.1|Host: a, b||",
        "GET / HTTP/1.1|Host: a b||",
        "GET / HTTP/1.1|Host: [::1]||",
        "GET  / HTTP/1.1||",
        " GET / HTTP/1.1||",
        "GET /  HTTP/1.1||",
        "GET /a b HTTP/1.1||",
        "GET /\ta HTTP/1.1||",
        "GET /a#b HTTP/1.1||",
        "GET /a\\b HTTP/1.1||",
        "GET /ü HTTP/1.1||",
        "GET /\u{7f} HTTP/1.1||",
        "GET / HTTP/1.1 ||",
        "GET / http/1.1||",
        "GET / HTTP/1.2||",
        "GET / HTTP/2.0||",
        "GET / HTTP/0.9||",
        "GET /||",
        "GET HTTP/1.1||",
        "G(T / HTTP/1.1||",
        "CONNECT a:443 HTTP/1.1||",
        "TRACE / HTTP/1.1||",
        "PRI * HTTP/2.0||SM||",
        "\u{16}\u{3}\u{1}",
    ];

    #[test]
    fn a_head_that_two_parsers_could_read_differently_is_refused_however_it_is_cut() {
        for doubtful in DOUBTFUL {
            let head = doubtful.replace('|', "\r\n");
            for step in [1, 3, 1_000] {
                assert_eq!(scan(head.as_bytes(), step), Err(HeadFault::Invalid), "{doubtful:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn what_clients_really_send_passes() {
        for ordinary in [
            "GET / HTTP/1.1|Host: a.example:8443|Accept: */*||",
            "GET /a?x={}|^`%20\"<> HTTP/1.1~Host: bücher.example~~",
            "OPTIONS * HTTP/1.1|Host: a.example||",
            "GET http://a.example/ HTTP/1.1|Host: a.example||",
            "M-SEARCH / HTTP/1.1|Host: a|X-Empty:|X-Latin: caf\u{e9}|X-Tab: a\tb||",
            "GET / HTTP/1.0||",
            "POST / HTTP/1.0|Content-Length: 3||",
        ] {
            let line_end = if ordinary.contains('~') { '~' } else { '|' };
            let head = ordinary.replace(line_end, "\r\n");
            assert_eq!(scan(head.as_bytes(), 5), Ok(true), "{ordinary:?}");
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
}
