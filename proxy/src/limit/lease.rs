//! A lease: requests that a node may let through because the fleet granted them, until a moment.
//!
//! Whoever leases (beside the request path) grants; requests take. When a lease is over and no other has come, the rate
//! at this node's share holds again, so losing whoever leases needs no switch.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of what is left; the rest is the moment: 34 years of milliseconds.
const BITS: u32 = 24;
const LEFT: u64 = (1 << BITS) - 1;

/// What taking from a lease came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leased {
    /// One was taken; so many are left.
    Taken(u32),
    /// All are taken. The next grant is due at this moment (milliseconds, as given to [`Lease::grant`]).
    Empty(u64),
    /// There is no lease, or it is over.
    None,
}

/// What is left of a lease, on one atomic. Times are milliseconds of a clock that never goes back.
#[derive(Debug, Default)]
pub struct Lease(AtomicU64);

impl Lease {
    /// The most that one lease holds: 16,777,215.
    pub const MOST: u32 = LEFT as u32;

    /// Grants `more` on top of what is left, all of it until `until_ms`. A grant of none until a moment says that there
    /// is nothing before it.
    pub fn grant(&self, more: u32, until_ms: u64, now_ms: u64) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |lease| {
            let left = if is_over(lease, now_ms) { 0 } else { lease & LEFT };
            Some(until_ms << BITS | (left + u64::from(more)).min(LEFT))
        });
    }

    /// Takes one.
    pub fn take(&self, now_ms: u64) -> Leased {
        let mut lease = self.0.load(Relaxed);
        loop {
            if is_over(lease, now_ms) {
                return Leased::None;
            }
            if lease & LEFT == 0 {
                return Leased::Empty(lease >> BITS);
            }
            match self.0.compare_exchange_weak(lease, lease - 1, Relaxed, Relaxed) {
                Ok(_) => return Leased::Taken(((lease & LEFT) - 1) as u32),
                Err(other) => lease = other,
            }
        }
    }

    /// What taking one would come to.
    pub fn peek(&self, now_ms: u64) -> Leased {
        match self.0.load(Relaxed) {
            lease if is_over(lease, now_ms) => Leased::None,
            lease if lease & LEFT == 0 => Leased::Empty(lease >> BITS),
            lease => Leased::Taken(((lease & LEFT) - 1) as u32),
        }
    }

    /// One that was taken was not needed.
    pub fn undo(&self, now_ms: u64) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |lease| {
            (!is_over(lease, now_ms) && lease & LEFT < LEFT).then_some(lease + 1)
        });
    }

    /// Ends the lease and says what was left of it, once: what is given back is granted to nobody here any more.
    pub fn give_back(&self, now_ms: u64) -> u32 {
        let lease = self.0.swap(0, Relaxed);
        if is_over(lease, now_ms) { 0 } else { (lease & LEFT) as u32 }
    }
}

const fn is_over(lease: u64, now_ms: u64) -> bool {
    lease >> BITS <= now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_taken_once_and_is_over_at_its_moment() {
        let lease = Lease::default();
        assert_eq!(lease.take(5), Leased::None);
        lease.grant(2, 100, 5);
        assert_eq!(
            (lease.peek(5), lease.take(5), lease.take(6)),
            (Leased::Taken(1), Leased::Taken(1), Leased::Taken(0))
        );
        assert_eq!((lease.take(99), lease.take(100)), (Leased::Empty(100), Leased::None));
        lease.grant(1, 300, 200);
        assert_eq!(lease.take(200), Leased::Taken(0), "what was left of one that is over is gone");
    }

    #[test]
    fn a_grant_adds_to_what_is_left_and_what_is_given_back_is_gone() {
        let lease = Lease::default();
        lease.grant(2, 100, 0);
        lease.grant(Lease::MOST, 200, 0);
        assert_eq!(lease.give_back(150), Lease::MOST);
        assert_eq!((lease.give_back(150), lease.take(150)), (0, Leased::None));
    }

    #[test]
    fn of_many_at_once_each_token_is_taken_once() {
        let lease = Lease::default();
        lease.grant(1_000, u64::MAX >> BITS, 0);
        let taken: usize = std::thread::scope(|scope| {
            let ask = || (0..1_000).filter(|_| matches!(lease.take(1), Leased::Taken(_))).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 1_000);
    }
}
