//! The backend: answers a fixed body to every request, as cheaply as epoll allows, so that it is not what is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::Context;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

/// Settings of the origin.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What it writes into `x-origin`.
    #[arg(long, default_value = "origin")]
    name: String,
    /// Bytes of the body.
    #[arg(long, default_value_t = 1024)]
    body: usize,
}

const LISTENER: u64 = u64::MAX;

struct Conn {
    stream: TcpStream,
    read: Vec<u8>,
    /// What the socket did not take yet.
    write: Vec<u8>,
}

/// Prints the port it listens on, then serves until killed.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let body = "x".repeat(options.body);
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-origin: {}\r\ncontent-length: {}\r\n\r\n{body}",
        options.name, options.body
    )
    .into_bytes();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());

    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let mut scratch = vec![0; 64 * 1024];
    loop {
        match epoll::wait(&poll, spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e).context("epoll"),
        }
        for event in events.drain(..) {
            let (id, flags) = (event.data.u64(), event.flags);
            if id == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let slot = conns.iter().position(Option::is_none).unwrap_or_else(|| {
                        conns.push(None);
                        conns.len() - 1
                    });
                    epoll::add(&poll, &stream, epoll::EventData::new_u64(slot as u64), epoll::EventFlags::IN)?;
                    conns[slot] = Some(Conn { stream, read: Vec::new(), write: Vec::new() });
                }
                continue;
            }
            let slot = usize::try_from(id)?;
            let Some(conn) = conns[slot].as_mut() else { continue };
            let open = conn.serve(&mut scratch, &response);
            if !open {
                conns[slot] = None;
            } else if !conn.write.is_empty() {
                epoll::modify(&poll, &conn.stream, event.data, epoll::EventFlags::IN | epoll::EventFlags::OUT)?;
            } else if flags.contains(epoll::EventFlags::OUT) {
                epoll::modify(&poll, &conn.stream, event.data, epoll::EventFlags::IN)?;
            }
        }
    }
}

impl Conn {
    /// Reads what is there and answers it. `false`: the connection is over.
    fn serve(&mut self, scratch: &mut [u8], response: &[u8]) -> bool {
        if !self.write.is_empty() && !self.flush() {
            return false;
        }
        let n = match self.stream.read(scratch) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(e) => return e.kind() == ErrorKind::WouldBlock,
        };
        // The usual case, a whole request in one read, copies nothing.
        let heads = if self.read.is_empty() && scratch[..n].ends_with(b"\r\n\r\n") {
            count_heads(&scratch[..n])
        } else {
            self.read.extend_from_slice(&scratch[..n]);
            let Some(end) = self.read.windows(4).rposition(|w| w == b"\r\n\r\n") else { return true };
            let heads = count_heads(&self.read[..end + 4]);
            self.read.drain(..end + 4);
            heads
        };
        for _ in 0..heads {
            if !self.send(response) {
                return false;
            }
        }
        true
    }

    fn send(&mut self, response: &[u8]) -> bool {
        let mut sent = 0;
        if self.write.is_empty() {
            match self.stream.write(response) {
                Ok(n) => sent = n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        self.write.extend_from_slice(&response[sent..]);
        true
    }

    fn flush(&mut self) -> bool {
        match self.stream.write(&self.write) {
            Ok(n) => {
                self.write.drain(..n);
                true
            }
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Requests without a body that end in these bytes.
fn count_heads(bytes: &[u8]) -> usize {
    bytes.windows(4).filter(|w| *w == b"\r\n\r\n").count()
}
