//! Framing: a request as bytes, the head of an answer, and where the answer's body ends (RFC 9112 section 6).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Fields an answer may have: 128. An application sets some twenty.
const FIELDS: usize = 128;

/// Bytes of an answer's head, and of the line before a chunk: 64 KiB. Cookies and policies fill some of it.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// Longest line before a chunk: 4 KiB, extensions included, which nobody sends.
const CHUNK_LINE: usize = 4 * 1024;

/// What a backend said that is not HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The head.
    #[error("its answer has no valid head")]
    Head,
    /// More of a head than is taken.
    #[error("the head of its answer is longer than {HEAD_BYTES} bytes")]
    HeadTooLong,
    /// `Content-Length` or `Transfer-Encoding`.
    #[error("its answer does not say clearly how long it is")]
    Length,
    /// A chunk.
    #[error("its answer has a chunk that is none")]
    Chunk,
    /// 101 to a request that did not ask for it.
    #[error("it switches protocols unasked")]
    Switch,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The connection may carry another request, as far as the head says.
    pub(super) keep: bool,
}

/// A request without a body, as bytes.
pub(super) fn request(method: &str, target: &[u8], headers: &HeaderMap) -> Bytes {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut bytes = BytesMut::with_capacity(method.len() + target.len() + fields + 16);
    bytes.put_slice(method.as_bytes());
    bytes.put_u8(b' ');
    bytes.put_slice(target);
    bytes.put_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        bytes.put_slice(name.as_str().as_bytes());
        bytes.put_slice(b": ");
        bytes.put_slice(value.as_bytes());
        bytes.put_slice(b"\r\n");
    }
    bytes.put_slice(b"\r\n");
    bytes.freeze()
}

/// Takes the head off the front of what has arrived. `None`: it is not whole yet.
///
/// # Errors
/// [`Malformed`] when it cannot become one.
pub(super) fn head(arrived: &mut BytesMut) -> Result<Option<Head>, Malformed> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut response, arrived, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES => length,
        Ok(httparse::Status::Partial) if arrived.len() < HEAD_BYTES => return Ok(None),
        Ok(_) => return Err(Malformed::HeadTooLong),
        Err(_) => return Err(Malformed::Head),
    };
    let (Some(minor), Some(code)) = (response.version, response.code) else { return Err(Malformed::Head) };
    let status = StatusCode::from_u16(code).map_err(|_| Malformed::Head)?;
    // Values stay where they are; what remembers them are offsets into the head.
    let start = arrived.as_ptr() as usize;
    let mut named = Vec::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Head)?;
        let from = if field.value.is_empty() { 0 } else { field.value.as_ptr() as usize - start };
        named.push((name, from..from + field.value.len()));
    }
    let bytes = arrived.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(named.len() + 4);
    for (name, place) in named {
        let value = HeaderValue::from_maybe_shared(bytes.slice(place)).map_err(|_| Malformed::Head)?;
        headers.append(name, value);
    }
    let keep = minor == 1 && !says_close(&headers);
    if minor == 0 && headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 section 6.1: the sender does not know what it says.
        return Err(Malformed::Length);
    }
    Ok(Some(Head { status, headers, keep }))
}

fn says_close(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONNECTION).iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).any(|t| t.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// How far a body has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes are to come.
    Length(u64),
    /// In chunks.
    Chunks(Chunk),
    /// Until the backend closes.
    Open,
    /// It has ended, and the next byte would belong to another answer.
    Done,
    /// It has ended with its connection.
    Closed,
}

/// Where in a chunked body the next byte stands (RFC 9112 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In the line that says how long the next chunk is.
    Size,
    /// In a chunk; so many bytes of it are to come.
    Data(u64),
    /// In the line end after a chunk.
    End,
    /// In the fields after the last chunk. They are dropped (RFC 9110 section 6.5.1 allows it).
    Trailer,
}

impl Body {
    /// The body that follows a final head; `is_head`: the request was `HEAD`.
    ///
    /// # Errors
    /// [`Malformed`] when two readers could take it to end in two places.
    pub(super) fn after(head: &Head, is_head: bool) -> Result<Self, Malformed> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Malformed::Switch);
        }
        let chunked = chunked(&head.headers)?;
        let length = length(&head.headers)?;
        if is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Self::Done);
        }
        match (chunked, length) {
            (true, Some(_)) => Err(Malformed::Length),
            (true, None) => Ok(Self::Chunks(Chunk::Size)),
            (false, Some(0)) => Ok(Self::Done),
            (false, Some(length)) => Ok(Self::Length(length)),
            (false, None) => Ok(Self::Open),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done | Self::Closed)
    }

    /// Whether its head does not say how long it is.
    pub(super) fn is_chunked_or_open(&self) -> bool {
        matches!(self, Self::Chunks(_) | Self::Open)
    }

    /// Takes the next piece off the front of what has arrived. `None`: nothing of it is there.
    ///
    /// # Errors
    /// [`Malformed::Chunk`].
    pub(super) fn piece(&mut self, arrived: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        match self {
            Self::Done | Self::Closed => Ok(None),
            Self::Open => Ok((!arrived.is_empty()).then(|| arrived.split().freeze())),
            Self::Length(left) => {
                let piece = up_to(arrived, left);
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(piece)
            }
            Self::Chunks(_) => {
                self.lines(arrived)?;
                let Self::Chunks(Chunk::Data(left)) = self else { return Ok(None) };
                let piece = up_to(arrived, left);
                // The end may be here too, and then belongs to this piece.
                self.lines(arrived)?;
                Ok(piece)
            }
        }
    }

    /// Reads what stands between two chunks and after the last, as far as it has arrived.
    fn lines(&mut self, arrived: &mut BytesMut) -> Result<(), Malformed> {
        while let Self::Chunks(chunk) = self {
            match chunk {
                // The parser takes a line without a digit for the last chunk.
                Chunk::Size if arrived.first().is_some_and(|digit| !digit.is_ascii_hexdigit()) => {
                    return Err(Malformed::Chunk);
                }
                Chunk::Size => match httparse::parse_chunk_size(arrived) {
                    Ok(httparse::Status::Complete((line, _))) if !arrived[..line].ends_with(b"\r\n") => {
                        // Some readers take that for an end of line and some do not.
                        return Err(Malformed::Chunk);
                    }
                    Ok(httparse::Status::Complete((line, size))) => {
                        arrived.advance(line);
                        *chunk = if size == 0 { Chunk::Trailer } else { Chunk::Data(size) };
                    }
                    Ok(httparse::Status::Partial) if arrived.len() < CHUNK_LINE => return Ok(()),
                    Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed::Chunk),
                },
                Chunk::Data(0) => *chunk = Chunk::End,
                Chunk::Data(_) => return Ok(()),
                Chunk::End => match arrived.get(..2) {
                    Some(b"\r\n") => {
                        arrived.advance(2);
                        *chunk = Chunk::Size;
                    }
                    Some(_) => return Err(Malformed::Chunk),
                    None => return Ok(()),
                },
                Chunk::Trailer => {
                    let Some(end) = memchr::memchr(b'\n', arrived) else {
                        return if arrived.len() < HEAD_BYTES { Ok(()) } else { Err(Malformed::Chunk) };
                    };
                    let last = &arrived[..=end] == b"\r\n";
                    arrived.advance(end + 1);
                    if last {
                        *self = Self::Done;
                    }
                }
            }
        }
        Ok(())
    }

    /// The backend has closed: says whether that is the end of the body.
    pub(super) fn close(&mut self) -> bool {
        if let Self::Open = self {
            *self = Self::Closed;
        }
        self.is_done()
    }
}

/// At most `left` bytes off the front, which it counts down.
fn up_to(arrived: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(arrived.len());
    *left -= here as u64;
    (here > 0).then(|| arrived.split_to(here).freeze())
}

fn chunked(headers: &HeaderMap) -> Result<bool, Malformed> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(Malformed::Length),
    }
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let digits = first.as_bytes();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !plain || lines.next().is_some() {
        return Err(Malformed::Length);
    }
    let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    length.map(Some).ok_or(Malformed::Length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Option<Head>, Malformed> {
        head(&mut BytesMut::from(text))
    }

    fn body(text: &str, is_head: bool) -> Result<Body, Malformed> {
        Body::after(&parsed(text)?.expect("whole"), is_head)
    }

    /// What comes out when `wire` arrives in steps, and what is left.
    fn read(mut body: Body, wire: &[u8], step: usize) -> Result<(Vec<u8>, Body, usize), Malformed> {
        let (mut arrived, mut out) = (BytesMut::new(), Vec::new());
        for part in wire.chunks(step.max(1)) {
            arrived.extend_from_slice(part);
            while let Some(piece) = body.piece(&mut arrived)? {
                out.extend_from_slice(&piece);
            }
        }
        Ok((out, body, arrived.len()))
    }

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Empty:\r\nContent-Length: 3\r\n\r\nabc";
        for cut in 0..text.len() - 3 {
            assert!(parsed(&text[..cut]).expect("no fault").is_none(), "{cut}");
        }
        let mut arrived = BytesMut::from(text);
        let head = head(&mut arrived).expect("valid").expect("whole");
        assert_eq!((head.status.as_u16(), head.keep, &arrived[..]), (200, true, &b"abc"[..]));
        assert_eq!(head.headers["content-type"], "text/plain");
        assert_eq!(head.headers["x-empty"], "");
    }

    #[test]
    fn a_connection_is_kept_only_by_http_1_1_without_close() {
        let keep = |text| parsed(text).expect("valid").expect("whole").keep;
        assert!(keep("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!keep("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keep("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn where_a_body_ends_is_said_once_and_clearly() {
        let with = |fields: &str| body(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), false);
        assert_eq!(with(""), Ok(Body::Open));
        assert_eq!(with("Content-Length: 5\r\n"), Ok(Body::Length(5)));
        assert_eq!(with("Content-Length: 0\r\n"), Ok(Body::Done));
        assert_eq!(with("Transfer-Encoding: Chunked\r\n"), Ok(Body::Chunks(Chunk::Size)));
        for fields in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ] {
            assert_eq!(with(fields), Err(Malformed::Length), "{fields}");
        }
        assert_eq!(parsed("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").map(|_| ()), Err(Malformed::Length));
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), Ok(Body::Done));
        assert_eq!(body("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false), Ok(Body::Done));
        assert_eq!(body("HTTP/1.1 101 Switching Protocols\r\n\r\n", false), Err(Malformed::Switch));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in
            ["HTTP/2 200\r\n\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 99999 x\r\n\r\n", "HTTP/1.1 200 OK\r\na b: c\r\n\r\n"]
        {
            assert_eq!(parsed(text).map(|_| ()), Err(Malformed::Head), "{text}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES));
        assert_eq!(parsed(&long).map(|_| ()), Err(Malformed::HeadTooLong));
    }

    #[test]
    fn chunks_are_taken_apart_and_trailers_dropped() {
        let wire = b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nrest";
        for step in 1..wire.len() {
            let (out, body, left) = read(Body::Chunks(Chunk::Size), wire, step).expect("valid");
            assert_eq!((out.as_slice(), body), (&b"abc0123456789"[..], Body::Done), "{step}");
            // Whatever follows is not touched.
            assert_eq!(left, 4);
        }
    }

    #[test]
    fn a_chunk_that_two_readers_could_read_differently_is_refused() {
        for wire in [
            &b"\r\nabc"[..],
            b"x\r\nabc\r\n",
            b"-1\r\n",
            b"3\nabc\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n\n",
            b"11111111111111111\r\n",
            b"3 3\r\nabc\r\n",
        ] {
            assert_eq!(read(Body::Chunks(Chunk::Size), wire, 1).map(|_| ()), Err(Malformed::Chunk), "{wire:?}");
        }
    }

    #[test]
    fn only_an_open_body_ends_with_its_connection() {
        assert!(Body::Open.close());
        assert!(!Body::Length(1).close());
        assert!(!Body::Chunks(Chunk::Trailer).close());
        assert!(Body::Done.close());
    }

    proptest! {
        #[test]
        fn bytes_of_a_backend_never_panic(wire in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..20) {
            let _ = head(&mut BytesMut::from(&wire[..]));
            for body in [Body::Open, Body::Length(50), Body::Chunks(Chunk::Size)] {
                let _ = read(body, &wire, step);
            }
        }

        #[test]
        fn a_chunked_body_is_what_was_put_in(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8), step in 1usize..30) {
            let mut wire = Vec::new();
            for piece in &pieces {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let (out, body, left) = read(Body::Chunks(Chunk::Size), &wire, step).expect("valid");
            prop_assert_eq!((out, body, left), (pieces.concat(), Body::Done, 0));
        }
    }
}
