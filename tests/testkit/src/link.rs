//! A TCP path between two parts that a test can make slow, silent or gone.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How bytes travel at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Pass,
    Delay(Duration),
    Stall,
    Mute,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the target.
    There,
    /// From the target.
    Back,
}

impl Traffic {
    fn flows(self, way: Way) -> bool {
        match self {
            Self::Pass | Self::Delay(_) => true,
            Self::Stall => false,
            Self::Mute => way == Way::There,
        }
    }
}

/// Forwards connections from its own port to a target.
#[derive(Debug)]
pub struct Link {
    addr: SocketAddr,
    inner: Arc<Inner>,
    accepting: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    target: watch::Sender<SocketAddr>,
    traffic: watch::Sender<Traffic>,
    /// Cancelled to cut what is open; replaced at once, so that new connections live.
    open: watch::Sender<CancellationToken>,
    connections: AtomicU64,
}

impl Link {
    /// A path to `target`, which need not listen yet.
    pub async fn to(target: SocketAddr) -> Self {
        let inner = Arc::new(Inner {
            target: watch::Sender::new(target),
            traffic: watch::Sender::new(Traffic::Pass),
            open: watch::Sender::new(CancellationToken::new()),
            connections: AtomicU64::new(0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let accepting = Some(accept(listener, Arc::clone(&inner)));
        Self { addr, inner, accepting }
    }

    /// Where to connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.inner.connections.load(Ordering::Relaxed)
    }

    /// New connections go there.
    pub fn retarget(&self, target: SocketAddr) {
        self.inner.target.send_replace(target);
    }

    /// Bytes travel at once.
    pub fn pass(&self) {
        self.inner.traffic.send_replace(Traffic::Pass);
    }

    /// Every piece travels this much later, in each direction.
    pub fn delay(&self, by: Duration) {
        self.inner.traffic.send_replace(Traffic::Delay(by));
    }

    /// Connections are accepted and stay open; no byte travels until [`Self::pass`].
    pub fn stall(&self) {
        self.inner.traffic.send_replace(Traffic::Stall);
    }

    /// What is sent arrives, and what is answered does not, until [`Self::pass`].
    pub fn mute(&self) {
        self.inner.traffic.send_replace(Traffic::Mute);
    }

    /// Resets every open connection; new ones are accepted.
    pub fn cut(&self) {
        self.inner.open.send_replace(CancellationToken::new()).cancel();
    }

    /// Cuts, and refuses new connections until [`Self::restore`].
    pub async fn refuse(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
            let _ = task.await;
        }
        self.cut();
    }

    /// Accepts again on the same port, and passes.
    pub async fn restore(&mut self) {
        self.pass();
        if self.accepting.is_none() {
            let listener = TcpListener::bind(self.addr).await.expect("the port is still ours");
            self.accepting = Some(accept(listener, Arc::clone(&self.inner)));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
    }
}

fn accept(listener: TcpListener, inner: Arc<Inner>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            inner.connections.fetch_add(1, Ordering::Relaxed);
            let open = inner.open.borrow().clone();
            let (target, traffic) = (*inner.target.borrow(), inner.traffic.subscribe());
            tokio::spawn(async move {
                tokio::select! {
                    () = forward(near, target, traffic) => {}
                    () = open.cancelled() => {}
                }
            });
        }
    }))
}

/// Dropping this future resets both sides: the sockets linger for zero seconds until both have finished by themselves.
async fn forward(near: TcpStream, target: SocketAddr, traffic: watch::Receiver<Traffic>) {
    let mut stalled = traffic.clone();
    let _ = stalled.wait_for(|t| *t != Traffic::Stall).await;
    let Ok(far) = TcpStream::connect(target).await else { return };
    for socket in [&near, &far] {
        let socket = socket2::SockRef::from(socket);
        let _ = socket.set_linger(Some(Duration::ZERO));
        let _ = socket.set_tcp_nodelay(true);
    }
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let (up, down) = tokio::join!(
        pipe(near_read, far_write, traffic.clone(), Way::There),
        pipe(far_read, near_write, traffic, Way::Back)
    );
    for half in [up, down].into_iter().flatten() {
        let _ = socket2::SockRef::from(half.as_ref()).set_linger(None);
    }
}

/// Copies until the end of one side, and ends the other. `None` when the path broke instead.
async fn pipe(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut traffic: watch::Receiver<Traffic>,
    way: Way,
) -> Option<OwnedWriteHalf> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = from.read(&mut buffer).await.ok()?;
        let now = *traffic.wait_for(|t| t.flows(way)).await.ok()?;
        if let Traffic::Delay(by) = now {
            tokio::time::sleep(by).await;
        }
        if n == 0 {
            to.shutdown().await.ok()?;
            return Some(to);
        }
        to.write_all(&buffer[..n]).await.ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, Mood, Origin};

    #[tokio::test]
    async fn a_link_passes_stalls_cuts_refuses_and_restores() {
        let origin = Origin::start().await;
        let mut link = Link::to(origin.addr()).await;
        let client = Client::plain(link.addr());
        assert_eq!(client.get("/").await.status(), 200);

        link.stall();
        assert!(tokio::time::timeout(Duration::from_millis(100), client.get("/")).await.is_err());
        link.pass();
        assert_eq!(client.get("/").await.status(), 200);

        link.mute();
        assert!(tokio::time::timeout(Duration::from_millis(100), client.get("/unheard")).await.is_err());
        crate::eventually(Duration::from_secs(5), || async { origin.seen().iter().any(|r| r.path == "/unheard") })
            .await;
        link.pass();

        origin.set_mood(Mood::Hang);
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.try_get("/hang").await }
        });
        crate::eventually(Duration::from_secs(5), || async { origin.seen().iter().any(|r| r.path == "/hang") }).await;
        link.cut();
        assert!(waiting.await.expect("no panic").is_err());

        origin.set_mood(Mood::Well);
        link.refuse().await;
        assert!(client.try_get("/").await.expect_err("refused").is_connect());
        link.restore().await;
        assert_eq!(client.get("/").await.status(), 200);
    }
}
