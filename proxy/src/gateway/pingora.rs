//! The phases as Pingora's `HttpProxy` calls them.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tracing::{debug, error};

use super::Gateway;
use super::target::forget_case;
use crate::balance::drain;
use crate::balance::retry::Failure;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::forward::{peer, trailers};
use crate::transport::{Held, conn_info};

/// Bytes of a body that the proxy machinery keeps, so that they can be sent again: 64 KiB, a constant of its.
const REPLAYED: usize = 64 * 1024;

/// Pieces of a body that wait between the client's side and the backend's, in each direction: 4, a constant of its.
const QUEUED: usize = 4;

/// The error that carries a fault through the proxy machinery.
fn stop(exchange: &mut Exchange, fault: Fault) -> Box<Error> {
    exchange.fault = Some(fault);
    Error::new_in(ErrorType::HTTPStatus(fault.status()))
}

/// How an attempt failed after it had a connection.
fn failure(error: &Error, reused: bool) -> Failure {
    use ErrorType as E;
    if error.esource != ErrorSource::Upstream {
        return Failure::Final;
    }
    match &error.etype {
        E::ReadTimedout | E::WriteTimedout => Failure::TimedOut,
        // An HTTP/2 backend that is going away refuses streams before it looks at them.
        E::H2Error | E::H2Downgrade if matches!(error.retry, pingora_error::RetryType::Decided(true)) => Failure::Stale,
        E::ConnectionClosed | E::ReadError | E::WriteError | E::H2Error if reused => Failure::Stale,
        // What is not HTTP may be another process at that address; another backend is more likely to be one.
        E::ConnectionClosed | E::ReadError | E::WriteError | E::H2Error | E::InvalidHTTPHeader => Failure::Broken,
        _ => Failure::Final,
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        self.begin()
    }

    /// None: what is not used costs nothing.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let answered = self.receive(session, exchange).await?;
        if !answered {
            forget_case(session.req_header_mut());
        }
        Ok(answered)
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        let attempt = self.guard(|| self.attempt(session, exchange)).and_then(|next| next);
        let peer = attempt.and_then(|next| {
            drain::watch(&next.backend);
            let tls = exchange.target.as_ref().and_then(|target| target.pool.live.tls.as_ref()?.as_ref().ok());
            peer::peer(&next.backend.address, &next.timeouts, next.wants, tls).map_err(|_| Fault::Upstream)
        });
        peer.map_err(|fault| stop(exchange, fault))
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _reused: bool,
        _: &HttpPeer,
        _: std::os::unix::io::RawFd,
        _: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.times.connected = Some(exchange.elapsed());
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        self.guard(|| self.rewrite_request(session, upstream, exchange)).map_err(|fault| stop(exchange, fault))
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let Some(body) = body else { return Ok(()) };
        let conn = conn_info(session);
        if let Some(conn) = conn {
            conn.read_body(body.len());
        }
        if session.was_upgraded() {
            exchange.body.passed(body.len());
            return Ok(());
        }
        exchange.body.received(body.len(), Instant::now).map_err(|fault| stop(exchange, fault))?;
        if let Some(conn) = conn {
            // After the last piece only what may be sent again is sure to be here.
            let queued = if end { 0 } else { QUEUED.saturating_mul(body.len()) };
            let most = u64::try_from(REPLAYED + queued).unwrap_or(u64::MAX);
            // It fits: no more than two numbers of this kind.
            let waiting = exchange.body.bytes().min(most) as usize;
            exchange.upward.get_or_insert_with(|| Held::of(conn.budget(), 0)).set(waiting);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        // It is asked for the next piece when the one before has been taken: that, and what is queued behind it, waits.
        if let (Some(body), Some(conn)) = (body, conn_info(session)) {
            let waiting = body.len().saturating_mul(1 + QUEUED);
            exchange.downward.get_or_insert_with(|| Held::of(conn.budget(), 0)).set(waiting);
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut HeaderMap,
        _: &mut Exchange,
    ) -> Result<Option<Bytes>> {
        trailers::keep_listed(trailers);
        Ok(None)
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        upstream: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let status = upstream.status;
        if status.is_informational() && status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        self.answered(status, exchange);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        _: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<std::time::Duration>> {
        if exchange.time_left().is_some_and(|left| left.is_zero()) {
            return Err(stop(exchange, Fault::UpstreamTimeout));
        }
        Ok(None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if answer.status.is_informational() && answer.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        let (empty, ()) = http::Response::new(()).into_parts();
        let mut parts: http::response::Parts = std::mem::replace(answer, ResponseHeader::from(empty)).into();
        self.rewrite_answer(session, parts.status, &mut parts.headers, exchange);
        *answer = ResponseHeader::from(parts);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let failure = if error.etype == ErrorType::ConnectRefused { Failure::Refused } else { Failure::NotConnected };
        let again = self.after_failure(session, exchange, failure);
        error.retry = again.into();
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        // Every error must leave here decided.
        let again = exchange.fault.is_none() && self.after_failure(session, exchange, failure(&error, reused));
        error.retry = again.into();
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Exchange) -> FailToProxy {
        let body_pending = !session.is_body_done();
        let fault = exchange.fault.or_else(|| Fault::of_error(error, body_pending));
        exchange.fault = fault;
        let (id, backend) = (&exchange.request_id, exchange.attempts.current.as_ref().map(|a| &a.backend().address));
        match fault {
            Some(Fault::Internal) => error!(request.id = %id, "request {id} failed inside: {error}"),
            _ => debug!(request.id = %id, backend = ?backend, "request {id} failed: {error}"),
        }
        let answered = session.response_written().is_some();
        if let Some(fault) = fault.filter(|_| !answered) {
            // The machinery does not go on with this connection, so the answer says so.
            let _ = Self::told(fault, session, exchange).send(session, false).await;
        } else {
            // A client must be able to tell a broken answer from a whole one.
            session.downstream_session.shutdown().await;
        }
        FailToProxy { error_code: fault.map_or(0, Fault::status), can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, exchange: &mut Exchange) {
        let _ = self.guard(|| self.finished(session, exchange));
    }

    /// What is worth a line is logged by [`Self::fail_to_proxy`], with the request's identifier.
    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Exchange, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}
