//! One connection, from accept to close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize};

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::admission::Permit;
use super::edge::{Listens, Shared, Worker};
use super::{
    ConnInfo, ConnectionRefusal, EdgeIo, HandshakeResult, Protocol, ProxyProtocol, Serve, TlsInfo, TlsVersion, h1, h2,
    proxy_header,
};

/// Tells the observer when a connection ends, however it ends.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.observer.connection_closed();
    }
}

/// Shakes hands, and hands the connection to a task of the protocol agreed on. A task of its own, so that an idle
/// connection holds the state of its protocol and no more.
pub(super) async fn serve<A: Serve>(
    worker: Arc<Worker<A>>,
    kind: Listens,
    tcp: TcpStream,
    peer: SocketAddr,
    mut permit: Permit,
) {
    worker.shared.observer.connection_opened();
    let open = Open(Arc::clone(&worker.shared));
    let Some(io) = establish(&worker.shared, kind, tcp, peer, &mut permit).await else { return };
    let tasks = worker.tasks.clone();
    if io.info().is_h2() {
        tasks.spawn(async move {
            let _held = (open, permit);
            h2::serve(&worker, io).await;
        });
    } else {
        tasks.spawn(async move {
            let _held = (open, permit);
            h1::serve(&worker, io).await;
        });
    }
}

/// From a TCP connection to a stream of requests: PROXY header and handshake, under one deadline.
async fn establish(
    shared: &Shared,
    kind: Listens,
    mut tcp: TcpStream,
    peer: SocketAddr,
    permit: &mut Permit,
) -> Option<Box<EdgeIo>> {
    let opened = Instant::now();
    let limits = &shared.limits;
    let deadline = opened + limits.handshake;
    let refused = |why: ConnectionRefusal| shared.observer.connection_refused(why);
    tcp.set_nodelay(true).ok()?;
    let local = tcp.local_addr().ok()?;
    let mut client = peer;
    if announced(peer, &limits.proxy_protocol) {
        match timeout_at(deadline, proxy_header::read(&mut tcp)).await {
            Ok(Ok(source)) => client = source.unwrap_or(peer),
            Ok(Err(_)) | Err(_) => {
                refused(ConnectionRefusal::ProxyHeader);
                return None;
            }
        }
    }
    permit.claim(client.ip()).map_err(refused).ok()?;
    let info = |tls: Option<TlsInfo>, protocol: Protocol| {
        let id = shared.next_connection();
        Arc::new(ConnInfo {
            id,
            client,
            peer,
            local,
            tls,
            protocol,
            opened,
            requests: AtomicU32::new(0),
            seen: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            greeted: AtomicBool::new(false),
            flood: AtomicU8::new(0),
            unanswered: AtomicU32::new(0),
            budget: Arc::clone(&shared.budget),
            unread: AtomicUsize::new(0),
        })
    };
    if kind == Listens::Http {
        return Some(Box::new(EdgeIo::plain(tcp, info(None, Protocol::H1), limits)));
    }
    shared.handshakes.begin(client.ip(), opened).map_err(refused).ok()?;
    let failed = |result: HandshakeResult| {
        shared.observer.handshake(TlsVersion::None, result);
        if result.is_clients_fault() {
            shared.handshakes.failed(client.ip(), Instant::now());
        }
    };
    let accepted = match timeout_at(deadline, shared.terms.accept(tcp)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(failure)) => {
            failed(failure.result);
            if let Some(name) = failure.unknown {
                shared.observer.unknown_name(&name);
            }
            return None;
        }
        Err(_) => {
            failed(HandshakeResult::Timeout);
            return None;
        }
    };
    let version = accepted.version;
    let result = if accepted.resumed { HandshakeResult::Resumed } else { HandshakeResult::Full };
    shared.observer.handshake(version, result);
    let (resumed, waiting) = (accepted.resumed, accepted.waiting);
    let tls = TlsInfo { sni: accepted.sni, version, resumed, waiting, handshake: opened.elapsed() };
    let protocol = if accepted.h2 { Protocol::H2 } else { Protocol::H1 };
    let ssl = Arc::clone(&shared.ssl[usize::from(version == TlsVersion::V13)]);
    Some(Box::new(EdgeIo::tls(accepted.stream, ssl, info(Some(tls), protocol), limits)))
}

/// Whether this peer begins with a PROXY header.
fn announced(peer: SocketAddr, setting: &ProxyProtocol) -> bool {
    match setting {
        ProxyProtocol::Off => false,
        ProxyProtocol::From(balancers) => {
            let peer = peer.ip().to_canonical();
            balancers.iter().any(|net| net.contains(&peer))
        }
    }
}
