//! Which hosts clients ask for that no tenant has: the most wanted of them, in bounded memory.
//!
//! A space-saving sketch (Metwally et al., 2005): a name that finds no room takes the place, and the count, of the one
//! asked for least. Whatever is asked for more often than one time in [`PLACES`] is in it, and random names, of which
//! there may be millions, push out each other.

use std::cmp::Reverse;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError, TryLockError};

use foldhash::fast::RandomState;
use schoolgate_config::feed::UnknownHost;
use schoolgate_config::model::DomainName;

/// Names that are kept: 256, about 30 KB. More than a report takes, so that its tail is worth something.
const PLACES: usize = 256;

/// The names. Its lock is taken by requests that are refused anyway, and by reports; never waited for by a request.
#[derive(Debug, Default)]
pub(crate) struct UnknownHosts {
    hasher: RandomState,
    places: Mutex<Vec<Place>>,
}

#[derive(Debug)]
struct Place {
    hash: u64,
    name: DomainName,
    count: u64,
    overcount: u64,
    first_seen_ms: i64,
    last_seen_ms: i64,
}

impl UnknownHosts {
    /// A name was asked for. What is no domain name of two labels or more (an address, a probe's garbage) is passed
    /// over; nobody could adopt it.
    pub(crate) fn asked_for(&self, name: &str, now_ms: i64) {
        let hash = self.hasher.hash_one(name);
        let mut places = match self.places.try_lock() {
            Ok(places) => places,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another worker counts one now. This one is missing then; the metric counts all.
            Err(TryLockError::WouldBlock) => return,
        };
        if let Some(place) = places.iter_mut().find(|place| place.hash == hash && place.name.as_str() == name) {
            place.count += 1;
            place.last_seen_ms = now_ms;
            return;
        }
        let Some(name) = DomainName::parse(name).ok().filter(|name| name.labels() > 1) else { return };
        let mut place = Place { hash, name, count: 1, overcount: 0, first_seen_ms: now_ms, last_seen_ms: now_ms };
        if places.len() < PLACES {
            places.push(place);
        } else if let Some(least) = places.iter_mut().min_by_key(|place| place.count) {
            place.overcount = least.count;
            place.count += least.count;
            *least = place;
        }
    }

    /// The most wanted, those first.
    pub(crate) fn most_wanted(&self) -> Vec<UnknownHost> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<UnknownHost> = places
            .iter()
            .map(|place| UnknownHost {
                name: place.name.clone(),
                count: place.count,
                overcount: place.overcount,
                first_seen_ms: place.first_seen_ms,
                last_seen_ms: place.last_seen_ms,
            })
            .collect();
        drop(places);
        // By what is certain: a name that came in last has the count of another.
        all.sort_by_key(|host| Reverse((host.count - host.overcount, host.last_seen_ms)));
        all.truncate(UnknownHost::MOST);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_wanted_stays_among_a_flood_of_random_ones() {
        let hosts = UnknownHosts::default();
        for n in 0..10_000 {
            hosts.asked_for(&format!("x{n}.example"), n);
            if n % 20 == 0 {
                hosts.asked_for("new-school.example", n);
            }
        }
        let listed = hosts.most_wanted();
        assert_eq!(listed.len(), UnknownHost::MOST);
        let first = &listed[0];
        assert_eq!(first.name.as_str(), "new-school.example");
        assert!(first.count >= 500 && first.count - first.overcount <= 500, "{first:?}");
        assert_eq!(first.last_seen_ms, 9_980);
        assert!(hosts.places.lock().is_ok_and(|places| places.len() == PLACES));
    }

    #[test]
    fn what_is_no_domain_name_takes_no_place() {
        let hosts = UnknownHosts::default();
        for garbage in ["", "localhost", "203.0.113.9", "a b.example", "x_y.example", "../../etc", "a..example"] {
            hosts.asked_for(garbage, 1);
        }
        assert_eq!(hosts.most_wanted(), []);
    }
}
