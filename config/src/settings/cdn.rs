//! Networks of well-known proxies that schools put in front of their names.

use ipnet::IpNet;

use super::SettingsError;

/// Networks by who runs them, the large blocks: a name is enough to know whose page to open. Cloudflare's as published at
/// cloudflare.com/ips and Fastly's at api.fastly.com/public-ip-list, Sucuri's and Imperva's from their documentation; all
/// written down from memory in November 2026: whoever needs them exact sets `dns.cdn_networks`.
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

/// The default of `dns.cdn_networks`.
pub(super) fn known() -> Vec<String> {
    NETWORKS
        .iter()
        .flat_map(|(name, networks)| networks.iter().map(move |network| format!("{name} {network}")))
        .collect()
}

/// Reads `Cloudflare 104.16.0.0/13`: the network is the last word.
pub(super) fn parse(entry: &str) -> Result<(String, IpNet), SettingsError> {
    let parsed = entry.trim().rsplit_once(' ').and_then(|(name, network)| {
        let name = name.trim();
        (!name.is_empty()).then_some(())?;
        Some((name.to_owned(), network.parse().ok()?))
    });
    parsed.ok_or_else(|| SettingsError::Value {
        key: "dns.cdn_networks".to_owned(),
        found: entry.to_owned(),
        expected: "a name and a network, such as \"Cloudflare 104.16.0.0/13\"".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Dns, Settings};

    #[test]
    fn the_default_reads() {
        let networks = Dns::default().cdn_networks().unwrap();
        assert_eq!(networks.len(), known().len());
        let of = |address: &str| {
            let address: std::net::IpAddr = address.parse().unwrap();
            networks.iter().find(|(_, network)| network.contains(&address)).map(|(name, _)| name.as_str())
        };
        assert_eq!((of("104.21.3.4"), of("2a04:4e42::1"), of("192.0.2.1")), (Some("Cloudflare"), Some("Fastly"), None));
    }

    #[test]
    fn another_list_takes_its_place_and_what_is_no_network_is_named() {
        let settings = |list: &str| -> Settings { toml::from_str(&format!("[dns]\ncdn_networks = {list}")).unwrap() };
        let own = settings("[\"School Shield 198.51.100.0/24\"]").dns.cdn_networks().unwrap();
        assert_eq!(own, [("School Shield".to_owned(), "198.51.100.0/24".parse().unwrap())]);
        assert_eq!(settings("[]").dns.cdn_networks().unwrap(), []);
        for bad in ["Cloudflare", "104.16.0.0/13", "Cloudflare 104.16.0.0/33", ""] {
            let error = settings(&format!("[{bad:?}]")).check().unwrap_err().to_string();
            assert!(error.contains("dns.cdn_networks") && error.contains("such as"), "{error}");
        }
    }
}
