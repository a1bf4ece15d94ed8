//! A backend with a capacity: it works on so many requests at once, each for the same time; more wait in the order they
//! came, whosever they are. What a school app with a pool of workers does.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::Timespec;

/// Settings of the backend.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Requests at once.
    #[arg(long)]
    at_once: usize,
    /// Milliseconds that each takes.
    #[arg(long)]
    takes_ms: u64,
}

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nok\n";
const LISTENER: u64 = u64::MAX;

/// A connection, which has one request at a time. Its number is never used again.
struct Conn {
    number: usize,
    stream: TcpStream,
    read: Vec<u8>,
}

struct Workers {
    at_once: usize,
    takes: Duration,
    /// Connections whose request is worked on, and until when: all take the same time, so the first is done first.
    busy: VecDeque<(Instant, usize)>,
    waiting: VecDeque<usize>,
}

impl Workers {
    /// Those whose request is done at `now`; the places are taken by others that wait.
    fn done(&mut self, now: Instant) -> Vec<usize> {
        let mut done = Vec::new();
        while let Some((until, conn)) = self.busy.front().copied().filter(|(until, _)| *until <= now) {
            self.busy.pop_front();
            done.push(conn);
            // From when its worker was free, not from when we noticed.
            self.begin(until);
        }
        while self.busy.len() < self.at_once && self.begin(now) {}
        done
    }

    fn begin(&mut self, at: Instant) -> bool {
        let next = self.waiting.pop_front();
        self.busy.extend(next.map(|conn| (at + self.takes, conn)));
        next.is_some()
    }
}

/// Prints the port it listens on, then serves until killed.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut conns = std::collections::HashMap::<usize, Conn>::new();
    let (mut opened, mut events) = (0, Vec::with_capacity(1024));
    let mut workers = Workers {
        at_once: options.at_once,
        takes: Duration::from_millis(options.takes_ms),
        busy: VecDeque::new(),
        waiting: VecDeque::new(),
    };
    loop {
        let wait = workers.busy.front().map(|(until, _)| until.saturating_duration_since(Instant::now()));
        let wait =
            wait.map(|wait| Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: i64::from(wait.subsec_nanos()) });
        match epoll::wait(&poll, spare_capacity(&mut events), wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("epoll"),
        }
        for event in events.drain(..) {
            if event.data.u64() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll::add(&poll, &stream, epoll::EventData::new_u64(opened as u64), epoll::EventFlags::IN)?;
                    conns.insert(opened, Conn { number: opened, stream, read: Vec::new() });
                    opened += 1;
                }
                continue;
            }
            let number = usize::try_from(event.data.u64())?;
            match conns.get_mut(&number).map(Conn::read) {
                Some(Some(true)) => workers.waiting.push_back(number),
                Some(Some(false)) | None => {}
                // Its request is worked on all the same, as in most apps.
                Some(None) => drop(conns.remove(&number)),
            }
        }
        for number in workers.done(Instant::now()) {
            if conns.get_mut(&number).is_some_and(|conn| !conn.answer()) {
                conns.remove(&number);
            }
        }
    }
}

impl Conn {
    /// Reads what is there. Whether that made a request whole; `None`: the connection is over.
    fn read(&mut self) -> Option<bool> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => None,
            Ok(n) => {
                self.read.extend_from_slice(&buffer[..n]);
                let whole = self.read.ends_with(b"\r\n\r\n");
                if whole {
                    self.read.clear();
                }
                Some(whole)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Some(false),
            // A client went away while its request was worked on, and the proxy ended that here at once.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => None,
            Err(e) => {
                eprintln!("connection {}: {e}", self.number);
                None
            }
        }
    }

    /// A short answer into an empty socket goes whole.
    fn answer(&mut self) -> bool {
        self.stream.write_all(RESPONSE).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_worked_on_at_once_and_the_rest_in_the_order_they_came() {
        let takes = Duration::from_millis(40);
        let mut workers =
            Workers { at_once: 2, takes, busy: VecDeque::new(), waiting: VecDeque::from([1, 2, 3, 4, 5]) };
        let begin = Instant::now();
        assert!(workers.done(begin).is_empty());
        assert!(workers.done(begin + takes / 2).is_empty());
        assert_eq!(workers.done(begin + takes), [1, 2]);
        // Noticed late: both places were free at 80 ms, and the last was begun then.
        assert_eq!(workers.done(begin + takes * 5 / 2), [3, 4]);
        assert_eq!(workers.done(begin + takes * 3), [5]);
        assert!(workers.busy.is_empty());
    }
}
