//! What each path of an origin answers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use super::{Answer, Mood, RequestHead, State, locked, process};

/// Bytes of a piece of `/flow`.
const FLOW: usize = 64 * 1024;

type Body = BoxBody<Bytes, io::Error>;

/// Why there is no answer.
pub(super) enum Refusal {
    /// The connection is to be closed.
    Close,
}

/// Counts a request as in flight until dropped.
struct InFlight(Arc<State>);

impl InFlight {
    fn enter(state: &Arc<State>) -> Self {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(state))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn respond(
    request: Request<Incoming>,
    connection: u64,
    state: &Arc<State>,
    life: &CancellationToken,
) -> Result<Response<Body>, Refusal> {
    if request.uri().path() == "/healthz" {
        state.health_checks.fetch_add(1, Ordering::Relaxed);
        let status = if state.healthy.load(Ordering::Relaxed) { 200 } else { 503 };
        return Ok(plain(state, status, Bytes::new()));
    }
    if let Some(told) = request.uri().path().strip_prefix(process::TELL) {
        return Ok(match process::read_mood(told) {
            Some(mood) => {
                state.set_mood(mood);
                plain(state, 204, Bytes::new())
            }
            None => plain(state, 400, Bytes::from_static(b"no such mood\n")),
        });
    }
    let in_flight = InFlight::enter(state);
    state.requests.fetch_add(1, Ordering::Relaxed);
    let head = head_of(&request, connection);
    state.remember(head.clone());

    let mut mood = state.mood.subscribe();
    let _ = mood.wait_for(|mood| *mood != Mood::Hang).await;
    let mood = *mood.borrow();
    match mood {
        Mood::Well | Mood::Hang => {}
        Mood::Failing(status) => return Ok(plain(state, status, Bytes::from_static(b"told to fail\n"))),
        Mood::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        // Connections that are made from now on get the rest.
        Mood::Close | Mood::Reset | Mood::Garbage | Mood::Truncated | Mood::TwoLengths => return Err(Refusal::Close),
    }
    let prepared = locked(&state.answers).get(&head.path).cloned();
    if let Some(answer) = prepared {
        return Ok(prepared_answer(state, answer));
    }
    let parts: Vec<&str> = head.path.trim_start_matches('/').split('/').collect();
    let answer = match parts.as_slice() {
        ["delay", ms] => {
            tokio::time::sleep(Duration::from_millis(number(ms))).await;
            echo(state, &head, request).await?
        }
        ["status", code] => plain(state, number(code), Bytes::new()),
        ["early", code] => plain(state, number(code), Bytes::from_static(b"early\n")),
        ["bytes", n] => plain(state, 200, Bytes::from(vec![b'x'; number(n)])),
        ["flow", n] => {
            let piece = Bytes::from(vec![b'x'; FLOW]);
            let length: u64 = number(n);
            let pieces = (0..length.div_ceil(FLOW as u64)).map(move |i| {
                let left = length - i * FLOW as u64;
                Ok(Frame::data(piece.slice(..usize::try_from(left).unwrap_or(FLOW).min(FLOW))))
            });
            with_length(
                streamed(state, "application/octet-stream", BodyExt::boxed(StreamBody::new(stream::iter(pieces)))),
                length,
            )
        }
        ["sink"] => {
            let mut body = request.into_body();
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                bytes += frame.map_err(|_| Refusal::Close)?.data_ref().map_or(0, Bytes::len);
            }
            plain(state, 200, Bytes::from(bytes.to_string()))
        }
        ["stream", chunks, ms] => {
            let pieces = (0..number::<u64>(chunks)).map(|i| format!("chunk {i}\n")).map(Bytes::from);
            streamed(state, "text/plain", paced(pieces, number(ms), in_flight))
        }
        ["sse"] => streamed(state, "text/event-stream", paced((0..u64::MAX).map(event), 50, in_flight)),
        ["sse", events, ms] => {
            streamed(state, "text/event-stream", paced((0..number(events)).map(event), number(ms), in_flight))
        }
        ["slow-body"] => {
            let pieces = (0..10).map(|_| Bytes::from(vec![b'x'; 100]));
            with_length(streamed(state, "text/plain", paced(pieces, 100, in_flight)), 1000)
        }
        ["cut", n] => {
            let announced: u64 = number(n);
            let half = Bytes::from(vec![b'x'; number::<usize>(n) / 2]);
            let life = life.clone();
            let pieces = stream::iter([half]).map(|piece| Ok(Frame::data(piece))).chain(stream::once(async move {
                // The first half has to leave before the connection goes.
                tokio::time::sleep(Duration::from_millis(20)).await;
                life.cancel();
                Err(io::Error::other("told to cut"))
            }));
            with_length(streamed(state, "text/plain", BodyExt::boxed(StreamBody::new(pieces))), announced)
        }
        ["close"] => return Err(Refusal::Close),
        ["trailers", rest @ ..] => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            if rest == ["forged"] {
                for name in ["x-tenant-id", "set-cookie", "content-length", "x-request-id"] {
                    trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
                }
            }
            let frames = [Ok(Frame::data(Bytes::from_static(b"body\n"))), Ok(Frame::trailers(trailers))];
            let mut answer = streamed(state, "text/plain", BodyExt::boxed(StreamBody::new(stream::iter(frames))));
            answer.headers_mut().insert(header::TRAILER, HeaderValue::from_static("grpc-status"));
            answer
        }
        ["duplex"] => {
            let body = request.into_body().map_err(io::Error::other);
            let body = BodyStream::new(body).inspect(move |_| _ = &in_flight);
            streamed(state, "application/octet-stream", BodyExt::boxed(StreamBody::new(body)))
        }
        ["ws"] if request.headers().contains_key(header::SEC_WEBSOCKET_KEY) => websocket(state, request, life),
        _ => echo(state, &head, request).await?,
    };
    Ok(answer)
}

fn head_of(request: &Request<Incoming>, connection: u64) -> RequestHead {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    RequestHead {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().map(str::to_owned),
        version: format!("{:?}", request.version()),
        authority: request.uri().authority().map(ToString::to_string),
        headers: request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        connection,
    }
}

async fn echo(state: &State, head: &RequestHead, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let mut body = request.into_body();
    let (mut bytes, mut digest) = (0, ring::digest::Context::new(&ring::digest::SHA256));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::Close)?;
        if let Some(data) = frame.data_ref() {
            bytes += data.len();
            digest.update(data);
        }
    }
    let mut echo = serde_json::to_value(head).expect("a head is JSON");
    echo["origin"] = state.name.clone().into();
    echo["body_bytes"] = bytes.into();
    echo["body_sha256"] = hex::encode(digest.finish()).into();
    let mut answer = plain(state, 200, Bytes::from(echo.to_string()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

fn websocket(state: &State, mut request: Request<Incoming>, life: &CancellationToken) -> Response<Body> {
    let accept = derive_accept_key(request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    let life = life.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let echoing = async {
            while let Some(Ok(message)) = socket.next().await {
                if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = echoing => {}
            () = life.cancelled() => {}
        }
    });
    let mut answer = plain(state, 101, Bytes::new());
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).expect("base64"));
    answer
}

fn plain(state: &State, status: u16, body: Bytes) -> Response<Body> {
    let body = Full::new(body).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert("x-origin", HeaderValue::from_str(&state.name).expect("a name that fits a header"));
    answer
}

fn prepared_answer(state: &State, prepared: Answer) -> Response<Body> {
    let mut answer = plain(state, prepared.status.as_u16(), Bytes::from(prepared.body));
    for (name, value) in prepared.headers {
        let name = HeaderName::try_from(name).expect("a header name");
        answer.headers_mut().append(name, HeaderValue::try_from(value).expect("a header value"));
    }
    answer
}

fn streamed(state: &State, content_type: &'static str, body: Body) -> Response<Body> {
    let mut answer = plain(state, 200, Bytes::new());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    *answer.body_mut() = body;
    answer
}

fn with_length(mut answer: Response<Body>, length: u64) -> Response<Body> {
    answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    answer
}

/// The first piece at once, each further one `ms` milliseconds later.
fn paced(pieces: impl Iterator<Item = Bytes> + Send + Sync + 'static, ms: u64, in_flight: InFlight) -> Body {
    let count = AtomicU64::new(0);
    let paced = stream::iter(pieces).then(move |piece| {
        let (first, _) = (count.fetch_add(1, Ordering::Relaxed) == 0, &in_flight);
        async move {
            if !first {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            Ok(Frame::data(piece))
        }
    });
    BodyExt::boxed(StreamBody::new(paced))
}

fn event(i: u64) -> Bytes {
    Bytes::from(format!("data: {i}\n\n"))
}

/// A number of a path; a test that writes none gets 0.
fn number<T: std::str::FromStr + Default>(text: &str) -> T {
    text.parse().unwrap_or_default()
}
