//! The fair queue of a pool: when it has as much in flight as it bears, tenants wait in turn.
//!
//! Turns are by deficit round robin (Shreedhar and Varghese, 1995) with a plan's weight: each round a tenant gets as many
//! slots as its weight, however many of its requests wait. The queue is bounded, and when it is full the tenant with
//! the most waiting for its weight gives way, not whoever comes last. A small lane beside it is for logins and health checks.
//!
//! While the pool has room, entering and leaving it are one atomic each. Only who must wait, or leaves while others do,
//! takes the lock. What is taken and how many wait are one number, so no wake-up can be lost between the two.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schoolgate_config::model::{Lane, Pool, QueueRules, Weight};
use tokio::sync::oneshot;
use tokio::time::timeout;

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
    /// The tenant's number in this process.
    pub(crate) tenant: u64,
    /// Its plan's weight.
    pub(crate) weight: Weight,
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
    waiting: Mutex<Waiting>,
}

/// A place in a pool, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    queue: Arc<FairQueue>,
    lane: Lane,
}

impl FairQueue {
    /// A slot, if there is one and nobody waits for it. One of a pool without a bound costs and counts nothing.
    ///
    /// The bounds are those of the pool's version that the request sees, so a version that is refused changes nothing.
    ///
    /// # Errors
    /// [`Busy`]: see [`Self::wait`].
    pub(crate) fn enter(self: &Arc<Self>, pool: &Pool) -> Result<Option<Slot>, Busy> {
        let most = pool.max_in_flight.unwrap_or(UNBOUNDED);
        if self.most.load(Relaxed) != most {
            self.most.store(most, SeqCst);
            self.let_in();
        }
        if most == UNBOUNDED {
            return Ok(None);
        }
        let free = |state: u64| (waiting(state) == 0 && taken(state) < most).then_some(state + 1);
        self.state.fetch_update(SeqCst, Relaxed, free).map_err(|_| Busy)?;
        Ok(Some(self.slot(Lane::Fair)))
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

    fn slot(self: &Arc<Self>, lane: Lane) -> Slot {
        Slot { queue: self.clone(), lane }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the lane's slots.
    fn enter_lane(self: &Arc<Self>) -> Option<Slot> {
        let most = self.most_lane.load(SeqCst);
        let free = |taken: u32| (taken < most).then_some(taken + 1);
        self.lane.fetch_update(SeqCst, Relaxed, free).ok().map(|_| self.slot(Lane::Priority))
    }

    fn enqueue(self: &Arc<Self>, rules: &QueueRules, turn: Turn) -> Result<Enqueued, Busy> {
        self.most_lane.store(rules.priority_in_flight, SeqCst);
        if turn.lane == Lane::Priority
            && let Some(slot) = self.enter_lane()
        {
            return Ok(Enqueued::In(slot));
        }
        let mut queue = self.lock();
        // A slot may have become free meanwhile; if not, whoever leaves from here on sees that one waits.
        let most = self.most.load(SeqCst);
        let mut entered = false;
        let next = |state: u64| {
            entered = waiting(state) == 0 && taken(state) < most;
            Some(if entered { state + 1 } else { state + ONE_WAITING })
        };
        let _ = self.state.fetch_update(SeqCst, SeqCst, next);
        if entered {
            return Ok(Enqueued::In(self.slot(Lane::Fair)));
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
        let mut queue = self.lock();
        loop {
            let most = self.most.load(SeqCst);
            let next = |state: u64| (waiting(state) > 0 && taken(state) < most).then(|| state + 1 - ONE_WAITING);
            if self.state.fetch_update(SeqCst, SeqCst, next).is_err() {
                return;
            }
            let Some(waiter) = queue.pop() else {
                // As many are in the queue as are counted, both under this lock.
                self.state.fetch_sub(1, SeqCst);
                return;
            };
            if let Err(slot) = waiter.grant.send(self.slot(Lane::Fair)) {
                // It went away just now. The slot is the next one's: dropping it here would want the lock again.
                slot.forget();
                self.state.fetch_sub(1, SeqCst);
            }
        }
    }

    /// Hands a free slot of the lane to one of those who wait for it.
    fn let_in_lane(self: &Arc<Self>) {
        let mut queue = self.lock();
        while let Some(slot) = self.enter_lane() {
            let Some(waiter) = queue.pop_priority() else {
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
        match self.lane {
            Lane::Fair => {
                let before = self.queue.state.fetch_sub(1, SeqCst);
                if waiting(before) > 0 {
                    self.queue.let_in();
                }
            }
            Lane::Priority => {
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

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    grant: oneshot::Sender<Slot>,
}

/// One tenant's, in the order they came.
#[derive(Debug)]
struct Line {
    weight: u32,
    /// Slots it still gets in this round.
    deficit: u32,
    waiters: VecDeque<Waiter>,
}

/// Who waits.
#[derive(Debug, Default)]
struct Waiting {
    tickets: u64,
    length: usize,
    priority: VecDeque<Waiter>,
    lines: HashMap<u64, Line>,
    /// Tenants with a line, in the order of their turns.
    round: VecDeque<u64>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.length
    }

    fn push(&mut self, turn: Turn, grant: oneshot::Sender<Slot>) -> u64 {
        self.tickets += 1;
        self.length += 1;
        let waiter = Waiter { ticket: self.tickets, grant };
        match turn.lane {
            Lane::Priority => self.priority.push_back(waiter),
            Lane::Fair => {
                let line = self.lines.entry(turn.tenant).or_insert_with(|| {
                    self.round.push_back(turn.tenant);
                    Line { weight: 1, deficit: 0, waiters: VecDeque::new() }
                });
                line.weight = u32::from(turn.weight.get());
                line.waiters.push_back(waiter);
            }
        }
        self.tickets
    }

    /// Whose turn it is.
    fn pop(&mut self) -> Option<Waiter> {
        if let Some(waiter) = self.pop_priority() {
            return Some(waiter);
        }
        let tenant = *self.round.front()?;
        let line = self.lines.get_mut(&tenant)?;
        if line.deficit == 0 {
            line.deficit = line.weight;
        }
        line.deficit -= 1;
        let turn_is_over = line.deficit == 0;
        let waiter = line.waiters.pop_front()?;
        self.length -= 1;
        if line.waiters.is_empty() {
            self.lines.remove(&tenant);
            self.round.pop_front();
        } else if turn_is_over {
            self.round.rotate_left(1);
        }
        Some(waiter)
    }

    fn pop_priority(&mut self) -> Option<Waiter> {
        let waiter = self.priority.pop_front()?;
        self.length -= 1;
        Some(waiter)
    }

    /// The tenant with the most waiting for its weight, and how much that is. Looked for when the queue is full only.
    fn heaviest(&self) -> Option<(u64, u64)> {
        let load = |line: &Line| load(line.waiters.len(), line.weight);
        self.lines.iter().map(|(tenant, line)| (*tenant, load(line))).max_by_key(|(tenant, load)| (*load, *tenant))
    }

    /// Whether a newcomer is lighter, with itself, than the heaviest that waits.
    fn gives_way_to(&self, turn: Turn) -> bool {
        let Some((heaviest, most)) = self.heaviest() else { return false };
        if turn.lane == Lane::Priority {
            return true;
        }
        let own = self.lines.get(&turn.tenant).map_or(0, |line| line.waiters.len());
        heaviest != turn.tenant && load(own + 1, u32::from(turn.weight.get())) <= most
    }

    fn drop_newest_of_heaviest(&mut self) {
        let Some((tenant, _)) = self.heaviest() else { return };
        let Some(line) = self.lines.get_mut(&tenant) else { return };
        if line.waiters.pop_back().is_some() {
            self.length -= 1;
        }
        if line.waiters.is_empty() {
            self.forget(tenant);
        }
    }

    fn remove(&mut self, turn: Turn, ticket: u64) -> bool {
        let without = |waiters: &mut VecDeque<Waiter>| {
            let at = waiters.iter().position(|waiter| waiter.ticket == ticket);
            at.and_then(|at| waiters.remove(at)).is_some()
        };
        let removed = match turn.lane {
            Lane::Priority => without(&mut self.priority),
            Lane::Fair => {
                let Some(line) = self.lines.get_mut(&turn.tenant) else { return false };
                let removed = without(&mut line.waiters);
                if line.waiters.is_empty() {
                    self.forget(turn.tenant);
                }
                removed
            }
        };
        self.length -= usize::from(removed);
        removed
    }

    fn forget(&mut self, tenant: u64) {
        self.lines.remove(&tenant);
        self.round.retain(|other| *other != tenant);
    }
}

/// How much waits for a weight, in thousandths.
fn load(waiting: usize, weight: u32) -> u64 {
    waiting as u64 * 1_000 / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    type Waits = Pin<Box<dyn Future<Output = Result<Slot, Busy>> + Send>>;

    /// A pool's queue, and its version that requests see.
    #[derive(Clone)]
    struct World {
        queue: Arc<FairQueue>,
        pool: Arc<Pool>,
    }

    fn pool(max_in_flight: Option<u32>, length: u32, priority_in_flight: u32) -> Arc<Pool> {
        let rules = json!({"length": length, "priority_in_flight": priority_in_flight, "wait_ms": 60_000});
        let pool = json!({"id": "p", "max_in_flight": max_in_flight, "queue": rules});
        serde_json::from_value(pool).expect("a pool")
    }

    fn world(max_in_flight: u32, length: u32, priority_in_flight: u32) -> World {
        World { queue: Arc::default(), pool: pool(Some(max_in_flight), length, priority_in_flight) }
    }

    fn turn(tenant: u64, weight: u16) -> Turn {
        Turn { tenant, weight: Weight::new(weight).expect("a weight"), lane: Lane::Fair }
    }

    impl World {
        fn enter(&self) -> Result<Option<Slot>, Busy> {
            self.queue.enter(&self.pool)
        }

        fn slot(&self) -> Slot {
            self.enter().expect("room").expect("bounded")
        }

        /// Waits, and is looked at once, so that it is in the queue.
        fn waits(&self, turn: Turn) -> Waits {
            let World { queue, pool } = self.clone();
            let mut waits: Waits = Box::pin(async move { queue.wait(&pool.queue, turn).await });
            assert!(poll(&mut waits).is_pending());
            waits
        }

        fn busy(&self, turn: Turn) -> bool {
            let World { queue, pool } = self.clone();
            let mut waits: Waits = Box::pin(async move { queue.wait(&pool.queue, turn).await });
            matches!(poll(&mut waits), Poll::Ready(Err(Busy)))
        }
    }

    /// Looks at a future once.
    fn poll(waits: &mut Waits) -> Poll<Result<Slot, Busy>> {
        waits.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn granted(waits: &mut Waits) -> Slot {
        let Poll::Ready(Ok(slot)) = poll(waits) else { panic!("not granted") };
        slot
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_with_a_bound_is_full_and_waiting_ends() {
        let world = world(2, 10, 0);
        let (one, _two) = (world.slot(), world.slot());
        assert!(world.enter().is_err());
        let busy = world.queue.wait(&world.pool.queue, turn(1, 1)).await;
        assert_eq!(
            (busy.err(), world.queue.depth()),
            (Some(Busy), 0),
            "who has waited long enough leaves nothing behind"
        );
        drop(one);
        drop(world.slot());
        assert_eq!(world.queue.in_flight(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_is_given_back_goes_to_who_waits_and_not_past_him() {
        let world = world(1, 10, 0);
        let held = world.slot();
        let mut first = world.waits(turn(1, 1));
        drop(held);
        assert!(world.enter().is_err(), "it is the first one's");
        drop(granted(&mut first));
        assert_eq!(world.queue.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_no_slot_taken_also_when_it_was_just_granted() {
        let world = world(1, 10, 0);
        let held = world.slot();
        let (gone, just_granted, mut next) =
            (world.waits(turn(1, 1)), world.waits(turn(1, 1)), world.waits(turn(2, 1)));
        drop(gone);
        assert_eq!(world.queue.depth(), 2);
        drop(held);
        drop(just_granted);
        drop(granted(&mut next));
        assert_eq!((world.queue.in_flight(), world.queue.depth()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_full_queue_the_heaviest_gives_way() {
        let world = world(1, 4, 0);
        let _held = world.slot();
        let mut noisy: Vec<Waits> = (0..4).map(|_| world.waits(turn(1, 1))).collect();
        assert!(world.busy(turn(1, 1)), "its own tenant is the heaviest");
        let _quiet = world.waits(turn(2, 1));
        assert!(matches!(poll(&mut noisy[3]), Poll::Ready(Err(Busy))), "the newest of the heaviest gives way");
        assert!(poll(&mut noisy[2]).is_pending());
        assert_eq!(world.queue.depth(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn logins_and_checks_have_a_lane_of_their_own() {
        let world = world(1, 10, 1);
        let held = world.slot();
        let mut crowd: Vec<Waits> = (0..3).map(|_| world.waits(turn(1, 1))).collect();
        let login = Turn { lane: Lane::Priority, ..turn(1, 1) };
        let lane = world.queue.wait(&world.pool.queue, login).await.expect("the lane is free");
        let (mut second, mut third) = (world.waits(login), world.waits(login));
        drop(lane);
        let _lane = granted(&mut second);
        drop(held);
        let _slot = granted(&mut third);
        assert!(poll(&mut crowd[0]).is_pending(), "a login comes before the crowd");
    }

    #[tokio::test(start_paused = true)]
    async fn a_raised_bound_lets_in_who_waits() {
        let mut world = world(1, 10, 0);
        let _held = world.slot();
        let mut waits = world.waits(turn(1, 1));
        world.pool = pool(None, 10, 0);
        assert!(matches!(world.enter(), Ok(None)), "a pool without a bound counts nothing");
        drop(granted(&mut waits));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn in_a_storm_nobody_is_forgotten_and_every_slot_comes_back() {
        let world = world(3, 1_000, 2);
        let storm = (0..400_u64).map(|n| {
            let world = world.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let lane = if n % 10 == 0 { Lane::Priority } else { Lane::Fair };
                    let slot = match world.enter() {
                        Ok(slot) => slot,
                        Err(Busy) => {
                            // Some have no patience: they go away while they wait, or just as they are let in.
                            let wait_ms = if (n + round) % 3 == 0 { 0 } else { 60_000 };
                            let rules = QueueRules { wait_ms, ..world.pool.queue.clone() };
                            let turn = Turn { tenant: n % 7, weight: Weight::default(), lane };
                            let waited = world.queue.wait(&rules, turn).await;
                            assert!(waited.is_ok() || wait_ms == 0, "a wake-up was lost");
                            waited.ok()
                        }
                    };
                    assert!(world.queue.in_flight() <= 5);
                    tokio::task::yield_now().await;
                    drop(slot);
                }
            })
        });
        for task in storm.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        assert_eq!((world.queue.in_flight(), world.queue.depth()), (0, 0));
    }

    proptest! {
        /// While all of them wait, tenants get slots as their weights are, to within a round.
        #[test]
        fn turns_are_as_the_weights_are(weights in prop::collection::vec(1_u16..9, 2..6), rounds in 1_usize..6) {
            let mut waiting = Waiting::default();
            let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let mut owner = HashMap::new();
            for (tenant, weight) in weights.iter().enumerate() {
                // The first is noisy: twenty times as much as it will get.
                let many = usize::from(*weight) * (rounds + 1) * if tenant == 0 { 20 } else { 1 };
                for _ in 0..many {
                    let ticket = waiting.push(turn(tenant as u64, *weight), oneshot::channel().0);
                    owner.insert(ticket, tenant);
                }
            }
            let mut served = vec![0_usize; weights.len()];
            for n in 1..=total * rounds {
                let waiter = waiting.pop().expect("all of them wait");
                served[owner[&waiter.ticket]] += 1;
                for (tenant, weight) in weights.iter().enumerate() {
                    let share = n * usize::from(*weight) / total;
                    let (got, round) = (served[tenant], usize::from(*weight));
                    prop_assert!(got + round >= share && got <= share + round + 1, "{served:?} of {n} for {weights:?}");
                }
            }
            let exact: Vec<usize> = weights.iter().map(|weight| usize::from(*weight) * rounds).collect();
            prop_assert_eq!(served, exact);
        }
    }
}
