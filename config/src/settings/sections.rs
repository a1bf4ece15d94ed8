//! The sections of the settings file, with every default and unit.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use seconds::Seconds;

use super::{Files, SettingsError};
use crate::model::{FrameOptions, LimitName, Limits, ReferrerPolicy};

/// `[data]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// Where everything that outlives a restart is.
    pub dir: PathBuf,
}
impl Default for Data {
    fn default() -> Self {
        Self { dir: PathBuf::from("./data") }
    }
}

/// `[proxy]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// Address for plain HTTP: redirects and challenges. Port 0 takes any free one.
    pub http: SocketAddr,
    /// Address for TLS.
    pub https: SocketAddr,
    /// Private address for health, metrics and status.
    pub status: SocketAddr,
    /// Whether connections begin with a PROXY protocol header (from `trusted_hops` only).
    pub proxy_protocol: bool,
    /// Networks of proxies before us, whose `X-Forwarded-*` and PROXY headers count. Empty: nobody's.
    pub trusted_hops: Vec<IpNet>,
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    /// The name this node reports under.
    pub node: String,
    /// Where control processes listen, for `schoolgate proxy`: `http://host:port`, tried in order.
    pub control: Vec<String>,
    /// File of the node token, for `schoolgate proxy`.
    pub node_token_file: String,
    /// Directory of the last good state.
    pub last_good: String,
    /// Seconds between two flushes of what tenants used to the control plane, 0.1 to 60. A proxy that is killed loses
    /// what it counted since the last.
    pub usage_flush_s: Seconds,
    /// Seconds between "no more new connections" and closing idle ones when stopping, so that clients notice.
    pub linger_s: Seconds,
    /// Seconds that requests in flight may take to finish when stopping.
    pub drain_s: Seconds,
    /// What browsers are told about pages, unless a tenant wants otherwise.
    pub security: SecurityHeaders,
    /// Files that routes answer with.
    pub files: Files,
    /// What the edge bears.
    pub limits: EdgeLimits,
}
impl Default for Proxy {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([0, 0, 0, 0], 8080)),
            https: SocketAddr::from(([0, 0, 0, 0], 8443)),
            status: SocketAddr::from(([127, 0, 0, 1], 8610)),
            proxy_protocol: false,
            trusted_hops: Vec::new(),
            workers: 0,
            node: "node-1".to_owned(),
            control: vec!["http://127.0.0.1:8600".to_owned()],
            node_token_file: "<data>/node.token".to_owned(),
            last_good: "<data>/proxy/last-good".to_owned(),
            usage_flush_s: Seconds(5_000),
            linger_s: Seconds(300),
            drain_s: Seconds(5_000),
            security: SecurityHeaders::default(),
            files: Files::default(),
            limits: EdgeLimits::default(),
        }
    }
}

/// Seconds in the file, milliseconds in memory, so that settings compare exactly.
mod seconds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    /// A length of time, written as seconds with a fraction.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Seconds(pub(in crate::settings) u32);

    impl Seconds {
        /// As a duration.
        pub const fn duration(self) -> std::time::Duration {
            std::time::Duration::from_millis(self.0 as u64)
        }

        /// As milliseconds.
        pub const fn ms(self) -> i64 {
            self.0 as i64
        }
    }
    impl Serialize for Seconds {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_f64(f64::from(self.0) / 1_000.0)
        }
    }
    impl<'de> Deserialize<'de> for Seconds {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            #[derive(Deserialize)]
            #[serde(untagged)]
            enum Number {
                Whole(u32),
                Fraction(f64),
            }
            let seconds = match Number::deserialize(deserializer)
                .map_err(|_| de::Error::custom("expected a number of seconds"))?
            {
                Number::Whole(n) => f64::from(n),
                Number::Fraction(f) => f,
            };
            if (0.0..=1_000_000.0).contains(&seconds) {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
                Ok(Self((seconds * 1_000.0).round() as u32))
            } else {
                Err(de::Error::custom("expected 0 to 1000000 seconds"))
            }
        }
    }
}

/// `[proxy.security]`: what browsers are told about pages, unless a tenant wants otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecurityHeaders {
    /// Seconds for which browsers use TLS only (`Strict-Transport-Security`); 0 sends none. Never sent for names under
    /// the reserved `localhost` and `test`.
    pub hsts_max_age_s: u32,
    /// Whether that holds for every name below the host too. A school's site may have others that lack TLS.
    pub hsts_include_subdomains: bool,
    /// Who may show pages in a frame: `deny`, `sameorigin` or `any`.
    pub frame_options: FrameOptions,
    /// What a link tells of where it was: `no-referrer`, `same-origin`, `strict-origin` or
    /// `strict-origin-when-cross-origin`.
    pub referrer_policy: ReferrerPolicy,
}
impl Default for SecurityHeaders {
    fn default() -> Self {
        Self {
            hsts_max_age_s: 31_536_000,
            hsts_include_subdomains: false,
            frame_options: FrameOptions::default(),
            referrer_policy: ReferrerPolicy::default(),
        }
    }
}

impl SecurityHeaders {
    /// Two years, beyond which it protects nobody more.
    const LONGEST_HSTS_S: u32 = 63_072_000;

    pub(super) fn check(&self) -> Result<(), SettingsError> {
        if self.hsts_max_age_s > Self::LONGEST_HSTS_S {
            return Err(SettingsError::Value {
                key: "proxy.security.hsts_max_age_s".to_owned(),
                found: self.hsts_max_age_s.to_string(),
                expected: format!("0 to {} seconds", Self::LONGEST_HSTS_S),
            });
        }
        Ok(())
    }
}

/// `[proxy.limits]`: what the edge bears from one client, before any tenant is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeLimits {
    /// Seconds for PROXY header and TLS handshake together.
    pub handshake_s: Seconds,
    /// Seconds for a whole request head, and for the HTTP/2 preface.
    pub head_s: Seconds,
    /// Seconds a connection may idle between requests.
    pub idle_s: Seconds,
    /// The same while more than 80 % of `connections` are taken.
    pub idle_crowded_s: Seconds,
    /// Seconds a connection may live before it is told to go with its next answer; up to a tenth is added.
    pub lifetime_s: Seconds,
    /// Seconds without a byte of a request body.
    pub body_stall_s: Seconds,
    /// Bytes per second that a request body must come at on average; 0 is any.
    pub body_rate_bytes_s: u32,
    /// Seconds before that is asked of it.
    pub body_rate_after_s: Seconds,
    /// Seconds without a client taking a byte of an answer.
    pub write_stall_s: Seconds,
    /// Bytes of a request head.
    pub head_bytes: u32,
    /// Bytes of a request line (HTTP/1.1) or path (HTTP/2).
    pub uri_bytes: u32,
    /// Header fields of a request.
    pub header_fields: u32,
    /// Bytes of one header field, its name included.
    pub field_bytes: u32,
    /// Bytes held in all for clients that are slow to send or to read; above it new requests get 503.
    pub buffered_bytes: u64,
    /// Bytes of a request body where neither plan nor route says otherwise.
    pub body_bytes: u64,
    /// Requests on one HTTP/1.1 connection before it is closed.
    pub requests_h1: u32,
    /// Requests on one HTTP/2 connection before GOAWAY.
    pub requests_h2: u32,
    /// Streams at once on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Bytes a client may send on one stream before we read them.
    pub h2_stream_window: u32,
    /// The same for a whole connection.
    pub h2_connection_window: u32,
    /// RST_STREAM frames of one HTTP/2 connection in a second.
    pub h2_resets_per_s: u32,
    /// Requests of one HTTP/2 connection that its client reset before they were answered, beyond those answered.
    pub h2_unanswered_resets: u32,
    /// PING frames of one HTTP/2 connection in a second.
    pub h2_pings_per_s: u32,
    /// SETTINGS frames of one HTTP/2 connection in a second.
    pub h2_settings_per_s: u32,
    /// DATA frames without data of one HTTP/2 connection in a second.
    pub h2_empty_data_per_s: u32,
    /// WINDOW_UPDATE frames of one HTTP/2 connection in a second, beyond one for each KiB that is sent.
    pub h2_window_updates_per_s: u32,
    /// PRIORITY and unknown frames of one HTTP/2 connection, beyond two for each request.
    pub h2_priorities: u32,
    /// CONTINUATION frames of one HTTP/2 header block.
    pub h2_continuations: u32,
    /// Connections at once; 0 is 80 % of the limit of open files.
    pub connections: u32,
    /// Connections at once from one IPv4 address or IPv6 /56.
    pub connections_per_address: u32,
    /// TLS handshakes of one address in a second; 0 is any number. Loopback addresses are not counted.
    pub handshakes_per_address_s: u32,
    /// How many of them may come at once.
    pub handshakes_burst: u32,
    /// TLS handshakes of one address that fail, in a second; beyond it none begins. 0 is any number.
    pub failing_handshakes_per_address_s: u32,
    /// How many of them may come at once.
    pub failing_handshakes_burst: u32,
}
impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            handshake_s: Seconds(10_000),
            head_s: Seconds(10_000),
            idle_s: Seconds(75_000),
            idle_crowded_s: Seconds(20_000),
            lifetime_s: Seconds(3_600_000),
            body_stall_s: Seconds(30_000),
            body_rate_bytes_s: 256,
            body_rate_after_s: Seconds(60_000),
            write_stall_s: Seconds(60_000),
            head_bytes: 32 * 1024,
            uri_bytes: 8 * 1024,
            header_fields: 100,
            field_bytes: 16 * 1024,
            buffered_bytes: 256 << 20,
            body_bytes: 100 << 20,
            requests_h1: 1_000,
            requests_h2: 10_000,
            h2_streams: 100,
            h2_stream_window: 64 * 1024,
            h2_connection_window: 1 << 20,
            h2_resets_per_s: 100,
            h2_unanswered_resets: 50,
            h2_pings_per_s: 100,
            h2_settings_per_s: 50,
            h2_empty_data_per_s: 100,
            h2_window_updates_per_s: 100,
            h2_priorities: 100,
            h2_continuations: 8,
            connections: 0,
            connections_per_address: 256,
            handshakes_per_address_s: 50,
            handshakes_burst: 200,
            failing_handshakes_per_address_s: 5,
            failing_handshakes_burst: 50,
        }
    }
}

impl EdgeLimits {
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let ranges = [
            ("head_bytes", u64::from(self.head_bytes), 1_024, 1 << 20),
            ("uri_bytes", u64::from(self.uri_bytes), 256, u64::from(self.head_bytes)),
            ("header_fields", u64::from(self.header_fields), 8, 256),
            ("field_bytes", u64::from(self.field_bytes), 256, u64::from(self.head_bytes)),
            // Less than what one connection may need would refuse everybody.
            ("buffered_bytes", self.buffered_bytes, 128 << 10, 1 << 40),
            ("requests_h1", u64::from(self.requests_h1), 1, u64::from(u32::MAX)),
            ("requests_h2", u64::from(self.requests_h2), 1, u64::from(u32::MAX)),
            ("h2_streams", u64::from(self.h2_streams), 1, 1_000),
            ("h2_stream_window", u64::from(self.h2_stream_window), 65_535, (1 << 31) - 1),
            ("h2_connection_window", u64::from(self.h2_connection_window), 65_535, (1 << 31) - 1),
            ("connections_per_address", u64::from(self.connections_per_address), 1, u64::from(u32::MAX)),
            ("handshakes_burst", u64::from(self.handshakes_burst), 1, 1_000_000),
            ("failing_handshakes_burst", u64::from(self.failing_handshakes_burst), 1, 1_000_000),
            ("h2_resets_per_s", u64::from(self.h2_resets_per_s), 1, 1_000_000),
            ("h2_unanswered_resets", u64::from(self.h2_unanswered_resets), 1, 1_000_000),
            ("h2_pings_per_s", u64::from(self.h2_pings_per_s), 1, 1_000_000),
            // One comes with every connection and one acknowledges ours.
            ("h2_settings_per_s", u64::from(self.h2_settings_per_s), 2, 1_000_000),
            ("h2_empty_data_per_s", u64::from(self.h2_empty_data_per_s), 1, 1_000_000),
            ("h2_window_updates_per_s", u64::from(self.h2_window_updates_per_s), 1, 1_000_000),
            ("h2_priorities", u64::from(self.h2_priorities), 1, 1_000_000),
            ("h2_continuations", u64::from(self.h2_continuations), 1, 100),
        ];
        for (key, found, least, most) in ranges {
            if !(least..=most).contains(&found) {
                return Err(SettingsError::Value {
                    key: format!("proxy.limits.{key}"),
                    found: found.to_string(),
                    expected: format!("{least} to {most}"),
                });
            }
        }
        let times = [
            ("handshake_s", self.handshake_s),
            ("head_s", self.head_s),
            ("idle_s", self.idle_s),
            ("idle_crowded_s", self.idle_crowded_s),
            ("lifetime_s", self.lifetime_s),
            ("body_stall_s", self.body_stall_s),
            ("body_rate_after_s", self.body_rate_after_s),
            ("write_stall_s", self.write_stall_s),
        ];
        for (key, time) in times {
            // None at all would cut everybody.
            if time.0 == 0 {
                return Err(SettingsError::Value {
                    key: format!("proxy.limits.{key}"),
                    found: "0".to_owned(),
                    expected: "0.001 seconds or more".to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Address of the control API.
    pub listen: SocketAddr,
    /// Unix socket of the control API, for the machine's own administrator: who may open it (mode 0600) may do
    /// everything, without a token. Empty: none.
    pub socket: String,
}
impl Default for Control {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8600)), socket: "<data>/run/control.sock".to_owned() }
    }
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `sqlite://PATH`.
    pub url: String,
}
impl Default for Store {
    fn default() -> Self {
        Self { url: "sqlite://<data>/control.db".to_owned() }
    }
}

/// `[platform]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Platform {
    /// Zones made at the first start.
    pub zones: Vec<String>,
    /// Public addresses of the gateway: what apex domains point at.
    pub addresses: Vec<std::net::IpAddr>,
    /// Suffixes whose names count as owned and pointing here without a look at the DNS: `up` adds the reserved
    /// `localhost` and `test` (RFC 6761). For private networks; never list a public suffix.
    pub assume_owned: Vec<String>,
    /// The most that any tenant may have of a limit, whatever its plan or an override says. Proxies and control
    /// processes read it alike, so all of them are given the same.
    pub caps: Caps,
}
impl Default for Platform {
    fn default() -> Self {
        Self {
            zones: vec!["localhost".to_owned()],
            addresses: Vec::new(),
            assume_owned: Vec::new(),
            caps: Caps::default(),
        }
    }
}

/// `[platform.caps]`: limits by the names they have in a plan; 0 caps nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each is the limit of its name: see Limits")]
pub struct Caps {
    pub users: u64,
    pub storage_bytes: u64,
    pub requests_per_day: u64,
    pub bytes_per_month: u64,
    pub requests_per_minute: u64,
    pub burst: u64,
    pub requests_per_minute_per_client: u64,
    pub in_flight: u64,
    pub websockets: u64,
    pub custom_domains: u64,
    pub body_bytes: u64,
    pub upload_bytes: u64,
}

impl Caps {
    /// The caps as limits.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        for name in LimitName::ALL {
            let cap = match name {
                LimitName::Users => self.users,
                LimitName::StorageBytes => self.storage_bytes,
                LimitName::RequestsPerDay => self.requests_per_day,
                LimitName::BytesPerMonth => self.bytes_per_month,
                LimitName::RequestsPerMinute => self.requests_per_minute,
                LimitName::Burst => self.burst,
                LimitName::RequestsPerMinutePerClient => self.requests_per_minute_per_client,
                LimitName::InFlight => self.in_flight,
                LimitName::WebSockets => self.websockets,
                LimitName::CustomDomains => self.custom_domains,
                LimitName::BodyBytes => self.body_bytes,
                LimitName::UploadBytes => self.upload_bytes,
            };
            if cap > 0 {
                limits.set(*name, cap);
            }
        }
        limits
    }
}

/// `[acme]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Acme {
    /// Who issues.
    pub issuer: Issuer,
    /// What the CA is called in metrics, messages and the store: a label such as `letsencrypt`.
    pub name: String,
    /// URL of the CA's directory (RFC 8555 section 7.1.1).
    pub directory: String,
    /// PEM file of a root that the CA's own HTTPS is verified with, beside the system's.
    pub root_ca: String,
    /// `mailto:` addresses given to the CA.
    pub contact: Vec<String>,
    /// Whether the operator agrees to the CA's terms.
    pub terms_agreed: bool,
    /// External account binding (RFC 8555 section 7.3.4).
    pub eab: Eab,
    /// The CA's profile; empty: the CA's default.
    pub profile: String,
    /// How names are proven; a wildcard is always proven by DNS.
    pub challenge: AcmeChallenge,
    /// Names under these suffixes get their certificate from the internal CA all the same.
    pub internal: Vec<String>,
    /// The CA's rate limits.
    pub limits: AcmeLimits,
    /// A second CA, for when the first has been away for half an hour.
    pub fallback: AcmeFallback,
}
impl Default for Acme {
    fn default() -> Self {
        Self {
            issuer: Issuer::default(),
            name: "acme".to_owned(),
            directory: String::new(),
            root_ca: String::new(),
            contact: Vec::new(),
            terms_agreed: false,
            eab: Eab::default(),
            profile: String::new(),
            challenge: AcmeChallenge::default(),
            internal: vec!["localhost".to_owned()],
            limits: AcmeLimits::default(),
            fallback: AcmeFallback::default(),
        }
    }
}

/// `[acme.fallback]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmeFallback {
    /// What the CA is called.
    pub name: String,
    /// URL of the CA's directory; empty: there is no second CA.
    pub directory: String,
    /// As in `[acme]`.
    pub root_ca: String,
    /// As in `[acme]`.
    pub contact: Vec<String>,
    /// As in `[acme]`.
    pub terms_agreed: bool,
    /// As in `[acme]`.
    pub eab: Eab,
    /// As in `[acme]`.
    pub profile: String,
    /// As in `[acme]`.
    pub limits: AcmeLimits,
    /// How CAA records name this CA; empty: as its directory says. Those of the first are `dns.caa_identities`.
    pub caa_identities: Vec<String>,
}
impl Default for AcmeFallback {
    fn default() -> Self {
        Self {
            name: "fallback".to_owned(),
            directory: String::new(),
            root_ca: String::new(),
            contact: Vec::new(),
            terms_agreed: false,
            eab: Eab::default(),
            profile: String::new(),
            limits: AcmeLimits::default(),
            caa_identities: Vec::new(),
        }
    }
}

/// `[acme.limits]`: the limits the CA grants this account, of which four fifths are used. The defaults are those of
/// Let's Encrypt; raise them when the CA has raised them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmeLimits {
    /// New orders within three hours.
    pub orders_per_3_hours: u32,
    /// New certificates under one registered domain within seven days.
    pub per_registered_domain_per_week: u32,
    /// Certificates for exactly the same name within seven days.
    pub per_name_per_week: u32,
}
impl Default for AcmeLimits {
    fn default() -> Self {
        Self { orders_per_3_hours: 300, per_registered_domain_per_week: 50, per_name_per_week: 5 }
    }
}

/// How a CA is shown that a name is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AcmeChallenge {
    /// Over plain HTTP; works through content delivery networks.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// In a TLS handshake, where port 80 is shut.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

/// `[acme.eab]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Eab {
    /// Key identifier the CA gave.
    pub kid: String,
    /// File of the HMAC key the CA gave, base64url.
    pub key_file: String,
}

/// Who issues certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Issuer {
    /// A local CA in the data directory.
    #[default]
    Internal,
    /// A CA that speaks ACME.
    Acme,
}

/// `[dns]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Resolvers asked about domains; empty means the system's.
    pub resolvers: Vec<SocketAddr>,
    /// The port at which authoritative servers are asked: 53, but in tests.
    pub authoritative_port: u16,
    /// How CAA records name the CA of `[acme]` (`letsencrypt.org`), the preferred name first; empty: as its directory says.
    pub caa_identities: Vec<String>,
    /// Where our own authoritative server for `acme.<zone>` and `_acme-challenge.<zone>` listens, UDP and TCP; not set: it
    /// does not run.
    #[serde(with = "empty_is_none")]
    pub listen: Option<SocketAddr>,
    /// The name of that server in its NS and SOA records; empty: `ns.<zone>`.
    pub name: String,
    /// Whether a check looks over plain HTTP, as the CA would, what is at a name's addresses here.
    pub probe: DnsProbe,
    /// The port at which it looks: 80, but in tests.
    pub probe_port: u16,
    /// Networks of proxies that schools put in front of their names (`"Cloudflare 104.16.0.0/13"`), so that a check can
    /// name the one to switch off. A list takes the place of the built-in one, which is not kept up with what those
    /// companies publish.
    pub cdn_networks: Vec<String>,
}

/// What a check looks at over plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsProbe {
    /// Nothing: for a gateway that cannot reach its own public addresses.
    Off,
    /// Addresses that anybody can reach.
    #[default]
    Public,
    /// Private addresses too: for a gateway that has only such.
    Any,
}
impl Default for Dns {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            authoritative_port: 53,
            caa_identities: Vec::new(),
            listen: None,
            name: String::new(),
            probe: DnsProbe::default(),
            probe_port: 80,
            cdn_networks: super::cdn::known(),
        }
    }
}

/// A setting that may be absent is written as an empty text: only a key that the defaults show is known.
mod empty_is_none {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(de::Error::custom) }
    }
}

impl Dns {
    /// The networks of the field of this name, with who runs each.
    ///
    /// # Errors
    /// [`SettingsError::Value`] names an entry that is none.
    pub fn cdn_networks(&self) -> Result<Vec<(String, IpNet)>, SettingsError> {
        self.cdn_networks.iter().map(|entry| super::cdn::parse(entry)).collect()
    }

    /// Checks what no single field can.
    ///
    /// # Errors
    /// The first [`SettingsError::Value`] found.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key: &str, found: &dyn ToString, expected: String| {
            Err(SettingsError::Value { key: format!("dns.{key}"), found: found.to_string(), expected })
        };
        let names = self.caa_identities.iter().map(|name| ("caa_identities", name));
        let own = (!self.name.is_empty()).then_some(("name", &self.name));
        for (key, name) in names.chain(own) {
            if let Err(e) = crate::model::DomainName::parse(name) {
                return refuse(key, name, e.to_string());
            }
        }
        for (key, port) in [("authoritative_port", self.authoritative_port), ("probe_port", self.probe_port)] {
            if port == 0 {
                return refuse(key, &0, "1 to 65535".to_owned());
            }
        }
        self.cdn_networks()?;
        match self.resolvers.iter().find(|resolver| resolver.port() == 0) {
            Some(resolver) => refuse("resolvers", resolver, "an address with a port, such as 9.9.9.9:53".to_owned()),
            None => Ok(()),
        }
    }
}

/// `[keys]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// File of the key-encryption key: 64 hexadecimal digits. Made at the first start of `up` or `control`. A systemd
    /// credential is `<credentials>/NAME`; systemd keeps it read-only, so such a key is rotated by hand.
    pub file: String,
}
impl Default for Keys {
    fn default() -> Self {
        Self { file: "<data>/keys/kek".to_owned() }
    }
}

/// `[context_keys]`: how the keys that sign `X-Tenant-Context` take turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContextKeys {
    /// Days a key signs before the next is made; 0 waits for an operator.
    pub rotate_days: u32,
    /// Seconds for which backends may keep the JWKS (`Cache-Control: max-age`).
    pub max_age_s: Seconds,
    /// Seconds a new key is published before it signs. At least `max_age_s`, so that every backend knows it by then.
    pub publish_s: Seconds,
    /// Seconds a key stays published after the last proxy stopped signing with it. Below 65 (a token's life and the
    /// leeway of backends) tokens still under way are refused: for trying it out only.
    pub retire_s: Seconds,
}
impl Default for ContextKeys {
    fn default() -> Self {
        Self { rotate_days: 30, max_age_s: Seconds(300_000), publish_s: Seconds(900_000), retire_s: Seconds(3_600_000) }
    }
}

impl ContextKeys {
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key: &str, found: String, expected: &str| {
            Err(SettingsError::Value { key: format!("context_keys.{key}"), found, expected: expected.to_owned() })
        };
        if self.rotate_days > 3_650 {
            return refuse("rotate_days", self.rotate_days.to_string(), "0 (never) to 3650 days");
        }
        // Whole seconds: that is what a header can say.
        if self.max_age_s.0 < 1_000 || !self.max_age_s.0.is_multiple_of(1_000) {
            return refuse("max_age_s", seconds_text(self.max_age_s), "1 or more, in whole seconds");
        }
        if self.publish_s < self.max_age_s {
            return refuse("publish_s", seconds_text(self.publish_s), "context_keys.max_age_s or more");
        }
        Ok(())
    }
}

fn seconds_text(seconds: Seconds) -> String {
    seconds.duration().as_secs_f64().to_string()
}

/// `[school_app]`: the instances that `up` supervises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchoolApp {
    /// The first instance's address; the others take the ports after it. A port that is taken is passed over; port 0
    /// takes any.
    pub listen: SocketAddr,
    /// Instances of the pool `shared`; 0 starts none.
    pub instances: u32,
}
impl Default for SchoolApp {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8701)), instances: 2 }
    }
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// What is logged: `info`, or directives such as `info,schoolgate_proxy=debug`.
    pub log: String,
    /// How it is written.
    pub format: LogFormat,
    /// Where a line per request goes: `off`, `stdout`, or a file.
    pub access_log: AccessLog,
    /// Tenants with metrics of their own; the rest are summed as `_other`.
    pub metrics_tenants: u32,
    /// Slugs that always have metrics of their own.
    pub metrics_pinned: Vec<String>,
}
impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            format: LogFormat::Text,
            access_log: AccessLog::File("<data>/access.log".to_owned()),
            metrics_tenants: 1_000,
            metrics_pinned: Vec::new(),
        }
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: a JSON object per line.
    Json,
}

/// Where a line per request goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// Appended to a file.
    File(String),
}

impl From<String> for AccessLog {
    fn from(text: String) -> Self {
        match text.as_str() {
            "off" | "" => Self::Off,
            "stdout" => Self::Stdout,
            _ => Self::File(text),
        }
    }
}
impl From<AccessLog> for String {
    fn from(log: AccessLog) -> Self {
        match log {
            AccessLog::Off => "off".to_owned(),
            AccessLog::Stdout => "stdout".to_owned(),
            AccessLog::File(path) => path,
        }
    }
}
