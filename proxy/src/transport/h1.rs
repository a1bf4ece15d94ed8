//! The HTTP/1.1 keep-alive loop.
//!
//! Between two requests only the stream is alive, no session of Pingora's: that is most of the memory of an idle
//! connection. A request goes to Pingora when its whole head has arrived.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::BytesMut;
use pingora_core::protocols::http::ServerSession;
use schoolgate_config::time::{Clock, SystemClock};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::edge::{Shared, Worker};
use super::head::{HeadScan, Whole};
use super::{EdgeIo, HeadFault, Held, Serve, Upload};
use crate::answer::early;
use crate::forward::request_id::RequestId;

/// Time for Pingora to read what is left of a body that nobody wanted, so that the connection can be used again: 1 s.
pub(super) const DRAIN_BODY: std::time::Duration = std::time::Duration::from_secs(1);

/// How waiting for a request ended.
enum Next {
    /// A whole head is there.
    Head(Whole),
    /// The client hung up, idled too long, or we are stopping.
    Close,
    /// A head that cannot become a request.
    Fault(HeadFault),
}

/// The times between requests. Kept over the requests of a connection, so that the timer is set once in a while and not
/// with every request.
struct Patience<'a> {
    shared: &'a Shared,
    idle: Pin<&'a mut Sleep>,
    idle_since: Instant,
    /// The lame duck time, once the edge is stopping.
    leaving: Option<Pin<Box<Sleep>>>,
    /// What is here of a head that is not whole.
    held: Held,
}

/// Serves requests until the connection ends.
pub(super) async fn serve<A: Serve>(worker: &Worker<A>, mut io: Box<EdgeIo>) {
    let limits = &worker.shared.limits;
    let mut watch = worker.stop.clone();
    let mut stopped = pin!(async move {
        let _ = watch.wait_for(|stopping| *stopping).await;
    });
    let idle = pin!(sleep_until(worker.shared.look_again(Instant::now())));
    let held = Held::of(&worker.shared.budget, 0);
    let mut patience = Patience { shared: &worker.shared, idle, idle_since: Instant::now(), leaving: None, held };
    let mut carried = None;
    loop {
        let mut head = io.take_ahead();
        let mut scan = HeadScan::default();
        let mut whole_by = None;
        let next =
            poll_fn(|cx| next(&mut io, &mut head, &mut scan, &mut whole_by, &mut patience, stopped.as_mut(), cx));
        let upload = match next.await {
            Next::Head(whole) => {
                patience.held.set(0);
                if io.begin(&mut head, whole).is_err() {
                    return refuse(worker, io, HeadFault::Invalid, &head).await;
                }
                if whole.body.is_empty() { Upload::None } else { Upload::Possible }
            }
            Next::Close => return io.close().await,
            Next::Fault(fault) => return refuse(worker, io, fault, &head).await,
        };
        let requests = io.info().begin_request();
        let aged = worker.shared.has_aged(io.info(), patience.idle_since);
        let last = requests >= limits.requests_h1 || aged || *worker.stop.borrow();
        let mut session = ServerSession::new_http1(io);
        if let Some(settings) = Option::take(&mut carried) {
            pingora_core::apps::HttpPersistentSettings::apply_to_session(settings, &mut session);
        }
        session.set_pipelined_prefix(head);
        session.set_keepalive_reuses_remaining(last.then_some(0));
        session.set_read_timeout(Some(limits.body_stall));
        session.set_total_drain_timeout(Some(DRAIN_BODY));
        // In a box, which is gone when the request is over: its room would be a third of an idle connection's.
        let serving = Box::pin(worker.app.serve(session, upload, &worker.stop));
        let Some(reused) = serving.await else { return };
        let (stream, settings) = reused.consume();
        carried = settings;
        // The stream is the one we handed in; nothing else could come back.
        let Ok(same) = stream.into_any().downcast::<EdgeIo>() else { return };
        io = same;
        patience.idle_since = Instant::now();
    }
}

/// Waits for the next head.
fn next(
    io: &mut EdgeIo,
    head: &mut BytesMut,
    scan: &mut HeadScan,
    whole_by: &mut Option<Pin<Box<Sleep>>>,
    patience: &mut Patience<'_>,
    stopped: Pin<&mut impl Future<Output = ()>>,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    let limits = &patience.shared.limits;
    loop {
        match scan.feed(head, limits) {
            Ok(Some(whole)) => return Poll::Ready(Next::Head(whole)),
            Ok(None) => {}
            Err(fault) => return Poll::Ready(Next::Fault(fault)),
        }
        match io.poll_arrived(cx, head) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Close),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => break,
        }
    }
    if scan.has_begun() {
        patience.held.set(head.capacity());
        if patience.held.budget().is_spent() {
            return Poll::Ready(Next::Fault(HeadFault::Overloaded));
        }
        let whole_by = whole_by.get_or_insert_with(|| Box::pin(sleep(limits.head)));
        return whole_by.as_mut().poll(cx).map(|()| Next::Fault(HeadFault::Timeout));
    }
    patience.poll(stopped, cx).map(|()| Next::Close)
}

impl Patience<'_> {
    /// Ready when an idle connection has to go.
    fn poll(&mut self, stopped: Pin<&mut impl Future<Output = ()>>, cx: &mut Context<'_>) -> Poll<()> {
        if self.leaving.is_none() && stopped.poll(cx).is_ready() {
            self.leaving = Some(Box::pin(sleep(self.shared.limits.lame_duck)));
        }
        if let Some(leaving) = &mut self.leaving {
            return leaving.as_mut().poll(cx);
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            if self.idle_since + self.shared.idle() <= Instant::now() {
                return Poll::Ready(());
            }
            self.idle.as_mut().reset(self.shared.look_again(self.idle_since));
        }
        Poll::Pending
    }
}

/// Answers a head that never became a request, and hangs up.
async fn refuse<SV>(worker: &Worker<SV>, mut io: Box<EdgeIo>, fault: HeadFault, head: &[u8]) {
    worker.shared.observer.head_refused(fault);
    let answer = early(fault.fault(), head, &RequestId::new(SystemClock.unix_ms()));
    // The client may not read; the stall time of the stream is too long for it.
    let _ = timeout(DRAIN_BODY, io.write_all(&answer)).await;
    io.close().await;
}
