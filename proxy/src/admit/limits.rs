//! How large and how slow a request body may be. Counted as it passes, so that a chunked one is bounded too.

use std::time::{Duration, Instant};

use crate::fault::Fault;

/// How slow a body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeastRate {
    /// Bytes per second on average: 256, a hundredth of what the slowest mobile links carry. A body that drips slower
    /// only holds a backend's worker.
    pub(crate) bytes_s: u32,
    /// Asked of it after this long: 60 s, longer than any hiccup of a mobile link.
    pub(crate) after: Duration,
}

impl LeastRate {
    /// None, for a request that has no body yet.
    pub(crate) const NONE: Self = Self { bytes_s: 0, after: Duration::MAX };
}

/// Counts one request's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyMeter {
    limit: u64,
    rate: LeastRate,
    received: u64,
    began: Instant,
}

impl BodyMeter {
    /// A meter for a body of at most `limit` bytes that begins at `now`.
    pub(crate) const fn new(limit: u64, rate: LeastRate, now: Instant) -> Self {
        Self { limit, rate, received: 0, began: now }
    }

    /// Whether a body announced with this length may begin at all.
    ///
    /// # Errors
    /// [`Fault::BodyTooLarge`].
    pub(crate) const fn announced(&self, length: Option<u64>) -> Result<(), Fault> {
        match length {
            Some(length) if length > self.limit => Err(Fault::BodyTooLarge),
            _ => Ok(()),
        }
    }

    /// Counts a piece that arrived at `now`.
    ///
    /// # Errors
    /// [`Fault::BodyTooLarge`] and [`Fault::RequestTimeout`].
    pub(crate) fn received(&mut self, bytes: usize, now: impl FnOnce() -> Instant) -> Result<(), Fault> {
        self.received = self.received.saturating_add(bytes as u64);
        if self.received > self.limit {
            return Err(Fault::BodyTooLarge);
        }
        let took = now().saturating_duration_since(self.began);
        if took > self.rate.after && self.received < u64::from(self.rate.bytes_s) * took.as_secs() {
            return Err(Fault::RequestTimeout);
        }
        Ok(())
    }

    /// Counts a piece of a switched protocol, which has no limit of its own.
    pub(crate) const fn passed(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// The body begins again: what was read of it is sent to another backend.
    pub(crate) const fn restart(&mut self) {
        self.received = 0;
    }

    /// Bytes so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: LeastRate = LeastRate { bytes_s: 256, after: Duration::from_secs(60) };

    #[test]
    fn a_body_is_bounded_by_its_announcement_and_by_its_bytes() {
        let begin = Instant::now();
        let mut meter = BodyMeter::new(10, RATE, begin);
        assert_eq!(meter.announced(Some(10)), Ok(()));
        assert_eq!(meter.announced(Some(11)), Err(Fault::BodyTooLarge));
        assert_eq!(meter.announced(None), Ok(()));
        assert_eq!(meter.received(10, || begin), Ok(()));
        assert_eq!(meter.received(1, || begin), Err(Fault::BodyTooLarge));
    }

    #[test]
    fn a_body_that_drips_is_cut_after_a_minute() {
        let begin = Instant::now();
        let mut meter = BodyMeter::new(u64::MAX, RATE, begin);
        assert_eq!(meter.received(1, || begin + Duration::from_secs(59)), Ok(()));
        assert_eq!(meter.received(1, || begin + Duration::from_secs(61)), Err(Fault::RequestTimeout));
        let mut steady = BodyMeter::new(u64::MAX, RATE, begin);
        assert_eq!(steady.received(256 * 100, || begin + Duration::from_secs(90)), Ok(()));
    }
}
