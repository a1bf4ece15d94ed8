//! The resolvers that the system uses.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Resolvers taken from the system: three, as its own library does (resolv.conf(5), MAXNS).
const MOST: usize = 3;

/// The port of the DNS.
const PORT: u16 = 53;

/// The resolvers that the system uses: `nameserver` lines of `/etc/resolv.conf`; 127.0.0.1 when there are none
/// (resolv.conf(5)).
pub fn resolvers_of_system() -> Vec<SocketAddr> {
    resolvers_in(Path::new("/etc/resolv.conf"))
}

fn resolvers_in(file: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let found = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        address.parse::<IpAddr>().ok()
    });
    let mut resolvers: Vec<_> = found.take(MOST).map(|address| SocketAddr::new(address, PORT)).collect();
    if resolvers.is_empty() {
        resolvers.push(SocketAddr::from(([127, 0, 0, 1], PORT)));
    }
    resolvers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_and_the_rest_is_left() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("resolv.conf");
        std::fs::write(
            &file,
            "# nameserver 1.1.1.1\nsearch x\nnameserver 192.0.2.1\n nameserver  2001:db8::1 \nnameserver x\n",
        )
        .expect("written");
        let found: Vec<String> = resolvers_in(&file).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(resolvers_in(&dir.path().join("none")), [SocketAddr::from(([127, 0, 0, 1], 53))]);
    }
}
