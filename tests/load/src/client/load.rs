//! Requests over kept HTTP/1.1 connections, in a closed loop (as many at once as asked for) or an open one (at a rate,
//! whatever the answers take; latency counts from the moment a request was due).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use rustls::ClientConnection;
use serde::{Deserialize, Serialize};

use super::{TlsStream, tls};
use crate::fleet::host;

/// Settings of the client. It prints `ready` when its connections are open and each has been used once, begins when it
/// reads a line, and ends after `seconds` or when its input ends.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    addr: SocketAddr,
    /// Without TLS: straight to an origin.
    #[arg(long)]
    plain: bool,
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests at once in the closed loop; idle connections take turns.
    #[arg(long, default_value_t = 50)]
    in_flight: usize,
    /// Requests per second; without it the loop is closed.
    #[arg(long)]
    rate: Option<f64>,
    /// Names asked for in turn, one per connection, spread evenly over this many.
    #[arg(long, default_value_t = 1)]
    names: usize,
    /// The first of these.
    #[arg(long, default_value_t = 0)]
    first_name: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// What it did. Latencies are in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) worst_us: f64,
}

const TIMER: u64 = u64::MAX;
/// Connections that are opened at once.
const OPENERS: usize = 16;

struct Conn {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    name: String,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// When the request under way was due.
    since: Option<Instant>,
    /// The socket was full: the rest goes when it is writable.
    wants_write: bool,
}

enum Progress {
    Waiting,
    Answered { good: bool },
    Broken,
}

struct Engine<'a> {
    options: &'a Options,
    stop: Arc<AtomicBool>,
    poll: OwnedFd,
    events: Vec<epoll::Event>,
    conns: Vec<Conn>,
    idle: VecDeque<usize>,
    in_flight: usize,
    latencies: Vec<u32>,
    done: u64,
    failed: u64,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Loaded> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let conns = open_all(options)?;
    for (i, conn) in conns.iter().enumerate() {
        epoll::add(&poll, &conn.tcp, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN)?;
    }
    println!("ready");
    let stop = Arc::new(AtomicBool::new(false));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let ended = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ended.store(true, Ordering::Relaxed);
    });
    let idle = (0..conns.len()).collect();
    let (events, latencies) = (Vec::with_capacity(256), Vec::with_capacity(1 << 20));
    let mut engine = Engine { options, stop, poll, events, conns, idle, in_flight: 0, latencies, done: 0, failed: 0 };
    let begin = Instant::now();
    match options.rate {
        Some(rate) => engine.open_loop(begin, Duration::from_secs_f64(1.0 / rate))?,
        None => engine.closed_loop(begin)?,
    }
    Ok(engine.result(begin.elapsed()))
}

/// Opens all connections, some at once: where a backend is slow, so is each first answer.
fn open_all(options: &Options) -> anyhow::Result<Vec<Conn>> {
    // Spread over all names: 2,000 connections over 100,000 names take every fiftieth.
    let name = |i: usize| match options.names / options.connections.max(1) {
        0 | 1 => i % options.names,
        every => i * every,
    };
    let open = |i: usize| Conn::open(options, host(options.first_name + name(i)));
    let mut conns = Vec::with_capacity(options.connections);
    std::thread::scope(|scope| {
        let of_thread = options.connections.div_ceil(OPENERS).max(1);
        let threads: Vec<_> = (0..options.connections)
            .step_by(of_thread)
            .map(|first| first..(first + of_thread).min(options.connections))
            .map(|mine| scope.spawn(move || mine.map(open).collect::<anyhow::Result<Vec<_>>>()))
            .collect();
        for thread in threads {
            conns.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread that opens connections panicked"))??);
        }
        Ok(conns)
    })
}

impl Engine<'_> {
    /// Whether there is more to do.
    fn goes_on(&self, begin: Instant) -> bool {
        begin.elapsed().as_secs_f64() < self.options.seconds && !self.stop.load(Ordering::Relaxed)
    }

    fn closed_loop(&mut self, begin: Instant) -> anyhow::Result<()> {
        while self.goes_on(begin) {
            while self.in_flight < self.options.in_flight
                && let Some(i) = self.idle.pop_front()
            {
                self.send(i, Instant::now())?;
            }
            self.turn()?;
        }
        Ok(())
    }

    fn open_loop(&mut self, begin: Instant, every: Duration) -> anyhow::Result<()> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(&self.poll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        let mut due = begin;
        while self.goes_on(begin) {
            let now = Instant::now();
            while due <= now
                && let Some(i) = self.idle.pop_front()
            {
                self.send(i, due)?;
                due += every;
            }
            if self.idle.is_empty() {
                // Late already; an answer wakes us.
                timerfd_settime(&timer, TimerfdTimerFlags::empty(), &after(Duration::ZERO))?;
            } else {
                let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
                timerfd_settime(&timer, TimerfdTimerFlags::empty(), &after(wait))?;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Waits for something to happen and handles it.
    fn turn(&mut self) -> anyhow::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let patience = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("epoll"),
        }
        for event in &events {
            if event.data.u64() == TIMER {
                // Level-triggered, and armed anew (which clears it) before the next wait.
                continue;
            }
            let i = usize::try_from(event.data.u64())?;
            let flags = event.flags;
            match self.conns[i].progress(flags.contains(epoll::EventFlags::OUT)) {
                Progress::Waiting => self.watch(i)?,
                Progress::Answered { good } => self.finish(i, good),
                Progress::Broken => self.replace(i)?,
            }
        }
        self.events = events;
        Ok(())
    }

    fn send(&mut self, i: usize, due: Instant) -> anyhow::Result<()> {
        self.conns[i].since = Some(due);
        self.in_flight += 1;
        if self.conns[i].send().is_err() {
            return self.replace(i);
        }
        self.watch(i)
    }

    fn finish(&mut self, i: usize, good: bool) {
        if let Some(since) = self.conns[i].since.take() {
            self.in_flight -= 1;
            self.idle.push_back(i);
            self.done += u64::from(good);
            self.failed += u64::from(!good);
            let us = since.elapsed().as_micros();
            self.latencies.push(u32::try_from(us).unwrap_or(u32::MAX));
        }
    }

    /// A connection that breaks costs its request, and is opened anew.
    fn replace(&mut self, i: usize) -> anyhow::Result<()> {
        self.failed += 1;
        let was_busy = self.conns[i].since.is_some();
        let conn = Conn::open(self.options, self.conns[i].name.clone())?;
        epoll::add(&self.poll, &conn.tcp, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN)?;
        self.conns[i] = conn;
        if was_busy {
            self.in_flight -= 1;
            self.idle.push_back(i);
        }
        Ok(())
    }

    fn watch(&mut self, i: usize) -> anyhow::Result<()> {
        let conn = &mut self.conns[i];
        let wants = conn.tls.as_ref().is_some_and(|tls| tls.wants_write());
        if wants != conn.wants_write {
            conn.wants_write = wants;
            let flags = if wants { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            epoll::modify(&self.poll, &conn.tcp, epoll::EventData::new_u64(i as u64), flags)?;
        }
        Ok(())
    }

    fn result(mut self, took: Duration) -> Loaded {
        self.latencies.sort_unstable();
        let at = |share: f64| -> f64 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of a length"
            )]
            let index = (self.latencies.len() as f64 * share) as usize;
            self.latencies.get(index.min(self.latencies.len().saturating_sub(1))).map_or(f64::NAN, |us| f64::from(*us))
        };
        Loaded {
            done: self.done,
            failed: self.failed,
            seconds: took.as_secs_f64(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            worst_us: at(1.0),
        }
    }
}

impl Conn {
    fn open(options: &Options, name: String) -> anyhow::Result<Self> {
        let place = || format!("{name} at {}", options.addr);
        let (tls, tcp) = if options.plain {
            let mut tcp = super::connect(options.addr)?;
            super::get(&mut tcp, &name).with_context(place)?;
            (None, tcp)
        } else {
            let mut stream =
                TlsStream::connect(&tls::config(&[b"http/1.1"]), options.addr, &name).with_context(place)?;
            super::get(&mut stream, &name).with_context(place)?;
            let (tls, tcp) = stream.into_parts();
            (Some(Box::new(tls)), tcp)
        };
        tcp.set_nonblocking(true)?;
        let request = super::request(&name).into_bytes();
        Ok(Self { tcp, tls, name, request, answer: Vec::new(), since: None, wants_write: false })
    }

    fn send(&mut self) -> std::io::Result<()> {
        match &mut self.tls {
            Some(tls) => {
                tls.writer().write_all(&self.request)?;
                self.push()
            }
            // A short request into an empty socket buffer goes whole.
            None => self.tcp.write_all(&self.request),
        }
    }

    fn push(&mut self) -> std::io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn progress(&mut self, writable: bool) -> Progress {
        if writable && self.push().is_err() {
            return Progress::Broken;
        }
        let mut buffer = [0; 16 * 1024];
        match &mut self.tls {
            None => match self.tcp.read(&mut buffer) {
                Ok(0) => return Progress::Broken,
                Ok(n) => self.answer.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Progress::Broken,
            },
            Some(tls) => {
                match tls.read_tls(&mut self.tcp) {
                    Ok(0) => return Progress::Broken,
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Progress::Waiting,
                    Err(_) => return Progress::Broken,
                }
                if tls.process_new_packets().is_err() {
                    return Progress::Broken;
                }
                loop {
                    match tls.reader().read(&mut buffer) {
                        Ok(0) => return Progress::Broken,
                        Ok(n) => self.answer.extend_from_slice(&buffer[..n]),
                        Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                        Err(_) => return Progress::Broken,
                    }
                }
            }
        }
        match whole_answer(&self.answer) {
            Some(status) => {
                self.answer.clear();
                Progress::Answered { good: status == 200 }
            }
            None => Progress::Waiting,
        }
    }
}

/// The status of an answer that has arrived whole. One without a length never does.
fn whole_answer(bytes: &[u8]) -> Option<u16> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    let length: usize = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    (bytes.len() >= head + length).then_some(status)
}

fn after(wait: Duration) -> Itimerspec {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let value = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: i64::from(wait.subsec_nanos()) };
    Itimerspec { it_interval: zero, it_value: value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_has_come() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(whole_answer(answer), Some(200));
        assert_eq!(whole_answer(&answer[..answer.len() - 1]), None);
        assert_eq!(whole_answer(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
