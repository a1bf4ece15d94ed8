//! HTTP/2 frames and header blocks written by hand (RFC 9113 section 4, RFC 7541).

use std::io;
use std::time::Duration;

use schoolgate_testkit::{Site, TlsConn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::HOST;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub(crate) const INITIAL_WINDOW: u16 = 4;

/// Longest wait for a frame.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    [&[length[1], length[2], length[3], kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// An integer with a prefix of seven bits, as lengths of strings are written (RFC 7541 section 5.1).
fn length(value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![u8::try_from(value).expect("below 127")];
    }
    let (mut bytes, mut rest) = (vec![127], value - 127);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).expect("below 128") | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("below 128"));
    bytes
}

/// A field spelled out and not put into the table, whatever bytes it has.
pub(crate) fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let (name, value) = (name.as_ref(), value.as_ref());
    [&[0], &length(name.len())[..], name, &length(value.len()), value].concat()
}

/// A field spelled out and put into the table.
pub(crate) fn remembered(name: &str, value: &str) -> Vec<u8> {
    [&[0x40], &length(name.len())[..], name.as_bytes(), &length(value.len()), value.as_bytes()].concat()
}

/// The pseudo-fields of an ordinary request for our school.
pub(crate) fn pseudo(method: &str, path: &str) -> Vec<u8> {
    [field(":method", method), field(":scheme", "https"), field(":authority", HOST), field(":path", path)].concat()
}

pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &pseudo("GET", path))
}

/// A `POST` whose body is to come.
pub(crate) fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &pseudo("POST", path))
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A connection of a client that does what it likes.
pub(crate) struct Raw(TlsStream<TcpStream>);

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Answered 200.
    Served,
    /// Answered something else.
    Answered,
    /// Reset, with this code.
    Reset(u32),
    /// The connection was ended, with the code of its GOAWAY if there was one.
    Ended(Option<u32>),
}

impl Raw {
    /// Connects, and says hello with these settings.
    pub(crate) async fn connect(site: &Site, settings: &[(u16, u32)]) -> io::Result<Self> {
        let tls = TlsConn::connect(site.https(), HOST, &["h2"], &site.ca()).await?;
        let mut raw = Self(tls.into_parts().0);
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &settings)].concat();
        raw.send(&hello).await?;
        Ok(raw)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// The next frame: kind, flags, stream, payload.
    pub(crate) async fn read(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header).await?;
        let [high, middle, low, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
        self.0.read_exact(&mut payload).await?;
        Ok((kind, flags, u32::from_be_bytes(stream), payload))
    }

    /// What becomes of a stream; an answer is read to its end.
    pub(crate) async fn fate(&mut self, of: u32) -> Fate {
        let word = |payload: &[u8], at: usize| {
            payload.get(at..at + 4).map(|word| u32::from_be_bytes(word.try_into().expect("four bytes")))
        };
        let (mut answered, mut goaway) = (None, None);
        loop {
            let Ok(Ok((kind, flags, stream, payload))) = timeout(PATIENCE, self.read()).await else {
                return answered.unwrap_or(Fate::Ended(goaway));
            };
            match kind {
                // The first field of an answer is its status; 200 is index 8 of the static table.
                HEADERS if stream == of && answered.is_none() => {
                    answered = Some(if payload.first() == Some(&0x88) { Fate::Served } else { Fate::Answered });
                }
                RST_STREAM if stream == of => {
                    return answered.unwrap_or_else(|| Fate::Reset(word(&payload, 0).unwrap_or(0)));
                }
                GOAWAY => goaway = word(&payload, 4),
                _ => {}
            }
            if let Some(fate) = answered
                && stream == of
                && flags & END_STREAM != 0
            {
                return fate;
            }
        }
    }

    /// Reads and throws away until the other side hangs up; says whether it did within the time.
    pub(crate) async fn ends_within(&mut self, time: Duration) -> bool {
        timeout(time, async { while self.read().await.is_ok() {} }).await.is_ok()
    }
}
