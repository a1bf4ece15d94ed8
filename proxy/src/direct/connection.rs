//! One connection to a backend, and what is read of it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora_core::protocols::http::ServerSession;
use schoolgate_config::model::{BackendAddress, PoolTimeouts};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::io::poll_read_buf;

use super::Failed;
pub(super) use super::framing::Head;
use super::framing::{self, Body, Malformed};
use crate::balance::LiveBackend;
use crate::balance::drain::LONG;
use crate::balance::retry::Failure;
use crate::fault::Fault;
use crate::gateway::Next;

/// Room for a head and a small body: 4 KiB.
const ROOM: usize = 4 * 1024;

/// Most bytes of a body that are read at once: 64 KiB.
const MOST_ROOM: usize = 64 * 1024;

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broke {
    /// There was none.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// None was made in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// It closed, or the system says so.
    #[error("the connection broke: {0}")]
    Io(#[source] io::Error),
    /// The backend said nothing, or took nothing, for too long.
    #[error("silent for too long")]
    TimedOut,
    /// The backend goes, and the time that it had for this is over.
    #[error("the backend was drained")]
    Drained,
    /// It said something that is not HTTP.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Broke {
    /// What it means for the request: whether it may be tried again, and what it is answered with else.
    pub(super) fn meaning(&self, reused: bool) -> (Failure, Fault) {
        match self {
            Self::Connect(error) if is_refused(error) => (Failure::Refused, Fault::Upstream),
            Self::Connect(_) => (Failure::NotConnected, Fault::Upstream),
            Self::ConnectTimeout => (Failure::NotConnected, Fault::UpstreamTimeout),
            Self::Io(_) if reused => (Failure::Stale, Fault::Upstream),
            Self::Io(_) => (Failure::Broken, Fault::Upstream),
            Self::TimedOut => (Failure::TimedOut, Fault::UpstreamTimeout),
            // Not its fault: who can be asked again is asked elsewhere.
            Self::Drained => (Failure::Stale, Fault::Upstream),
            // Another process at that address, perhaps; another backend is more likely to speak HTTP.
            Self::Malformed(_) => (Failure::Broken, Fault::Upstream),
        }
    }
}

/// Whether nobody listens: on a Unix socket, also where there is none.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// What the bytes travel on.
enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to a backend.
pub(super) struct Connection {
    wire: Wire,
    arrived: BytesMut,
    patience: Patience,
    /// The last head allows another request.
    keep: bool,
}

/// A deadline that moves with every exchange. Its timer is set anew only when it rings too early, so that an exchange
/// that is quick costs the runtime no timer.
struct Patience {
    timer: Option<Pin<Box<Sleep>>>,
    until: Instant,
    /// When the wait begins to be a long one; `None`: it is.
    long: Option<Instant>,
}

/// What a deadline says.
enum Rings {
    /// The wait is a long one from now on.
    Long,
    /// The time is over.
    Late,
}

impl Patience {
    fn set(&mut self, time: Duration) {
        let now = Instant::now();
        self.until = now + time;
        self.long = Some(now + LONG);
        let next = self.next();
        if let Some(timer) = &mut self.timer
            && timer.deadline() > next
        {
            timer.as_mut().reset(next);
        }
    }

    fn next(&self) -> Instant {
        self.long.map_or(self.until, |long| long.min(self.until))
    }

    /// Ready when the wait begins to be long, once, and when the time is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Rings> {
        loop {
            let next = self.next();
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.until {
                return Poll::Ready(Rings::Late);
            }
            let is_long = self.long.is_some_and(|long| now >= long);
            if is_long {
                self.long = None;
            }
            let next = self.long.map_or(self.until, |long| long.min(self.until));
            timer.as_mut().reset(next);
            if is_long {
                return Poll::Ready(Rings::Long);
            }
        }
    }
}

impl Connection {
    /// Connects.
    pub(super) async fn open(address: &BackendAddress, timeouts: &PoolTimeouts) -> Result<Self, Broke> {
        let time = Duration::from_millis(timeouts.connect_ms);
        let connecting = async {
            match address {
                // The others are asked the other way; see [`super`].
                BackendAddress::Http(address) | BackendAddress::Https(address) | BackendAddress::H2c(address) => {
                    let tcp = TcpStream::connect(address).await?;
                    tcp.set_nodelay(true)?;
                    Ok(Wire::Tcp(tcp))
                }
                BackendAddress::Unix(path) => Ok(Wire::Unix(UnixStream::connect(path).await?)),
            }
        };
        let wire = timeout(time, connecting).await.map_err(|_| Broke::ConnectTimeout)?.map_err(Broke::Connect)?;
        let patience = Patience { timer: None, until: Instant::now(), long: None };
        Ok(Self { wire, arrived: BytesMut::new(), patience, keep: false })
    }

    /// Whether it waits as it should: open, and with nothing to read.
    pub(super) fn is_open(&self) -> bool {
        let mut byte = [0];
        let read = match &self.wire {
            Wire::Tcp(tcp) => tcp.try_read(&mut byte),
            Wire::Unix(unix) => unix.try_read(&mut byte),
        };
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request.
    pub(super) async fn send(&mut self, request: Bytes, next: &Next) -> Result<(), Broke> {
        self.patience.set(Duration::from_millis(next.timeouts.write_ms));
        let Self { wire, patience, .. } = self;
        let mut writing = pin!(wire.write_all(&request));
        poll_fn(|cx| match writing.as_mut().poll(cx) {
            Poll::Ready(written) => Poll::Ready(written.map_err(Broke::Io)),
            Poll::Pending => loop {
                match ready!(patience.poll(cx)) {
                    Rings::Long => {}
                    Rings::Late => return Poll::Ready(Err(Broke::TimedOut)),
                }
            },
        })
        .await
    }

    /// Reads the next head. The outer error is the client's, the inner one the backend's.
    pub(super) async fn head(
        &mut self,
        session: &mut ServerSession,
        next: &Next,
    ) -> Result<Result<Head, Broke>, Failed> {
        self.patience.set(within(next.wants.first_byte, next));
        loop {
            match framing::head(&mut self.arrived) {
                Ok(Some(head)) => return Ok(Ok(head)),
                Ok(None) => {}
                Err(malformed) => return Ok(Err(malformed.into())),
            }
            match self.arrive(ROOM, session, &next.backend).await? {
                Ok(0) => return Ok(Err(Broke::Io(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(broke) => return Ok(Err(broke)),
            }
        }
    }

    /// The body that follows a head.
    pub(super) fn body(&mut self, head: &Head, is_head: bool) -> Result<Body, Broke> {
        self.keep = head.keep;
        Ok(Body::after(head, is_head)?)
    }

    /// The next piece of a body, as far as it has arrived.
    pub(super) fn piece(&mut self, body: &mut Body) -> Result<Option<Bytes>, Broke> {
        Ok(body.piece(&mut self.arrived)?)
    }

    /// Waits for the next piece of a body; `None` when it has ended without one.
    pub(super) async fn more(
        &mut self,
        body: &mut Body,
        session: &mut ServerSession,
        next: &Next,
    ) -> Result<Result<Option<Bytes>, Broke>, Failed> {
        self.patience.set(within(next.wants.read, next));
        loop {
            match self.piece(body) {
                Ok(None) if !body.is_done() => {}
                piece => return Ok(piece),
            }
            match self.arrive(body.room(), session, &next.backend).await? {
                Ok(0) if body.close() => return Ok(Ok(None)),
                Ok(0) => return Ok(Err(Broke::Io(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(broke) => return Ok(Err(broke)),
            }
        }
    }

    /// The connection, if it may carry another request after this body: the answer was whole, and nothing follows it.
    pub(super) fn keep(self, body: &Body) -> Option<Self> {
        (self.keep && *body == Body::Done && self.arrived.is_empty()).then_some(self)
    }

    /// Reads what comes next, until the backend is late, or gone with its time over, or the client is gone.
    async fn arrive(
        &mut self,
        room: usize,
        session: &mut ServerSession,
        backend: &LiveBackend,
    ) -> Result<Result<usize, Broke>, Failed> {
        if backend.is_over() {
            return Ok(Err(Broke::Drained));
        }
        let Self { wire, arrived, patience, .. } = self;
        let mut over = None;
        arrived.reserve(room);
        // Mostly there already when it is asked for; only who waits has to listen to the client too.
        let mut gone = pin!(session.read_body_or_idle(true));
        poll_fn(|cx| {
            if let Poll::Ready(read) = wire.poll_arrived(cx, arrived) {
                return Poll::Ready(Ok(read.map_err(Broke::Io)));
            }
            if gone.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Failed::Client));
            }
            loop {
                if patience.long.is_none() {
                    let over = over.get_or_insert_with(|| Box::pin(backend.over()));
                    if over.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Ok(Err(Broke::Drained)));
                    }
                }
                match ready!(patience.poll(cx)) {
                    Rings::Long => {}
                    Rings::Late => return Poll::Ready(Ok(Err(Broke::TimedOut))),
                }
            }
        })
        .await
    }

    /// Waits until there is something to read.
    #[cfg(test)]
    pub(super) async fn readable(&self) {
        match &self.wire {
            Wire::Tcp(tcp) => tcp.readable().await,
            Wire::Unix(unix) => unix.readable().await,
        }
        .expect("readable");
    }
}

/// A time that ends, at the latest, with the time that the attempt had left.
fn within(time: Duration, next: &Next) -> Duration {
    next.until.map_or(time, |until| time.min(until.saturating_duration_since(Instant::now())))
}

impl Body {
    /// How much room the next read is given.
    fn room(&self) -> usize {
        match self {
            Self::Length(left) => usize::try_from(*left).unwrap_or(MOST_ROOM).clamp(ROOM, MOST_ROOM),
            _ => MOST_ROOM,
        }
    }
}

impl Wire {
    /// Appends what has arrived; `Ok(0)` is the end.
    fn poll_arrived(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => poll_read_buf(Pin::new(tcp), cx, into),
            Self::Unix(unix) => poll_read_buf(Pin::new(unix), cx, into),
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.write_all(bytes).await,
            Self::Unix(unix) => unix.write_all(bytes).await,
        }
    }
}
