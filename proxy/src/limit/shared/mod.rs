//! Limits of a whole fleet: slices of each tenant's rate, leased beside the request path.
//!
//! A request asks what this node has: what is left of the slice, or else the node's share of the limit. Meanwhile
//! `run` looks at the tenants that make requests, twenty times a second, and asks the `bank` for what they will need
//! next: one command for each slice. No request waits for Redis, and when Redis is slow, full, refusing or gone, slices run
//! out and the share holds.
//!
//! * `slice`: what is asked and charged for one tenant, pure. `bank`: who grants. `redis`: Redis does.
//! * `status`: how it goes.

mod bank;
mod redis;
mod slice;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schoolgate_config::model::TenantId;
use schoolgate_config::time::Clock;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{Leased, Limiter, Rate, TenantLimits};
use crate::feed::backoff::Backoff;
use bank::{Ask, Bank, BankError, Grant};
use slice::{Left, Renewal, Slice, Wish};

pub use self::redis::RedisOptions;
pub use status::Sharing;

/// Time between two looks: 50 ms.
const LOOK: Duration = Duration::from_millis(50);

/// Time between two searches for tenants that begin to make requests: 100 ms. Until one is found its node's share holds.
const SEARCH: Duration = Duration::from_millis(100);

/// A search may take this part of the time: 1/50. With 100,000 tenants there is one a second or so.
const SEARCH_PART: u32 = 50;

/// Time after which Redis is asked whether it is there, when there is nothing else to ask: 1 s.
const PROBE: Duration = Duration::from_secs(1);

/// The longest wait before Redis is asked again: 500 ms, and at first 100 ms. For twice that and some more all nodes stay
/// at their shares when Redis is back.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Time for what is left to be given back when the node stops: 300 ms.
const LAST: Duration = Duration::from_millis(300);

/// The tenants whose rates are shared.
pub(super) trait Tenants: Send + Sync {
    /// Every tenant that has a rate, with what is kept of it.
    fn each(&self, found: &mut dyn FnMut(TenantId, &Arc<TenantLimits>));
    /// What holds for a tenant on the whole fleet; `None` when it has no rate, or is gone.
    fn rate(&self, tenant: &TenantId) -> Option<Rate>;
}

/// A tenant that makes requests.
struct Active {
    limits: Arc<TenantLimits>,
    slice: Slice,
}

impl Active {
    /// The bank has answered a wish.
    fn take(&mut self, wish: Wish, grant: Grant, now_ms: u64) {
        match grant {
            Grant::Lease { requests, wait_ms } => {
                if let Some(Renewal { more, until_ms }) = self.slice.granted(wish, requests, wait_ms, now_ms) {
                    self.limits.lease().grant(more, until_ms, now_ms);
                }
            }
            Grant::Share { wait_ms } => {
                self.slice.put_off(wish, wait_ms, now_ms);
                self.end_used_up(now_ms);
            }
        }
    }

    /// Ends a lease that is used up: it would refuse until it is over, and the share stands in for it.
    fn end_used_up(&self, now_ms: u64) {
        if matches!(self.limits.lease().peek(now_ms), Leased::Empty(_)) {
            self.limits.lease().give_back(now_ms);
        }
    }
}

/// Leases for one node.
struct Leasing<B> {
    bank: B,
    limiter: Arc<Limiter>,
    sharing: Arc<Sharing>,
    clock: Arc<dyn Clock>,
    /// Tells the moment; a test has its own.
    now: Box<dyn Fn() -> Instant + Send + Sync>,
    /// Requests of each tenant that made some, when last searched.
    known: HashMap<TenantId, u32>,
    active: HashMap<TenantId, Active>,
    next_search: Instant,
    next_probe: Instant,
    /// Not before this moment is the bank asked.
    ask_after: Instant,
    backoff: Backoff,
    /// The bank's last answer did not come.
    failing: bool,
    /// Since when no answer came, as was noticed.
    away_since: Option<Instant>,
}

impl<B: Bank> Leasing<B> {
    fn new(
        bank: B,
        sharing: Arc<Sharing>,
        clock: Arc<dyn Clock>,
        moment: impl Fn() -> Instant + Send + Sync + 'static,
    ) -> Self {
        let now = moment();
        Self {
            bank,
            limiter: sharing.limiter().clone(),
            sharing,
            clock,
            now: Box::new(moment),
            known: HashMap::new(),
            active: HashMap::new(),
            next_search: now,
            next_probe: now,
            ask_after: now,
            backoff: Backoff::new(LONGEST_WAIT),
            // Until it has answered once, nothing is known of what it has charged.
            failing: true,
            away_since: None,
        }
    }

    /// One look at everything.
    async fn step(&mut self, tenants: &dyn Tenants) {
        let now = (self.now)();
        if now >= self.next_search {
            self.search(tenants, now);
            let took = (self.now)().saturating_duration_since(now);
            self.next_search = now + SEARCH.max(took * SEARCH_PART);
        }
        let (asks, wishes) = self.wishes(tenants, now);
        if now < self.ask_after {
            return;
        }
        if asks.is_empty() {
            return self.probe(now).await;
        }
        let away = self.away_since.map(|since| now.saturating_duration_since(since));
        match self.bank.lease(&asks, away).await {
            Ok(grants) => {
                let now = (self.now)();
                self.answered();
                self.next_probe = now + PROBE;
                let granted = grants.iter().map(|grant| match grant {
                    Grant::Lease { requests, .. } => u64::from(*requests),
                    Grant::Share { .. } => 0,
                });
                self.sharing.leased(grants.len() as u64, granted.sum(), self.clock.unix_ms());
                let now_ms = self.limiter.now_ms(now);
                for ((ask, wish), grant) in asks.iter().zip(wishes).zip(grants) {
                    if let Some(active) = self.active.get_mut(&ask.tenant) {
                        active.take(wish, grant, now_ms);
                    }
                }
            }
            Err(error) => self.failed(&error, now),
        }
    }

    fn answered(&mut self) {
        self.backoff.reset();
        self.failing = false;
        self.away_since = None;
    }

    /// Asks whether the bank is there, now and then: who looks at a node without traffic wants to know.
    async fn probe(&mut self, now: Instant) {
        if now < self.next_probe {
            return;
        }
        self.next_probe = now + PROBE;
        match self.bank.probe().await {
            // There was nothing to ask, so nothing to charge either: who makes requests later brings what it has spent.
            Ok(()) => {
                self.answered();
                self.sharing.leased(0, 0, self.clock.unix_ms());
            }
            Err(error) => self.failed(&error, now),
        }
    }

    /// Finds tenants that have made requests since the last search.
    fn search(&mut self, tenants: &dyn Tenants, now: Instant) {
        let now_ms = self.limiter.now_ms(now);
        let (known, active) = (&mut self.known, &mut self.active);
        let mut begun = Vec::new();
        tenants.each(&mut |tenant, limits| {
            let demand = limits.demand();
            let asked = demand.passed.wrapping_add(demand.refused);
            if asked == 0 || active.contains_key(&tenant) || known.get(&tenant) == Some(&asked) {
                return;
            }
            known.insert(tenant, asked);
            begun.push((tenant, limits.clone(), demand));
        });
        for (tenant, limits, demand) in begun {
            let Some(rate) = tenants.rate(&tenant) else { continue };
            let spent = limits.spent_of_share(rate.part(self.limiter.share()), self.limiter.now_ns(now));
            self.active.insert(tenant, Active { slice: Slice::new(demand, spent, now_ms), limits });
        }
    }

    /// What all tenants want now. Those that rest, and those that are gone, are let go.
    fn wishes(&mut self, tenants: &dyn Tenants, now: Instant) -> (Vec<Ask>, Vec<Wish>) {
        let (now_ms, now_ns) = (self.limiter.now_ms(now), self.limiter.now_ns(now));
        let (mut asks, mut wishes) = (Vec::new(), Vec::new());
        let share = self.limiter.share();
        let (failing, known) = (self.failing, &mut self.known);
        self.active.retain(|tenant, Active { limits, slice }| {
            let Some(rate) = tenants.rate(tenant) else { return false };
            let own = rate.part(share);
            let mut left = match limits.lease().peek(now_ms) {
                Leased::Taken(others) => Left::Leased(others + 1),
                Leased::Empty(_) => Left::Leased(0),
                Leased::None => Left::Nothing,
            };
            if slice.rests(now_ms) && left != Left::Nothing {
                left = Left::Leased(limits.lease().give_back(now_ms));
            }
            let demand = limits.demand();
            slice.look(demand, left, now_ms);
            if failing {
                slice.forget(limits.spent_of_share(own, now_ns));
            }
            let rests = slice.rests(now_ms);
            if rests {
                left = Left::Nothing;
            }
            match slice.wish(rate, own, left, now_ms) {
                Some(wish @ Wish { spent, back, wanted }) => {
                    asks.push(Ask { tenant: *tenant, rate, spent, back, wanted });
                    wishes.push(wish);
                    // What a bank that does not answer was not told of a tenant at rest is over when it is back.
                    !(rests && failing)
                }
                None if rests => {
                    known.insert(*tenant, demand.passed.wrapping_add(demand.refused));
                    false
                }
                None => true,
            }
        });
        (asks, wishes)
    }

    fn failed(&mut self, error: &BankError, now: Instant) {
        self.sharing.failed(error);
        self.failing = true;
        self.away_since.get_or_insert(now);
        self.ask_after = now + self.backoff.next(fastrand::f64());
        let now_ms = self.limiter.now_ms(now);
        // Nobody is there to renew it.
        self.active.values().for_each(|active| active.end_used_up(now_ms));
    }

    /// Gives back what is left.
    async fn end(&mut self, tenants: &dyn Tenants) {
        let now_ms = self.limiter.now_ms((self.now)());
        let mut asks = Vec::new();
        for (tenant, Active { limits, slice }) in &mut self.active {
            let left = Left::Leased(limits.lease().give_back(now_ms));
            slice.look(limits.demand(), left, now_ms);
            if let (Some(rate), true) = (tenants.rate(tenant), slice.reserved() > 0) {
                asks.push(Ask { tenant: *tenant, rate, spent: 0, back: slice.reserved(), wanted: 0 });
            }
        }
        if !asks.is_empty() && !self.failing {
            // What Redis does not hear is missing from the others for as long as it takes to come again at the rate.
            let _ = timeout(LAST, self.bank.lease(&asks, None)).await;
        }
    }
}

/// What sharing is given.
pub(crate) struct SharedParts {
    pub(crate) sharing: Arc<Sharing>,
    pub(crate) table: crate::gateway::SharedTable,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) redis: RedisOptions,
}

/// Leases until told to stop; then gives back what is left.
pub(crate) async fn run(parts: Arc<SharedParts>, stop: CancellationToken) {
    let SharedParts { sharing, table, clock, redis } = &*parts;
    let limiter = sharing.limiter();
    let bank = redis::RedisBank::new(redis.clone());
    let mut leasing = Leasing::new(bank, sharing.clone(), clock.clone(), Instant::now);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = look.tick() => {}
        }
        let tenants = InTable { table: table.load_full(), limiter, now_ms: clock.unix_ms() };
        leasing.step(&tenants).await;
    }
    let tenants = InTable { table: table.load_full(), limiter, now_ms: clock.unix_ms() };
    leasing.end(&tenants).await;
}

/// The tenants of one revision.
struct InTable<'a> {
    table: Arc<schoolgate_config::table::RoutingTable<crate::live::NodeLive>>,
    limiter: &'a Limiter,
    now_ms: i64,
}

impl Tenants for InTable<'_> {
    fn each(&self, found: &mut dyn FnMut(TenantId, &Arc<TenantLimits>)) {
        self.table.tenants().for_each(|entry| found(entry.tenant.id, &entry.live.limits));
    }

    fn rate(&self, tenant: &TenantId) -> Option<Rate> {
        let entry = self.table.tenant(tenant)?;
        Some(self.limiter.enforced(&entry.tenant, &entry.plan, self.now_ms).rate?.limit)
    }
}
