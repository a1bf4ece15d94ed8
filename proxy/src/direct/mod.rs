//! The direct way of an exchange: a request without a body, to a backend that speaks HTTP/1.1.
//!
//! That is most of what is asked of a school's platform. Pingora's `HttpProxy` drives every exchange through two
//! queues, a task per kept connection, and the hooks of its cache and modules; for such a request that costs more than
//! all that is ours (DECISIONS.md has the figures). Here the phases of [`Gateway`] are called one after another, on
//! Pingora's own server session.
//!
//! Whatever else comes (a body, another protocol, a backend with HTTP/2) takes `HttpProxy`, which calls the same
//! phases. Which way a request takes is nobody's business but this module's: it is decided before anything is sent.
//!
//! * `connection`: one connection to a backend, and what is read of it.
//! * `framing`: where an answer ends.
//! * `idle`: connections that wait for their next request.

mod connection;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod idle;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, HeaderValue, Method, Version};
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::server::ShutdownWatch;
use pingora_http::ResponseHeader;
use pingora_proxy::HttpProxy;
use schoolgate_config::model::BackendAddress;
use tracing::{debug, error};

use self::connection::{Broke, Connection, Head};
use self::idle::{Idle, Key};
use crate::balance::drain::Watched;
use crate::balance::retry::Failure;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::forward::request::drop_hop_by_hop;
use crate::gateway::{Gateway, Next, rewritten_target};
use crate::transport::{Held, SEND_BUFFER, Serve, Upload, conn_info};

/// Time that an exchange which is cut has to end by itself: 1 s. Nothing of it waits for anybody.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// Serves the requests of one worker: directly where that is enough.
pub struct Driver {
    gateway: Gateway,
    proxy: Arc<HttpProxy<Gateway>>,
    idle: Idle,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Driver")
    }
}

/// How an exchange ended.
enum End {
    /// The client has a whole answer.
    Whole,
    /// The client is gone, or has a part of an answer and must see that it broke off.
    Broken,
    /// Nothing was sent to anybody: it is for the other way.
    NotOurs,
}

/// Why an attempt did not come to its end.
enum Failed {
    /// As the connection to the backend says. `true`: it had carried another request before.
    Backend(Broke, Reused),
    /// Something of ours.
    Fault(Fault),
    /// The client is gone.
    Client,
    /// The backend chosen does not speak HTTP/1.1.
    NotOurs,
}

/// Whether a connection had carried a request before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reused {
    Yes,
    No,
}

impl Driver {
    /// Drives exchanges for one worker; at most `idle` connections to backends are kept.
    pub fn new(gateway: Gateway, proxy: HttpProxy<Gateway>, idle: usize) -> Self {
        Self { gateway, proxy: Arc::new(proxy), idle: Idle::new(idle) }
    }

    async fn exchange(&self, mut session: ServerSession, stop: &ShutdownWatch) -> Option<ReusedHttpStream> {
        if !matches!(session.read_request().await, Ok(true)) {
            // The head is whole, so it is none. The transport puts our answer in the place of this one.
            let _ = session.respond_error(400).await;
            session.shutdown().await;
            return None;
        }
        let mut exchange = self.gateway.begin();
        let end = self.forward(&mut session, &mut exchange).await;
        if let End::NotOurs = end {
            // It is counted again by the other way.
            self.gateway.forget(&exchange);
            drop(exchange);
            // The head is read again by the other way; nothing follows it.
            if let Some(h1) = session.as_http1() {
                let head = BytesMut::from(&*h1.get_headers_raw_bytes());
                session.set_pipelined_prefix(head);
            }
            return Box::pin(self.by_proxy(session, stop)).await;
        }
        let _ = self.gateway.guard(|| self.gateway.finished(&session, &exchange));
        drop(exchange);
        if let End::Broken = end {
            // A client must be able to tell a broken answer from a whole one.
            session.shutdown().await;
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let kept = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(kept, settings))
    }

    /// Lets Pingora drive the exchange, until the time of its backend is over.
    async fn by_proxy(&self, session: ServerSession, stop: &ShutdownWatch) -> Option<ReusedHttpStream> {
        let conn = conn_info(&session).filter(|conn| !conn.is_h2()).cloned();
        let watched = Arc::new(Watched::default());
        let mut serving = pin!(watched.clone().scope(self.proxy.process_new_http(session, stop)));
        tokio::select! {
            biased;
            served = &mut serving => return served,
            () = watched.over() => {}
        }
        // Of HTTP/2 it is one stream of many: to drop it resets it, and the others go on.
        let conn = conn?;
        conn.cut();
        // It finds its client gone, and ends as it does then: counted and logged.
        tokio::time::timeout(CUT_WITHIN, serving).await.ok().flatten()
    }

    async fn forward(&self, session: &mut ServerSession, exchange: &mut Exchange) -> End {
        match self.gateway.receive(session, exchange).await {
            Ok(false) => {}
            Ok(true) => return End::Whole,
            Err(_) => return End::Broken,
        }
        loop {
            let (failure, fault) = match self.attempt(session, exchange).await {
                Ok(()) => return End::Whole,
                Err(Failed::NotOurs) => return End::NotOurs,
                Err(Failed::Client) => return End::Broken,
                Err(Failed::Fault(fault)) => (Failure::Final, fault),
                Err(Failed::Backend(broke, reused)) => {
                    debug!(request.id = %exchange.request_id, "the backend failed: {broke}");
                    broke.meaning(reused == Reused::Yes)
                }
            };
            if self.gateway.after_failure(session, exchange, failure) {
                continue;
            }
            exchange.fault = Some(fault);
            return self.say(session, exchange, fault).await;
        }
    }

    /// Answers with a fault, unless a part of a backend's answer has gone out.
    async fn say(&self, session: &mut ServerSession, exchange: &Exchange, fault: Fault) -> End {
        let id = &exchange.request_id;
        if fault == Fault::Internal {
            error!(request.id = %id, "request {id} failed inside");
        }
        if session.response_written().is_some() {
            return End::Broken;
        }
        let answer = Gateway::told(fault, session, exchange);
        if answer.send(session, true).await.is_ok() { End::Whole } else { End::Broken }
    }

    async fn attempt(&self, session: &mut ServerSession, exchange: &mut Exchange) -> Result<(), Failed> {
        let gateway = &self.gateway;
        let next = gateway.guard(|| gateway.attempt(session, exchange)).and_then(|next| next).map_err(Failed::Fault)?;
        if exchange.head.upgrade || matches!(next.backend.address, BackendAddress::H2c(_) | BackendAddress::Https(_)) {
            return Err(Failed::NotOurs);
        }
        let key = Key::new(next.wants.group, &next.backend);
        let (mut connection, reused) = match self.idle.take(&key) {
            Some(kept) => (kept, Reused::Yes),
            None => {
                let made = Connection::open(&next.backend.address, &next.timeouts).await;
                (made.map_err(|broke| Failed::Backend(broke, Reused::No))?, Reused::No)
            }
        };
        exchange.times.connected = Some(exchange.elapsed());
        let request = gateway.guard(|| self.request(session, exchange)).map_err(Failed::Fault)?;
        let failed = |broke| Failed::Backend(broke, reused);
        connection.send(request, &next).await.map_err(failed)?;
        let head = self.head(&mut connection, session, &next, reused).await?;
        self.answer(connection, head, key, session, exchange, &next, reused).await
    }

    /// The request as the backend gets it.
    fn request(&self, session: &ServerSession, exchange: &Exchange) -> Bytes {
        let request = session.req_header();
        let mut headers = request.headers.clone();
        drop_hop_by_hop(&mut headers);
        self.gateway.rewrite_fields(session, &mut headers, exchange);
        let changed = rewritten_target(request, exchange);
        let target = changed.as_deref().map_or_else(|| request.raw_path(), str::as_bytes);
        framing::request(request.method.as_str(), target, &headers)
    }

    /// Waits for the head of the final answer; what comes before it is passed on.
    async fn head(
        &self,
        connection: &mut Connection,
        session: &mut ServerSession,
        next: &Next,
        reused: Reused,
    ) -> Result<Head, Failed> {
        loop {
            let head = connection.head(session, next).await?.map_err(|broke| Failed::Backend(broke, reused))?;
            if !head.status.is_informational() {
                return Ok(head);
            }
            // HTTP/1.0 knows none (RFC 9110 section 15.2).
            if session.req_header().version != Version::HTTP_10 {
                let head = response_header(head.status, head.headers);
                session.write_response_header(head).await.map_err(|_| Failed::Client)?;
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parties of an exchange, each named")]
    async fn answer(
        &self,
        mut connection: Connection,
        head: Head,
        key: Key,
        session: &mut ServerSession,
        exchange: &mut Exchange,
        next: &Next,
        reused: Reused,
    ) -> Result<(), Failed> {
        let gateway = &self.gateway;
        let is_head = session.req_header().method == Method::HEAD;
        let failed = |broke| Failed::Backend(broke, reused);
        let mut body = connection.body(&head, is_head).map_err(failed)?;
        let Head { status, mut headers, .. } = head;
        let fields = || {
            gateway.answered(status, exchange);
            // Framed anew: chunks end here, and whatever has no length gets them where the client knows them.
            let length_unknown = body.is_chunked_or_open();
            headers.remove(TRANSFER_ENCODING);
            if length_unknown && session.req_header().version == Version::HTTP_11 {
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            gateway.rewrite_answer(session, status, &mut headers, exchange);
            headers
        };
        let headers = gateway.guard(fields).map_err(Failed::Fault)?;
        let mut piece = connection.piece(&mut body).map_err(failed)?;
        let mut tasks = Vec::with_capacity(2);
        tasks.push(HttpTask::Header(response_header(status, headers), body.is_done() && piece.is_none()));
        loop {
            let done = body.is_done();
            if done {
                tasks.extend(piece.map(|piece| HttpTask::Body(Some(piece), true)).or_else(|| {
                    // The end came after the last piece had gone out.
                    tasks.is_empty().then_some(HttpTask::Done)
                }));
                // Before the client is written to: the backend's part is over.
                if let Some(kept) = connection.keep(&body) {
                    self.idle.put(key, kept, &next.timeouts);
                }
                write(session, tasks).await?;
                return Ok(());
            }
            tasks.extend(piece.map(|piece| HttpTask::Body(Some(piece), false)));
            if !tasks.is_empty() {
                write(session, std::mem::take(&mut tasks)).await?;
            }
            piece = connection.more(&mut body, session, next).await?.map_err(failed)?;
        }
    }
}

/// Writes to the client. What it does not take at once counts as held for it.
async fn write(session: &mut ServerSession, tasks: Vec<HttpTask>) -> Result<(), Failed> {
    let pieces = tasks.iter().map(|task| if let HttpTask::Body(Some(piece), _) = task { piece.len() } else { 0 });
    // On HTTP/2, pieces before these may be waiting in the driver.
    let before = if session.is_http2() { session.body_bytes_sent().min(SEND_BUFFER) } else { 0 };
    let waiting = before + pieces.sum::<usize>();
    let conn = conn_info(session).cloned();
    let mut held = None;
    let mut writing = pin!(session.response_duplex_vec(tasks));
    let written = poll_fn(|cx| {
        let written = writing.as_mut().poll(cx);
        if written.is_pending() && held.is_none() {
            held = conn.as_ref().map(|conn| Held::of(conn.budget(), waiting));
        }
        written
    });
    written.await.map(drop).map_err(|_| Failed::Client)
}

fn response_header(status: http::StatusCode, headers: HeaderMap) -> Box<ResponseHeader> {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    parts.headers = headers;
    Box::new(ResponseHeader::from(parts))
}

impl Serve for Driver {
    async fn serve(
        self: &Arc<Self>,
        session: ServerSession,
        upload: Upload,
        stop: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        match upload {
            Upload::None => self.exchange(session, stop).await,
            // In a box: what it needs would be memory of every exchange, and copied with it.
            Upload::Possible => Box::pin(self.by_proxy(session, stop)).await,
        }
    }

    async fn let_go(&self) {
        self.idle.clear();
        self.proxy.http_cleanup().await;
    }
}
