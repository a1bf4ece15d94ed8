//! The PROXY protocol header, versions 1 and 2: who the client of a trusted load balancer is.
//!
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>. Nothing beyond the header is read from the socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;

/// What every version 2 header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest version 1 header, its line end included (section 2.1).
const LONGEST_V1: usize = 107;

/// The longest version 2 header that is read, without its first 16 bytes: 4 KiB, room for two addresses and every known
/// TLV.
const LONGEST_V2: usize = 4_096;

/// Reads a header that must be there. `None` when the balancer speaks for itself (`LOCAL`, `UNKNOWN`).
pub(super) async fn read(tcp: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; 12];
    tcp.read_exact(&mut start).await?;
    if start == SIGNATURE {
        let mut rest = [0; 4];
        tcp.read_exact(&mut rest).await?;
        let [version, family, high, low] = rest;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if version >> 4 != 2 || length > LONGEST_V2 {
            return Err(malformed());
        }
        let mut block = vec![0; length];
        tcp.read_exact(&mut block).await?;
        return v2(version & 0x0F, family, &block);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\n") {
        line_on(tcp, &mut line).await?;
    }
    v1(&line)
}

/// Reads on, up to the end of the line and no further.
async fn line_on(tcp: &TcpStream, line: &mut Vec<u8>) -> io::Result<()> {
    let mut ahead = [0; LONGEST_V1];
    let wanted = LONGEST_V1 - line.len();
    if wanted == 0 {
        return Err(malformed());
    }
    let there = tcp.peek(&mut ahead[..wanted]).await?;
    if there == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let take = ahead[..there].iter().position(|&byte| byte == b'\n').map_or(there, |at| at + 1);
    // These bytes were just seen, so they are there to be read.
    let got = tcp.async_io(Interest::READABLE, || tcp.try_read(&mut ahead[..take])).await?;
    line.extend_from_slice(&ahead[..got]);
    Ok(())
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n`
fn v1(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n")).ok_or_else(malformed)?;
    let parts: Vec<&str> = line.split(' ').collect();
    match parts[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let source: IpAddr = source.parse().map_err(|_| malformed())?;
            if source.is_ipv4() != (family == "TCP4") || !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(malformed());
            }
            Ok(Some(SocketAddr::new(source, port.parse().map_err(|_| malformed())?)))
        }
        _ => Err(malformed()),
    }
}

fn v2(command: u8, family: u8, block: &[u8]) -> io::Result<Option<SocketAddr>> {
    match (command, family) {
        (0, _) => Ok(None),
        (1, 0x11) => {
            let (addresses, _) = block.split_first_chunk::<12>().ok_or_else(malformed)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
            Ok(Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))))
        }
        (1, 0x21) => {
            let (source, rest) = block.split_first_chunk::<16>().ok_or_else(malformed)?;
            let (_, ports) = rest.split_first_chunk::<16>().ok_or_else(malformed)?;
            let (port, _) = ports.split_first_chunk::<2>().ok_or_else(malformed)?;
            if ports.len() < 4 {
                return Err(malformed());
            }
            Ok(Some(SocketAddr::new(Ipv6Addr::from(*source).into(), u16::from_be_bytes(*port))))
        }
        // Something that is not TCP over IP: there is no address to take.
        (1, 0x00) => Ok(None),
        _ => Err(malformed()),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed PROXY header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_names_the_client() {
        let read = |line: &str| v1(line.as_bytes()).ok();
        assert_eq!(read("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"), Some("192.0.2.1:56324".parse().ok()));
        assert_eq!(read("PROXY TCP6 2001:db8::1 2001:db8::2 1 443\r\n"), Some("[2001:db8::1]:1".parse().ok()));
        assert_eq!(read("PROXY UNKNOWN\r\n"), Some(None));
        for bad in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n",
            "PROXY TCP4 2001:db8::1 192.0.2.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn version_2_names_the_client() {
        assert_eq!(
            v2(1, 0x11, &[192, 0, 2, 1, 192, 0, 2, 2, 0xDC, 4, 1, 187]).ok(),
            Some("192.0.2.1:56324".parse().ok())
        );
        assert_eq!(v2(0, 0, &[]).ok(), Some(None));
        assert!(v2(1, 0x11, &[0; 11]).is_err());
        assert!(v2(1, 0x21, &[0; 35]).is_err());
        assert!(v2(2, 0x11, &[0; 12]).is_err());
    }
}
