//! Connections of an origin.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::State;
use super::behaviour::{Refusal, respond};

pub(super) fn accept(listener: TcpListener, state: Arc<State>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let connection = state.connections.fetch_add(1, Ordering::Relaxed) + 1;
            let life = state.life.borrow().child_token();
            tokio::spawn(serve(tcp, connection, Arc::clone(&state), life));
        }
    }))
}

async fn serve(tcp: TcpStream, connection: u64, state: Arc<State>, life: CancellationToken) {
    state.open.fetch_add(1, Ordering::Relaxed);
    let _ = tcp.set_nodelay(true);
    let service = service_fn(|request| {
        let (state, life) = (Arc::clone(&state), life.clone());
        async move {
            match respond(request, connection, &state, &life).await {
                Ok(response) => Ok::<_, Infallible>(response),
                Err(Refusal::Close) => {
                    life.cancel();
                    std::future::pending().await
                }
            }
        }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().keep_alive(true).half_close(false);
    tokio::select! {
        _ = http.serve_connection_with_upgrades(TokioIo::new(tcp), service) => {}
        () = life.cancelled() => {}
    }
    state.open.fetch_sub(1, Ordering::Relaxed);
}
