//! What one node leases of one tenant's rate: pure arithmetic.
//!
//! Every request that passes here is charged to the bank exactly once: taken from a slice it was charged when the slice
//! was granted; let through at this node's share, it is *spent* and charged with the next ask. So the bank knows all
//! that the fleet let through, and the sum stays at the limit however uneven the traffic is.

use crate::limit::{Demand, Rate};

/// A slice is what is wanted in 200 ms: four looks, so that one late answer is no gap. Longer slices would lie unused at
/// nodes whose traffic ends.
const SLICE_MS: u64 = 200;

/// How long a slice can be used: 500 ms. Over that without another answer, the node's share holds.
const HOLDS_MS: u64 = 500;

/// After this time without a request what is left is given back: 1 s.
const REST_MS: u64 = 1_000;

/// What is left of the lease at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// So many requests.
    Leased(u32),
    /// There is no lease, or it is over: the node's share holds.
    Nothing,
}

/// What is to be done for a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) spent: u32,
    pub(super) back: u32,
    pub(super) wanted: u32,
}

/// How the lease of a tenant changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Renewal {
    pub(super) more: u32,
    pub(super) until_ms: u64,
}

/// One tenant that makes requests.
#[derive(Debug)]
pub(super) struct Slice {
    /// When it was last looked at.
    at_ms: u64,
    seen: Demand,
    /// Granted, and not seen passing.
    reserved: u32,
    /// Seen passing, and not charged.
    owed: u32,
    /// Requests per second lately, let through or not.
    per_s: f64,
    /// Since when there was no request.
    quiet_since_ms: u64,
    /// Requests were refused since the last ask.
    refused: bool,
    /// The bank has nothing before.
    ask_after_ms: u64,
}

impl Slice {
    /// A tenant that made requests before it was looked at; `spent` of them are charged to nobody.
    pub(super) fn new(seen: Demand, spent: u32, now_ms: u64) -> Self {
        Self {
            at_ms: now_ms,
            seen,
            reserved: 0,
            owed: spent,
            per_s: 0.0,
            quiet_since_ms: now_ms,
            refused: false,
            ask_after_ms: 0,
        }
    }

    /// Takes in what happened since the last look.
    pub(super) fn look(&mut self, demand: Demand, left: Left, now_ms: u64) {
        // Requests that did not happen after all make it fall.
        let passed = i64::from(demand.passed.wrapping_sub(self.seen.passed).cast_signed());
        let refused = i64::from(demand.refused.wrapping_sub(self.seen.refused).cast_signed()).max(0);
        self.seen = demand;
        let reserved = i64::from(self.reserved);
        let taken = match left {
            Left::Leased(left) => reserved - i64::from(left),
            // When it was over is not known. What passed is taken to be of the lease as far as that reached.
            Left::Nothing => passed.clamp(0, reserved),
        };
        let narrow = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
        self.reserved = narrow(reserved - taken);
        self.owed = narrow(i64::from(self.owed) + passed - taken);
        self.refused |= refused > 0;
        if passed > 0 || refused > 0 {
            self.quiet_since_ms = now_ms;
        }
        let elapsed = now_ms.saturating_sub(self.at_ms).max(1) as f64;
        self.at_ms = now_ms;
        // Half of it is forgotten in a slice's time.
        let kept = 0.5_f64.powf(elapsed / SLICE_MS as f64);
        let rate = (passed.max(0) + refused) as f64 * 1_000.0 / elapsed;
        self.per_s = self.per_s * kept + rate * (1.0 - kept);
    }

    /// Whether it has been without a request for so long that it need not be looked at.
    pub(super) const fn rests(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.quiet_since_ms) >= REST_MS
    }

    /// What to ask for now; `None` when nothing. `rate` is the whole tenant's, `own` this node's share of it.
    pub(super) fn wish(&self, rate: Rate, own: Rate, left: Left, now_ms: u64) -> Option<Wish> {
        // Charged and out of reach: asked for anew.
        let back = if left == Left::Nothing { self.reserved } else { 0 };
        if self.rests(now_ms) {
            return self.settled();
        }
        // A node that uses less than half of its share needs no lease: its share is always there, and what it lets
        // through is charged. A tenant with a request now and then costs the bank one command for each.
        let leases = self.refused || left != Left::Nothing || self.per_s * 2.0 > own.per_second();
        let target = ((self.per_s * SLICE_MS as f64 / 1_000.0).ceil() as u32).clamp(1, rate.most_at_once());
        let reserved = if left == Left::Nothing { 0 } else { self.reserved };
        let wanted = if leases && reserved * 2 <= target { target - reserved } else { 0 };
        if wanted > 0 && now_ms < self.ask_after_ms && self.owed == 0 {
            return None;
        }
        let wish = Wish { spent: self.owed, back, wanted };
        (wish != Wish { spent: 0, back: 0, wanted: 0 }).then_some(wish)
    }

    /// What is to be told of a tenant that rests: nothing when all is charged and given back.
    fn settled(&self) -> Option<Wish> {
        let wish = Wish { spent: self.owed, back: self.reserved, wanted: 0 };
        (wish.spent > 0 || wish.back > 0).then_some(wish)
    }

    /// The bank has answered a wish.
    pub(super) fn granted(&mut self, wish: Wish, granted: u32, wait_ms: u64, now_ms: u64) -> Option<Renewal> {
        self.charged(wish);
        self.reserved = self.reserved.saturating_add(granted);
        if wish.wanted == 0 {
            return None;
        }
        self.refused = false;
        let wait_ms = if granted < wish.wanted { wait_ms } else { 0 };
        self.ask_after_ms = now_ms.saturating_add(wait_ms);
        // A lease that is all used says when to come again; it must not be over before, or the share would stand in
        // for what others have used up.
        Some(Renewal { more: granted, until_ms: now_ms.saturating_add(HOLDS_MS.max(wait_ms + HOLDS_MS / 2)) })
    }

    /// The bank has charged a wish, and grants nobody anything before `wait_ms` are over.
    pub(super) fn put_off(&mut self, wish: Wish, wait_ms: u64, now_ms: u64) {
        self.charged(wish);
        self.ask_after_ms = now_ms.saturating_add(wait_ms);
    }

    fn charged(&mut self, wish: Wish) {
        self.owed = self.owed.saturating_sub(wish.spent);
        self.reserved = self.reserved.saturating_sub(wish.back);
    }

    /// The bank does not answer: what was charged there is not known any more. `spent` is what this node has used of its
    /// share's burst, which is charged when the bank is back.
    pub(super) fn forget(&mut self, spent: u32) {
        self.reserved = 0;
        self.owed = spent;
        self.ask_after_ms = 0;
    }

    /// Granted and not seen passing.
    pub(super) const fn reserved(&self) -> u32 {
        self.reserved
    }
}
