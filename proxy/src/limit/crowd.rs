//! Rates of many that come and go: client addresses, classes of requests. A table of fixed size, without locks.
//!
//! A key is looked for in one set of eight places. A newcomer takes the place of whoever has been quiet longest there: at
//! worst that one may have another burst. So a flood of made-up addresses costs no memory and locks nobody out.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use foldhash::fast::RandomState;

use super::gcra::{Meter, Rate, Room, Wait};

/// Places where one key can be.
const WAYS: usize = 8;

#[derive(Debug, Default)]
struct Place {
    /// Whose it is; 0: nobody's.
    key: AtomicU64,
    meter: Meter,
}

/// Meters by key.
#[derive(Debug)]
pub(super) struct Crowd {
    sets: Box<[[Place; WAYS]]>,
    /// Its seed is of this process, so nobody outside can aim at a set.
    hash: RandomState,
}

/// A key of a [`Crowd`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Crowd {
    /// Room for `places`, 16 bytes each; a multiple of 8.
    pub(super) fn new(places: usize) -> Self {
        Self { sets: (0..places.div_ceil(WAYS)).map(|_| Default::default()).collect(), hash: RandomState::default() }
    }

    /// The key of something.
    pub(super) fn key(&self, what: impl Hash) -> Key {
        Key(self.hash.hash_one(what).max(1))
    }

    /// Whether a request would pass at `now`.
    pub(super) fn peek(&self, key: Key, rate: Rate, now: u64) -> Result<Room, Wait> {
        match self.find(key) {
            Some(place) => place.meter.peek(rate, now),
            None => Meter::default().peek(rate, now),
        }
    }

    /// Lets a request through at `now`, or not.
    pub(super) fn take(&self, key: Key, rate: Rate, now: u64) -> Result<Room, Wait> {
        self.find(key).unwrap_or_else(|| self.settle(key)).meter.take(rate, now)
    }

    /// A request that was let through did not happen after all.
    pub(super) fn undo(&self, key: Key, rate: Rate) {
        if let Some(place) = self.find(key) {
            place.meter.undo(rate);
        }
    }

    fn set(&self, key: Key) -> &[Place; WAYS] {
        // The upper half chooses the set, so that keys of one set differ in the lower half.
        &self.sets[(key.0 >> 32) as usize % self.sets.len()]
    }

    fn find(&self, key: Key) -> Option<&Place> {
        self.set(key).iter().find(|place| place.key.load(Relaxed) == key.0)
    }

    /// Gives a newcomer the place of whoever has been quiet longest. Two newcomers at once may both take it; one of them
    /// then settles again at its next request.
    fn settle(&self, key: Key) -> &Place {
        let set = self.set(key);
        let quiet = set.iter().min_by_key(|place| place.meter.due()).unwrap_or(&set[0]);
        quiet.meter.set(0);
        quiet.key.store(key.0, Relaxed);
        quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_rate_of_its_own() {
        let (crowd, rate) = (Crowd::new(64), Rate::per_minute(60, Some(2)));
        for who in 0..4 {
            let key = crowd.key(who);
            assert!(crowd.take(key, rate, 0).is_ok() && crowd.take(key, rate, 0).is_ok());
            assert_eq!(crowd.take(key, rate, 0), crowd.peek(key, rate, 0));
            assert!(crowd.take(key, rate, 0).is_err());
        }
        let key = crowd.key(0);
        crowd.undo(key, rate);
        assert!(crowd.take(key, rate, 0).is_ok());
    }

    #[test]
    fn a_flood_of_strangers_pushes_out_the_quiet_first() {
        let (crowd, rate) = (Crowd::new(WAYS), Rate::per_minute(60, Some(10)));
        let loud = crowd.key("loud");
        for _ in 0..10 {
            assert!(crowd.take(loud, rate, 0).is_ok());
        }
        for stranger in 0..7 {
            assert!(crowd.take(crowd.key(stranger), rate, 0).is_ok());
        }
        assert!(crowd.take(crowd.key("another"), rate, 0).is_ok());
        assert!(crowd.take(loud, rate, 0).is_err(), "who asks most is forgotten last");
    }
}
