//! A school's DNS, a gateway's, and a checker that asks them.

use std::net::SocketAddr;
use std::sync::Arc;

use schoolgate_config::model::TenantId;
use schoolgate_dns::{
    Assessment, Axis, CaIdentity, Checker, CheckerOptions, Code, Expected, Finding, Probe, ProbeOptions, Proxies,
    classify,
};
use schoolgate_testkit::Dns;

pub(crate) const NAME: &str = "erp.greenhill.example";
pub(crate) const TOKEN: &str = "k7m2p9q4r6s8t3v5w2x4";
pub(crate) const THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
pub(crate) const TARGET: &str = "k7m2p9q4r6s8t3v5w2x4.cname.schools.example";

/// A DNS with the school's zone `greenhill.example` and the platform's zone `schools.example`, at 192.0.2.7 and
/// 2001:db8::7.
pub(crate) struct World {
    pub(crate) dns: Dns,
    pub(crate) expected: Expected,
    pub(crate) probe: ProbeOptions,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dns = Dns::start().await;
        for zone in ["example", "greenhill.example", "schools.example"] {
            dns.records.zone(zone);
        }
        dns.records.add(&format!("{TARGET} A 192.0.2.7"));
        dns.records.add(&format!("{TARGET} AAAA 2001:db8::7"));
        let expected = Expected {
            name: NAME.parse().expect("a name"),
            tenant: TenantId::from_parts(1, 1),
            token: TOKEN.to_owned(),
            platform_zone: Some("schools.example".parse().expect("a name")),
            addresses: vec!["192.0.2.7".parse().expect("an address"), "2001:db8::7".parse().expect("an address")],
            issuers: vec![CaIdentity::named("first", "letsencrypt.org")],
            thumbprints: Vec::new(),
            proxies: Arc::new(Proxies::new(vec![(
                "Cloudflare".to_owned(),
                "104.16.0.0/13".parse().expect("a network"),
            )])),
            other: None,
        };
        Self { dns, expected, probe: ProbeOptions { probe: Probe::Off, port: 80 } }
    }

    /// With everything set as it should be.
    pub(crate) async fn ready() -> Self {
        let world = Self::new().await;
        world.dns.records.add(&format!("_schoolgate.{NAME} TXT {}", world.expected.proof()));
        world.dns.records.add(&format!("{NAME} CNAME {TARGET}"));
        world
    }

    pub(crate) fn checker(&self) -> Checker {
        Checker::new(CheckerOptions {
            resolvers: self.dns.resolvers().to_vec(),
            authoritative_port: self.dns.authoritative_port(),
            probe: self.probe,
        })
    }

    /// As [`Self::ready`], with the name at a loopback address where something answers at this port.
    pub(crate) async fn looking_at(server: SocketAddr) -> Self {
        let mut world = Self::ready().await;
        for kind in ["A", "AAAA"] {
            world.dns.records.remove(TARGET, kind);
        }
        world.dns.records.add(&format!("{TARGET} A {}", server.ip()));
        world.expected.thumbprints = vec![THUMBPRINT.to_owned()];
        world.probe = ProbeOptions { probe: Probe::Any, port: server.port() };
        world
    }

    pub(crate) async fn check(&self) -> Assessment {
        classify(&self.checker().look(&self.expected).await, &self.expected)
    }

    /// The one thing that is wrong on an axis.
    pub(crate) async fn only(&self, axis: Axis, code: Code) -> Finding {
        let found = self.check().await.findings;
        let mut on_axis = found.iter().filter(|finding| finding.axis == axis);
        let (first, second) = (on_axis.next(), on_axis.next());
        assert_eq!((first.map(|f| f.code), second), (Some(code), None), "{found:#?}");
        first.expect("it is there").clone()
    }
}
