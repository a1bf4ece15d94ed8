//! Active checks: one task asks every backend of every pool in turn.
//!
//! The task reads the current table on every round, so a new pool is checked within 100 ms and a removed one no
//! more. A check uses a connection of its own: it must find out what a new request would meet.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use schoolgate_config::model::{BackendAddress, BackendId, BackendState, HealthCheck, Probe};
use schoolgate_config::table::RoutingTable;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::pool::LiveBackend;
use crate::live::NodeLive;

/// How often the task looks which checks are due: 100 ms, a tenth of the default interval.
const ROUND: Duration = Duration::from_millis(100);

/// Checks at once: 64. With the default timeout of 1 s and every backend hanging, that is still 64 a second.
const AT_ONCE: usize = 64;

/// What is to be checked.
type Table = Arc<ArcSwap<RoutingTable<NodeLive>>>;

/// A check that is due.
type Due = (Arc<LiveBackend>, HealthCheck);

/// Checks the backends of the current table until the future is dropped.
pub async fn run(table: Table) {
    let mut due_at: HashMap<BackendId, Instant> = HashMap::new();
    let mut waiting: VecDeque<Due> = VecDeque::new();
    let mut running: JoinSet<()> = JoinSet::new();
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // What was due has begun before more is looked for: each backend has its turn, however many there are.
            _ = rounds.tick(), if waiting.is_empty() => find_due(&table.load(), &mut due_at, &mut waiting),
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
        while running.len() < AT_ONCE
            && let Some((backend, rule)) = waiting.pop_front()
        {
            running.spawn(async move { check_and_note(&backend, &rule).await });
        }
    }
}

fn find_due(table: &RoutingTable<NodeLive>, due_at: &mut HashMap<BackendId, Instant>, waiting: &mut VecDeque<Due>) {
    let now = Instant::now();
    let mut present = 0;
    for entry in table.pools() {
        let Some(rule) = &entry.pool.health_check else { continue };
        for member in entry.live.members() {
            if member.state == BackendState::Disabled {
                continue;
            }
            present += 1;
            let interval = Duration::from_millis(rule.interval_ms.max(1));
            // The first check at once: until then a backend counts as healthy.
            let at = due_at.entry(member.backend.id).or_insert(now);
            if *at > now {
                continue;
            }
            // No two checks of one backend at once: the next is due after this one's time is over.
            *at = now + interval.max(Duration::from_millis(rule.timeout_ms)).mul_f64(fastrand::f64().mul_add(0.2, 0.9));
            waiting.push_back((member.backend.clone(), rule.clone()));
        }
    }
    if due_at.len() > present * 2 + 64 {
        // Backends that are gone. The others are merely checked a moment early.
        due_at.clear();
    }
}

async fn check_and_note(backend: &Arc<LiveBackend>, rule: &HealthCheck) {
    let limit = Duration::from_millis(rule.timeout_ms);
    let outcome = match &rule.probe {
        Probe::Http { path, expect: (first, last) } => match timeout(limit, status_of(&backend.address, path)).await {
            Ok(Ok(status)) if (*first..=*last).contains(&status) => Ok(()),
            Ok(Ok(status)) => Err(format!("GET {path} answered {status}")),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("GET {path} had no answer within {} ms", rule.timeout_ms)),
        },
        Probe::Tcp => match timeout(limit, connect(&backend.address)).await {
            Ok(connected) => connected,
            Err(_) => Err(format!("no connection within {} ms", rule.timeout_ms)),
        },
    };
    if backend.checked(&outcome, rule.healthy_after, rule.unhealthy_after) {
        match outcome {
            Ok(()) => info!(pool.id = %backend.pool, backend.addr = %backend.address, "{} is healthy", backend.address),
            Err(why) => {
                warn!(pool.id = %backend.pool, backend.addr = %backend.address, "{} is unhealthy: {why}", backend.address);
            }
        }
    }
}

fn no_connection(error: std::io::Error) -> String {
    format!("no connection: {error}")
}

/// Connects, and hangs up.
async fn connect(address: &BackendAddress) -> Result<(), String> {
    match address {
        BackendAddress::Http(addr) | BackendAddress::H2c(addr) => {
            TcpStream::connect(addr).await.map(drop).map_err(no_connection)
        }
        BackendAddress::Unix(socket) => UnixStream::connect(socket).await.map(drop).map_err(no_connection),
    }
}

/// Asks for `path` and reads the whole answer.
async fn status_of(address: &BackendAddress, path: &str) -> Result<u16, String> {
    match address {
        BackendAddress::Http(addr) => {
            let stream = TcpStream::connect(addr).await.map_err(no_connection)?;
            ask_h1(stream, &addr.to_string(), path).await
        }
        BackendAddress::Unix(socket) => {
            let stream = UnixStream::connect(socket).await.map_err(no_connection)?;
            ask_h1(stream, "localhost", path).await
        }
        BackendAddress::H2c(addr) => {
            let stream = TcpStream::connect(addr).await.map_err(no_connection)?;
            ask_h2(stream, &addr.to_string(), path).await.map_err(|e| format!("no answer: {e}"))
        }
    }
}

async fn ask_h1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    host: &str,
    path: &str,
) -> Result<u16, String> {
    let no_answer = |e: hyper::Error| format!("no answer: {e}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header("host", host)
        .header("user-agent", "schoolgate-health")
        .body(Empty::<Bytes>::new())
        .map_err(|e| format!("the check is no request: {e}"))?;
    let asking = async {
        let mut answer = sender.send_request(request).await?;
        while let Some(frame) = answer.body_mut().frame().await {
            frame?;
        }
        Ok(answer.status().as_u16())
    };
    let mut asking = pin!(asking);
    tokio::select! {
        answer = &mut asking => return answer.map_err(no_answer),
        // With the answer, or with trouble that the answer then tells of.
        _ = connection => {}
    }
    asking.await.map_err(no_answer)
}

async fn ask_h2(stream: TcpStream, host: &str, path: &str) -> Result<u16, h2::Error> {
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let uri = format!("http://{host}{path}");
    let asking = async {
        let request = Request::builder().uri(uri).body(()).map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
        let (answer, _) = client.send_request(request, true)?;
        let mut answer = answer.await?;
        while let Some(piece) = answer.body_mut().data().await {
            let length = piece?.len();
            answer.body_mut().flow_control().release_capacity(length)?;
        }
        Ok(answer.status().as_u16())
    };
    let mut asking = pin!(asking);
    tokio::select! {
        answer = &mut asking => return answer,
        _ = connection => {}
    }
    asking.await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::pool::tests::pool;
    use super::super::{LivePool, Member};
    use super::*;

    async fn origin(answer: &'static [u8]) -> BackendAddress {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer).await;
            }
        });
        BackendAddress::Http(address)
    }

    async fn checked(address: BackendAddress) -> Option<String> {
        checked_by(HealthCheck { timeout_ms: 2_000, ..HealthCheck::default() }, address).await
    }

    async fn checked_by(rule: HealthCheck, address: BackendAddress) -> Option<String> {
        let mut pool = pool(&[1]);
        pool.backends[0].address = address;
        let live = LivePool::new(&pool, 1);
        let Member { backend, .. } = &live.members()[0];
        check_and_note(backend, &rule).await;
        assert_eq!(backend.is_unhealthy(), backend.reason().is_some());
        backend.reason()
    }

    #[tokio::test]
    async fn an_expected_status_is_healthy_and_any_other_is_not() {
        let good = origin(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(checked(good).await, None);
        let bad = origin(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(checked(bad).await.as_deref(), Some("GET /healthz answered 503"));
    }

    #[tokio::test]
    async fn what_does_not_answer_is_unhealthy_and_says_why() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        assert!(checked(BackendAddress::Http(nobody)).await.is_some_and(|why| why.starts_with("no connection: ")));
        let mute = origin(b"").await;
        assert!(checked(mute).await.is_some_and(|why| why.starts_with("no answer")));
    }

    #[tokio::test]
    async fn who_listens_is_healthy_to_a_check_that_connects_whatever_it_says() {
        let rule = || HealthCheck { unhealthy_after: 1, ..HealthCheck::connects() };
        assert_eq!(checked_by(rule(), origin(b"").await).await, None);
        let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let why = checked_by(rule(), BackendAddress::H2c(nobody)).await;
        assert!(why.is_some_and(|why| why.starts_with("no connection: ")));
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("app.sock");
        let _listens = tokio::net::UnixListener::bind(&socket).expect("a socket");
        assert_eq!(checked_by(rule(), BackendAddress::Unix(socket)).await, None);
        assert!(checked_by(rule(), BackendAddress::Unix(dir.path().join("none"))).await.is_some());
    }

    #[tokio::test]
    async fn a_backend_that_speaks_http_2_is_asked_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let answer = http::Response::builder().status(200).body(()).expect("an answer");
                respond.send_response(answer, true).expect("sent");
            }
        });
        assert_eq!(checked(BackendAddress::H2c(address)).await, None);
    }
}
