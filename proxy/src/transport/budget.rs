//! What the edge holds for its clients, in bytes, and when that is too much.
//!
//! Bounds on one head, stream or connection multiply: 32 KiB of head on each of 100 streams of 256 connections is 800 MiB
//! for one address. One number bounds them all. What is counted is known without looking for it: heads that have not
//! arrived whole, bodies that have come and were not read, what an upload may still wait with for its backend, and answers
//! whose client does not take them. While the number is reached, no new request is begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be held, and those that are.
#[derive(Debug)]
pub struct Budget {
    most: usize,
    held: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes.
    pub const fn new(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0) }
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether as many are held as may be.
    pub fn is_spent(&self) -> bool {
        self.held() >= self.most
    }
}

/// A share of a budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    /// A share of so many bytes.
    pub(crate) fn of(budget: &Arc<Budget>, bytes: usize) -> Self {
        let mut held = Self { budget: Arc::clone(budget), bytes: 0 };
        held.set(bytes);
        held
    }

    /// From now on it is so many bytes.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.held.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.budget.held.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// The budget that this is a share of.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let budget = Arc::new(Budget::new(100));
        let mut one = Held::of(&budget, 60);
        let two = Held::of(&budget, 39);
        assert!(!budget.is_spent());
        one.set(61);
        assert!(budget.is_spent() && one.budget().held() == 100);
        one.set(10);
        assert_eq!((budget.held(), budget.is_spent()), (49, false));
        drop((one, two));
        assert_eq!(budget.held(), 0);
    }
}
