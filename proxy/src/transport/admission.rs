//! How many connections there may be, in all and of one client address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use super::ConnectionRefusal;

/// Parts of the map of addresses, each under its own lock: workers that accept at the same time seldom meet.
const SHARDS: usize = 16;

/// Counts the connections of all listeners.
pub(super) struct Admission {
    open: AtomicUsize,
    most: usize,
    most_per_address: usize,
    /// As many entries as there are addresses with open connections, hence at most `most`.
    addresses: [Mutex<HashMap<u128, usize, RandomState>>; SHARDS],
}

/// A connection that was let in. Dropped with it.
pub(super) struct Permit {
    admission: Arc<Admission>,
    address: Option<u128>,
}

impl Admission {
    pub(super) fn new(most: usize, most_per_address: usize) -> Self {
        Self { open: AtomicUsize::new(0), most, most_per_address, addresses: Default::default() }
    }

    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether more than 80 % of the places are taken: then those who idle have less patience.
    pub(super) fn is_crowded(&self) -> bool {
        self.open() > self.most / 5 * 4
    }

    /// Lets one more connection in, whoever it is from.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Permit, ConnectionRefusal> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(ConnectionRefusal::Full);
        }
        Ok(Permit { admission: Arc::clone(self), address: None })
    }

    fn shard(&self, address: u128) -> MutexGuard<'_, HashMap<u128, usize, RandomState>> {
        // The high bits of a product: neighbouring addresses fall into different shards.
        let shard = (address as u64 ^ (address >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60;
        self.addresses[shard as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Counts the connection for the client it is from, once that is known.
    pub(super) fn claim(&mut self, client: IpAddr) -> Result<(), ConnectionRefusal> {
        let address = counted_as(client);
        let mut shard = self.admission.shard(address);
        let count = shard.entry(address).or_insert(0);
        if *count >= self.admission.most_per_address {
            return Err(ConnectionRefusal::Address);
        }
        *count += 1;
        drop(shard);
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        if let Entry::Occupied(mut count) = self.admission.shard(address).entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// An IPv4 address as itself; an IPv6 address as its /56, what a provider gives to one household.
pub(super) fn counted_as(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits() >> 72 << 72,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_place_back_when_a_connection_ends() {
        let admission = Arc::new(Admission::new(10, 1));
        let client: IpAddr = "203.0.113.7".parse().expect("an address");
        let mut first = admission.enter().expect("there is room");
        first.claim(client).expect("the first of its address");
        let mut second = admission.enter().expect("there is room");
        assert_eq!(second.claim(client), Err(ConnectionRefusal::Address));
        drop(first);
        second.claim(client).expect("the place is free again");
        drop(second);
        assert_eq!(admission.open(), 0);
        assert!(admission.addresses.iter().all(|shard| shard.lock().expect("not poisoned").is_empty()));
    }

    #[test]
    fn neighbours_in_one_ipv6_56_count_as_one() {
        let of = |text: &str| counted_as(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:200::1"), of("2001:db8:1:2ff:9::2"));
        assert_ne!(of("2001:db8:1:200::1"), of("2001:db8:1:300::1"));
        assert_eq!(of("203.0.113.7"), of("::ffff:203.0.113.7"));
    }

    #[test]
    fn beyond_the_total_none_gets_in() {
        let admission = Arc::new(Admission::new(1, 10));
        let first = admission.enter();
        assert!(matches!(admission.enter(), Err(ConnectionRefusal::Full)));
        drop(first);
        assert!(admission.enter().is_ok());
    }
}
