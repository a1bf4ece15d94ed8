//! One check of one backend. It uses a connection of its own: it must find out what a new request would meet.

use std::pin::pin;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use schoolgate_config::model::{BackendAddress, Probe};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::LivePool;

/// Bytes of an answer's body that are looked at: 64 KiB.
const BODY: usize = 64 * 1024;

/// How a check reaches a backend.
#[derive(Debug, Clone)]
pub(super) struct Way {
    address: BackendAddress,
    /// For `https://`: with what, under which name, or why not at all.
    tls: Option<Result<(Arc<ClientConfig>, ServerName<'static>), String>>,
}

impl Way {
    /// To a backend of a pool.
    pub(super) fn to(address: &BackendAddress, pool: &LivePool) -> Self {
        let tls = match address {
            BackendAddress::Https(addr) => Some(match pool.tls.as_ref() {
                Some(Ok(ready)) => ready.for_checks(*addr).map_err(|error| error.to_string()),
                Some(Err(error)) => Err(crate::feed::chain(error)),
                None => Err("TLS is not prepared".to_owned()),
            }),
            _ => None,
        };
        Self { address: address.clone(), tls }
    }

    /// What stands in the authority of a request.
    fn authority(&self) -> String {
        match &self.address {
            BackendAddress::Http(addr) | BackendAddress::H2c(addr) => addr.to_string(),
            BackendAddress::Https(addr) => match &self.tls {
                Some(Ok((_, ServerName::DnsName(name)))) => format!("{}:{}", name.as_ref(), addr.port()),
                _ => addr.to_string(),
            },
            BackendAddress::Unix(_) => "localhost".to_owned(),
        }
    }
}

/// Anything that bytes travel on.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

/// Says in words what is wrong with a backend.
pub(super) async fn probe(way: &Way, probe: &Probe) -> Result<(), String> {
    match probe {
        Probe::Tcp => match &way.address {
            BackendAddress::Http(addr) | BackendAddress::Https(addr) | BackendAddress::H2c(addr) => {
                TcpStream::connect(addr).await.map(drop).map_err(no_connection)
            }
            BackendAddress::Unix(socket) => UnixStream::connect(socket).await.map(drop).map_err(no_connection),
        },
        Probe::Http { path, expect: (first, last), expect_body } => {
            let (status, body) = get(way, path).await?;
            if !(*first..=*last).contains(&status) {
                return Err(format!("GET {path} answered {status}"));
            }
            match expect_body {
                Some(text) if !body.windows(text.len()).any(|found| found == text.as_bytes()) => {
                    Err(format!("GET {path} answered {status} without `{text}` in its body"))
                }
                _ => Ok(()),
            }
        }
        Probe::Grpc { service } => {
            let (stream, _) = connect(way).await?;
            ask_grpc(stream, way, service).await
        }
    }
}

fn no_connection(error: std::io::Error) -> String {
    format!("no connection: {error}")
}

async fn connect(way: &Way) -> Result<(Box<dyn Stream>, Speaks), String> {
    Ok(match &way.address {
        BackendAddress::Http(addr) => (Box::new(TcpStream::connect(addr).await.map_err(no_connection)?), Speaks::Http1),
        BackendAddress::H2c(addr) => (Box::new(TcpStream::connect(addr).await.map_err(no_connection)?), Speaks::Http2),
        BackendAddress::Unix(socket) => {
            (Box::new(UnixStream::connect(socket).await.map_err(no_connection)?), Speaks::Http1)
        }
        BackendAddress::Https(addr) => {
            let (config, name) = match &way.tls {
                Some(Ok((config, name))) => (Arc::clone(config), name.clone()),
                Some(Err(why)) => return Err(why.clone()),
                None => return Err("TLS is not prepared".to_owned()),
            };
            let tcp = TcpStream::connect(addr).await.map_err(no_connection)?;
            let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| format!("no TLS: {e}"))?;
            let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            (Box::new(tls), if h2 { Speaks::Http2 } else { Speaks::Http1 })
        }
    })
}

/// Asks for `path` and reads the answer: its status and the begin of its body.
async fn get(way: &Way, path: &str) -> Result<(u16, Bytes), String> {
    let (stream, speaks) = connect(way).await?;
    match speaks {
        Speaks::Http1 => get_h1(stream, &way.authority(), path).await,
        Speaks::Http2 => get_h2(stream, &way.authority(), path).await.map_err(no_answer),
    }
}

fn no_answer(error: impl std::fmt::Display) -> String {
    format!("no answer: {error}")
}

async fn get_h1(stream: Box<dyn Stream>, host: &str, path: &str) -> Result<(u16, Bytes), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header("host", host)
        .header("user-agent", "schoolgate-health")
        .body(Empty::<Bytes>::new())
        .map_err(|e| format!("the check is no request: {e}"))?;
    let asking = async {
        let mut answer = sender.send_request(request).await?;
        let mut body = BytesMut::new();
        while let Some(frame) = answer.body_mut().frame().await {
            if let Some(piece) = frame?.data_ref() {
                keep(&mut body, piece);
            }
        }
        Ok((answer.status().as_u16(), body.freeze()))
    };
    let mut asking = pin!(asking);
    tokio::select! {
        answer = &mut asking => return answer.map_err(|e: hyper::Error| no_answer(e)),
        // With the answer, or with trouble that the answer then tells of.
        _ = connection => {}
    }
    asking.await.map_err(no_answer)
}

fn keep(body: &mut BytesMut, piece: &[u8]) {
    let room = BODY.saturating_sub(body.len());
    body.extend_from_slice(&piece[..piece.len().min(room)]);
}

async fn get_h2(stream: Box<dyn Stream>, host: &str, path: &str) -> Result<(u16, Bytes), h2::Error> {
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let uri = format!("http://{host}{path}");
    let asking = async {
        let request = Request::builder().uri(uri).body(()).map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
        let (answer, _) = client.send_request(request, true)?;
        let answer = answer.await?;
        let status = answer.status().as_u16();
        let (body, _) = read_h2(answer.into_body()).await?;
        Ok((status, body))
    };
    let mut asking = pin!(asking);
    tokio::select! {
        answer = &mut asking => return answer,
        _ = connection => {}
    }
    asking.await
}

async fn read_h2(mut stream: h2::RecvStream) -> Result<(Bytes, Option<http::HeaderMap>), h2::Error> {
    let mut body = BytesMut::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        keep(&mut body, &piece);
        stream.flow_control().release_capacity(piece.len())?;
    }
    Ok((body.freeze(), stream.trailers().await?))
}

/// `grpc.health.v1.Health/Check` (github.com/grpc/grpc, doc/health-checking.md).
async fn ask_grpc(stream: Box<dyn Stream>, way: &Way, service: &str) -> Result<(), String> {
    let (mut client, connection) = h2::client::handshake(stream).await.map_err(no_answer)?;
    let uri = format!("http://{}/grpc.health.v1.Health/Check", way.authority());
    let asking = async {
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "schoolgate-health")
            .body(())
            .map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
        let (answer, mut sending) = client.send_request(request, false)?;
        sending.send_data(health_request(service), true)?;
        let (head, body) = answer.await?.into_parts();
        let (body, trailers) = read_h2(body).await?;
        Ok::<_, h2::Error>((head, body, trailers))
    };
    let mut asking = pin!(asking);
    let answer = tokio::select! {
        answer = &mut asking => answer,
        _ = connection => asking.await,
    };
    let (head, body, trailers) = answer.map_err(no_answer)?;
    if !head.status.is_success() {
        return Err(format!("the health service answered {}", head.status.as_u16()));
    }
    // An answer without a message has its status in the head ("trailers only").
    let status = trailers.as_ref().unwrap_or(&head.headers).get("grpc-status").map(|value| value.as_bytes().to_vec());
    match status.as_deref() {
        Some(b"0") => {}
        Some(b"5") => return Err(format!("the health service does not know `{service}` (NOT_FOUND)")),
        Some(b"12") => return Err("there is no health service (UNIMPLEMENTED)".to_owned()),
        Some(code) => return Err(format!("the health service answered grpc-status {}", String::from_utf8_lossy(code))),
        None => return Err("the health service answered without grpc-status".to_owned()),
    }
    match serving_status(&body) {
        Some(1) => Ok(()),
        Some(2) => Err("the health service says NOT_SERVING".to_owned()),
        Some(other) => Err(format!("the health service says {other}, not SERVING")),
        None => Err("the health service answered something that is no HealthCheckResponse".to_owned()),
    }
}

/// `HealthCheckRequest { service }` as a gRPC message. Field 1 is a string: tag `0x0a`.
fn health_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

/// `status` of the `HealthCheckResponse` in a gRPC message; 0 (UNKNOWN) when it is not written.
fn serving_status(framed: &[u8]) -> Option<u8> {
    let (head, message) = framed.split_first_chunk::<5>()?;
    let [0, length @ ..] = *head else { return None };
    let message = message.get(..u32::from_be_bytes(length) as usize)?;
    match message {
        [] => Some(0),
        // Field 1 is a varint: tag `0x08`. The known values have one byte.
        [0x08, status, ..] if *status < 0x80 => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schoolgate_config::model::HealthCheck;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn origin(answer: &'static [u8]) -> BackendAddress {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer).await;
            }
        });
        BackendAddress::Http(address)
    }

    async fn checked(address: BackendAddress) -> Option<String> {
        checked_by(HealthCheck::default().probe, address).await
    }

    async fn checked_by(probe: Probe, address: BackendAddress) -> Option<String> {
        let way = Way { address, tls: None };
        let asking = super::probe(&way, &probe);
        tokio::time::timeout(Duration::from_secs(5), asking).await.expect("in time").err()
    }

    fn asks_for(text: &str) -> Probe {
        Probe::Http { path: "/up".into(), expect: (200, 299), expect_body: Some(text.into()) }
    }

    #[tokio::test]
    async fn an_expected_status_is_healthy_and_any_other_is_not() {
        let good = origin(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(checked(good).await, None);
        let bad = origin(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(checked(bad).await.as_deref(), Some("GET /healthz answered 503"));
    }

    #[tokio::test]
    async fn what_does_not_answer_is_unhealthy_and_says_why() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        assert!(checked(BackendAddress::Http(nobody)).await.is_some_and(|why| why.starts_with("no connection: ")));
        let mute = origin(b"").await;
        assert!(checked(mute).await.is_some_and(|why| why.starts_with("no answer")));
    }

    #[tokio::test]
    async fn who_listens_is_healthy_to_a_check_that_connects_whatever_it_says() {
        let rule = || HealthCheck::connects().probe;
        assert_eq!(checked_by(rule(), origin(b"").await).await, None);
        let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let why = checked_by(rule(), BackendAddress::H2c(nobody)).await;
        assert!(why.is_some_and(|why| why.starts_with("no connection: ")));
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("app.sock");
        let _listens = tokio::net::UnixListener::bind(&socket).expect("a socket");
        assert_eq!(checked_by(rule(), BackendAddress::Unix(socket)).await, None);
        assert!(checked_by(rule(), BackendAddress::Unix(dir.path().join("none"))).await.is_some());
    }

    #[tokio::test]
    async fn a_backend_that_speaks_http_2_is_asked_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let answer = http::Response::builder().status(200).body(()).expect("an answer");
                respond.send_response(answer, true).expect("sent");
            }
        });
        assert_eq!(checked(BackendAddress::H2c(address)).await, None);
    }

    #[tokio::test]
    async fn the_body_must_say_what_is_expected() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"ready\": true}";
        assert_eq!(checked_by(asks_for("\"ready\": true"), origin(answer).await).await, None);
        let why = checked_by(asks_for("\"ready\": yes"), origin(answer).await).await;
        assert_eq!(why.as_deref(), Some("GET /up answered 200 without `\"ready\": yes` in its body"));
    }

    /// A server whose health service answers this message and status.
    async fn grpc(message: &'static [u8], status: &'static str) -> BackendAddress {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                let answer = http::Response::builder().header("content-type", "application/grpc").body(());
                let mut sending = respond.send_response(answer.expect("an answer"), false).expect("sent");
                let framed = [&[0, 0, 0, 0, u8::try_from(message.len()).expect("short")], message].concat();
                sending.send_data(framed.into(), false).expect("sent");
                let trailers = [(http::HeaderName::from_static("grpc-status"), status.parse().expect("a value"))];
                sending.send_trailers(trailers.into_iter().collect()).expect("sent");
            }
        });
        BackendAddress::H2c(address)
    }

    #[tokio::test]
    async fn the_health_service_of_grpc_is_asked_and_only_serving_is_well() {
        let asks = || Probe::Grpc { service: "school.v1.Grades".into() };
        assert_eq!(checked_by(asks(), grpc(&[8, 1], "0").await).await, None);
        for (message, status, says) in [
            (&[8, 2][..], "0", "NOT_SERVING"),
            (&[], "0", "says 0"),
            (&[8, 1], "5", "does not know `school.v1.Grades`"),
            (&[], "12", "UNIMPLEMENTED"),
            (&[8, 1], "14", "grpc-status 14"),
            (&[9, 9], "0", "no HealthCheckResponse"),
        ] {
            let why = checked_by(asks(), grpc(message, status).await).await.unwrap_or_default();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn a_message_is_framed_as_grpc_wants_it() {
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&health_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = health_request(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        assert_eq!(serving_status(&[0, 0, 0, 0, 9, 8, 1]), None, "cut short");
        assert_eq!(serving_status(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed, which was not offered");
    }
}
