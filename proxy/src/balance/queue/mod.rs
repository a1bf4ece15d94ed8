//! The fair queue of a pool: when it has as much in flight as it bears, tenants wait in turn.
//!
//! Turns are by deficit round robin (Shreedhar and Varghese, 1995) with a plan's weight: each round a tenant gets as many
//! slots as its weight, however many of its requests wait. Who holds much leaves slots free for others ([`held`]), so that
//! theirs find one at once. The queue is bounded, and when it is full the tenant with the most waiting for its weight gives
//! way, not whoever comes last. A small lane beside it is for logins and health checks.
//!
//! While the pool has room, entering and leaving it are a few atomics each. Only who must wait, or comes or leaves while
//! others do, takes the lock. What is taken and how many wait are one number, so no wake-up can be lost between the two.
//! Nor by who may not take a free slot: it does so again when it holds less, and then one of its own is given back.

mod held;
mod waiting;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use schoolgate_config::model::{Lane, Pool, QueueRules};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(crate) use self::held::Claim;
use self::held::Held;
use self::waiting::Waiting;

/// A pool that bears any number in flight.
const UNBOUNDED: u32 = u32::MAX;
/// One that waits, in the number that counts both.
const ONE_WAITING: u64 = 1 << 32;

/// The pool is full, and this request does not wait in it, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pool is busy")]
pub(crate) struct Busy;

/// Whose turn a waiting request takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) claim: Claim,
    /// Where it waits.
    pub(crate) lane: Lane,
}

/// The queue of a pool; handed on from version to version.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    /// Slots taken, and in the upper half how many wait.
    state: AtomicU64,
    /// Slots of the lane that are taken.
    lane: AtomicU32,
    /// The bounds, as the latest request saw them.
    most: AtomicU32,
    most_lane: AtomicU32,
    /// Slots by tenant, once the pool has had a bound.
    held: OnceLock<Box<Held>>,
    waiting: Mutex<Waiting>,
}

/// A place in a pool, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    queue: Arc<FairQueue>,
    of: Of,
}

/// Where a place was taken.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// In the pool, by the tenant of this number.
    Pool { tenant: u64 },
    /// In the lane beside it.
    Lane,
}

impl FairQueue {
    /// A slot, if there is one for this tenant and nobody waits. One of a pool without a bound costs and counts nothing.
    ///
    /// The bounds are those of the pool's version that the request sees, so a version that is refused changes nothing.
    ///
    /// # Errors
    /// [`Busy`]: see [`Self::wait`].
    pub(crate) fn enter(self: &Arc<Self>, pool: &Pool, claim: Claim, now_ms: i64) -> Result<Option<Slot>, Busy> {
        let most = pool.max_in_flight.unwrap_or(UNBOUNDED);
        if self.most.load(Relaxed) != most {
            self.most.store(most, SeqCst);
            self.let_in();
        }
        if most == UNBOUNDED {
            return Ok(None);
        }
        let held = self.held();
        held.seen(claim.tenant, now_ms);
        let next = |state: u64| {
            let may = waiting(state) == 0 && held.may_take(claim, most.saturating_sub(taken(state)), most);
            may.then_some(state + 1)
        };
        self.state.fetch_update(SeqCst, Relaxed, next).map_err(|_| Busy)?;
        Ok(Some(self.taken_by(claim)))
    }

    /// Waits for a slot, as the rules say. Dropped while it waits, it leaves nothing behind.
    ///
    /// # Errors
    /// [`Busy`]: the time is over, or the queue is full and this tenant has the most waiting in it.
    pub(crate) async fn wait(self: &Arc<Self>, rules: &QueueRules, turn: Turn) -> Result<Slot, Busy> {
        let patience = Duration::from_millis(rules.wait_ms);
        let mut place = match self.enqueue(rules, turn)? {
            Enqueued::In(slot) => return Ok(slot),
            Enqueued::Waits(place) => place,
        };
        timeout(patience, &mut place.granted).await.ok().and_then(Result::ok).ok_or(Busy)
    }

    /// How many wait.
    pub(crate) fn depth(&self) -> u32 {
        waiting(self.state.load(Relaxed))
    }

    /// How many are in flight, in the lane too.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> u32 {
        taken(self.state.load(Relaxed)) + self.lane.load(Relaxed)
    }

    /// A slot that was counted as taken becomes this tenant's.
    fn taken_by(self: &Arc<Self>, claim: Claim) -> Slot {
        self.held().add(claim.tenant);
        Slot { queue: self.clone(), of: Of::Pool { tenant: claim.tenant } }
    }

    fn held(&self) -> &Held {
        self.held.get_or_init(Box::default)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the lane's slots.
    fn enter_lane(self: &Arc<Self>) -> Option<Slot> {
        let most = self.most_lane.load(SeqCst);
        let free = |taken: u32| (taken < most).then_some(taken + 1);
        self.lane.fetch_update(SeqCst, Relaxed, free).ok()?;
        Some(Slot { queue: self.clone(), of: Of::Lane })
    }

    fn enqueue(self: &Arc<Self>, rules: &QueueRules, turn: Turn) -> Result<Enqueued, Busy> {
        self.most_lane.store(rules.priority_in_flight, SeqCst);
        if turn.lane == Lane::Priority
            && let Some(slot) = self.enter_lane()
        {
            return Ok(Enqueued::In(slot));
        }
        let mut queue = self.lock();
        // Who waits and may enter does so first; from then on those that wait are tenants that may not.
        self.let_in_of(&mut queue);
        // A slot may have become free meanwhile; if not, whoever leaves from here on sees that one waits.
        let (most, held) = (self.most.load(SeqCst), self.held());
        let mut entered = false;
        let next = |state: u64| {
            let free = most.saturating_sub(taken(state));
            entered = free > 0 && (turn.lane == Lane::Priority || held.may_take(turn.claim, free, most));
            Some(if entered { state + 1 } else { state + ONE_WAITING })
        };
        let _ = self.state.fetch_update(SeqCst, SeqCst, next);
        if entered {
            return Ok(Enqueued::In(self.taken_by(turn.claim)));
        }
        let length = rules.length as usize;
        if queue.len() >= length && !(length > 0 && queue.gives_way_to(turn)) {
            self.state.fetch_sub(ONE_WAITING, SeqCst);
            return Err(Busy);
        }
        if queue.len() >= length {
            // The newest of the heaviest: its sender is dropped, and it is told.
            queue.drop_newest_of_heaviest();
            self.state.fetch_sub(ONE_WAITING, SeqCst);
        }
        let (grant, granted) = oneshot::channel();
        let ticket = queue.push(turn, grant);
        Ok(Enqueued::Waits(Place { queue: self.clone(), turn, ticket, granted }))
    }

    /// Hands free slots to those who wait.
    fn let_in(self: &Arc<Self>) {
        self.let_in_of(&mut self.lock());
    }

    fn let_in_of(self: &Arc<Self>, queue: &mut Waiting) {
        let (most, held) = (self.most.load(SeqCst), self.held());
        loop {
            // While one waits nobody else takes a slot without this lock: what is free only grows.
            let state = self.state.load(SeqCst);
            let free = most.saturating_sub(taken(state));
            if waiting(state) == 0 || free == 0 {
                return;
            }
            let Some((claim, waiter)) = queue.pop(|claim| held.may_take(claim, free, most)) else { return };
            self.state.fetch_sub(ONE_WAITING - 1, SeqCst);
            if let Err(slot) = waiter.grant.send(self.taken_by(claim)) {
                // It went away just now. The slot is the next one's: dropping it here would want the lock again.
                slot.forget();
                held.sub(claim.tenant);
                self.state.fetch_sub(1, SeqCst);
            }
        }
    }

    /// Hands a free slot of the lane to one of those who wait for it.
    fn let_in_lane(self: &Arc<Self>) {
        let mut queue = self.lock();
        while let Some(slot) = self.enter_lane() {
            let Some((_, waiter)) = queue.pop_priority() else {
                slot.forget();
                self.lane.fetch_sub(1, SeqCst);
                return;
            };
            self.state.fetch_sub(ONE_WAITING, SeqCst);
            if let Err(slot) = waiter.grant.send(slot) {
                slot.forget();
                self.lane.fetch_sub(1, SeqCst);
            }
        }
    }

    /// One that waited went away.
    fn give_up(&self, turn: Turn, ticket: u64) {
        // Under one lock: as many are counted as are in the queue whenever another looks.
        let mut queue = self.lock();
        if queue.remove(turn, ticket) {
            self.state.fetch_sub(ONE_WAITING, SeqCst);
        }
    }
}

const fn taken(state: u64) -> u32 {
    state as u32
}

const fn waiting(state: u64) -> u32 {
    (state >> 32) as u32
}

impl Slot {
    /// Without giving it back.
    fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        match self.of {
            Of::Pool { tenant } => {
                self.queue.held().sub(tenant);
                let before = self.queue.state.fetch_sub(1, SeqCst);
                if waiting(before) > 0 {
                    self.queue.let_in();
                }
            }
            Of::Lane => {
                self.queue.lane.fetch_sub(1, SeqCst);
                if self.queue.depth() > 0 {
                    self.queue.let_in_lane();
                }
            }
        }
    }
}

enum Enqueued {
    In(Slot),
    Waits(Place),
}

/// A place in the queue, given up when it is dropped.
struct Place {
    queue: Arc<FairQueue>,
    turn: Turn,
    ticket: u64,
    granted: oneshot::Receiver<Slot>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.give_up(self.turn, self.ticket);
    }
}

#[cfg(test)]
mod tests;
