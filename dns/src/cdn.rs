//! Networks of well-known proxies that schools put in front of their names.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks, by who runs them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<(String, IpNet)>,
}

impl Proxies {
    /// Those given.
    pub fn new(networks: Vec<(String, IpNet)>) -> Self {
        Self { networks }
    }

    /// Whose proxy an address is of.
    pub(crate) fn of_address(&self, address: IpAddr) -> Option<&str> {
        self.networks.iter().find(|(_, network)| network.contains(&address)).map(|(name, _)| name.as_str())
    }
}

/// Names that a CDN's customers are made aliases of.
const ALIASES: &[(&str, &str)] = &[
    ("Cloudflare", ".cdn.cloudflare.net"),
    ("CloudFront", ".cloudfront.net"),
    ("Fastly", ".fastly.net"),
    ("Akamai", ".edgekey.net"),
    ("Akamai", ".akamaiedge.net"),
    ("Azure Front Door", ".azurefd.net"),
    ("Bunny", ".b-cdn.net"),
    ("Imperva", ".impervadns.net"),
];

/// Whose proxy a name is of.
pub(crate) fn of_alias(name: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(_, suffix)| name.ends_with(suffix)).map(|(owner, _)| *owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_known_by_its_networks_and_its_names() {
        let proxies = Proxies::new(vec![
            ("Near".to_owned(), "198.51.100.0/24".parse().expect("a network")),
            ("Far".to_owned(), "2001:db8:f::/48".parse().expect("a network")),
        ]);
        let of = |address: &str| proxies.of_address(address.parse().expect("an address"));
        assert_eq!((of("198.51.100.9"), of("2001:db8:f::1"), of("192.0.2.1")), (Some("Near"), Some("Far"), None));
        assert_eq!(of_alias("x.cloudfront.net"), Some("CloudFront"));
        assert_eq!(of_alias("cloudfront.net.example"), None);
    }
}
