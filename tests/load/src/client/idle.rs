//! Connections that were used once and wait.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::{TlsStream, get, tls};
use crate::fleet::host;

/// Which protocol the connections speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    H1,
    H2,
}

/// Settings of the client.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    addr: SocketAddr,
    #[arg(long, default_value_t = 1)]
    names: usize,
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    #[arg(long, value_enum)]
    protocol: Protocol,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let alpn: &[u8] = if options.protocol == Protocol::H1 { b"http/1.1" } else { b"h2" };
    let config = tls::config(&[alpn]);
    let mut held = Vec::with_capacity(options.connections);
    for i in 0..options.connections {
        let name = host(i % options.names);
        let mut stream = TlsStream::connect(&config, options.addr, &name)?;
        match options.protocol {
            Protocol::H1 => ensure!(get(&mut stream, &name)?.status == 200, "not 200"),
            Protocol::H2 => get_h2(&mut stream, &name)?,
        }
        held.push(stream);
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // A connection that the server has closed meanwhile would make the figure too good.
    for stream in held {
        let (_, tcp) = stream.into_parts();
        tcp.set_read_timeout(Some(Duration::from_millis(1)))?;
        let mut left = Vec::new();
        if (&tcp).read_to_end(&mut left).is_ok() {
            bail!("the server closed an idle connection");
        }
    }
    Ok(())
}

/// One request by hand (RFC 9113): preface, settings, a head of indexed fields, and the answer up to its last frame.
fn get_h2(stream: &mut TlsStream, name: &str) -> anyhow::Result<()> {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const END_STREAM: u8 = 1;
    const ACK: u8 = 1;
    // :method GET, :scheme https, :path /, then :authority as a literal that is not indexed (RFC 7541).
    let mut head = vec![0x82, 0x87, 0x84, 0x01, u8::try_from(name.len()).context("a long name")?];
    head.extend_from_slice(name.as_bytes());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    frame(&mut bytes, 1, 0b101, 1, &head);
    stream.write_all(&bytes)?;
    stream.flush()?;
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header)?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        let (kind, flags, id) =
            (header[3], header[4], u32::from_be_bytes([header[5], header[6], header[7], header[8]]));
        let mut reply = Vec::new();
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut reply, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut reply, PING, ACK, 0, &payload),
            GOAWAY => bail!("the server went away"),
            // `:status 200` is one byte, the eighth entry of the static table.
            1 if payload.iter().all(|b| *b != 0x88) => bail!("not 200"),
            _ => {}
        }
        if !reply.is_empty() {
            stream.write_all(&reply)?;
            stream.flush()?;
        }
        if id == 1 && kind <= 1 && flags & END_STREAM != 0 {
            return Ok(());
        }
    }
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}
