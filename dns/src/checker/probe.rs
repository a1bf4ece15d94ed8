//! Looks at a name as a certificate authority would that proves it over plain HTTP (RFC 8555 section 8.3).
//!
//! The token is new each time and nobody has heard of it, so only who knows our account's thumbprint and answers every
//! challenge, as our proxies do, gives the right answer.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use ring::rand::{SecureRandom, SystemRandom};
use schoolgate_config::model::DomainName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::observation::{Reach, Reached};

/// Time for one address, from the connection to the whole answer: 5 s. Certificate authorities wait ten.
const WITHIN: Duration = Duration::from_secs(5);

/// Addresses looked at for one name: 8. A name has two to four.
const ADDRESSES: usize = 8;

/// Bytes of an answer that are read: 16 KiB. Ours has some hundred; of a stranger's the head is enough.
const ANSWER: usize = 16 * 1024;

/// Header fields of an answer that are read: 64.
const FIELDS: usize = 64;

/// Characters of what a stranger says of itself that are kept: 200.
const SAID: usize = 200;

/// Which addresses are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Probe {
    /// None.
    Off,
    /// Those that anybody can reach: what a stranger's DNS says must not make us knock inside our own network.
    #[default]
    Public,
    /// All, for a gateway whose own addresses are private ones.
    Any,
}

/// How a checker looks over plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Which addresses.
    pub probe: Probe,
    /// The port: 80, but for tests.
    pub port: u16,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { probe: Probe::Public, port: 80 }
    }
}

impl ProbeOptions {
    /// What is at each of the addresses that may be looked at. Without a thumbprint there is no right answer, and nobody
    /// is asked.
    pub(super) async fn look(
        &self,
        name: &DomainName,
        addresses: &BTreeSet<IpAddr>,
        thumbprints: &[String],
    ) -> Vec<Reached> {
        let admitted = |address: &&IpAddr| match self.probe {
            Probe::Off => false,
            Probe::Public => is_public(**address),
            Probe::Any => true,
        };
        if thumbprints.is_empty() {
            return Vec::new();
        }
        let addresses: Vec<IpAddr> = addresses.iter().filter(admitted).take(ADDRESSES).copied().collect();
        join_all(addresses.into_iter().map(async |address| {
            let asking = ask(SocketAddr::new(address, self.port), name, thumbprints);
            let reach = match timeout(WITHIN, asking).await {
                Ok(Ok(reach)) => reach,
                Ok(Err(error)) => Reach::Unreachable(error.to_string()),
                Err(_) => Reach::Unreachable(format!("no answer within {} s", WITHIN.as_secs())),
            };
            Reached { address, reach }
        }))
        .await
    }
}

async fn ask(server: SocketAddr, name: &DomainName, thumbprints: &[String]) -> io::Result<Reach> {
    let token = token()?;
    let mut stream = TcpStream::connect(server).await?;
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: schoolgate/{} (reachability)\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Who resets the connection after the answer has answered.
    let read = stream.take(ANSWER as u64).read_to_end(&mut answer).await;
    match read {
        Err(error) if answer.is_empty() => Err(error),
        _ => meaning(&answer, &token, thumbprints),
    }
}

/// 32 random bytes in hexadecimal, which is base64url too.
fn token() -> io::Result<String> {
    let mut random = [0; 32];
    SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What an answer says of who gave it.
fn meaning(answer: &[u8], token: &str, thumbprints: &[String]) -> io::Result<Reach> {
    let not_http = || io::Error::new(io::ErrorKind::InvalidData, "an answer that is not HTTP");
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let (status, begin) = match head.parse(answer) {
        Ok(httparse::Status::Complete(begin)) => (head.code.ok_or_else(not_http)?, begin),
        Ok(httparse::Status::Partial) | Err(_) => return Err(not_http()),
    };
    let field = |name: &str| {
        let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        let text = String::from_utf8_lossy(found.value);
        Some(text.chars().filter(|c| !c.is_control()).take(SAID).collect::<String>())
    };
    let body = String::from_utf8_lossy(&answer[begin..]);
    // Within, for something between may send it in chunks.
    if status == 200 && thumbprints.iter().any(|thumbprint| body.contains(&format!("{token}.{thumbprint}"))) {
        return Ok(Reach::Ours);
    }
    if field("x-request-id").is_some() && body.contains("\"request_id\"") {
        return Ok(Reach::OursSoon);
    }
    Ok(match field("location") {
        Some(location) if (300..400).contains(&status) => Reach::Redirect { location },
        _ => Reach::Foreign { status, server: field("server") },
    })
}

/// Whether an address is one that anybody can reach (the special-purpose registries of RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_documentation()
                || address.is_broadcast()
                || address.is_multicast()
                || a == 0
                || a >= 240
                // Shared address space (RFC 6598), protocol assignments (RFC 6890), benchmarks (RFC 2544).
                || (a == 100 && b & 0b1100_0000 == 64)
                || (a, b, c) == (192, 0, 0)
                || (a == 198 && b & 0b1111_1110 == 18))
        }
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Global unicast is 2000::/3; out of it, documentation, Teredo and other protocol assignments, and 6to4, which hides
    // any IPv4 address.
    first & 0xe000 == 0x2000
        && !(first == 0x2001 && (second == 0x0db8 || second < 0x0200))
        && first != 0x2002
        && !(first == 0x3fff && second < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_anybody_reaches_are_public() {
        let public = |text: &str| is_public(text.parse().expect("an address"));
        for address in ["9.9.9.9", "100.128.0.1", "198.20.0.1", "2620:fe::fe", "2a01:4f8::1"] {
            assert!(public(address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "2001:db8::1",
            "2001::1",
            "2002:a00:1::1",
            "64:ff9b::1",
            "3fff::1",
        ] {
            assert!(!public(address), "{address}");
        }
    }

    #[test]
    fn an_answer_says_who_gave_it() {
        let prints = ["NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".to_owned()];
        let of = |answer: &str| meaning(answer.as_bytes(), "t0k3n", &prints).ok();
        let ours = format!("HTTP/1.1 200 OK\r\n\r\nt0k3n.{}", prints[0]);
        assert_eq!(of(&ours), Some(Reach::Ours));
        let chunked =
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n31\r\nt0k3n.{}\r\n0\r\n\r\n", prints[0]);
        assert_eq!(of(&chunked), Some(Reach::Ours));
        let soon = "HTTP/1.1 404 Not Found\r\nx-request-id: 1\r\n\r\n{\"request_id\":\"1\"}";
        assert_eq!(of(soon), Some(Reach::OursSoon));
        let foreign = |status, server: Option<&str>| Some(Reach::Foreign { status, server: server.map(str::to_owned) });
        assert_eq!(
            of("HTTP/1.1 404 Not Found\r\nServer: Apache\x01/2\r\n\r\n"),
            None,
            "control characters are no HTTP"
        );
        assert_eq!(of("HTTP/1.1 404 Not Found\r\nServer: Apache\r\n\r\nno"), foreign(404, Some("Apache")));
        assert_eq!(of("HTTP/1.1 200 OK\r\n\r\nt0k3n.somebody-elses-thumbprint"), foreign(200, None));
        assert_eq!(of(&format!("HTTP/1.1 500 No\r\n\r\nt0k3n.{}", prints[0])), foreign(500, None));
        let redirect = "HTTP/1.1 301 Moved\r\nLocation: https://erp.example/x\r\n\r\n";
        assert_eq!(of(redirect), Some(Reach::Redirect { location: "https://erp.example/x".to_owned() }));
        assert_eq!(of("SSH-2.0-OpenSSH\r\n"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn no_token_is_used_twice() {
        let (one, two) = (token().expect("random"), token().expect("random"));
        assert_eq!(one.len(), 64);
        assert_ne!(one, two);
    }
}
