//! Clients that the usual tools have no equal of: handshakes without resumption, idle connections, an open loop.

mod handshakes;
mod idle;
mod load;
mod tls;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;

pub(crate) use handshakes::Handshakes;
pub(crate) use idle::Protocol;
pub(crate) use load::Loaded;
pub(crate) use tls::TlsStream;

/// What the client process does. Its result is one line of JSON.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Requests over kept connections.
    Load(load::Options),
    /// A new connection and a full handshake for each request.
    Handshakes(handshakes::Options),
    /// Opens connections, uses each once, and holds them until standard input ends.
    Idle(idle::Options),
}

/// Runs one client.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Load(options) => println!("{}", serde_json::to_string(&load::run(&options)?)?),
        Command::Handshakes(options) => println!("{}", serde_json::to_string(&handshakes::run(&options)?)?),
        Command::Idle(options) => idle::run(&options)?,
    }
    Ok(())
}

/// Sends one request on a connection of its own and reads its status.
pub(crate) fn get_once(addr: SocketAddr, host: &str) -> anyhow::Result<u16> {
    let mut stream = TlsStream::connect(&tls::config(&[b"http/1.1"]), addr, host)?;
    let answer = get(&mut stream, host)?;
    Ok(answer.status)
}

/// The head of an answer; its body has been read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `x-origin`.
    pub(crate) origin: Option<String>,
}

/// Sends `GET /` and reads the answer, which must have a length.
pub(crate) fn get(stream: &mut (impl Read + Write), host: &str) -> anyhow::Result<Answer> {
    stream.write_all(request(host).as_bytes())?;
    stream.flush()?;
    let mut reader = BufReader::with_capacity(16 * 1024, stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).context("no answer")?.parse()?;
    let (mut length, mut origin) = (0, None);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
            Some((name, value)) if name.eq_ignore_ascii_case("x-origin") => origin = Some(value.trim().to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    Ok(Answer { status, origin })
}

fn request(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n")
}

fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}
