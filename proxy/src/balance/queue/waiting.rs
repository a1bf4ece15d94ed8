//! Who waits for a place in a pool, and whose turn it is.

use std::collections::{HashMap, VecDeque};

use schoolgate_config::model::Lane;
use tokio::sync::oneshot;

use super::{Claim, Slot, Turn};

#[derive(Debug)]
pub(super) struct Waiter {
    ticket: u64,
    pub(super) grant: oneshot::Sender<Slot>,
}

/// One tenant's, in the order they came.
#[derive(Debug)]
struct Line {
    claim: Claim,
    /// Slots it still gets in this round.
    deficit: u32,
    waiters: VecDeque<Waiter>,
}

impl Line {
    fn weight(&self) -> u32 {
        u32::from(self.claim.weight.get())
    }

    fn load(&self) -> u64 {
        load(self.waiters.len(), self.weight())
    }
}

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    tickets: u64,
    length: usize,
    priority: VecDeque<(Claim, Waiter)>,
    lines: HashMap<u64, Line>,
    /// Tenants with a line, in the order of their turns.
    round: VecDeque<u64>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, turn: Turn, grant: oneshot::Sender<Slot>) -> u64 {
        self.tickets += 1;
        self.length += 1;
        let waiter = Waiter { ticket: self.tickets, grant };
        let claim = turn.claim;
        match turn.lane {
            Lane::Priority => self.priority.push_back((claim, waiter)),
            Lane::Fair => {
                let line = self.lines.entry(claim.tenant).or_insert_with(|| {
                    self.round.push_back(claim.tenant);
                    Line { claim, deficit: 0, waiters: VecDeque::new() }
                });
                line.claim = claim;
                line.waiters.push_back(waiter);
            }
        }
        self.tickets
    }

    /// Whose turn it is, of those that may take a place. Who may not keeps its turn.
    pub(super) fn pop(&mut self, may_take: impl Fn(Claim) -> bool) -> Option<(Claim, Waiter)> {
        if let Some(first) = self.pop_priority() {
            return Some(first);
        }
        let claim = |tenant: &u64| self.lines.get(tenant).map(|line| line.claim);
        let at = self.round.iter().position(|tenant| claim(tenant).is_some_and(&may_take))?;
        let tenant = self.round[at];
        let line = self.lines.get_mut(&tenant)?;
        if line.deficit == 0 {
            line.deficit = line.weight();
        }
        line.deficit -= 1;
        let turn_is_over = line.deficit == 0;
        let (claim, waiter) = (line.claim, line.waiters.pop_front()?);
        self.length -= 1;
        if line.waiters.is_empty() {
            self.lines.remove(&tenant);
            self.round.remove(at);
        } else if turn_is_over {
            self.round.remove(at);
            self.round.push_back(tenant);
        }
        Some((claim, waiter))
    }

    pub(super) fn pop_priority(&mut self) -> Option<(Claim, Waiter)> {
        let first = self.priority.pop_front()?;
        self.length -= 1;
        Some(first)
    }

    /// The tenant with the most waiting for its weight, and how much that is. Looked for when the queue is full only.
    fn heaviest(&self) -> Option<(u64, u64)> {
        self.lines.iter().map(|(tenant, line)| (*tenant, line.load())).max_by_key(|(tenant, load)| (*load, *tenant))
    }

    /// Whether a newcomer is lighter, with itself, than the heaviest that waits.
    pub(super) fn gives_way_to(&self, turn: Turn) -> bool {
        let Some((heaviest, most)) = self.heaviest() else { return false };
        if turn.lane == Lane::Priority {
            return true;
        }
        let Claim { tenant, weight } = turn.claim;
        let own = self.lines.get(&tenant).map_or(0, |line| line.waiters.len());
        heaviest != tenant && load(own + 1, u32::from(weight.get())) <= most
    }

    pub(super) fn drop_newest_of_heaviest(&mut self) {
        let Some((tenant, _)) = self.heaviest() else { return };
        let Some(line) = self.lines.get_mut(&tenant) else { return };
        if line.waiters.pop_back().is_some() {
            self.length -= 1;
        }
        if line.waiters.is_empty() {
            self.forget(tenant);
        }
    }

    /// Says whether it still waited.
    pub(super) fn remove(&mut self, turn: Turn, ticket: u64) -> bool {
        let tenant = turn.claim.tenant;
        let removed = match turn.lane {
            Lane::Priority => {
                let at = self.priority.iter().position(|(_, waiter)| waiter.ticket == ticket);
                at.and_then(|at| self.priority.remove(at)).is_some()
            }
            Lane::Fair => {
                let Some(line) = self.lines.get_mut(&tenant) else { return false };
                let at = line.waiters.iter().position(|waiter| waiter.ticket == ticket);
                let removed = at.and_then(|at| line.waiters.remove(at)).is_some();
                if line.waiters.is_empty() {
                    self.forget(tenant);
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
