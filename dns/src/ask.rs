//! One question to one server.
//!
//! UDP first, from a port and with an identifier that nobody can guess; TCP when the answer is cut short. An answer
//! counts only from the address asked, with the identifier and the question sent (RFC 5452 section 9).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::observation::Failure;

/// Time that a server has to answer: 2 s, and as long again for the second attempt. Slower ones exist, and are asked
/// again by the next check.
const PATIENCE: Duration = Duration::from_secs(2);

/// Attempts over UDP, where datagrams are lost: two.
const ATTEMPTS: u32 = 2;

/// Bytes of an answer over UDP that we say we take: 1232, which fits every path unfragmented (DNS flag day 2020).
const PAYLOAD: u16 = 1_232;

/// What kind of server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// One that knows the zone: no recursion wanted.
    Authoritative,
    /// One that finds out.
    Resolver,
    /// One that finds out, and is told not to check DNSSEC signatures: what it answers now and not before was refused
    /// for its signatures.
    ResolverUnchecked,
}

/// Asks a server. The answer's code is the caller's to look at.
///
/// # Errors
/// [`Failure::Timeout`], [`Failure::Unreachable`], [`Failure::Malformed`].
pub async fn ask(server: SocketAddr, name: &Name, kind: RecordType, how: Asking) -> Result<Message, Failure> {
    let mut last = Failure::Timeout;
    for _ in 0..ATTEMPTS {
        match timeout(PATIENCE, over_udp(server, name, kind, how)).await {
            Ok(Ok(message)) if message.metadata.truncation => {
                let whole = timeout(PATIENCE, over_tcp(server, name, kind, how)).await;
                return whole.unwrap_or(Err(Failure::Timeout));
            }
            Ok(Ok(message)) => return Ok(message),
            Ok(Err(failure)) => last = failure,
            Err(_) => last = Failure::Timeout,
        }
    }
    Err(last)
}

/// What the code of an answer means when it is no answer.
///
/// # Errors
/// [`Failure::ServFail`], [`Failure::Refused`].
pub(crate) fn usable(message: &Message) -> Result<(), Failure> {
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(()),
        ResponseCode::Refused | ResponseCode::NotAuth => Err(Failure::Refused),
        _ => Err(Failure::ServFail),
    }
}

fn question(name: &Name, kind: RecordType, how: Asking) -> Message {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = how != Asking::Authoritative;
    message.metadata.checking_disabled = how == Asking::ResolverUnchecked;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD);
    message.set_edns(edns);
    message
}

async fn over_udp(server: SocketAddr, name: &Name, kind: RecordType, how: Asking) -> Result<Message, Failure> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(unreachable)?;
    // Connected: what comes from elsewhere is not even seen.
    socket.connect(server).await.map_err(unreachable)?;
    let message = question(name, kind, how);
    let bytes = message.to_vec().map_err(|_| Failure::Malformed)?;
    socket.send(&bytes).await.map_err(unreachable)?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(unreachable)?;
        // Anything that is not the answer may be somebody's guess at it: go on waiting.
        if let Ok(answer) = Message::from_vec(&buffer[..length])
            && answers(&answer, &message)
        {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, name: &Name, kind: RecordType, how: Asking) -> Result<Message, Failure> {
    let mut stream = TcpStream::connect(server).await.map_err(unreachable)?;
    let message = question(name, kind, how);
    let bytes = message.to_vec().map_err(|_| Failure::Malformed)?;
    let length = u16::try_from(bytes.len()).map_err(|_| Failure::Malformed)?;
    let framed = [&length.to_be_bytes(), bytes.as_slice()].concat();
    stream.write_all(&framed).await.map_err(unreachable)?;
    let length = stream.read_u16().await.map_err(unreachable)?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await.map_err(unreachable)?;
    let answer = Message::from_vec(&buffer).map_err(|_| Failure::Malformed)?;
    if answers(&answer, &message) { Ok(answer) } else { Err(Failure::Malformed) }
}

/// Whether a message answers the question that was sent.
fn answers(answer: &Message, asked: &Message) -> bool {
    let same = |a: &Query, b: &Query| {
        a.query_type() == b.query_type() && a.query_class() == b.query_class() && a.name() == b.name()
    };
    let echoes = match (answer.queries.as_slice(), asked.queries.as_slice()) {
        ([a], [b]) => same(a, b),
        // A server that refuses may leave the question out.
        ([], _) => answer.metadata.response_code != ResponseCode::NoError,
        _ => false,
    };
    answer.metadata.id == asked.metadata.id && answer.metadata.message_type == MessageType::Response && echoes
}

fn unreachable(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::Timeout,
        _ => Failure::Unreachable,
    }
}
