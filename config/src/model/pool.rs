//! A pool: interchangeable backends, and how one of them is chosen, watched and given up on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::health_check::{HealthCheck, HealthCheckForm};
use super::id::{as_string, shortened};
use super::upstream_tls::{ClientCertificate, UpstreamTls};
use super::{BackendId, Balance, Maintenance, PoolId, StickyCookie};

/// Interchangeable backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its name.
    pub id: PoolId,
    /// Whether many tenants live on it.
    #[serde(default)]
    pub kind: PoolKind,
    /// Where requests can go.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// How one is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// The cookie of `sticky`.
    #[serde(default)]
    pub sticky: StickyCookie,
    /// Each tenant uses so many of the backends, chosen by rendezvous hashing on the tenant; absent: all of them. Only
    /// when none of those is well are others asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_size: Option<ShardSize>,
    /// Seconds in which the share of a backend that is new, or well again, grows to its weight; 0: at once.
    #[serde(default)]
    pub slow_start_s: u32,
    /// Active checks; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HealthCheckForm>)]
    pub health_check: Option<HealthCheck>,
    /// When real failures take a backend out.
    #[serde(default)]
    pub ejection: Ejection,
    /// How long each phase may take.
    #[serde(default)]
    pub timeouts: PoolTimeouts,
    /// What may be tried again.
    #[serde(default)]
    pub retry: Retry,
    /// Requests at its backends at the same time, per proxy; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// How requests wait when there are as many.
    #[serde(default, skip_serializing_if = "QueueRules::is_default")]
    pub queue: QueueRules,
    /// How `https://` backends are spoken to.
    #[serde(default)]
    pub upstream_tls: UpstreamTls,
    /// What we show to backends that ask who we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub client_certificate: Option<ClientCertificate>,
    /// Seconds in which what a backend has in flight may finish when it is drained, disabled or removed; what is there
    /// longer, a WebSocket too, is cut.
    #[serde(default = "Pool::default_drain_s")]
    pub drain_s: u32,
    /// What visitors of its tenants are told while it is in maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Box<Maintenance>>,
}

impl Pool {
    /// Seconds that a backend which goes has to finish, when nobody says anything else: 30.
    pub const DRAIN_S: u32 = 30;

    const fn default_drain_s() -> u32 {
        Self::DRAIN_S
    }

    /// A shared pool without backends and checks; everything else as it is when nothing is said.
    pub fn new(id: PoolId) -> Self {
        Self {
            id,
            kind: PoolKind::default(),
            backends: Vec::new(),
            balance: Balance::default(),
            sticky: StickyCookie::default(),
            shard_size: None,
            slow_start_s: 0,
            health_check: None,
            ejection: Ejection::default(),
            timeouts: PoolTimeouts::default(),
            retry: Retry::default(),
            max_in_flight: None,
            queue: QueueRules::default(),
            upstream_tls: UpstreamTls::default(),
            client_certificate: None,
            drain_s: Self::DRAIN_S,
            maintenance: None,
        }
    }
}

/// How many backends of a pool a tenant uses, 1-32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = u8, minimum = 1, maximum = 32)]
pub struct ShardSize(u8);

impl ShardSize {
    /// The most: 32. Who wants more backends for every tenant wants no shards.
    pub const MOST: u8 = 32;

    /// `None` outside 1-32.
    pub const fn new(size: u8) -> Option<Self> {
        if matches!(size, 1..=Self::MOST) { Some(Self(size)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}
impl<'de> Deserialize<'de> for ShardSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let size = u8::deserialize(deserializer)?;
        Self::new(size).ok_or_else(|| de::Error::custom("a shard is of 1 to 32 backends"))
    }
}

/// Whether many tenants live on a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// Many.
    #[default]
    Shared,
    /// One, or a few that belong together.
    Dedicated,
}

/// One address of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    /// Identity, kept over changes of weight and state.
    pub id: BackendId,
    /// Where it listens.
    pub address: BackendAddress,
    /// Its share of requests beside the others'.
    #[serde(default)]
    pub weight: Weight,
    /// Whether it takes new requests.
    #[serde(default)]
    pub state: BackendState,
}

/// A backend's share, 1-1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = u16, minimum = 1, maximum = 1000)]
pub struct Weight(u16);

impl Weight {
    /// `None` outside 1-1000.
    pub const fn new(weight: u16) -> Option<Self> {
        if matches!(weight, 1..=1000) { Some(Self(weight)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}
impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}
impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let weight = u16::deserialize(deserializer)?;
        Self::new(weight).ok_or_else(|| de::Error::custom("a weight is a number from 1 to 1000"))
    }
}

/// Whether a backend takes new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// Yes.
    #[default]
    Active,
    /// No new ones; those in flight finish.
    Draining,
    /// None at all.
    Disabled,
}

/// Why a text is not a backend's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendAddressError {
    /// The part before the address.
    #[error(
        "`{0}` has no scheme the gateway speaks: write http://IP:PORT, https://IP:PORT, h2c://IP:PORT or unix:/PATH"
    )]
    Scheme(String),
    /// The address itself. Names are not resolved on the request path, so an address is an IP.
    #[error("`{0}` is not an IP address and port, such as 127.0.0.1:9001")]
    Address(String),
    /// A relative or empty path.
    #[error("`{0}` is not an absolute path of a socket")]
    Path(String),
}

/// Where a backend listens, and what it speaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// HTTP/1.1 over TCP: `http://127.0.0.1:9001`.
    Http(SocketAddr),
    /// HTTP/2 or HTTP/1.1 over TLS, as agreed in the handshake: `https://127.0.0.1:9001`.
    Https(SocketAddr),
    /// HTTP/2 with prior knowledge over TCP: `h2c://127.0.0.1:9001`.
    H2c(SocketAddr),
    /// HTTP/1.1 over a Unix socket: `unix:/run/app.sock`.
    Unix(PathBuf),
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(addr) => write!(f, "http://{addr}"),
            Self::Https(addr) => write!(f, "https://{addr}"),
            Self::H2c(addr) => write!(f, "h2c://{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
impl FromStr for BackendAddress {
    type Err = BackendAddressError;
    fn from_str(text: &str) -> Result<Self, BackendAddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            // `sun_path` holds 108 bytes with the final NUL (unix(7)).
            return if path.starts_with('/') && path.len() < 108 && !path.contains('\0') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(BackendAddressError::Path(shortened(path)))
            };
        }
        let socket = |rest: &str| {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            let rest =
                rest.strip_prefix("localhost:").map_or_else(|| rest.to_owned(), |port| format!("127.0.0.1:{port}"));
            rest.parse::<SocketAddr>()
                .ok()
                .filter(|addr| addr.port() != 0)
                .ok_or_else(|| BackendAddressError::Address(shortened(&rest)))
        };
        if let Some(rest) = text.strip_prefix("http://") {
            Ok(Self::Http(socket(rest)?))
        } else if let Some(rest) = text.strip_prefix("https://") {
            Ok(Self::Https(socket(rest)?))
        } else if let Some(rest) = text.strip_prefix("h2c://") {
            Ok(Self::H2c(socket(rest)?))
        } else {
            Err(BackendAddressError::Scheme(shortened(text)))
        }
    }
}
as_string!(BackendAddress, BackendAddressError, "http://IP:PORT, https://IP:PORT, h2c://IP:PORT or unix:/PATH");

/// How requests wait for a pool that has as many in flight as it bears: in turn by tenant, weighted by plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueRules {
    /// Milliseconds that a request waits at most; then it is answered 503 `POOL_BUSY`.
    pub wait_ms: u64,
    /// Requests that wait at most. Of more, those of the tenant with the most waiting for its weight are refused.
    pub length: u32,
    /// Requests in flight beside `max_in_flight` that are for `priority_paths` and routes with `lane: priority`.
    pub priority_in_flight: u32,
    /// Paths that have this lane: each takes itself and what is below it.
    pub priority_paths: Vec<String>,
}

impl QueueRules {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a path has the priority lane.
    pub fn is_priority(&self, path: &str) -> bool {
        let takes = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
        };
        self.priority_paths.iter().any(|prefix| takes(prefix))
    }
}
impl Default for QueueRules {
    fn default() -> Self {
        Self {
            wait_ms: 250,
            length: 1_000,
            priority_in_flight: 4,
            priority_paths: ["/healthz", "/readyz", "/login", "/api/login", "/api/auth/"].map(str::to_owned).into(),
        }
    }
}

/// When real failures (connect errors, resets, 502, 503, 504) take a backend out, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// Failures in a row that eject; 0 switches ejection off.
    pub consecutive_failures: u32,
    /// Milliseconds of the first ejection; each further one in a row doubles it, up to 5 minutes.
    pub base_ms: u64,
    /// At most this share of a pool is out at once, in percent; one backend always stays. One that refuses connections is
    /// taken out beyond it, and counts: it bears nothing of the load that the others would have to bear.
    pub max_percent: u8,
    /// When fewer than this share of a pool's active backends are well, in percent, all of them are asked, as if none
    /// were unhealthy or ejected: better some errors than the whole load on what is left. 0: never.
    pub panic_percent: u8,
}
impl Default for Ejection {
    fn default() -> Self {
        Self { consecutive_failures: 3, base_ms: 5_000, max_percent: 50, panic_percent: 0 }
    }
}

/// How long each phase towards a backend may take, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolTimeouts {
    /// To connect.
    pub connect_ms: u64,
    /// From the request sent to the answer's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// Between two pieces of an answer's body; from the request sent to the head when `first_byte_ms` is not given.
    pub read_ms: u64,
    /// For one piece of the request to be taken.
    pub write_ms: u64,
    /// A connection without a request is kept this long.
    pub idle_ms: u64,
    /// From the request's head to the last byte of the answer, retries included; absent: as long as it takes. A switched
    /// protocol such as a WebSocket has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
}
impl Default for PoolTimeouts {
    fn default() -> Self {
        Self {
            connect_ms: 3_000,
            first_byte_ms: None,
            read_ms: 30_000,
            write_ms: 30_000,
            idle_ms: 60_000,
            total_ms: None,
        }
    }
}

/// What may be tried again on another backend: idempotent requests (RFC 9110 section 9.2.2) without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Further attempts for one request, each on another backend; 0 switches retries off, 3 is the most. With 2, none fails
    /// while a backend is well, of a pool in which no more than two break at the same moment.
    pub attempts: u8,
    /// Retries may be at most this share of requests, in percent; ten a second are always allowed.
    pub budget_percent: u8,
    /// Bytes of a request's body that are held so that it can be sent again; a request that sent more is not repeated.
    pub buffer_bytes: u32,
}

impl Retry {
    /// The most bytes that are held of one body: 64 KiB.
    pub const MOST_BUFFER: u32 = 64 * 1024;
}
impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 2, budget_percent: 10, buffer_bytes: Self::MOST_BUFFER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_written() {
        for text in ["http://127.0.0.1:9001", "https://10.0.0.1:443", "h2c://[::1]:80", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<BackendAddress>().map(|a| a.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(
            "http://localhost:9001/".parse::<BackendAddress>().map(|a| a.to_string()),
            Ok("http://127.0.0.1:9001".to_owned())
        );
    }

    #[test]
    fn an_address_that_would_need_a_resolver_or_a_guess_is_refused() {
        for text in [
            "127.0.0.1:9001",
            "http://app.internal:80",
            "https://app.internal:443",
            "http://127.0.0.1",
            "http://127.0.0.1:0",
            "unix:run/app.sock",
            "ftp://1.2.3.4:21",
            "",
        ] {
            assert!(text.parse::<BackendAddress>().is_err(), "{text} was taken");
        }
    }
}
