//! A backend that keeps every byte, and reads it more strictly than any server does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names as they were spelled.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &**value).collect()
    }
}

/// What one connection carried.
#[derive(Debug, Default)]
struct Connection {
    bytes: Vec<u8>,
    /// How many of them belong to whole messages.
    read: usize,
    closed: bool,
}

#[derive(Debug, Default)]
struct Recorded {
    messages: Vec<Message>,
    connections: Vec<Connection>,
    /// What was no message.
    faults: Vec<String>,
}

/// Records until it is dropped.
#[derive(Debug)]
pub(crate) struct Recorder {
    addr: SocketAddr,
    recorded: Arc<Mutex<Recorded>>,
    accepting: JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let recorded = Arc::<Mutex<Recorded>>::default();
        let shared = recorded.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(record(tcp, shared.clone()));
            }
        });
        Self { addr, recorded, accepting }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages since the last time it was asked.
    pub(crate) fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.lock().messages)
    }

    /// What was said and is no message that all parsers read alike.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    /// Connections on which something was begun and not finished: the bytes, and whether the gateway has hung up.
    pub(crate) fn unfinished(&self) -> Vec<(Vec<u8>, bool)> {
        let recorded = self.lock();
        let begun = recorded.connections.iter().filter(|connection| connection.read < connection.bytes.len());
        begun.map(|connection| (connection.bytes[connection.read..].to_vec(), connection.closed)).collect()
    }
}

async fn record(mut tcp: TcpStream, recorded: Arc<Mutex<Recorded>>) {
    let lock = || recorded.lock().unwrap_or_else(PoisonError::into_inner);
    let place = {
        let mut all = lock();
        all.connections.push(Connection::default());
        all.connections.len() - 1
    };
    let mut piece = [0; 16 * 1024];
    loop {
        let count = tcp.read(&mut piece).await.unwrap_or(0);
        if count == 0 {
            lock().connections[place].closed = true;
            return;
        }
        let answers = {
            let mut all = lock();
            all.connections[place].bytes.extend_from_slice(&piece[..count]);
            let mut answers = 0;
            loop {
                let connection = &all.connections[place];
                match message(&connection.bytes[connection.read..]) {
                    Ok(Some((message, length))) => {
                        all.connections[place].read += length;
                        // A health check is nobody's request.
                        if !message.all("x-tenant-id").is_empty() || message.target != "/healthz" {
                            all.messages.push(message);
                        }
                        answers += 1;
                    }
                    Ok(None) => break,
                    Err(fault) => {
                        all.faults.push(fault);
                        return;
                    }
                }
            }
            answers
        };
        for _ in 0..answers {
            if tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                return;
            }
        }
    }
}

/// The message at the begin of `bytes` and its length; `None` while it is not whole.
///
/// Takes only what every parser reads alike: CRLF everywhere, one space, one host, one framing, no folding, no control
/// byte, no name with an underscore, chunks without extensions or trailers; and one identity, which is the gateway's.
fn message(bytes: &[u8]) -> Result<Option<(Message, usize)>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(2_000)]).into_owned();
    let fault = |what: &str| Err(format!("{what}: {:?}", shown()));
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return fault("the head is not text") };
    let mut lines = head.split("\r\n");
    let request_line: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1"] = request_line[..] else { return fault("no request line") };
    if head.bytes().any(|byte| byte == 0 || byte == 0x7f) || head.replace("\r\n", "").contains(['\r', '\n']) {
        return fault("a control byte in the head");
    }
    if !target.starts_with('/') || target.starts_with("//") {
        return fault("a target that is not in origin form");
    }
    let mut fields = Vec::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return fault("a line without a colon") };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return fault("a name that is none");
        }
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut message = Message { method: method.to_owned(), target: target.to_owned(), fields, body: Vec::new() };
    let healthy = target == "/healthz" && message.all("x-tenant-id").is_empty();
    if !healthy {
        for once in ["x-tenant-id", "x-tenant-context", "x-request-id", "x-forwarded-for", "forwarded"] {
            if message.all(once).len() != 1 {
                return fault(&format!("not one {once}"));
            }
        }
        if message.all("x-tenant-slug") != ["ash"] || !message.all("x-tenant-id")[0].starts_with("tnt_") {
            return fault("another identity than the gateway's");
        }
        let forged = message.fields.iter().any(|(_, value)| value.contains("forged"));
        if forged {
            return fault("a forged value came through");
        }
    }
    if !message.all("http2-settings").is_empty() || message.all("upgrade").iter().any(|to| *to != "websocket") {
        return fault("a wish for a protocol that nobody checks");
    }
    if message.all("host").len() != 1 {
        return fault("not one host");
    }
    let (lengths, codings) = (message.all("content-length"), message.all("transfer-encoding"));
    let body = &bytes[end + 4..];
    let length = match (&lengths[..], &codings[..]) {
        ([], []) => 0,
        ([digits], []) if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            let Ok(length) = digits.parse::<usize>() else { return fault("a length beyond all bounds") };
            if body.len() < length {
                return Ok(None);
            }
            message.body = body[..length].to_vec();
            length
        }
        ([], ["chunked"]) => match chunks(body) {
            Ok(Some((decoded, length))) => {
                message.body = decoded;
                length
            }
            Ok(None) => return Ok(None),
            Err(what) => return fault(what),
        },
        _ => return fault("not one framing"),
    };
    Ok(Some((message, end + 4 + length)))
}

fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = bytes[at..].windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let digits = std::str::from_utf8(&bytes[at..at + line]).map_err(|_| "a size that is not text")?;
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("a size that is no number");
        }
        let size = usize::from_str_radix(digits, 16).map_err(|_| "a size beyond all bounds")?;
        at += line + 2;
        if bytes.len() < at + size + 2 {
            return Ok(None);
        }
        if &bytes[at + size..at + size + 2] != b"\r\n" {
            return Err("a chunk longer than its size, or a trailer");
        }
        body.extend_from_slice(&bytes[at..at + size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}
