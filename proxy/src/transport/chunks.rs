//! The framing of a body in chunks (RFC 9112 section 7.1), checked as it passes.
//!
//! Pingora frames a body anew for its backend, so what is odd here does no harm there. But a proxy before us may have
//! read it otherwise: a bare LF in an extension, a size with a space or a sign. Such a body is refused, and since its
//! end is known here, what a client sends ahead after it waits for its turn.

use memchr::memchr;

use super::head::is_token;

/// Bytes of the line of a chunk's size, its extensions included: 256. Nobody uses extensions, and each could cost as
/// much to read as it likes.
const SIZE_LINE: usize = 256;

/// Bytes of all trailers: 8 KiB. They are dropped, for a backend that is sent none cannot mistake one for a field.
const TRAILERS: usize = 8 * 1024;

/// The framing is not what RFC 9112 says: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunks of the request body are malformed")]
pub(crate) struct BadChunks;

/// Where in the body we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The digits of a size; how many there were, and how much they say.
    Size { digits: u8, bytes: u64 },
    /// An extension.
    Extension { bytes: u64 },
    /// The LF after a size.
    SizeEnd { bytes: u64 },
    /// Data, and how much is left.
    Data { left: u64 },
    /// The CR after data.
    DataEnd,
    /// The LF after that.
    DataEndLf,
    /// The begin of a line after the last chunk.
    Line,
    /// The name of a trailer.
    Name,
    /// The value of a trailer.
    Value,
    /// The LF of a trailer's line.
    LineEnd,
    /// The LF of the empty line.
    End,
    /// Beyond the body.
    Done,
    /// Nothing can be read any more.
    Bad,
}

/// Reads the framing of one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkScan {
    at: At,
    /// Bytes of the size line, or of all trailers, so far.
    line: usize,
}

impl ChunkScan {
    /// At the begin of a body.
    pub(super) const fn new() -> Self {
        Self { at: At::Size { digits: 0, bytes: 0 }, line: 0 }
    }

    /// Looks at the next bytes. Says how many of them belong to the body, if it ends in them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadChunks> {
        let mut next = 0;
        while next < bytes.len() && self.at != At::Done {
            if let At::Data { left } = self.at {
                let here = left.min((bytes.len() - next) as u64);
                // It fits: no more than the bytes that are here.
                next += here as usize;
                self.at = if left == here { At::DataEnd } else { At::Data { left: left - here } };
                continue;
            }
            if self.at == At::Value {
                // Values are the only long thing beside data.
                let end = memchr(b'\r', &bytes[next..]).map_or(bytes.len(), |at| next + at);
                self.long(end - next, TRAILERS)?;
                if bytes[next..end].iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
                    return self.bad();
                }
                next = end;
                if next == bytes.len() {
                    break;
                }
            }
            self.at = match self.step(bytes[next]) {
                Some(at) => at,
                None => return self.bad(),
            };
            next += 1;
        }
        Ok((self.at == At::Done).then_some(next))
    }

    /// Where one byte leads; `None`: nowhere.
    fn step(&mut self, byte: u8) -> Option<At> {
        let most = if matches!(self.at, At::Size { .. } | At::Extension { .. }) { SIZE_LINE } else { TRAILERS };
        self.long(1, most).ok()?;
        Some(match (self.at, byte) {
            (At::Size { digits, bytes }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
                let digit = char::from(byte).to_digit(16)?;
                At::Size { digits: digits + 1, bytes: bytes << 4 | u64::from(digit) }
            }
            (At::Size { digits: 1.., bytes }, b';') => At::Extension { bytes },
            (At::Size { digits: 1.., bytes } | At::Extension { bytes }, b'\r') => At::SizeEnd { bytes },
            (at @ At::Extension { .. }, b'\t' | b' '..=b'~' | 0x80..) => at,
            (At::SizeEnd { bytes: 0 }, b'\n') => self.fresh(At::Line),
            (At::SizeEnd { bytes }, b'\n') => self.fresh(At::Data { left: bytes }),
            (At::DataEnd, b'\r') => At::DataEndLf,
            (At::DataEndLf, b'\n') => self.fresh(At::Size { digits: 0, bytes: 0 }),
            (At::Line, b'\r') => At::End,
            (At::Line | At::Name, byte) if is_token(byte) => At::Name,
            (At::Name, b':') => At::Value,
            (At::Value, b'\r') => At::LineEnd,
            (At::LineEnd, b'\n') => At::Line,
            (At::End, b'\n') => At::Done,
            _ => return None,
        })
    }

    /// Begins to count anew.
    fn fresh(&mut self, at: At) -> At {
        self.line = 0;
        at
    }

    fn long(&mut self, more: usize, most: usize) -> Result<(), BadChunks> {
        self.line += more;
        if self.line > most { self.bad().map(|_| ()) } else { Ok(()) }
    }

    fn bad(&mut self) -> Result<Option<usize>, BadChunks> {
        self.at = At::Bad;
        Err(BadChunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes the body has, however it is cut.
    fn length(body: &[u8]) -> Result<Option<usize>, BadChunks> {
        let whole = ChunkScan::new().feed(body);
        for step in 1..body.len() {
            let (mut scan, mut before) = (ChunkScan::new(), 0);
            let mut cut = Ok(None);
            for piece in body.chunks(step) {
                cut = scan.feed(piece).map(|here| here.map(|here| before + here));
                before += piece.len();
                if !matches!(cut, Ok(None)) {
                    break;
                }
            }
            assert_eq!(cut, whole, "in steps of {step}: {:?}", String::from_utf8_lossy(body));
        }
        whole
    }

    #[test]
    fn a_body_ends_after_its_last_chunk_and_its_trailers() {
        for body in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "A;x=\"y\";z\r\n0123456789\r\n00\r\n\r\n",
            "1\r\n\r\r\n0\r\nDigest: x\r\nEmpty:\r\n\r\n",
        ] {
            assert_eq!(length(body.as_bytes()), Ok(Some(body.len())), "{body:?}");
            let ahead = format!("{body}GET / HTTP/1.1\r\n");
            assert_eq!(length(ahead.as_bytes()), Ok(Some(body.len())), "{body:?} and more");
            assert_eq!(length(&body.as_bytes()[..body.len() - 1]), Ok(None), "{body:?} cut short");
        }
    }

    #[test]
    fn a_framing_that_two_parsers_could_read_differently_is_refused() {
        for bad in [
            "\r\n",
            ";x\r\n",
            " 3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n",
            "3 ;x\r\nabc\r\n",
            "+3\r\nabc\r\n",
            "-1\r\n",
            "0x3\r\nabc\r\n",
            "3_0\r\n",
            "g\r\n",
            "3\nabc\r\n",
            "3\rabc",
            "3;x\nabc\r\n0\r\n\r\n",
            "3;\0\r\nabc\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabc0\r\n\r\n",
            "1000000000000000\r\n",
            "0\r\n\n",
            "0\r\n folded: a\r\n\r\n",
            "0\r\nX : a\r\n\r\n",
            "0\r\nX: a\n\r\n",
            "0\r\nX: a\0\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
        ] {
            assert_eq!(length(bad.as_bytes()), Err(BadChunks), "{bad:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_have_their_bounds() {
        assert!(ChunkScan::new().feed(format!("3;{}", "x".repeat(SIZE_LINE)).as_bytes()).is_err());
        let trailers = format!("0\r\n{}", "x: yyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(TRAILERS / 30 + 1));
        assert!(ChunkScan::new().feed(trailers.as_bytes()).is_err());
        assert!(ChunkScan::new().feed(format!("0\r\nx: {}", "y".repeat(TRAILERS)).as_bytes()).is_err());
    }

    #[test]
    fn what_was_refused_stays_refused() {
        let mut scan = ChunkScan::new();
        assert!(scan.feed(b"x").is_err());
        assert!(scan.feed(b"0\r\n\r\n").is_err());
    }
}
