//! Days and months of a time zone, as quotas count them.
//!
//! A day lasts from the first moment of a date to the first moment of the next: 23 or 25 hours when clocks change, and
//! it need not begin at midnight (Beirut's and Cairo's days have begun at one o'clock).

use jiff::civil::{Date, date};
use jiff::{Timestamp, Zoned};

use crate::model::TimeZone;

/// A day or a month: its number and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Days, or months, since January 1970. Grows by one from period to period.
    pub number: u16,
    /// Its first millisecond, since 1970.
    pub starts_ms: i64,
    /// The first millisecond of the next one.
    pub ends_ms: i64,
}

impl Period {
    /// Whether a moment falls into it.
    pub const fn holds(&self, now_ms: i64) -> bool {
        self.starts_ms <= now_ms && now_ms < self.ends_ms
    }

    /// Whole seconds until it ends, rounded up.
    pub fn seconds_left(&self, now_ms: i64) -> u64 {
        u64::try_from(self.ends_ms.saturating_sub(now_ms)).unwrap_or(0).div_ceil(1_000)
    }
}

/// The day and the month of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    /// The day.
    pub day: Period,
    /// The month.
    pub month: Period,
}

impl Calendar {
    /// The calendar of a zone at `now_ms` (milliseconds since 1970). Some microseconds; kept until the day is over.
    pub fn at(zone: &TimeZone, now_ms: i64) -> Self {
        let now =
            Timestamp::from_millisecond(now_ms).unwrap_or(if now_ms < 0 { Timestamp::MIN } else { Timestamp::MAX });
        let now = now.to_zoned(zone.rules());
        let today = now.date();
        let day = period(&now, today, today.tomorrow().unwrap_or(Date::MAX), days(today));
        let first = today.first_of_month();
        let next = today.last_of_month().tomorrow().unwrap_or(Date::MAX);
        Self { day, month: period(&now, first, next, months(first)) }
    }
}

fn period(now: &Zoned, first: Date, next: Date, number: u16) -> Period {
    let begins = |date: Date| {
        let begins = date.to_zoned(now.time_zone().clone()).and_then(|at| at.start_of_day());
        begins.map_or(i64::MAX, |at| at.timestamp().as_millisecond())
    };
    Period { number, starts_ms: begins(first).min(now.timestamp().as_millisecond()), ends_ms: begins(next) }
}

fn days(today: Date) -> u16 {
    // Between two dates the unit is the day.
    let since = (today - date(1970, 1, 1)).get_days();
    u16::try_from(since.max(0)).unwrap_or(u16::MAX)
}

fn months(first: Date) -> u16 {
    let since = (i32::from(first.year()) - 1970) * 12 + i32::from(first.month()) - 1;
    u16::try_from(since.max(0)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(zone: &str, moment: &str) -> Calendar {
        let moment: crate::model::Timestamp = moment.parse().expect("a time");
        Calendar::at(&zone.parse().expect("a zone"), moment.unix_ms())
    }

    fn hours(period: Period) -> i64 {
        (period.ends_ms - period.starts_ms) / HOUR
    }

    #[test]
    fn a_day_ends_at_midnight_of_the_school() {
        let kolkata = at("Asia/Kolkata", "2026-03-01T18:29:59Z").day;
        assert_eq!(at("Asia/Kolkata", "2026-03-01T18:30:00Z").day.number, kolkata.number + 1);
        assert_eq!(kolkata.seconds_left(kolkata.ends_ms - 1_001), 2);
    }

    #[test]
    fn days_of_a_clock_change_have_23_and_25_hours() {
        assert_eq!(hours(at("Europe/Berlin", "2026-03-29T10:00:00Z").day), 23);
        assert_eq!(hours(at("Europe/Berlin", "2026-10-25T10:00:00Z").day), 25);
        // Clocks change at midnight: the day begins at one o'clock.
        assert_eq!(hours(at("Africa/Cairo", "2026-04-24T10:00:00Z").day), 23);
    }

    #[test]
    fn february_has_its_29th() {
        let leap = at("UTC", "2028-02-29T12:00:00Z");
        assert_eq!(hours(leap.month), 29 * 24);
        assert_eq!(at("UTC", "2028-03-01T00:00:00Z").month.number, leap.month.number + 1);
        assert_eq!(at("UTC", "2028-03-01T00:00:00Z").day.number, leap.day.number + 1);
    }

    #[test]
    fn a_date_that_a_zone_skipped_is_skipped() {
        // Samoa crossed the date line: there was no 30 December 2011.
        let before = at("Pacific/Apia", "2011-12-30T09:59:59Z").day;
        let after = at("Pacific/Apia", "2011-12-30T10:00:00Z").day;
        assert_eq!((before.ends_ms, after.number), (after.starts_ms, before.number + 2));
    }

    #[test]
    fn a_clock_that_is_set_wildly_wrong_still_has_a_calendar() {
        for now in [i64::MIN, -1, 0, i64::MAX] {
            let calendar = Calendar::at(&TimeZone::default(), now);
            assert!(calendar.day.starts_ms <= calendar.day.ends_ms);
        }
    }

    proptest! {
        #[test]
        fn periods_hold_their_moment_and_follow_without_a_gap(
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Africa/Cairo",
                "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu",
            ]),
            now in 1_577_836_800_000_i64..4_102_444_800_000,
        ) {
            let zone: TimeZone = zone.parse().expect("a zone");
            let calendar = Calendar::at(&zone, now);
            for (period, of) in [(calendar.day, 0), (calendar.month, 1)] {
                prop_assert!(period.holds(now));
                let pick = |calendar: Calendar| if of == 0 { calendar.day } else { calendar.month };
                let next = pick(Calendar::at(&zone, period.ends_ms));
                prop_assert_eq!((next.starts_ms, next.number), (period.ends_ms, period.number + 1));
                prop_assert_eq!(pick(Calendar::at(&zone, period.ends_ms - 1)), period);
                prop_assert_eq!(pick(Calendar::at(&zone, period.starts_ms)), period);
            }
        }
    }
}
