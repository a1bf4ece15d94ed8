//! A control plane that knows one snapshot: enough for a proxy to be measured with 100,000 domains, without filling a
//! database first. It speaks the feed of `schoolgate_config::feed`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::feed::FeedAnswer;
use schoolgate_config::snapshot::Snapshot;

/// Longest wait before "nothing new", whatever the proxy asks for: the threads end with the process.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Serves a snapshot for the rest of the process's life.
pub(crate) fn serve(snapshot: Snapshot) -> anyhow::Result<SocketAddr> {
    let revision = snapshot.revision.0;
    let bytes = Arc::new(FeedAnswer::Snapshot(snapshot).encode());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let bytes = Arc::clone(&bytes);
            std::thread::spawn(move || while answer(&stream, revision, &bytes).is_some() {});
        }
    });
    Ok(addr)
}

/// Answers one request. `None`: the connection is over.
fn answer(stream: &TcpStream, revision: u64, snapshot: &[u8]) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let target = line.split(' ').nth(1)?.to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        match line.trim().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    let body: &[u8] = if !target.starts_with("/internal/v1/feed") {
        b"{}"
    } else if query(&target, "after").unwrap_or(0) < revision {
        snapshot
    } else {
        std::thread::sleep(Duration::from_millis(query(&target, "wait_ms").unwrap_or(0)).min(LONGEST_WAIT));
        b""
    };
    let mut stream = stream;
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).ok()?;
    stream.write_all(body).ok()
}

fn query(target: &str, key: &str) -> Option<u64> {
    target.split_once('?')?.1.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::Revision;

    use super::*;

    #[test]
    fn a_proxy_gets_the_snapshot_then_nothing_new() {
        let snapshot = Snapshot { revision: Revision(1), objects: Vec::new() };
        let addr = serve(snapshot.clone()).expect("serves");
        let mut stream = TcpStream::connect(addr).expect("connects");
        let mut ask = |after: u64| {
            write!(stream, "GET /internal/v1/feed?node=n&after={after}&wait_ms=1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut reader = BufReader::new(&stream);
            let mut length = 0;
            for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            FeedAnswer::decode(&body).expect("whole")
        };
        assert_eq!(ask(0), FeedAnswer::Snapshot(snapshot));
        assert_eq!(ask(1), FeedAnswer::Nothing);
    }
}
