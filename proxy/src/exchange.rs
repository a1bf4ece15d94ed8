//! Exchange: the typed context of one request, and which phase sets which field.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use schoolgate_config::identity::Bearer;
use schoolgate_config::model::{BackendId, Revision, Route};
use schoolgate_config::table::{PoolEntry, TenantEntry};

use crate::admit::client_addr::Client;
use crate::admit::gate::Head;
use crate::admit::limits::{BodyMeter, LeastRate};
use crate::balance::queue::{Slot, Turn};
use crate::balance::{InFlight, Whose};
use crate::fault::Fault;
use crate::forward::request_id::RequestId;
use crate::limit::{Limited, Passed};
use crate::live::{NodeLive, TenantPermit};
use crate::observe::{InShare, Mismatch};
use crate::transport::Held;

/// What is known of one request. Made by `new_ctx`, dropped when the request is over; its permits return then,
/// whatever became of the request.
pub struct Exchange {
    /// When it began: its head had arrived.
    pub(crate) began: Instant,
    /// The same moment by the wall clock, milliseconds since 1970.
    pub(crate) began_ms: i64,
    /// Chance of its own: what a canary shares requests by.
    pub(crate) chance: u64,
    /// Our identifier of it.
    pub(crate) request_id: RequestId,
    /// Who asks. Set by `request_filter`.
    pub(crate) client: Option<Client>,
    /// What the gate learned. Set by `request_filter`.
    pub(crate) head: Head,
    /// Where it goes. Set by `request_filter` when the decision names a backend's pool.
    pub(crate) target: Option<Target>,
    /// For whom, also when it was refused. Set by `request_filter`.
    pub(crate) tenant: Option<Arc<TenantEntry<NodeLive>>>,
    /// What its token was worth, if that was asked. Set by `request_filter`.
    pub(crate) bearer: Option<Bearer>,
    /// The revision that decided. Set by `request_filter`.
    pub(crate) revision: Revision,
    /// Its tenant's count of requests in flight. Set by `request_filter`.
    pub(crate) permit: Option<TenantPermit>,
    /// What it holds of its tenant's limits, and what they said. Set by `request_filter`.
    pub(crate) passed: Option<Passed>,
    /// Its place in its pool. Set by `request_filter`.
    pub(crate) slot: Option<Slot>,
    /// Its pool is full: whose turn it waits for. Set, and waited for, by `request_filter`.
    pub(crate) turn: Option<Turn>,
    /// What a refused client is told. Set by `request_filter`.
    pub(crate) limited: Option<Box<Limited>>,
    /// What its body would be refused for, were that not in shadow. Set by `request_filter`.
    pub(crate) body_shadow: u64,
    /// The side of its tenant's canary that it is on, if there is one. Set by `request_filter`.
    pub(crate) share: Option<InShare>,
    /// Bytes of its body. Counted by `request_body_filter`.
    pub(crate) body: BodyMeter,
    /// What of its body may still wait for a backend. Set by `request_body_filter`.
    pub(crate) upward: Option<Held>,
    /// What of its answer may still wait for the client. Set by `response_body_filter`.
    pub(crate) downward: Option<Held>,
    /// The attempt that runs, and those before it. Set by `request_filter` and `upstream_peer`.
    pub(crate) attempts: Attempts,
    /// Why the gateway answers itself. Set wherever that is decided.
    pub(crate) fault: Option<Fault>,
    /// Identifiers disagreed.
    pub(crate) mismatch: Option<Mismatch>,
    /// No tenant has its host.
    pub(crate) unknown_host: bool,
    /// How long its parts took.
    pub(crate) times: Times,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exchange({})", self.request_id)
    }
}

/// Where a request goes.
pub(crate) struct Target {
    pub(crate) pool: Arc<PoolEntry<NodeLive>>,
    /// Of a canary's share: the pool of the rest, for when the canary's has nobody to offer.
    pub(crate) otherwise: Option<Arc<PoolEntry<NodeLive>>>,
    pub(crate) route: Option<Arc<Route>>,
    /// The host in canonical form with the client's port, if that is not what the client sent.
    pub(crate) host: Option<HeaderValue>,
    /// What an identifier of a shared host left of the target, if it named the tenant there.
    pub(crate) cut: Option<Cut>,
}

/// A target without what named the tenant in it.
pub(crate) struct Cut {
    /// Path and query.
    pub(crate) target: String,
    /// `/t/{slug}`, if that was cut off.
    pub(crate) prefix: Option<HeaderValue>,
}

/// Attempts at backends.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// The backend that was chosen last.
    pub(crate) current: Option<InFlight>,
    /// `current` was chosen and not asked yet.
    pub(crate) fresh: bool,
    /// The backend that a cookie of ours names.
    pub(crate) sticky: Option<BackendId>,
    /// Backends that failed and are not asked again.
    pub(crate) failed: Vec<BackendId>,
    /// Repeated attempts that count against the pool's rule.
    pub(crate) retries: u8,
    /// Repeated attempts after a stale connection.
    pub(crate) stale: u8,
    /// What the last backend answered.
    pub(crate) status: Option<u16>,
}

/// Moments of a request, from its beginning.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Times {
    /// It was known where it goes.
    pub(crate) decided: Option<Duration>,
    /// The last attempt began.
    pub(crate) attempt: Option<Duration>,
    /// The last attempt had a connection.
    pub(crate) connected: Option<Duration>,
    /// The backend's head arrived.
    pub(crate) first_byte: Option<Duration>,
}

impl Exchange {
    pub(crate) fn new(began_ms: i64) -> Self {
        let began = Instant::now();
        Self {
            began,
            began_ms,
            chance: fastrand::u64(..),
            request_id: RequestId::new(began_ms),
            client: None,
            head: Head::default(),
            target: None,
            tenant: None,
            bearer: None,
            revision: Revision::NONE,
            permit: None,
            passed: None,
            slot: None,
            turn: None,
            limited: None,
            body_shadow: u64::MAX,
            share: None,
            body: BodyMeter::new(u64::MAX, LeastRate::NONE, began),
            upward: None,
            downward: None,
            attempts: Attempts::default(),
            fault: None,
            mismatch: None,
            unknown_host: false,
            times: Times::default(),
        }
    }

    /// Whose request it is, as far as backends are concerned.
    pub(crate) fn whose(&self) -> Option<Whose<'_>> {
        let tenant = self.tenant.as_ref()?;
        Some(Whose { tenant: tenant.live.number, circuits: &tenant.live.circuits })
    }

    /// Time since it began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Time that its route and pool leave it; `None`: as long as it takes. A switched protocol has no end.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let target = self.target.as_ref()?;
        let of_route = target.route.as_ref().and_then(|route| route.action.timeouts?.total_ms);
        let total = of_route.or(target.pool.pool.timeouts.total_ms).filter(|_| !self.head.upgrade)?;
        Some(Duration::from_millis(total).saturating_sub(self.elapsed()))
    }

    /// Now, milliseconds since 1970, by the wall clock at its beginning and the monotonic one since.
    pub(crate) fn now_ms(&self) -> i64 {
        self.began_ms.saturating_add(i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}
