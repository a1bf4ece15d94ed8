//! The stream that Pingora reads and writes: a TCP connection, mostly under TLS, with the writes gathered.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
};
use pingora_http::ResponseHeader;
use schoolgate_config::time::{Clock, SystemClock};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::chunks::{BadChunks, ChunkScan};
use super::frames::FrameScan;
use super::head::{Framing, Whole};
use super::{ConnInfo, Held, TransportLimits};
use crate::answer::early;
use crate::fault::Fault;
use crate::forward::request_id::RequestId;

/// Bytes gathered before they are sent: 16 KiB, the plaintext of one full TLS record.
const RECORD: usize = 16 * 1024;

/// Write buffers kept by a thread for the next writer: 64. More are in use only while 64 connections have something to
/// send that the kernel does not take.
const SPARE_BUFFERS: usize = 64;

/// Bytes a client has to take within the stall time, or it is cut: 16 KiB, less than any link carries in a minute.
const PROGRESS: usize = 16 * 1024;

/// Bytes of further requests that are taken while one is served: 16 KiB. More waits in the socket.
const AHEAD: usize = 16 * 1024;

/// Time for the last words of a connection, and for the client to stop talking after them: 1 s.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are read and thrown away while lingering: 64 KiB. Closing with unread bytes makes the kernel send a
/// reset, and the client may lose the answer it was just sent.
const LINGER_BYTES: usize = 64 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(RECORD))
}

fn give_back(mut buffer: Vec<u8>) {
    buffer.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_BUFFERS {
            spare.push(buffer);
        }
    });
}

/// How long a stream that is being closed still listens.
struct Linger {
    until: Pin<Box<Sleep>>,
    /// Bytes it still throws away.
    bytes: usize,
}

/// What is still to come of a request's body.
enum Body {
    /// So many bytes.
    Left(u64),
    /// Chunks.
    Chunks(ChunkScan),
    /// Anything: HTTP/2, or a protocol that may be switched.
    Open,
}

/// What the bytes travel on.
#[expect(clippy::large_enum_variant, reason = "one per connection, always behind a Box of EdgeIo")]
enum Wire {
    Tls(TlsStream<TcpStream>),
    Plain(TcpStream),
}

/// A downstream connection as Pingora's `IO`.
///
/// * Writes are gathered into full TLS records; one flush is one record and one system call.
/// * For HTTP/2 a flush waits until every stream that was ready has written: the driver asks for one per DATA frame.
/// * A client that takes nothing for too long is cut.
pub struct EdgeIo {
    wire: Wire,
    /// What is still to come of the request's body.
    body: Body,
    /// The client's frames, on HTTP/2.
    frames: Option<Box<FrameScan>>,
    /// Bytes taken for the client so far.
    taken: u64,
    /// What came after the body: the begin of the next request.
    ahead: BytesMut,
    /// Bytes gathered and not sent; `None` while there are none, so that an idle connection holds no buffer.
    gathered: Option<Vec<u8>>,
    /// How much of `gathered` is sent.
    sent: usize,
    /// A flush was put off until the next read.
    flush_due: bool,
    /// A flush that was put off met a full socket.
    blocked: bool,
    /// What is written comes from Pingora and is thrown away: the client has our answer instead.
    replaced: bool,
    /// Set once the stream is being closed.
    linger: Option<Linger>,
    stall: Option<Pin<Box<Sleep>>>,
    /// Bytes taken since `stall` was set.
    progress: usize,
    stall_after: Duration,
    /// What is here of heads and bodies that nobody has read (HTTP/2 only).
    held: Held,
    /// More than that cannot be there: the window of the connection.
    window: usize,
    info: Arc<ConnInfo>,
    ssl: Option<Arc<SslDigest>>,
    proxy: Arc<ProxyDigest>,
    socket: Arc<SocketDigest>,
}

impl fmt::Debug for EdgeIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EdgeIo({} of {})", self.info.id, self.info.client)
    }
}

impl EdgeIo {
    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        ssl: Arc<SslDigest>,
        info: Arc<ConnInfo>,
        limits: &TransportLimits,
    ) -> Self {
        let fd = stream.get_ref().0.as_raw_fd();
        Self::new(Wire::Tls(stream), fd, Some(ssl), info, limits)
    }

    pub(super) fn plain(stream: TcpStream, info: Arc<ConnInfo>, limits: &TransportLimits) -> Self {
        let fd = stream.as_raw_fd();
        Self::new(Wire::Plain(stream), fd, None, info, limits)
    }

    fn new(wire: Wire, fd: i32, ssl: Option<Arc<SslDigest>>, info: Arc<ConnInfo>, limits: &TransportLimits) -> Self {
        let socket = SocketDigest::from_raw_fd(fd);
        // Set here, because the digest outlives the descriptor, and because the client is not always the peer.
        let _ = socket.peer_addr.set(Some(info.client.into()));
        let _ = socket.local_addr.set(Some(info.local.into()));
        // The only place of a digest where a value of ours can ride, on HTTP/1.1 and HTTP/2 alike.
        let carrier = ResponseHeader::build(200, Some(0)).expect("200 is a status");
        let proxy = ProxyDigest::new(Box::new(carrier), Some(Box::new(Arc::clone(&info))));
        Self {
            wire,
            body: Body::Open,
            frames: info.is_h2().then(|| Box::new(FrameScan::new(limits.floods))),
            taken: 0,
            ahead: BytesMut::new(),
            gathered: None,
            sent: 0,
            flush_due: false,
            blocked: false,
            replaced: false,
            linger: None,
            stall: None,
            progress: 0,
            stall_after: limits.write_stall,
            held: Held::of(info.budget(), 0),
            window: usize::try_from(limits.h2_connection_window).unwrap_or(usize::MAX),
            info,
            ssl,
            proxy: Arc::new(proxy),
            socket: Arc::new(socket),
        }
    }

    /// The connection this is.
    pub fn info(&self) -> &Arc<ConnInfo> {
        &self.info
    }

    /// Takes a request whose head, `bytes` up to `whole.end`, has been read. What belongs to the next one is kept back:
    /// Pingora would take it for an error of this one.
    ///
    /// # Errors
    /// What has arrived of its chunks is malformed.
    pub(super) fn begin(&mut self, bytes: &mut BytesMut, whole: Whole) -> Result<(), BadChunks> {
        let here = bytes.len() - whole.end;
        let (body, length) = match whole.body {
            Framing::Nothing => (Body::Left(0), Some(0)),
            Framing::Open => (Body::Open, None),
            Framing::Length(length) if length < here as u64 => {
                // It fits: less than what is here.
                (Body::Left(0), Some(length as usize))
            }
            Framing::Length(length) => (Body::Left(length - here as u64), None),
            Framing::Chunked => {
                let mut chunks = ChunkScan::new();
                match chunks.feed(&bytes[whole.end..])? {
                    Some(length) => (Body::Left(0), Some(length)),
                    None => (Body::Chunks(chunks), None),
                }
            }
        };
        self.body = body;
        if let Some(length) = length.filter(|length| *length < here) {
            self.ahead = bytes.split_off(whole.end + length);
        }
        Ok(())
    }

    /// Reads frames, until there are too many: then nothing more is read, and the driver sees why.
    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.info.flood().is_some() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let arrived = self.wire.poll_read(cx, buf);
        let Some(frames) = &mut self.frames else { return arrived };
        let greeted = frames.greeted();
        let counted = frames.feed(&buf.filled()[before..], self.taken, Instant::now);
        self.info.unread.fetch_add(frames.take_data(), Ordering::Relaxed);
        self.held.set(frames.block() + self.info.unread.load(Ordering::Relaxed).min(self.window));
        ready!(arrived)?;
        if let Err(flood) = counted {
            buf.set_filled(before);
            self.info.flooded(flood);
            // Whoever polls is the driver, or will be when the connection is greeted.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !greeted && frames.greeted() {
            self.info.greeted.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// What has been read of the next request.
    pub(super) fn take_ahead(&mut self) -> BytesMut {
        self.body = Body::Open;
        std::mem::take(&mut self.ahead)
    }

    /// Listens for the end of the connection while nothing more belongs to the request.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < AHEAD {
            let mut ahead = std::mem::take(&mut self.ahead);
            let arrived = self.poll_arrived(cx, &mut ahead);
            self.ahead = ahead;
            match ready!(arrived) {
                // Who says all they want to say at once wants it answered.
                Ok(0) if !self.ahead.is_empty() => return Poll::Pending,
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }

    /// Appends what has arrived to `into`, which is allocated only then. `Ok(0)` is the end.
    pub(super) fn poll_arrived(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Tls(tls) => {
                let chunk = ready!(Pin::new(&mut *tls).poll_fill_buf(cx))?;
                let length = chunk.len();
                into.extend_from_slice(chunk);
                Pin::new(tls).consume(length);
                Poll::Ready(Ok(length))
            }
            Wire::Plain(tcp) => {
                ready!(tcp.poll_read_ready(cx))?;
                // A usual head fits; what does not comes with the next read.
                into.reserve(2 * 1024);
                pin!(tcp.read_buf(into)).poll(cx)
            }
        }
    }

    /// Sends the last words, says goodbye, and waits a little for the client to do the same.
    pub(super) async fn close(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
    }

    /// Whether what is written now is Pingora's own answer to a head it could not parse. The gateway never saw that
    /// request, so the answer would be bare and name Pingora; the client gets ours instead, once.
    fn is_replaced(&mut self) -> bool {
        if self.info.is_h2() || self.info.seen.load(Ordering::Relaxed) || self.info.requests() == 0 {
            return false;
        }
        if !self.replaced {
            self.replaced = true;
            self.gather(&early(Fault::BadRequest, &[], &RequestId::new(SystemClock.unix_ms())));
        }
        true
    }

    fn gathered(&self) -> &[u8] {
        self.gathered.as_deref().map_or(&[], |gathered| &gathered[self.sent..])
    }

    fn gather(&mut self, bytes: &[u8]) {
        self.gathered.get_or_insert_with(take_buffer).extend_from_slice(bytes);
    }

    /// `count` more of the gathered bytes are sent.
    fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.gathered().is_empty() {
            self.sent = 0;
            if let Some(buffer) = self.gathered.take() {
                give_back(buffer);
            }
        }
    }

    /// Sends all that was gathered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(gathered) = self.gathered.as_deref() {
            match ready!(self.wire.poll_write(cx, &gathered[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.progress += count;
                    self.advance(count);
                }
            }
        }
        self.wire.poll_flush(cx)
    }

    /// Takes some of `bytes`: gathers them when they do not fill a record, sends whole records when they do.
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let before = self.gathered().len();
            if before + bytes.len() < RECORD {
                self.gather(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            // Whole records only: what is left over is gathered by the next call.
            let direct = ((before + bytes.len()) / RECORD * RECORD).saturating_sub(before);
            let bytes = &bytes[..direct];
            let count = if before == 0 {
                ready!(self.wire.poll_write(cx, bytes))?
            } else {
                let gathered = self.gathered.as_deref().map_or(&[][..], |gathered| &gathered[self.sent..]);
                let both = [IoSlice::new(gathered), IoSlice::new(bytes)];
                ready!(self.wire.poll_write_vectored(cx, &both))?
            };
            self.progress += count;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if before > 0 {
                self.advance(count.min(before));
            }
            if count > before {
                return Poll::Ready(Ok(count - before));
            }
        }
    }

    /// Cuts a client that takes too little: to be asked whenever a write has to wait.
    fn waiting<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let until = Instant::now() + self.stall_after;
        let stall = self.stall.get_or_insert_with(|| {
            self.progress = 0;
            Box::pin(sleep(self.stall_after))
        });
        if self.progress >= PROGRESS {
            self.progress = 0;
            stall.as_mut().reset(until);
        }
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }

    /// Flushes with the next read, when everything that is ready now has run.
    fn flush_later(&mut self, cx: &mut Context<'_>) {
        if !self.flush_due {
            self.flush_due = true;
            cx.waker().wake_by_ref();
        }
    }

    /// Throws away what the client still says, until it has closed too or has said enough.
    fn poll_hear_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(linger) = &mut self.linger else { return Poll::Ready(()) };
        let mut sink = [0; 4 * 1024];
        loop {
            let mut sink = ReadBuf::new(&mut sink);
            let heard = ready!(self.wire.poll_read(cx, &mut sink));
            linger.bytes = linger.bytes.saturating_sub(sink.filled().len());
            if heard.is_err() || sink.filled().is_empty() || linger.bytes == 0 {
                return Poll::Ready(());
            }
        }
    }

    fn poll_send_or_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_send(cx) {
            Poll::Ready(done) => {
                self.stall = None;
                self.flush_due = false;
                Poll::Ready(done)
            }
            Poll::Pending => self.waiting(cx),
        }
    }
}

impl Wire {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, parts),
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, parts),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
        }
    }
}

impl AsyncRead for EdgeIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.info.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if this.flush_due || this.blocked {
            this.flush_due = false;
            match this.poll_send_or_stall(cx) {
                Poll::Ready(sent) => {
                    this.blocked = false;
                    sent?;
                }
                Poll::Pending => this.blocked = true,
            }
        } else if this.gathered.is_some() {
            // Pingora flushes a body of known length at its end only. It reads while it waits for more of one, so that
            // is when the client gets what there is.
            this.flush_later(cx);
        }
        let before = buf.filled().len();
        match &mut this.body {
            Body::Open if this.frames.is_some() => this.poll_frames(cx, buf),
            Body::Open => this.wire.poll_read(cx, buf),
            Body::Left(0) => this.poll_ahead(cx),
            Body::Chunks(chunks) => {
                ready!(this.wire.poll_read(cx, buf))?;
                let new = &buf.filled()[before..];
                let end = chunks.feed(new).map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
                if let Some(length) = end {
                    this.ahead.extend_from_slice(&new[length..]);
                    buf.set_filled(before + length);
                    this.body = Body::Left(0);
                }
                Poll::Ready(Ok(()))
            }
            Body::Left(left) => {
                let left = *left;
                if left >= buf.remaining() as u64 {
                    ready!(this.wire.poll_read(cx, buf))?;
                } else {
                    // It fits: less than what remains of the buffer.
                    let mut part = ReadBuf::new(buf.initialize_unfilled_to(left as usize));
                    ready!(this.wire.poll_read(cx, &mut part))?;
                    let count = part.filled().len();
                    buf.advance(count);
                }
                this.body = Body::Left(left - (buf.filled().len() - before) as u64);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for EdgeIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.is_replaced() {
            return Poll::Ready(Ok(bytes.len()));
        }
        match this.poll_take(cx, bytes) {
            Poll::Pending => this.waiting(cx),
            Poll::Ready(Ok(count)) => {
                this.taken += count as u64;
                Poll::Ready(Ok(count))
            }
            failed => failed,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut taken = 0;
        if this.is_replaced() {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        for part in parts.iter().filter(|part| !part.is_empty()) {
            match this.poll_take(cx, part) {
                Poll::Ready(Ok(count)) => {
                    taken += count;
                    if count < part.len() {
                        break;
                    }
                }
                // What was taken has to be told first; the rest comes up again with the next call.
                _ if taken > 0 => break,
                Poll::Pending => return this.waiting(cx),
                failed => return failed,
            }
        }
        this.taken += taken as u64;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.info.is_h2() && this.gathered.is_some() && !this.blocked {
            // The HTTP/2 driver reads first whenever it runs. Waking it puts it behind the streams that are ready now,
            // so what they write shares this flush.
            this.flush_later(cx);
            return Poll::Ready(Ok(()));
        }
        this.poll_send_or_stall(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let linger = this.linger.get_or_insert_with(|| Linger { until: Box::pin(sleep(LINGER)), bytes: LINGER_BYTES });
        if linger.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_send(cx))?;
        match &mut this.wire {
            Wire::Tls(tls) => ready!(Pin::new(tls).poll_shutdown(cx))?,
            Wire::Plain(tcp) => ready!(Pin::new(tcp).poll_shutdown(cx))?,
        }
        this.poll_hear_out(cx).map(Ok)
    }
}

impl Drop for EdgeIo {
    /// Some of Pingora's paths drop a stream that has words left; they are sent if the socket takes them at once.
    fn drop(&mut self) {
        if self.gathered.is_some() {
            let _ = self.poll_send(&mut Context::from_waker(Waker::noop()));
        }
    }
}

#[async_trait]
impl Shutdown for EdgeIo {
    async fn shutdown(&mut self) {
        self.close().await;
    }
}

impl UniqueID for EdgeIo {
    fn id(&self) -> i32 {
        match &self.wire {
            Wire::Tls(tls) => tls.get_ref().0.as_raw_fd(),
            Wire::Plain(tcp) => tcp.as_raw_fd(),
        }
    }
}

impl Ssl for EdgeIo {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.ssl.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        let tls = self.info.is_tls();
        tls.then(|| if self.info.is_h2() { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for EdgeIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for EdgeIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.proxy))
    }
}

impl GetSocketDigest for EdgeIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket))
    }
}

impl Peek for EdgeIo {}
