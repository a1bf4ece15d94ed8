//! How fast one address may shake hands, and how fast it may fail to.
//!
//! A full handshake costs us a signature and the client next to nothing, and one that fails serves nobody. Both are
//! counted by the generic cell rate algorithm: one moment per source says when it would have used up what it was given.
//! A source that is within its rate is the same as one never seen, so the table has a fixed size and forgets those first.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ConnectionRefusal;
use super::admission::counted_as;

/// Parts of the table, each under its own lock.
const SHARDS: usize = 16;

/// Sources in one part: 1,024, in all 16,384, or 768 KiB. An attack from more sources makes the table forget some of
/// them early; it is then the number of connections that bounds it.
const SOURCES: usize = 1_024;

/// Places of a part where a source may be: 8.
const REACH: usize = 8;

/// A rate, and how much may come at once.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// In a second; 0 is without limit.
    pub per_s: u32,
    /// At once.
    pub burst: u32,
}

/// What one source did.
#[derive(Debug, Clone, Copy, Default)]
struct Source {
    address: u128,
    /// When all its handshakes will be paid for, nanoseconds since the start.
    all: u64,
    /// When its failed ones will be.
    failed: u64,
}

/// Counts the handshakes of all listeners.
pub(super) struct Handshakes {
    began: Instant,
    all: Rate,
    failing: Rate,
    shards: [Mutex<Box<[Source]>>; SHARDS],
}

impl Handshakes {
    pub(super) fn new(all: Rate, failing: Rate) -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(vec![Source::default(); SOURCES].into_boxed_slice()));
        Self { began: Instant::now(), all, failing, shards }
    }

    /// Lets a handshake begin. The machine's own addresses are a balancer or a tunnel beside us that speaks for
    /// everybody; they are not counted, only their failures are.
    pub(super) fn begin(&self, client: IpAddr, now: Instant) -> Result<(), ConnectionRefusal> {
        self.of(client, now, |source, now| {
            if self.failing.used_up(source.failed, now) {
                return Err(ConnectionRefusal::FailingHandshakes);
            }
            if client.to_canonical().is_loopback() {
                return Ok(());
            }
            if self.all.used_up(source.all, now) {
                return Err(ConnectionRefusal::HandshakeRate);
            }
            source.all = self.all.paid(source.all, now);
            Ok(())
        })
    }

    /// A handshake has failed by the client's doing.
    pub(super) fn failed(&self, client: IpAddr, now: Instant) {
        self.of(client, now, |source, now| source.failed = self.failing.paid(source.failed, now));
    }

    fn of<T>(&self, client: IpAddr, now: Instant, change: impl FnOnce(&mut Source, u64) -> T) -> T {
        let address = counted_as(client);
        let hash = (address as u64 ^ (address >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // 585 years fit.
        let now = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        let shard = &self.shards[(hash >> 60) as usize % SHARDS];
        let mut sources = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let first = (hash >> 32) as usize % (SOURCES - REACH);
        let reach = &mut sources[first..first + REACH];
        let place = match reach.iter().position(|source| source.address == address) {
            Some(place) => place,
            None => {
                // The one that is nearest to having never been seen.
                let least = (0..REACH).min_by_key(|place| reach[*place].all.max(reach[*place].failed)).unwrap_or(0);
                reach[least] = Source { address, ..Source::default() };
                least
            }
        };
        change(&mut reach[place], now)
    }
}

impl Rate {
    /// What one costs, nanoseconds.
    fn cost(self) -> u64 {
        u64::try_from(Duration::from_secs(1).as_nanos()).unwrap_or(u64::MAX) / u64::from(self.per_s.max(1))
    }

    fn used_up(self, paid: u64, now: u64) -> bool {
        self.per_s > 0 && paid.saturating_sub(now) > self.cost() * u64::from(self.burst.max(1) - 1)
    }

    fn paid(self, paid: u64, now: u64) -> u64 {
        paid.max(now).saturating_add(self.cost())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshakes() -> Handshakes {
        Handshakes::new(Rate { per_s: 50, burst: 200 }, Rate { per_s: 5, burst: 50 })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_source_has_a_burst_and_then_its_rate() {
        let handshakes = handshakes();
        let (client, now) = (address("203.0.113.7"), handshakes.began);
        let begun = |at| (0..1_000).take_while(|_| handshakes.begin(client, at).is_ok()).count();
        assert_eq!(begun(now), 200);
        assert_eq!(begun(now + Duration::from_secs(1)), 50);
        assert_eq!(begun(now + Duration::from_secs(60)), 200);
        assert_eq!(handshakes.begin(client, now), Err(ConnectionRefusal::HandshakeRate));
        assert_eq!(handshakes.begin(address("203.0.113.8"), now), Ok(()), "another source is another matter");
    }

    #[test]
    fn a_source_that_keeps_failing_is_refused_before_it_shakes_hands() {
        let handshakes = handshakes();
        let (client, now) = (address("127.0.0.1"), handshakes.began);
        for _ in 0..50 {
            assert_eq!(handshakes.begin(client, now), Ok(()));
            handshakes.failed(client, now);
        }
        assert_eq!(handshakes.begin(client, now), Err(ConnectionRefusal::FailingHandshakes));
        assert_eq!(handshakes.begin(client, now + Duration::from_millis(201)), Ok(()));
    }

    #[test]
    fn the_machines_own_addresses_speak_for_everybody() {
        let handshakes = handshakes();
        assert!((0..1_000).all(|_| handshakes.begin(address("127.0.0.1"), handshakes.began).is_ok()));
    }

    #[test]
    fn a_rate_of_none_is_no_limit() {
        let off = Rate { per_s: 0, burst: 0 };
        let handshakes = Handshakes::new(off, off);
        let client = address("203.0.113.7");
        for _ in 0..1_000 {
            assert_eq!(handshakes.begin(client, handshakes.began), Ok(()));
            handshakes.failed(client, handshakes.began);
        }
    }
}
