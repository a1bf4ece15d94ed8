//! The HTTP/2 driver of one connection.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession};
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest, Ssl, Stream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::edge::Worker;
use super::h1::DRAIN_BODY;
use super::h2_upload::H2Upload;
use super::{ConnInfo, EdgeIo, Flood, Serve, TransportLimits, Upload};

/// Malformed requests that a connection survives: 32. A client with a bug makes a few; more is an attack on the parser.
const MALFORMED: usize = 32;

/// Bytes of response that one stream may hold here while the client's window is shut: 64 KiB. With 100 streams and 256
/// connections of one address that is what bounds an attack by shut windows.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;

/// How much more of a header list is taken than a request may have: 4 times. So the gate sees a request that is too large
/// and answers 431; what is larger still is refused by the driver, with a reset, and beyond four times that the
/// connection ends.
const HEADER_LIST: usize = 4;

/// Time for the client to answer our GOAWAY on an idle connection: 2 s.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the driver of a connection meets.
#[expect(clippy::large_enum_variant, reason = "made and taken apart in one place; a Box would be one per request")]
enum Event {
    Accepted(pingora_error::Result<Option<H2Accept>>),
    /// The edge is stopping.
    Stop,
    /// The client sends too much of something.
    Flood(Flood),
    /// The timer rang.
    Timer,
}

/// Streams being served; each holds one until it is done.
struct Serving(Arc<AtomicUsize>, Arc<ConnInfo>);

impl Drop for Serving {
    fn drop(&mut self) {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            // What was left unread of their bodies has gone with them.
            self.1.unread.store(0, Ordering::Relaxed);
        }
    }
}

/// Serves streams until the connection ends.
pub(super) async fn serve<A: Serve>(worker: &Arc<Worker<A>>, io: Box<EdgeIo>) {
    let limits = &worker.shared.limits;
    let info = Arc::clone(io.info());
    let digest = Arc::new(Digest {
        ssl_digest: io.get_ssl_digest(),
        timing_digest: Vec::new(),
        proxy_digest: io.get_proxy_digest(),
        socket_digest: io.get_socket_digest(),
    });
    // Boxed, so that what it needs is gone afterwards.
    let handshake = Box::pin(timeout(limits.head, options(limits, worker.shared.streams()).handshake(io as Stream)));
    let Ok(Ok(mut connection)) = handshake.await else { return };

    let mut watch = worker.stop.clone();
    let mut stopped = pin!(async move {
        let _ = watch.wait_for(|stopping| *stopping).await;
    });
    let mut timer = pin!(sleep(limits.head.min(limits.idle)));
    let serving = Arc::new(AtomicUsize::new(0));
    let mut idle_since = Instant::now();
    let mut leaving = false;
    let mut cut = false;
    let mut malformed = 0;
    loop {
        let event = poll_fn(|cx| {
            // Made anew for every poll, which its documentation allows: kept, it would be 1 KB of every idle connection.
            let accept = pin!(HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)));
            if let Poll::Ready(accepted) = accept.poll(cx) {
                return Poll::Ready(Event::Accepted(accepted));
            }
            if !cut && let Some(flood) = info.flood() {
                return Poll::Ready(Event::Flood(flood));
            }
            if !leaving && stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Stop);
            }
            timer.as_mut().poll(cx).map(|()| Event::Timer)
        })
        .await;
        match event {
            Event::Accepted(Ok(Some(H2Accept::Session(session)))) => {
                idle_since = Instant::now();
                let last = info.begin_request() >= limits.requests_h2 || worker.shared.has_aged(&info, idle_since);
                if last && !leaving {
                    leaving = true;
                    connection.graceful_shutdown();
                }
                serving.fetch_add(1, Ordering::Relaxed);
                let (worker, serving) = (Arc::clone(worker), Serving(Arc::clone(&serving), Arc::clone(&info)));
                let (upload, mut session) = if session.is_body_empty() {
                    (Upload::None, ServerSession::new_http2(session))
                } else {
                    (Upload::Possible, ServerSession::new_custom(Box::new(H2Upload::new(session))))
                };
                session.set_read_timeout(Some(limits.body_stall));
                session.set_write_timeout(Some(limits.write_stall));
                session.set_total_drain_timeout(Some(DRAIN_BODY));
                let tasks = worker.tasks.clone();
                tasks.spawn(async move {
                    let _serving = serving;
                    worker.app.serve(session, upload, &worker.stop).await;
                });
            }
            Event::Accepted(Ok(Some(H2Accept::Rejected))) => {
                malformed += 1;
                if malformed >= MALFORMED {
                    cut = true;
                    timer.set(sleep_until(Instant::now() + GOODBYE));
                    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                }
            }
            // The connection has ended, well or badly.
            Event::Accepted(Ok(None) | Err(_)) => return,
            Event::Stop => {
                leaving = true;
                connection.graceful_shutdown();
            }
            Event::Flood(flood) => {
                worker.shared.observer.flooded(flood);
                cut = true;
                timer.set(sleep_until(Instant::now() + GOODBYE));
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
            Event::Timer if cut => return,
            Event::Timer if serving.load(Ordering::Relaxed) > 0 => {
                idle_since = Instant::now();
                timer.as_mut().reset(worker.shared.look_again(idle_since));
            }
            Event::Timer if leaving || !info.greeted.load(Ordering::Relaxed) => return,
            Event::Timer => {
                if idle_since + worker.shared.idle() <= Instant::now() {
                    leaving = true;
                    connection.graceful_shutdown();
                    timer.set(sleep_until(Instant::now() + GOODBYE));
                } else {
                    timer.as_mut().reset(worker.shared.look_again(idle_since));
                }
            }
        }
    }
}

fn options(limits: &TransportLimits, streams: u32) -> H2Options {
    let mut options = H2Options::new();
    options
        .max_concurrent_streams(streams)
        .initial_window_size(limits.h2_stream_window)
        .initial_connection_window_size(limits.h2_connection_window)
        .max_header_list_size(u32::try_from(limits.head_bytes * HEADER_LIST).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER);
    options
}
