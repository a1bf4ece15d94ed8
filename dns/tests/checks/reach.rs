//! What is at port 80 of the addresses found.

use std::net::SocketAddr;

use schoolgate_dns::{Axis, Code, Hinders, Probe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::world::{NAME, THUMBPRINT, World};

/// A server that gives every request the answer that `answer` makes of it.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => break,
                    }
                }
                // A client that has gone is not of interest.
                let _ = stream.write_all(answer(&String::from_utf8_lossy(&request)).as_bytes()).await;
            }
        });
        Self { address, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The token that a request asks for; of another request, none.
fn token(request: &str) -> &str {
    let path = request.strip_prefix("GET /.well-known/acme-challenge/").unwrap_or_default();
    assert!(request.contains(&format!("\r\nHost: {NAME}\r\n")), "{request}");
    path.split(' ').next().unwrap_or_default()
}

#[tokio::test]
async fn a_gateway_that_answers_challenges_is_found() {
    let server =
        Server::start(|request| format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}.{THUMBPRINT}", token(request)))
            .await;
    let world = World::looking_at(server.address).await;
    let seen = world.check().await;
    assert_eq!((seen.findings, seen.hindrances), (vec![], vec![]));
}

#[tokio::test]
async fn another_server_in_our_place_is_named_and_holds_the_order() {
    let server = Server::start(|_| "HTTP/1.1 404 Not Found\r\nServer: OldPress\r\n\r\nno such page".to_owned()).await;
    let world = World::looking_at(server.address).await;
    let finding = world.only(Axis::Certificate, Code::ForeignServer).await;
    assert_eq!(finding.found.as_deref(), Some("OldPress, status 404"));
    assert!(finding.expected.contains("127.0.0.1") && finding.fix.contains("dns.probe"), "{finding:?}");
    let seen = world.check().await;
    assert_eq!(seen.hindrances.iter().map(|h| h.hinders).collect::<Vec<_>>(), [Hinders::Looking]);
}

#[tokio::test]
async fn a_redirect_is_named_and_holds_nothing() {
    let server =
        Server::start(|_| format!("HTTP/1.1 301 Moved\r\nLocation: https://{NAME}/\r\nContent-Length: 0\r\n\r\n"))
            .await;
    let world = World::looking_at(server.address).await;
    let finding = world.only(Axis::Certificate, Code::HttpRedirected).await;
    assert_eq!(finding.found, Some(format!("a redirect to https://{NAME}/")));
    assert_eq!(world.check().await.hindrances, []);
}

#[tokio::test]
async fn a_port_that_is_shut_and_one_that_does_not_speak_http() {
    let reserved = schoolgate_testkit::ReservedPort::new();
    let world = World::looking_at(reserved.addr()).await;
    let finding = world.only(Axis::Certificate, Code::HttpUnreachable).await;
    assert!(finding.found.is_some_and(|found| found.contains("refused")));
    assert_eq!(world.check().await.hindrances, [], "what we cannot reach, others may");

    let server = Server::start(|_| "SSH-2.0-OpenSSH_9\r\n".to_owned()).await;
    let world = World::looking_at(server.address).await;
    let finding = world.only(Axis::Certificate, Code::HttpUnreachable).await;
    assert_eq!(finding.found.as_deref(), Some("an answer that is not HTTP"));
}

#[tokio::test]
async fn private_addresses_and_those_that_are_not_ours_are_not_knocked_at() {
    let server = Server::start(|_| panic!("it was asked")).await;
    let mut world = World::looking_at(server.address).await;
    world.probe.probe = Probe::Public;
    assert_eq!(world.check().await.findings, []);
    world.probe.probe = Probe::Off;
    assert_eq!(world.check().await.findings, []);
    world.probe.probe = Probe::Any;
    world.dns.records.remove(NAME, "CNAME");
    world.dns.records.add(&format!("{NAME} A 127.0.0.1"));
    world.dns.records.remove(crate::world::TARGET, "A");
    world.only(Axis::Routing, Code::NotPointingHere).await;
    assert!(!server.task.is_finished(), "nobody came");
}
