//! What travels between a control process and a proxy: revisions one way, reports the other.
//!
//! Over HTTP: `GET /internal/v1/feed?node=…&after=…&wait_ms=…` with a node token answers the bytes of
//! [`FeedAnswer::encode`]; `POST /internal/v1/nodes/{node}/report` takes a [`NodeReport`] as JSON.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::identity::RecordedRequest;
use crate::model::{DomainName, IssuerId, KeyId, NodeId, PoolId, Revision, Slug, TenantId};
use crate::snapshot::{Delta, Snapshot, WireError, decode_delta, decode_snapshot, encode_delta, encode_snapshot};

/// What came after a revision.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedAnswer {
    /// Nothing, while waiting.
    Nothing,
    /// These, in order; the first applies to the revision asked about.
    Deltas(Vec<Delta>),
    /// Everything: the one who asks is new, too far behind, or ahead of a store restored from a backup.
    Snapshot(Snapshot),
}

impl FeedAnswer {
    /// The answer as bytes: frames of a `u32` length (little endian) and a snapshot or delta in its wire form.
    pub fn encode(&self) -> Vec<u8> {
        let frames = match self {
            Self::Nothing => Vec::new(),
            Self::Deltas(deltas) => deltas.iter().map(encode_delta).collect(),
            Self::Snapshot(snapshot) => vec![encode_snapshot(snapshot)],
        };
        Self::frames(&frames)
    }

    /// The bytes of an answer whose parts are encoded already.
    pub fn frames<B: AsRef<[u8]>>(frames: &[B]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(frames.iter().map(|f| f.as_ref().len() + 4).sum());
        for frame in frames {
            let frame = frame.as_ref();
            let length = u32::try_from(frame.len()).expect("a snapshot is far below 4 GiB");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`WireError`] of the first frame that is damaged or cut short; nothing is half-read.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, WireError> {
        let mut deltas = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_first_chunk::<4>().ok_or(WireError::Checksum)?;
            let length = u32::from_le_bytes(*length) as usize;
            let frame = rest.get(..length).ok_or(WireError::Checksum)?;
            bytes = &rest[length..];
            if frame.starts_with(b"SGs") {
                return decode_snapshot(frame).map(Self::Snapshot);
            }
            deltas.push(decode_delta(frame)?);
        }
        Ok(if deltas.is_empty() { Self::Nothing } else { Self::Deltas(deltas) })
    }
}

/// What a proxy says of itself: its acknowledgement and how it is. Sent after every adoption and every few seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeReport {
    /// Who.
    pub node: NodeId,
    /// What it serves: the acknowledgement.
    pub serving: Revision,
    /// A revision it refused after the one it serves, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedRevision>,
    /// Its release.
    pub version: String,
    /// When it started, milliseconds since 1970.
    pub started_at_ms: i64,
    /// Certificates it can serve.
    pub certificates: u64,
    /// Connections open towards it.
    pub connections: u64,
    /// Requests in flight.
    pub requests_in_flight: u64,
    /// The context key it signs with. Absent: it has none, or is of a release that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_key: Option<KeyId>,
    /// Key-encryption keys it can open with. Empty for a node of a release that does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sealing_keys: Vec<String>,
    /// How it finds its backends.
    #[serde(default)]
    pub backends: Vec<BackendReport>,
    /// What became of the requests of tenants that have a canary; at most [`CanaryReport::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<CanaryReport>,
    /// Things an operator should know, such as a last-good file that was damaged and set aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// Hosts that clients ask it for and no tenant has, the most wanted first; at most [`UnknownHost::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_hosts: Vec<UnknownHost>,
    /// Issuers whose tokens name keys that the node does not have; at most [`MissingKey::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_keys: Vec<MissingKey>,
    /// The latest requests that named two tenants, the last first; at most [`CrossTenantAttempt::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cross_tenant_attempts: Vec<CrossTenantAttempt>,
    /// Quotas that have reached 80 or 100 % here, the last first; at most [`QuotaEvent::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quota_events: Vec<QuotaEvent>,
    /// The latest changes of backends' conditions, the last first; at most [`BackendChange::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_changes: Vec<BackendChange>,
    /// How it shares the limits of tenants with the other proxies. Absent: it is of a release that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<SharedLimits>,
}

/// How a proxy shares the limits of tenants with the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedLimits {
    /// By what.
    pub mode: SharingMode,
    /// Live proxies as it last heard, itself among them.
    pub live_nodes: u32,
    /// Whether it has a Redis to share through.
    pub redis: bool,
    /// Slices of tenants' rates that it has asked for since it started.
    pub slices: u64,
    /// Answers that it did not get.
    pub errors: u64,
    /// When Redis last answered, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_ms: Option<i64>,
    /// Why Redis does not answer now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// By what a proxy shares the limits of tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SharingMode {
    /// It is alone: all of every limit is its own.
    Local,
    /// Slices leased from Redis.
    Redis,
    /// Each of the live proxies lets an equal part through.
    Share,
}

/// What the control plane answers to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ReportTaken {
    /// Live proxies, the one that reports among them. Absent: the control plane is of a release that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_nodes: Option<u32>,
}

/// A tenant's quota has reached 80 or 100 % on one proxy, for the first time in its period there. Several proxies may
/// each say so: who gathers them tells each `kind` of a tenant, quota and period once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaEvent {
    /// `quota.warning` (80 %) or `quota.exceeded` (100 %).
    pub kind: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Whose.
    pub tenant: TenantId,
    /// Its slug.
    pub tenant_slug: Slug,
    /// The limit by its name in a plan: `requests_per_day` or `bytes_per_month`.
    pub quota: String,
    /// How much was used.
    pub used: u64,
    /// Of how much.
    pub limit: u64,
    /// When the period began, milliseconds since 1970.
    pub period_starts_ms: i64,
    /// When it ends, milliseconds since 1970.
    pub period_ends_ms: i64,
}

impl QuotaEvent {
    /// Events in one report: 64, about 20 KB.
    pub const MOST: usize = 64;
    /// A quota is used up by 80 %.
    pub const WARNING: &'static str = "quota.warning";
    /// A quota is used up.
    pub const EXCEEDED: &'static str = "quota.exceeded";
}

/// A backend's condition, as one proxy finds it, became another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendChange {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Its pool.
    pub pool: String,
    /// Its identity.
    pub backend: String,
    /// Its address.
    pub address: String,
    /// What it was: `up`, `unhealthy`, `ejected`, `draining` or `disabled`.
    pub from: String,
    /// What it is.
    pub to: String,
    /// Why it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl BackendChange {
    /// Changes in one report: 64, about 15 KB.
    pub const MOST: usize = 64;
}

/// What became of a tenant's requests at one proxy since a share of them goes to another pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CanaryReport {
    /// Whose.
    pub tenant: TenantId,
    /// Where the share goes.
    pub pool: PoolId,
    /// The share.
    pub moved: ShareReport,
    /// The rest.
    pub rest: ShareReport,
}

impl CanaryReport {
    /// Tenants in one report: 256. More are not moved at once.
    pub const MOST: usize = 256;
}

/// Requests of one side of a canary, counted since it was there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ShareReport {
    /// Those that ended with a status from 500 on, or that the canary's pool could not take.
    pub errors: u64,
    /// Those in flight now.
    pub in_flight: u64,
    /// Those that ended, by the time to the first byte of the answer: one number for each of [`Self::BOUNDS_US`], and
    /// one for those above.
    pub latency: Vec<u64>,
}

impl ShareReport {
    /// Upper bounds of the times, microseconds.
    pub const BOUNDS_US: [u64; 13] = [
        1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
        10_000_000,
    ];

    /// Where a time is counted.
    pub fn bucket(micros: u64) -> usize {
        Self::BOUNDS_US.iter().position(|bound| micros <= *bound).unwrap_or(Self::BOUNDS_US.len())
    }

    /// How many ended.
    pub fn requests(&self) -> u64 {
        self.latency.iter().sum()
    }

    /// The bound that 99 of 100 did not take longer than, microseconds; `None` when none ended. Above the last bound
    /// it is twice that one.
    pub fn p99_us(&self) -> Option<u64> {
        let requests = self.requests();
        let mut left = requests.checked_sub(1)? * 99 / 100;
        for (at, count) in self.latency.iter().enumerate() {
            if *count > left {
                return Some(Self::BOUNDS_US.get(at).copied().unwrap_or(Self::BOUNDS_US[12] * 2));
            }
            left -= count;
        }
        None
    }

    /// With those of another node.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let at = |counts: &[u64], n: usize| counts.get(n).copied().unwrap_or(0);
        let latency = (0..=Self::BOUNDS_US.len()).map(|n| at(&self.latency, n).saturating_add(at(&other.latency, n)));
        Self {
            errors: self.errors.saturating_add(other.errors),
            in_flight: self.in_flight.saturating_add(other.in_flight),
            latency: latency.collect(),
        }
    }

    /// What came since `before`. A node that counts less than before began anew: all it has came since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.requests() < before.requests() || self.errors < before.errors {
            return self.clone();
        }
        let at = |n: usize| before.latency.get(n).copied().unwrap_or(0);
        let latency = self.latency.iter().enumerate().map(|(n, count)| count.saturating_sub(at(n)));
        Self { errors: self.errors - before.errors, in_flight: self.in_flight, latency: latency.collect() }
    }
}

/// A host that clients ask one proxy for and no tenant has: a school that is not set up yet, one that has left, or a
/// stranger's name pointing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnknownHost {
    /// Its name.
    pub name: DomainName,
    /// How often it was asked for since the node started; too high by at most `overcount`.
    pub count: u64,
    /// What `count` may include of names that were pushed out of the node's list before this one came in.
    #[serde(default)]
    pub overcount: u64,
    /// When this count began, milliseconds since 1970.
    pub first_seen_ms: i64,
    /// When it was last asked for, milliseconds since 1970.
    pub last_seen_ms: i64,
}

impl UnknownHost {
    /// Names in one report: 100, about 15 KB.
    pub const MOST: usize = 100;
}

/// An issuer of tokens that may have a new key: a token that says it is of the issuer names one that the node does not
/// have. Anybody can write such a token, so it is a reason to look, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissingKey {
    /// Whose key.
    pub issuer: IssuerId,
    /// The key that was named last (`kid`), shortened; `null` when the token named none.
    pub kid: Option<String>,
    /// How many such tokens there were since the node started.
    pub count: u64,
    /// When the last came, milliseconds since 1970.
    pub last_seen_ms: i64,
}

impl MissingKey {
    /// Issuers in one report: 64. A platform has a handful.
    pub const MOST: usize = 64;
}

/// A request that named two tenants, and was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CrossTenantAttempt {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// The node's identifier of the request.
    pub request_id: String,
    /// Who asked.
    #[schema(value_type = Option<String>)]
    pub client: Option<IpAddr>,
    /// The host, normalised.
    pub host: String,
    /// The tenant it was for.
    pub tenant: Option<TenantId>,
    /// The slug of that tenant.
    pub tenant_slug: Option<Slug>,
    /// What disagreed: `header`, `slug_header`, `query`, `token` or `path`.
    pub kind: String,
    /// What it said, shortened, without control characters.
    pub named: String,
}

impl CrossTenantAttempt {
    /// Attempts in one report: 64, about 20 KB.
    pub const MOST: usize = 64;
}

/// What the control plane asks a proxy: `GET /internal/v1/nodes/{node}/questions?wait_ms=…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestQuestions {
    /// Identifiers of requests that it wants to know about.
    pub requests: Vec<String>,
}

/// What a proxy answers: `POST /internal/v1/nodes/{node}/answers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestAnswers {
    /// An answer for each.
    pub answers: Vec<RequestAnswer>,
}

/// What a proxy knows of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestAnswer {
    /// Which.
    pub request_id: String,
    /// What it kept; `null` when it did not serve it or no longer knows.
    pub request: Option<RecordedRequest>,
}

/// A revision that changed nothing, because it was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedRevision {
    /// Which.
    pub revision: Revision,
    /// Why.
    pub reason: String,
}

/// How one proxy finds one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendReport {
    /// Its pool.
    pub pool: String,
    /// Its identity.
    pub backend: String,
    /// Its address.
    pub address: String,
    /// `up`, `unhealthy`, `ejected`, `draining` or `disabled`.
    pub state: String,
    /// Whether an active check has said so; a backend that was never checked is taken for `up`.
    #[serde(default)]
    pub checked: bool,
    /// Requests in flight to it.
    pub in_flight: u64,
    /// Why it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(latency: &[(usize, u64)], errors: u64) -> ShareReport {
        let mut counts = vec![0; ShareReport::BOUNDS_US.len() + 1];
        for (at, count) in latency {
            counts[*at] = *count;
        }
        ShareReport { errors, in_flight: 0, latency: counts }
    }

    #[test]
    fn ninety_nine_of_a_hundred_took_no_longer() {
        assert_eq!(share(&[], 0).p99_us(), None);
        assert_eq!(share(&[(0, 1)], 0).p99_us(), Some(1_000));
        assert_eq!(share(&[(0, 99), (4, 1)], 0).p99_us(), Some(1_000));
        assert_eq!(share(&[(0, 98), (4, 2)], 0).p99_us(), Some(25_000));
        assert_eq!(share(&[(13, 7)], 0).p99_us(), Some(20_000_000));
    }

    #[test]
    fn shares_add_up_over_nodes_and_begin_anew_with_a_node() {
        let (one, two) = (share(&[(0, 5), (1, 1)], 1), share(&[(1, 4)], 0));
        let both = one.plus(&two);
        assert_eq!((both.requests(), both.errors), (10, 1));
        assert_eq!(both.since(&one).requests(), 4);
        assert_eq!(one.since(&both).requests(), 6, "a node that was started again counts from nothing");
        assert_eq!(both.since(&ShareReport::default()), both);
    }

    #[test]
    fn an_answer_reads_back_as_written_and_a_cut_one_is_refused() {
        let delta = |from: u64| Delta { from: Revision(from), to: Revision(from + 1), changes: Vec::new() };
        let answer = FeedAnswer::Deltas(vec![delta(1), delta(2)]);
        let bytes = answer.encode();
        assert_eq!(FeedAnswer::decode(&bytes).expect("whole"), answer);
        for cut in 1..bytes.len() {
            if let Ok(FeedAnswer::Deltas(deltas)) = FeedAnswer::decode(&bytes[..cut]) {
                assert_eq!(deltas, vec![delta(1)], "only whole deltas may be read");
            }
        }
    }
}
