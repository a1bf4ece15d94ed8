//! A request of HTTP/2 that has a body, as Pingora's proxy sees it.
//!
//! Pingora's own session waits for the body of such a request for as long as the client likes. This one is that session
//! with a deadline: everything is passed on to it, and a body that stands still is an error, as it is on HTTP/1.1.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::http::v2::server::HttpSession;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::time::{Instant, timeout_at};

/// What Pingora takes messages beside the body from; HTTP/2 has none.
type Messages = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

/// See the module.
pub(super) struct H2Upload {
    session: HttpSession,
    /// How long the body may stand still while it is waited for.
    stall: Option<Duration>,
    /// Since when the next piece is waited for. Kept here, because a read is given up and begun again whenever something
    /// else happens.
    waiting_since: Option<Instant>,
}

impl H2Upload {
    pub(super) fn new(session: HttpSession) -> Self {
        Self { session, stall: None, waiting_since: None }
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        let Some(stall) = self.stall else { return self.session.read_body_bytes().await };
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let Ok(read) = timeout_at(since + stall, self.session.read_body_bytes()).await else {
            return Err(Error::new_down(ErrorType::ReadTimedout));
        };
        self.waiting_since = None;
        read
    }
}

#[async_trait]
impl Session for H2Upload {
    fn req_header(&self) -> &RequestHeader {
        self.session.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.session.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read().await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.session.is_body_done() {
            return self.session.read_body_or_idle(true).await;
        }
        self.read().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.session.drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.session.write_response_header(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.session.write_response_header_ref(head, end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.session.write_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.session.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        // While the answer moves, a call that goes both ways may have nothing to say.
        self.waiting_since = None;
        self.session.response_duplex_vec(tasks).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.stall = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.stall
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.session.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.session.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.session.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.session.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.session.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.session.response_written()
    }

    async fn shutdown(&mut self, code: u32, _: &str) {
        self.session.shutdown_with_reason(code.into());
    }

    async fn abandon(&mut self, _: &str) {
        self.session.shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        self.session.is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        self.session.is_body_empty()
    }

    async fn finish(&mut self) -> Result<()> {
        self.session.finish()
    }

    fn body_bytes_sent(&self) -> usize {
        self.session.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.session.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.session.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.session.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.session.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.session.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.session.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.session.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.session.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.session.get_retry_buffer()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        None
    }

    fn restore_custom_message_reader(&mut self, _: Messages) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
