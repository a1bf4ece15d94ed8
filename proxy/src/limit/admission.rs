//! What the limits of a tenant say to a request.
//!
//! First every limit is asked, then every one is taken: a request that is refused uses nothing up, and the time it is
//! told to wait is the longest that any of them wants, so that waiting lets it through.

use std::net::IpAddr;
use std::sync::Arc;

use schoolgate_config::calendar::{Calendar, Period};
use schoolgate_config::model::{LimitMode, Quota, QuotaMode};
use serde::{Serialize, Serializer};

use super::concurrency::{Kind, Permit};
use super::crowd::{Crowd, Key};
use super::enforced::{Enforced, Rule};
use super::fields::{Member, Told, Warning};
use super::gcra::{Rate, Room, Wait};
use super::lease::Leased;
use super::quota::Level;
use super::{Limiter, QuotaKind, Relaxed, TenantLimits};
use crate::fault::Fault;

/// Seconds after which a request that came while too many were in progress may try again. When one of them ends nobody
/// knows; most take less.
const CONCURRENCY_RETRY_S: u64 = 1;
const SECOND: u64 = 1_000_000_000;

/// A layer of limits. They are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Requests per minute: of the tenant, of one client, of a class.
    Rate,
    /// Requests of a day, bytes of a month.
    Quota,
    /// In progress at the same time.
    Concurrency,
    /// Bytes of one body.
    Body,
    /// The fair queue of a pool. It has no shadow: who does not wait there takes another's place.
    Queue,
}

impl Layer {
    /// Every layer, in the order of its counters.
    pub(crate) const ALL: [Self; 5] = [Self::Rate, Self::Quota, Self::Concurrency, Self::Body, Self::Queue];

    /// Those that can be in shadow: the first ones.
    pub(crate) const SHADOWED: [Self; 4] = [Self::Rate, Self::Quota, Self::Concurrency, Self::Body];

    /// The metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Quota => "quota",
            Self::Concurrency => "concurrency",
            Self::Body => "body",
            Self::Queue => "queue",
        }
    }
}

/// Some of the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layers(u8);

impl Layers {
    pub(crate) const fn add(&mut self, layer: Layer) {
        self.0 |= 1 << layer as u8;
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Layer> {
        Layer::ALL.into_iter().filter(move |layer| self.0 & 1 << *layer as u8 != 0)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub(crate) const fn is_empty(&self) -> bool {
        self.0 == 0
    }
}
impl Serialize for Layers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
impl Serialize for Layer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Whether a request counts against the day's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// It does.
    Yes,
    /// It asks for something static or public, as its route says.
    No,
}

/// A request that wants in.
pub struct Ask<'a> {
    /// What is kept of its tenant.
    pub limits: &'a Arc<TenantLimits>,
    /// What holds for it.
    pub enforced: &'a Enforced,
    /// The tenant's number in this process.
    pub tenant: u64,
    /// The tenant's day and month.
    pub calendar: Calendar,
    /// Nanoseconds of [`Limiter::now_ns`].
    pub now_ns: u64,
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// Who asks.
    pub client: IpAddr,
    /// The class that its route names.
    pub class: Option<&'a str>,
    /// What it may become.
    pub kind: Kind,
    /// Whether it counts against the day.
    pub counts: Counts,
}

/// A quota has reached a level for the first time in its period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) quota: QuotaKind,
    pub(crate) level: Level,
    pub(crate) used: u64,
    pub(crate) value: u64,
    pub(crate) period: Period,
}

/// A request that was let in, and what it holds.
#[derive(Debug)]
pub struct Passed {
    /// It is in progress.
    pub(crate) request: Option<Permit>,
    /// So is the WebSocket it may become.
    pub(crate) websocket: Option<Permit>,
    /// What its client is told.
    pub told: Told,
    /// Layers that would have refused it, were they not in shadow.
    pub(crate) would_limit: Layers,
    /// Quotas that have reached a level with it.
    pub(crate) reached: [Option<Reached>; 2],
    took: Took,
}

/// What a request used up.
#[derive(Debug, Default)]
struct Took {
    rate: Option<TookRate>,
    client: Option<(Key, Rate)>,
    class: Option<(Key, Rate)>,
    day: Option<u16>,
}

#[derive(Debug, Clone, Copy)]
enum TookRate {
    Metered(Rate),
    Leased(Rate),
}

/// A request that is refused.
#[derive(Debug)]
pub struct Limited {
    pub(crate) fault: Fault,
    /// After so many seconds it would be let in, if nothing else came.
    pub(crate) retry_after_s: u64,
    pub(crate) told: Told,
}

/// The longest wait that any limit wants.
#[derive(Default)]
struct Worst(Option<(u64, Fault)>);

impl Worst {
    fn see(&mut self, fault: Fault, wait_ns: u64) {
        if self.0.is_none_or(|(longest, _)| wait_ns > longest) {
            self.0 = Some((wait_ns, fault));
        }
    }
}

impl Limiter {
    /// Lets a request in, or says why not.
    ///
    /// # Errors
    /// [`Limited`]; nothing is used up then.
    pub fn admit(&self, ask: &Ask<'_>) -> Result<Passed, Box<Limited>> {
        let Ask { limits, enforced, now_ns, .. } = *ask;
        let mut would_limit = Layers::default();
        let mut told = Told { policy: enforced.policy.clone(), ..Told::default() };
        let permits = in_progress(ask, &mut would_limit);
        let client = enforced.client.map(|rule| (self.clients(), self.clients().key((ask.tenant, ask.client)), rule));
        let class = ask.class.and_then(|name| {
            enforced.class(name).map(|rule| (self.classes(), self.classes().key((ask.tenant, name)), rule))
        });
        let rate = enforced.rate.map(|rule| Rule { limit: rule.limit.part(self.share()), mode: rule.mode });

        let mut worst = Worst::default();
        let mut see = |mode, layer, fault, wait_ns| match mode {
            LimitMode::Enforce => worst.see(fault, wait_ns),
            LimitMode::Shadow => would_limit.add(layer),
        };
        let mut free = [false; 2];
        for (at, crowded) in [&client, &class].into_iter().enumerate() {
            let Some((crowd, key, rule)) = crowded else { continue };
            match crowd.peek(*key, rule.limit, now_ns) {
                Ok(_) => free[at] = true,
                Err(Wait(wait)) => see(rule.mode, Layer::Rate, Fault::RateLimited, wait),
            }
        }
        let mut passes = false;
        if let Some(rule) = rate {
            match self.peek_rate(limits, rule.limit, now_ns) {
                Ok(room) => {
                    passes = true;
                    // Should another limit refuse it, it takes nothing from this one.
                    told.minute =
                        room.map(|room| Member { left: room.left + 1, seconds: room.more_in_ns.div_ceil(SECOND) });
                }
                Err(Wait(wait)) => {
                    told.minute = Some(Member { left: 0, seconds: wait.div_ceil(SECOND) });
                    see(rule.mode, Layer::Rate, Fault::RateLimited, wait);
                }
            }
        }
        for (quota, rule, period) in quotas(ask) {
            let counts = quota == QuotaKind::Bytes || ask.counts == Counts::Yes;
            if !counts || rule.limit.mode != QuotaMode::Hard {
                continue;
            }
            if limits.used(quota, period.number) >= rule.limit.value {
                let left = period.seconds_left(ask.now_ms);
                if quota == QuotaKind::Requests {
                    told.day = Some(Member { left: 0, seconds: left });
                }
                see(rule.mode, Layer::Quota, Fault::QuotaExceeded, left.saturating_mul(SECOND));
            }
        }
        let permits = match permits {
            Ok(permits) => Some(permits),
            Err(TooMany) => {
                worst.see(Fault::ConcurrencyLimited, CONCURRENCY_RETRY_S * SECOND);
                None
            }
        };
        let (None, Some((request, websocket))) = (worst.0, permits) else {
            let (wait, fault) = worst.0.unwrap_or((SECOND, Fault::ConcurrencyLimited));
            if fault == Fault::RateLimited {
                limits.refused.fetch_add(1, Relaxed);
            }
            told.day = told.day.or_else(|| left_today(ask));
            return Err(limited(fault, wait, told));
        };

        let mut took = Took::default();
        match self.take(
            ask,
            &mut took,
            &mut told,
            [client.filter(|_| free[0]), class.filter(|_| free[1])],
            rate.filter(|_| passes),
        ) {
            Ok(()) => {}
            Err((fault, wait)) => {
                // Another request was faster.
                self.undo(limits, &took, now_ns);
                return Err(limited(fault, wait, told));
            }
        }
        limits.passed.fetch_add(1, Relaxed);
        let reached = self.tell_quotas(ask, &mut told);
        Ok(Passed { request: Some(request), websocket, told, would_limit, reached, took })
    }

    /// Takes what was found free.
    fn take(
        &self,
        ask: &Ask<'_>,
        took: &mut Took,
        told: &mut Told,
        crowded: [Option<(&Crowd, Key, Rule<Rate>)>; 2],
        rate: Option<Rule<Rate>>,
    ) -> Result<(), (Fault, u64)> {
        let Ask { limits, enforced, now_ns, .. } = *ask;
        let refused = |mode, Wait(wait)| match mode {
            LimitMode::Enforce => Err((Fault::RateLimited, wait)),
            LimitMode::Shadow => Ok(()),
        };
        for (at, crowded) in crowded.into_iter().enumerate() {
            let Some((crowd, key, rule)) = crowded else { continue };
            match crowd.take(key, rule.limit, now_ns) {
                Ok(_) if at == 0 => took.client = Some((key, rule.limit)),
                Ok(_) => took.class = Some((key, rule.limit)),
                Err(wait) => refused(rule.mode, wait)?,
            }
        }
        if let Some(rule) = rate {
            match self.take_rate(limits, rule.limit, now_ns) {
                Ok((taken, room)) => {
                    took.rate = Some(taken);
                    told.minute = Some(Member { left: room.left, seconds: room.more_in_ns.div_ceil(SECOND) });
                }
                Err(wait) => refused(rule.mode, wait)?,
            }
        }
        if ask.counts == Counts::Yes {
            let day = ask.calendar.day;
            let hard = enforced.requests.filter(Rule::refuses);
            match hard {
                None => {
                    limits.requests.add(&limits.turning, day.number, 1);
                }
                Some(rule) => {
                    let added = limits.requests.add_up_to(&limits.turning, day.number, 1, rule.limit.value);
                    let wait = || day.seconds_left(ask.now_ms).saturating_mul(SECOND);
                    added.map_err(|_| (Fault::QuotaExceeded, wait()))?;
                }
            }
            took.day = Some(day.number);
        }
        Ok(())
    }

    /// Whether the rate would let it through; what would then be left, as far as this node knows.
    fn peek_rate(&self, limits: &TenantLimits, rate: Rate, now_ns: u64) -> Result<Option<Room>, Wait> {
        let now_ms = now_ns / 1_000_000;
        match limits.lease.peek(now_ms) {
            Leased::Taken(_) => Ok(None),
            Leased::Empty(until_ms) => Err(until(until_ms, now_ns)),
            Leased::None => limits.rate.peek(rate, now_ns).map(Some),
        }
    }

    fn take_rate(&self, limits: &TenantLimits, rate: Rate, now_ns: u64) -> Result<(TookRate, Room), Wait> {
        match limits.lease.take(now_ns / 1_000_000) {
            Leased::Taken(_) => Ok((TookRate::Leased(rate), limits.rate.passed(rate, now_ns))),
            Leased::Empty(until_ms) => Err(until(until_ms, now_ns)),
            Leased::None => limits.rate.take(rate, now_ns).map(|room| (TookRate::Metered(rate), room)),
        }
    }

    /// A request that was let in did not happen after all: what it used up is given back.
    pub(crate) fn forget(&self, limits: &TenantLimits, passed: &Passed, now_ns: u64) {
        limits.passed.fetch_sub(1, Relaxed);
        self.undo(limits, &passed.took, now_ns);
    }

    fn undo(&self, limits: &TenantLimits, took: &Took, now_ns: u64) {
        match took.rate {
            Some(TookRate::Metered(rate)) => limits.rate.undo(rate),
            Some(TookRate::Leased(rate)) => {
                limits.lease.undo(now_ns / 1_000_000);
                limits.rate.undo(rate);
            }
            None => {}
        }
        if let Some((key, rate)) = took.client {
            self.clients().undo(key, rate);
        }
        if let Some((key, rate)) = took.class {
            self.classes().undo(key, rate);
        }
        if let Some(day) = took.day {
            limits.requests.undo(&limits.turning, day);
        }
    }

    /// Says how quotas stand after a request, and which of them have reached a level with it.
    fn tell_quotas(&self, ask: &Ask<'_>, told: &mut Told) -> [Option<Reached>; 2] {
        let mut reached = [None; 2];
        for (at, (quota, rule, period)) in quotas(ask).enumerate() {
            let value = rule.limit.value;
            let used = ask.limits.used(quota, period.number);
            if quota == QuotaKind::Requests {
                told.day = left_today(ask);
            }
            let level = Level::of(used, value);
            if level == Level::Fine {
                continue;
            }
            told.warning = told.warning.or(Some(Warning { quota, used, value }));
            let counter = ask.limits.counter(quota);
            if counter.rises_to(&ask.limits.turning, period.number, level) {
                reached[at] = Some(Reached { quota, level, used, value, period });
            }
        }
        reached
    }

    /// Counts the bytes of a request that is over, both ways.
    pub(crate) fn transferred(&self, limits: &TenantLimits, calendar: Calendar, bytes: u64) {
        if bytes > 0 {
            limits.bytes.add(&limits.turning, calendar.month.number, bytes);
        }
    }
}

/// Quotas that have a say, each with its period.
fn quotas(ask: &Ask<'_>) -> impl Iterator<Item = (QuotaKind, Rule<Quota>, Period)> {
    let requests = ask.enforced.requests.map(|rule| (QuotaKind::Requests, rule, ask.calendar.day));
    let bytes = ask.enforced.bytes.map(|rule| (QuotaKind::Bytes, rule, ask.calendar.month));
    requests.into_iter().chain(bytes)
}

/// What is left of the day's requests.
fn left_today(ask: &Ask<'_>) -> Option<Member> {
    let day = ask.calendar.day;
    let left = |rule: Rule<Quota>| rule.limit.value.saturating_sub(ask.limits.used(QuotaKind::Requests, day.number));
    ask.enforced.requests.map(|rule| Member { left: left(rule), seconds: day.seconds_left(ask.now_ms) })
}

struct TooMany;

/// Counts a request as in progress, and the WebSocket it may become.
fn in_progress(ask: &Ask<'_>, would_limit: &mut Layers) -> Result<(Permit, Option<Permit>), TooMany> {
    let mut enter = |kind, rule: Option<Rule<u32>>| {
        let (most, mode) = rule.map_or((u32::MAX, LimitMode::Enforce), |rule| (rule.limit, rule.mode));
        match (Permit::take(ask.limits, kind, most), mode) {
            (Some(permit), _) => Ok(permit),
            (None, LimitMode::Shadow) => {
                would_limit.add(Layer::Concurrency);
                Permit::take(ask.limits, kind, u32::MAX).ok_or(TooMany)
            }
            (None, LimitMode::Enforce) => Err(TooMany),
        }
    };
    let request = enter(Kind::Request, ask.enforced.in_flight)?;
    let websocket = match ask.kind {
        Kind::Request => None,
        Kind::WebSocket => Some(enter(Kind::WebSocket, ask.enforced.websockets)?),
    };
    Ok((request, websocket))
}

/// The wait until a lease is renewed: at least a moment, since who leases comes a little later.
fn until(until_ms: u64, now_ns: u64) -> Wait {
    Wait(until_ms.saturating_mul(1_000_000).saturating_sub(now_ns).max(1))
}

fn limited(fault: Fault, wait_ns: u64, told: Told) -> Box<Limited> {
    Box::new(Limited { fault, retry_after_s: wait_ns.div_ceil(SECOND).max(1), told })
}
