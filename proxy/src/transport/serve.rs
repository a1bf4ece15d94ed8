//! Serve: what the transport hands a request to.

use std::sync::Arc;

use pingora_core::apps::{HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::{HttpProxy, ProxyHttp};

/// What is known of a request's body before the request is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// There is none, and no other protocol is asked for.
    None,
    /// There may be one.
    Possible,
}

/// Serves the requests of one worker.
pub trait Serve: Send + Sync + 'static {
    /// Serves one request, whose head has arrived. Gives the connection back if it can carry another (HTTP/1.1).
    fn serve(
        self: &Arc<Self>,
        session: ServerSession,
        upload: Upload,
        stop: &ShutdownWatch,
    ) -> impl Future<Output = Option<ReusedHttpStream>> + Send;

    /// Lets go of what idles: the worker is stopping.
    fn let_go(&self) -> impl Future<Output = ()> + Send;
}

impl<SV> Serve for HttpProxy<SV>
where
    SV: ProxyHttp + Send + Sync + 'static,
    SV::CTX: Send + Sync,
{
    async fn serve(
        self: &Arc<Self>,
        session: ServerSession,
        _: Upload,
        stop: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.process_new_http(session, stop).await
    }

    async fn let_go(&self) {
        self.http_cleanup().await;
    }
}
