//! What tenants used: what is counted, how parts of it are merged, how it travels from proxies to the control plane.
//!
//! A proxy gathers what each tenant did every few seconds and sends it as a [`UsageFlush`]. Flushes of one start of a
//! proxy are numbered, and the control plane counts each number once: one that is sent again, because its answer was
//! lost, changes nothing.

mod class;
pub mod latency;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::ToSchema;

use crate::model::{NodeId, TenantId};

pub use class::{CodeClass, RequestClass};
pub use latency::Latency;

/// How many requests there were of each class, by class of their answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, BTreeMap<String, u64>>", into = "BTreeMap<String, BTreeMap<String, u64>>")]
pub struct RequestCounts([[u64; CodeClass::ALL.len()]; RequestClass::ALL.len()]);

impl RequestCounts {
    /// Adds requests.
    pub fn add(&mut self, class: RequestClass, code: CodeClass, count: u64) {
        let cell = &mut self.0[class as usize][code as usize];
        *cell = cell.saturating_add(count);
    }

    /// How many of a class were answered so.
    pub fn get(&self, class: RequestClass, code: CodeClass) -> u64 {
        self.0[class as usize][code as usize]
    }

    /// How many of a class there were.
    pub fn of_class(&self, class: RequestClass) -> u64 {
        self.0[class as usize].iter().sum()
    }

    /// How many were answered so.
    pub fn of_code(&self, code: CodeClass) -> u64 {
        self.0.iter().map(|row| row[code as usize]).sum()
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.0.iter().flatten().sum()
    }
}

impl From<BTreeMap<String, BTreeMap<String, u64>>> for RequestCounts {
    fn from(named: BTreeMap<String, BTreeMap<String, u64>>) -> Self {
        let mut counts = Self::default();
        for (class, codes) in &named {
            // A class that a later release knows is a page here rather than nothing.
            let known = RequestClass::ALL.into_iter().find(|known| known.as_str() == class);
            for (code, count) in codes {
                let code = CodeClass::ALL.into_iter().find(|known| known.as_str() == code);
                counts.add(known.unwrap_or(RequestClass::Page), code.unwrap_or(CodeClass::Unanswered), *count);
            }
        }
        counts
    }
}

impl From<RequestCounts> for BTreeMap<String, BTreeMap<String, u64>> {
    fn from(counts: RequestCounts) -> Self {
        let mut named = Self::new();
        for class in RequestClass::ALL {
            for code in CodeClass::ALL {
                let count = counts.get(class, code);
                if count > 0 {
                    named.entry(class.as_str().to_owned()).or_default().insert(code.as_str().to_owned(), count);
                }
            }
        }
        named
    }
}

/// What a tenant used in some time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Requests by class (`api`, `page`, `static`, `websocket`) and by class of the answer (`2xx`, …, `499`).
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, BTreeMap<String, u64>>)]
    pub requests: RequestCounts,
    /// Bytes of request bodies.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    #[serde(default)]
    pub bytes_out: u64,
    /// Requests refused for a limit of the tenant (429).
    #[serde(default)]
    pub limited: u64,
    /// The most requests in flight at one time at one proxy.
    #[serde(default)]
    pub in_flight_peak: u64,
    /// How long requests took: pairs of a bucket and its count.
    #[serde(default)]
    #[schema(value_type = Vec<Vec<u64>>)]
    pub latency: Latency,
}

impl Usage {
    /// Whether there was nothing to count.
    pub fn is_empty(&self) -> bool {
        self.requests.total() == 0 && self.bytes_in == 0 && self.bytes_out == 0 && self.limited == 0
    }

    /// Adds another part: counts add up, the peak is the higher one.
    pub fn merge(&mut self, other: &Self) {
        for class in RequestClass::ALL {
            for code in CodeClass::ALL {
                self.requests.add(class, code, other.requests.get(class, code));
            }
        }
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.limited = self.limited.saturating_add(other.limited);
        self.in_flight_peak = self.in_flight_peak.max(other.in_flight_peak);
        self.latency.merge(&other.latency);
    }
}

/// A length of time that usage is summed over, beginning at its whole multiples since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Kept 48 hours.
    Minute,
    /// Kept 30 days.
    Hour,
    /// Kept 400 days.
    Day,
}

impl Step {
    /// Every step, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its length, seconds.
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    /// How long sums of it are kept, seconds.
    pub const fn kept_s(self) -> i64 {
        match self {
            Self::Minute => 48 * 3_600,
            Self::Hour => 30 * 86_400,
            Self::Day => 400 * 86_400,
        }
    }

    /// The beginning of the one that holds a moment, both in seconds since 1970.
    pub const fn floor(self, at_s: i64) -> i64 {
        at_s - at_s.rem_euclid(self.seconds())
    }

    /// The name used in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

impl std::str::FromStr for Step {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|step| step.as_str() == text).ok_or("expected minute, hour or day")
    }
}

/// What one tenant used in one minute, or in one hour when the minutes could not be kept apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsagePart {
    /// Whose.
    pub tenant: TenantId,
    /// The beginning of the time, seconds since 1970.
    pub at_s: i64,
    /// How long the time is.
    pub step: Step,
    /// What it used.
    pub usage: Usage,
}

/// A quota that is counted over the whole fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuotaKind {
    /// API requests of a calendar day in the tenant's time zone.
    RequestsPerDay,
    /// Bytes of a calendar month in the tenant's time zone.
    BytesPerMonth,
}

impl QuotaKind {
    /// Every quota.
    pub const ALL: [Self; 2] = [Self::RequestsPerDay, Self::BytesPerMonth];

    /// The name used in JSON and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerDay => "requests_per_day",
            Self::BytesPerMonth => "bytes_per_month",
        }
    }
}

/// How much of a tenant's quota was used: at one proxy since its flush before, or in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaUse {
    /// Whose.
    pub tenant: TenantId,
    /// Which quota.
    pub quota: QuotaKind,
    /// Which day or month of the tenant's calendar: how many since January 1970.
    pub period: u16,
    /// How much.
    pub used: u64,
}

/// What tenants used at one proxy since its flush before: `POST /internal/v1/nodes/{node}/usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageFlush {
    /// Which proxy.
    pub node: NodeId,
    /// Which start of it: drawn anew whenever it starts.
    #[schema(value_type = String)]
    pub boot: Ulid,
    /// The number of the flush, counted from 1 at each start. The next is sent when this one is acknowledged, so a number
    /// that is not above the last has been counted.
    pub number: u64,
    /// What tenants used; only those that used something.
    pub parts: Vec<UsagePart>,
    /// What of their quotas was used at this proxy; only those that used something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaUse>,
}

impl UsageFlush {
    /// Parts in one flush: 300, below 1 MB even when every one has requests in all classes and buckets.
    pub const MOST_PARTS: usize = 300;
    /// Quotas in one flush: 1,000, about 150 KB.
    pub const MOST_QUOTAS: usize = 1_000;
}

/// What became of a flush.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageTaken {
    /// Its number: it is counted now, or was before.
    pub number: u64,
    /// What the whole fleet has used of the quotas that the flush names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaUse>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(class: RequestClass, status: u16, count: u64) -> Usage {
        let mut usage = Usage::default();
        usage.requests.add(class, CodeClass::of(status), count);
        usage
    }

    #[test]
    fn parts_add_up_and_the_peak_is_the_higher_one() {
        let mut sum = Usage { bytes_in: 1, in_flight_peak: 3, ..usage(RequestClass::Api, 200, 2) };
        sum.merge(&Usage { bytes_in: 5, in_flight_peak: 2, limited: 1, ..usage(RequestClass::Api, 429, 1) });
        assert_eq!((sum.bytes_in, sum.in_flight_peak, sum.limited), (6, 3, 1));
        assert_eq!((sum.requests.total(), sum.requests.of_class(RequestClass::Api)), (3, 3));
        assert_eq!(sum.requests.of_code(CodeClass::ClientError), 1);
    }

    #[test]
    fn counts_read_back_and_those_of_a_later_release_are_not_lost() {
        let counts = usage(RequestClass::Static, 304, 7);
        let text = serde_json::to_string(&counts).expect("serialises");
        assert_eq!(serde_json::from_str::<Usage>(&text).expect("reads back"), counts);
        let later = serde_json::json!({"requests": {"grpc": {"2xx": 4}}, "colour": 1});
        let read: Usage = serde_json::from_value(later).expect("reads");
        assert_eq!(read.requests.of_class(RequestClass::Page), 4);
    }

    #[test]
    fn a_step_begins_at_its_whole_multiples_also_before_1970() {
        assert_eq!(Step::Hour.floor(7_199), 3_600);
        assert_eq!(Step::Day.floor(-1), -86_400);
        assert_eq!("hour".parse(), Ok(Step::Hour));
        assert!("week".parse::<Step>().is_err());
    }
}
