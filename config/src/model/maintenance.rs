//! Maintenance: visitors are told to come back later.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;

/// Visitors of a tenant, of a pool or of the platform are told to come back later. It begins and ends by the clock of
/// each proxy, so nobody has to be awake for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Maintenance {
    /// Why, for operators; visitors never see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What visitors read, as plain text; the gateway's own sentence if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it begins; at once if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// When it ends by itself; when an operator ends it if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// Networks of testers, who are served all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub allow: Vec<IpNet>,
}

impl Maintenance {
    /// Whether it is under way at `now_ms` (milliseconds since 1970).
    pub fn is_on(&self, now_ms: i64) -> bool {
        self.starts_at.is_none_or(|at| at.unix_ms() <= now_ms) && !self.is_over(now_ms)
    }

    /// Whether it has ended by itself at `now_ms` (milliseconds since 1970).
    pub fn is_over(&self, now_ms: i64) -> bool {
        self.ends_at.is_some_and(|at| at.unix_ms() <= now_ms)
    }

    /// Whether a client at this address is turned away at `now_ms` (milliseconds since 1970).
    pub fn turns_away(&self, client: IpAddr, now_ms: i64) -> bool {
        self.is_on(now_ms) && !self.allow.iter().any(|net| net.contains(&client))
    }

    /// Seconds from `now_ms` (milliseconds since 1970) until it ends, rounded up so that who waits that long is served.
    pub fn ends_in_s(&self, now_ms: i64) -> Option<u32> {
        let left_ms = self.ends_at?.unix_ms().saturating_sub(now_ms).max(0);
        Some(u32::try_from(left_ms.saturating_add(999) / 1_000).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(starts_at: Option<i64>, ends_at: Option<i64>) -> Maintenance {
        let moment = |at: Option<i64>| at.map(Timestamp::from_unix_ms);
        Maintenance { starts_at: moment(starts_at), ends_at: moment(ends_at), ..Maintenance::default() }
    }

    #[test]
    fn a_window_begins_and_ends_by_the_clock() {
        let cases = [
            (window(None, None), [true, true, true]),
            (window(Some(100), None), [false, true, true]),
            (window(None, Some(200)), [true, true, false]),
            (window(Some(100), Some(200)), [false, true, false]),
        ];
        for (window, expected) in cases {
            assert_eq!([99, 100, 200].map(|now| window.is_on(now)), expected, "{window:?}");
        }
    }

    #[test]
    fn who_waits_as_long_as_told_is_served() {
        let window = window(None, Some(10_500));
        for now in [0, 1, 499, 500, 9_501, 10_499] {
            let wait = i64::from(window.ends_in_s(now).expect("an end"));
            assert!(window.is_over(now + wait * 1_000), "{now}");
            assert!(!window.is_over(now + (wait - 1) * 1_000), "{now}: told to wait a second too long");
        }
        assert_eq!(window.ends_in_s(20_000), Some(0));
    }

    #[test]
    fn testers_are_served() {
        let allow = vec!["192.0.2.0/24".parse().expect("a network"), "2001:db8::/32".parse().expect("a network")];
        let window = Maintenance { allow, ..window(None, None) };
        let turned_away = |client: &str| window.turns_away(client.parse().expect("an address"), 0);
        assert!(!turned_away("192.0.2.7") && !turned_away("2001:db8::1"));
        assert!(turned_away("198.51.100.1") && turned_away("2001:db9::1"));
    }
}
