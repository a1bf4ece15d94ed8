//! The calendar of a time zone, kept until its day is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use schoolgate_config::calendar::Calendar;
use schoolgate_config::model::TimeZone;

/// Today in one time zone.
#[derive(Debug)]
pub struct Today {
    zone: TimeZone,
    calendar: ArcSwap<Calendar>,
}

impl Today {
    fn new(zone: TimeZone) -> Self {
        let calendar = ArcSwap::from_pointee(Calendar::at(&zone, 0));
        Self { zone, calendar }
    }

    /// The day and month of `now_ms` (milliseconds since 1970).
    pub fn at(&self, now_ms: i64) -> Calendar {
        let kept = **self.calendar.load();
        if kept.day.holds(now_ms) {
            return kept;
        }
        let calendar = Calendar::at(&self.zone, now_ms);
        self.calendar.store(Arc::new(calendar));
        calendar
    }
}

/// One [`Today`] for all tenants of a zone; there are about 600 zones.
#[derive(Debug, Default)]
pub(super) struct Zones(Mutex<HashMap<TimeZone, Arc<Today>>>);

impl Zones {
    /// Today in a zone. Asked when a tenant is put into the table, not by requests.
    pub(super) fn today(&self, zone: Option<&TimeZone>) -> Arc<Today> {
        let mut zones = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let zone = zone.cloned().unwrap_or_default();
        zones.entry(zone.clone()).or_insert_with(|| Arc::new(Today::new(zone))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_shared_and_its_day_turns_both_ways() {
        let zones = Zones::default();
        let berlin = "Europe/Berlin".parse().expect("a zone");
        let today = zones.today(Some(&berlin));
        assert!(Arc::ptr_eq(&today, &zones.today(Some(&berlin))));
        let noon = 1_774_782_000_000;
        for now in [noon, noon + 86_400_000, noon] {
            assert_eq!(today.at(now), Calendar::at(&berlin, now));
        }
    }
}
