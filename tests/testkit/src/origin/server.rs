//! Connections of an origin.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::behaviour::{Refusal, respond};
use super::process::TELL;
use super::{Mood, State};

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
    let mood = *state.mood.borrow();
    match (mood.raw(), &state.tls) {
        // Who tells it another mood is understood in every mood.
        (Some(bytes), _) if !is_told(&tcp).await => answer_raw(tcp, mood, bytes).await,
        (_, None) => serve_http(tcp, connection, &state, life).await,
        (_, Some(tls)) => {
            if let Ok(tls) = TlsAcceptor::from(Arc::clone(tls)).accept(tcp).await {
                serve_http(tls, connection, &state, life).await;
            }
        }
    }
    state.open.fetch_sub(1, Ordering::Relaxed);
}

/// Whether this is a request to change the mood.
async fn is_told(tcp: &TcpStream) -> bool {
    let mut begin = [0; 32];
    let length = tcp.peek(&mut begin).await.unwrap_or(0);
    begin[..length].starts_with(format!("GET {TELL}").as_bytes())
}

/// Reads a head, or what comes of it, and says what the mood says.
async fn answer_raw(mut tcp: TcpStream, mood: Mood, bytes: &[u8]) {
    let _ = tcp.read(&mut [0; 16 * 1024]).await;
    let _ = tcp.write_all(bytes).await;
    if mood == Mood::Reset {
        // Nothing waits to be sent, and the connection ends with RST.
        let _ = socket2::SockRef::from(&tcp).set_linger(Some(std::time::Duration::ZERO));
    }
}

async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    connection: u64,
    state: &Arc<State>,
    life: CancellationToken,
) {
    let service = service_fn(|request| {
        let (state, life) = (Arc::clone(state), life.clone());
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
        _ = http.serve_connection_with_upgrades(TokioIo::new(stream), service) => {}
        () = life.cancelled() => {}
    }
}
