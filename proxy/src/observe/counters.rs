//! What is counted per tenant, pool and backend: plain atomics beside the thing in the routing table.
//!
//! A counter family of the `prometheus` crate takes 482 bytes a series, and its key is a hash of label values that
//! customers choose; at 100,000 tenants these arrays take a tenth and cannot collide. [`super::busiest`] decides which
//! of them are shown by name.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schoolgate_config::identity::Identifier;
use schoolgate_config::usage::RequestClass;

use super::usage::UsageCells;
use crate::limit::{Layer, Layers};

/// Statuses with a counter of their own; any other is counted by its class (`2xx`).
const CODES: [u16; 27] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 413, 421, 422, 429,
    500, 502, 503, 504,
];
/// Labels of the counters after those of [`CODES`]: classes, and requests that ended without a status because the
/// client went away (nginx calls it 499).
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "499"];
/// Counters of one [`Codes`].
pub(crate) const CODE_CELLS: usize = CODES.len() + CLASSES.len();

/// From status to its place, worked out once by the compiler.
const PLACE: [u8; 600] = {
    let mut place = [0; 600];
    let mut code = 0;
    while code < 600 {
        let class = if code < 100 { 5 } else { code / 100 - 1 };
        place[code] = (CODES.len() + class) as u8;
        code += 1;
    }
    let mut i = 0;
    while i < CODES.len() {
        place[CODES[i] as usize] = i as u8;
        i += 1;
    }
    place
};

/// Where a status is counted. Anything that is no status counts as "no answer".
fn place(status: u16) -> usize {
    PLACE.get(usize::from(status)).map_or(CODE_CELLS - 1, |place| usize::from(*place))
}

/// The `code` label of a counter.
pub(crate) fn code_label(place: usize) -> std::borrow::Cow<'static, str> {
    match CODES.get(place) {
        Some(code) => code.to_string().into(),
        None => CLASSES[place - CODES.len()].into(),
    }
}

/// A row of counters. One array, so that rows can be added and subtracted without knowing what they mean.
#[derive(Debug)]
pub(crate) struct Cells<const W: usize>([AtomicU64; W]);

impl<const W: usize> Default for Cells<W> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; W])
    }
}

impl<const W: usize> Cells<W> {
    fn add(&self, at: usize, by: u64) {
        self.0[at].fetch_add(by, Ordering::Relaxed);
    }

    /// One value.
    pub(super) fn at(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::Relaxed)
    }

    /// The values now. Not one instant: a request may be in the first and not yet in the last.
    pub(crate) fn read(&self) -> [u64; W] {
        std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Upper bounds of a tenant's duration buckets, microseconds: few, since there are many tenants.
pub(crate) const TENANT_BOUNDS: [u64; 4] = [50_000, 250_000, 1_000_000, 5_000_000];
/// Upper bounds of a pool's duration buckets, microseconds.
pub(crate) const POOL_BOUNDS: [u64; 13] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Upper bounds of the buckets of waits in a pool's queue, microseconds.
pub(crate) const WAIT_BOUNDS: [u64; 7] = [1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000];

/// In which bucket a duration falls; the last one has no bound.
fn bucket(bounds: &[u64], micros: u64) -> usize {
    bounds.iter().position(|bound| micros <= *bound).unwrap_or(bounds.len())
}

/// How an identifier disagreed with the tenant selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The name in the handshake leads to another tenant than the host.
    Sni,
    /// `X-Tenant-ID`.
    Header,
    /// `X-Tenant-Slug`.
    SlugHeader,
    /// `tenant` or `tenantId` of the query.
    Query,
    /// A claim of a verified token.
    Token,
    /// `/t/{slug}/` on a shared host.
    Path,
}

impl From<Identifier> for Mismatch {
    fn from(identifier: Identifier) -> Self {
        match identifier {
            Identifier::Header => Self::Header,
            Identifier::SlugHeader => Self::SlugHeader,
            Identifier::Query => Self::Query,
            Identifier::Token => Self::Token,
            Identifier::Path => Self::Path,
        }
    }
}

impl Mismatch {
    /// Every value, in the order of its counters.
    pub(crate) const ALL: [Self; 6] = [Self::Sni, Self::Header, Self::SlugHeader, Self::Query, Self::Token, Self::Path];

    /// The metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sni => "sni",
            Self::Header => Identifier::Header.as_str(),
            Self::SlugHeader => Identifier::SlugHeader.as_str(),
            Self::Query => Identifier::Query.as_str(),
            Self::Token => Identifier::Token.as_str(),
            Self::Path => Identifier::Path.as_str(),
        }
    }
}

/// Where things are in a tenant's row.
pub(crate) mod tenant_row {
    use super::{CODE_CELLS, Layer, Mismatch, TENANT_BOUNDS};

    pub(crate) const BYTES_IN: usize = CODE_CELLS;
    pub(crate) const BYTES_OUT: usize = BYTES_IN + 1;
    pub(crate) const BUCKETS: usize = BYTES_OUT + 1;
    pub(crate) const SUM: usize = BUCKETS + TENANT_BOUNDS.len() + 1;
    pub(crate) const MISMATCHES: usize = SUM + 1;
    /// By layer: refused; then, for the layers that have one, in shadow.
    pub(crate) const LIMITED: usize = MISMATCHES + Mismatch::ALL.len();
    pub(crate) const WOULD_LIMIT: usize = LIMITED + Layer::ALL.len();
    pub(crate) const WIDTH: usize = WOULD_LIMIT + Layer::SHADOWED.len();
}

/// Where things are in a pool's row.
pub(crate) mod pool_row {
    use super::{POOL_BOUNDS, WAIT_BOUNDS};

    pub(crate) const SUM: usize = POOL_BOUNDS.len() + 1;
    pub(crate) const RETRIES: usize = SUM + 1;
    pub(crate) const WAITS: usize = RETRIES + 1;
    pub(crate) const WAITS_SUM: usize = WAITS + WAIT_BOUNDS.len() + 1;
    pub(crate) const WIDTH: usize = WAITS_SUM + 1;
}

/// What is counted for one tenant.
#[derive(Debug, Default)]
pub struct TenantCounters {
    pub(crate) row: Cells<{ tenant_row::WIDTH }>,
    in_flight: AtomicU64,
    /// What is gathered for the control plane; made with the first request.
    pub(super) usage: OnceLock<Box<UsageCells>>,
    pub(super) rank: super::busiest::Rank,
    pub(super) sampler: super::recorder::Sampler,
}

impl TenantCounters {
    /// Requests in flight now.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that ended, whatever came of them.
    pub fn requests(&self) -> u64 {
        // The buckets: five cells to read instead of all statuses.
        self.row.0[tenant_row::BUCKETS..tenant_row::SUM].iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn begin(&self) {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.usage.get_or_init(Box::default).in_flight(before + 1);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn request(&self, status: u16, bytes_in: u64, bytes_out: u64, total: Duration) {
        let micros = micros(total);
        self.row.add(place(status), 1);
        if bytes_in > 0 {
            self.row.add(tenant_row::BYTES_IN, bytes_in);
        }
        self.row.add(tenant_row::BYTES_OUT, bytes_out);
        self.row.add(tenant_row::BUCKETS + bucket(&TENANT_BOUNDS, micros), 1);
        self.row.add(tenant_row::SUM, micros);
    }

    pub(super) fn limited(&self, refused: Option<Layer>, would: Layers) {
        if let Some(layer) = refused {
            self.row.add(tenant_row::LIMITED + layer as usize, 1);
        }
        for layer in would.iter() {
            self.row.add(tenant_row::WOULD_LIMIT + layer as usize, 1);
        }
    }

    /// A request that ended, as the tenant's usage tells it.
    pub(super) fn used(&self, class: RequestClass, status: u16, total: Duration) {
        self.usage.get_or_init(Box::default).request(class, status, total);
    }

    pub(super) fn mismatch(&self, kind: Mismatch) {
        self.row.add(tenant_row::MISMATCHES + kind as usize, 1);
    }
}

/// What is counted for one pool.
#[derive(Debug, Default)]
pub struct PoolCounters {
    pub(crate) row: Cells<{ pool_row::WIDTH }>,
    pub(super) rank: super::busiest::Rank,
}

impl PoolCounters {
    pub(super) fn retried(&self) {
        self.row.add(pool_row::RETRIES, 1);
    }

    /// A request waited so long for its turn, and came in or not.
    pub(crate) fn waited(&self, time: Duration) {
        let micros = micros(time);
        self.row.add(pool_row::WAITS + bucket(&WAIT_BOUNDS, micros), 1);
        self.row.add(pool_row::WAITS_SUM, micros);
    }

    /// Requests forwarded to this pool that ended.
    pub fn requests(&self) -> u64 {
        self.row.0[..=POOL_BOUNDS.len()].iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn request(&self, total: Duration) {
        let micros = micros(total);
        self.row.add(bucket(&POOL_BOUNDS, micros), 1);
        self.row.add(pool_row::SUM, micros);
    }
}

/// What is counted for one backend: its answers by status, and attempts that got none.
#[derive(Debug, Default)]
pub struct BackendCounters {
    codes: Cells<CODE_CELLS>,
    failed: AtomicU64,
}

impl BackendCounters {
    /// It answered.
    pub fn answered(&self, status: u16) {
        self.codes.add(place(status), 1);
    }

    /// It was asked and did not answer: refused, reset, too slow. Exported as `code="error"`.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers by place, and failures.
    pub(crate) fn read(&self) -> ([u64; CODE_CELLS], u64) {
        (self.codes.read(), self.failed.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_place_and_its_label_says_so() {
        assert_eq!(code_label(place(200)), "200");
        assert_eq!(code_label(place(504)), "504");
        assert_eq!(code_label(place(418)), "4xx");
        assert_eq!(code_label(place(299)), "2xx");
        assert_eq!(code_label(place(0)), "499");
        assert_eq!(code_label(place(999)), "499");
        for status in 0..=u16::MAX {
            assert!(place(status) < CODE_CELLS);
        }
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        assert_eq!(bucket(&TENANT_BOUNDS, 0), 0);
        assert_eq!(bucket(&TENANT_BOUNDS, 50_000), 0);
        assert_eq!(bucket(&TENANT_BOUNDS, 50_001), 1);
        assert_eq!(bucket(&TENANT_BOUNDS, u64::MAX), 4);
    }
}
