//! A small HTTP/1.1 origin.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// * `/hello`: `hello`
/// * `/big/{bytes}`: so many bytes, see [`pattern`]
/// * `/count`: the number of bytes of the request's body, and whether they were the pattern
/// * `/echo`: the request's chunked body, chunk by chunk as it comes
/// * `/gate`: answers when [`Origin::gate`] has a permit
/// * `/pause`: `first`, and `later` when [`Origin::gate`] has a permit, as one body of known length
/// * any with `Upgrade`: 101, then what comes
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) waiting: Arc<Semaphore>,
}

/// Bytes that differ by place, so that a lost or doubled part shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at) as u8).collect()
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let waiting = Arc::new(Semaphore::new(0));
        let (gate_, waiting_) = (gate.clone(), waiting.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(tcp, gate_.clone(), waiting_.clone()));
            }
        });
        Self { address, gate, waiting }
    }
}

async fn serve(tcp: TcpStream, gate: Arc<Semaphore>, waiting: Arc<Semaphore>) -> Option<()> {
    tcp.set_nodelay(true).ok()?;
    let mut tcp = BufReader::new(tcp);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if tcp.read_until(b'\n', &mut head).await.ok()? == 0 {
                return None;
            }
        }
        let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
        let path = head.split(' ').nth(1)?.to_owned();
        let length: usize = head
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse().unwrap());
        if head.contains("upgrade: ") {
            tcp.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await
                .ok()?;
            let (mut from, mut to) = tokio::io::split(tcp);
            tokio::io::copy(&mut from, &mut to).await.ok()?;
            return None;
        }
        let body = match path.as_str() {
            "/hello" => b"hello".to_vec(),
            "/gate" => {
                waiting.add_permits(1);
                gate.acquire().await.ok()?.forget();
                b"through the gate".to_vec()
            }
            "/pause" => {
                tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await.ok()?;
                gate.acquire().await.ok()?.forget();
                tcp.write_all(b"later").await.ok()?;
                continue;
            }
            "/count" => {
                let mut body = vec![0; length];
                tcp.read_exact(&mut body).await.ok()?;
                format!("{length} {}", body == pattern(length)).into_bytes()
            }
            "/echo" => {
                tcp.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.ok()?;
                loop {
                    let mut size = String::new();
                    tcp.read_line(&mut size).await.ok()?;
                    let size_ = usize::from_str_radix(size.trim(), 16).ok()?;
                    let mut chunk = vec![0; size_ + 2];
                    tcp.read_exact(&mut chunk).await.ok()?;
                    tcp.write_all(size.as_bytes()).await.ok()?;
                    tcp.write_all(&chunk).await.ok()?;
                    if size_ == 0 {
                        break;
                    }
                }
                continue;
            }
            path => pattern(path.strip_prefix("/big/")?.parse().ok()?),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        tcp.write_all(head.as_bytes()).await.ok()?;
        tcp.write_all(&body).await.ok()?;
    }
}
