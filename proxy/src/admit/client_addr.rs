//! The client's address and scheme: the connection's own, unless a trusted hop stands before us.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// Who asks, and how, as far as we believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    /// The client's address.
    pub(crate) ip: IpAddr,
    /// The peer is a hop that the operator trusts: its `X-Forwarded-*` count.
    pub(crate) via_hop: bool,
    /// The client came over TLS: to us, or to a trusted hop.
    pub(crate) secure: bool,
}

impl Client {
    /// Reads it from a connection and, if the peer is trusted, from what it says.
    pub(crate) fn of(peer: SocketAddr, tls: bool, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let ip = peer.ip().to_canonical();
        if trusted.is_empty() || !is_trusted(ip, trusted) {
            return Self { ip, via_hop: false, secure: tls };
        }
        let secure = headers
            .get("x-forwarded-proto")
            .map_or(tls, |proto| proto.as_bytes().trim_ascii().eq_ignore_ascii_case(b"https"));
        Self { ip: nearest_stranger(headers, trusted).unwrap_or(ip), via_hop: true, secure }
    }
}

/// The last address of `X-Forwarded-For` that is not itself a trusted hop: what stands left of it, a stranger wrote.
fn nearest_stranger(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let lines = headers.get_all("x-forwarded-for").iter();
    let mut nearest = None;
    let all: Vec<&str> = lines.filter_map(|l| l.to_str().ok()).flat_map(|l| l.split(',')).map(str::trim).collect();
    for text in all.into_iter().rev() {
        // Some proxies add a port.
        let parsed = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|a| a.ip()));
        let Ok(ip) = parsed else { break };
        nearest = Some(ip.to_canonical());
        if !is_trusted(ip.to_canonical(), trusted) {
            break;
        }
    }
    nearest
}

fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (n.parse().expect("a name"), v.parse().expect("a value"))).collect()
    }

    fn of(peer: &str, lines: &[(&'static str, &'static str)]) -> Client {
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        Client::of(peer.parse().expect("an address"), false, &headers(lines), &trusted)
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let client = of("203.0.113.9:4711", &[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-proto", "https")]);
        assert_eq!(client, Client { ip: "203.0.113.9".parse().expect("ip"), via_hop: false, secure: false });
    }

    #[test]
    fn a_trusted_hop_names_the_nearest_address_that_is_not_a_hop() {
        let client = of(
            "10.0.0.1:4711",
            &[
                ("x-forwarded-for", "1.2.3.4, 198.51.100.1"),
                ("x-forwarded-for", "10.9.9.9"),
                ("x-forwarded-proto", "https"),
            ],
        );
        assert_eq!(client, Client { ip: "198.51.100.1".parse().expect("ip"), via_hop: true, secure: true });
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        let client = of("10.0.0.1:4711", &[("x-forwarded-for", "198.51.100.1, unknown, 10.0.0.2")]);
        assert_eq!(client.ip, "10.0.0.2".parse::<IpAddr>().expect("ip"));
        assert_eq!(of("10.0.0.1:1", &[]).ip, "10.0.0.1".parse::<IpAddr>().expect("ip"));
    }
}
