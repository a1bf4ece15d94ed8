//! Networks of well-known proxies that schools put in front of their names.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks by who runs them, as published: Cloudflare (cloudflare.com/ips), Fastly (api.fastly.com/public-ip-list),
/// Sucuri, Imperva, Bunny's and Akamai's anycast; the large blocks, for a name is enough to know whose page to open.
const NETWORKS: &[(&str, &[&str])] = &[
    (
        "Cloudflare",
        &[
            "173.245.48.0/20",
            "103.21.244.0/22",
            "103.22.200.0/22",
            "103.31.4.0/22",
            "141.101.64.0/18",
            "108.162.192.0/18",
            "190.93.240.0/20",
            "188.114.96.0/20",
            "197.234.240.0/22",
            "198.41.128.0/17",
            "162.158.0.0/15",
            "104.16.0.0/13",
            "104.24.0.0/14",
            "172.64.0.0/13",
            "131.0.72.0/22",
            "2400:cb00::/32",
            "2606:4700::/32",
            "2803:f800::/32",
            "2405:b500::/32",
            "2405:8100::/32",
            "2a06:98c0::/29",
            "2c0f:f248::/32",
        ],
    ),
    ("Fastly", &["151.101.0.0/16", "199.232.0.0/16", "146.75.0.0/17", "2a04:4e40::/32", "2a04:4e42::/32"]),
    ("Sucuri", &["192.88.134.0/23", "185.93.228.0/22", "66.248.200.0/22", "208.109.0.0/22", "2a02:fe80::/29"]),
    (
        "Imperva",
        &[
            "199.83.128.0/21",
            "198.143.32.0/19",
            "149.126.72.0/21",
            "103.28.248.0/22",
            "45.64.64.0/22",
            "185.11.124.0/22",
            "192.230.64.0/18",
            "107.154.0.0/16",
            "45.60.0.0/16",
            "45.223.0.0/16",
            "2a02:e980::/29",
        ],
    ),
];

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

/// Whose proxy an address is of.
pub(crate) fn of_address(address: IpAddr) -> Option<&'static str> {
    let within = |network: &&str| network.parse::<IpNet>().is_ok_and(|network| network.contains(&address));
    NETWORKS.iter().find(|(_, networks)| networks.iter().any(within)).map(|(name, _)| *name)
}

/// Whose proxy a name is of.
pub(crate) fn of_alias(name: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(_, suffix)| name.ends_with(suffix)).map(|(owner, _)| *owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_reads_and_is_recognised() {
        for (name, networks) in NETWORKS {
            for network in *networks {
                let network: IpNet = network.parse().expect("a network");
                assert_eq!(of_address(network.network()), Some(*name));
            }
        }
        assert_eq!(of_address("192.0.2.1".parse().expect("an address")), None);
        assert_eq!(of_alias("x.cloudfront.net"), Some("CloudFront"));
    }
}
