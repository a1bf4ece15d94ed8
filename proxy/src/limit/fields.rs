//! What a client is told of its limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10 of
//! September 2025, structured fields of RFC 9651; -11 of May 2026 has not been compared), and `X-Quota-Warning`.
//!
//! `"minute"` is the rate: `q` requests in `w` seconds; `r` pass at once, and after `t` seconds there is one more (up to -09
//! `t` was when all would be there again).
//! `"day"` is the quota: `r` are left until the school's day ends in `t` seconds.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use schoolgate_config::model::Limits;

use super::QuotaKind;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_QUOTA_WARNING: HeaderName = HeaderName::from_static("x-quota-warning");

/// Room for the longest field: two names, four numbers of 15 digits, and what stands between.
const ROOM: usize = 128;

/// The largest integer of a structured field (RFC 9651 section 3.3.1).
const MOST: u64 = 999_999_999_999_999;

/// One member of `RateLimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// Requests left.
    pub(crate) left: u64,
    /// Seconds until there are more.
    pub(crate) seconds: u64,
}

/// A quota that is used up by 80 % or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) quota: QuotaKind,
    pub(crate) used: u64,
    pub(crate) value: u64,
}

/// What the client of one request is told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub(crate) policy: Option<HeaderValue>,
    pub(crate) minute: Option<Member>,
    pub(crate) day: Option<Member>,
    pub(crate) warning: Option<Warning>,
}

impl Told {
    /// Sets the fields of an answer. A backend's own of the same names are about other limits, and are replaced.
    pub fn set(&self, headers: &mut HeaderMap) {
        if let Some(policy) = &self.policy {
            headers.insert(RATE_LIMIT_POLICY, policy.clone());
        }
        let mut text = Text::default();
        for (name, member) in [("\"minute\"", self.minute), ("\"day\"", self.day)] {
            let Some(Member { left, seconds }) = member else { continue };
            if text.length > 0 {
                text.push(", ");
            }
            text.push(name);
            text.push(";r=");
            text.number(left);
            text.push(";t=");
            text.number(seconds);
        }
        if text.length > 0 {
            text.set(RATE_LIMIT, headers);
        }
        if let Some(Warning { quota, used, value }) = self.warning {
            let mut text = Text::default();
            text.push(match quota {
                QuotaKind::Requests => "requests_per_day;used=",
                QuotaKind::Bytes => "bytes_per_month;used=",
            });
            text.number(used);
            text.push(";limit=");
            text.number(value);
            text.set(X_QUOTA_WARNING, headers);
        }
    }
}

/// `RateLimit-Policy` of a plan.
pub(super) fn policy(limits: &Limits) -> Option<HeaderValue> {
    let minute = limits.requests_per_minute.map(|limit| format!("\"minute\";q={};w=60", limit.min(MOST)));
    let day = limits.requests_per_day.map(|quota| format!("\"day\";q={};w=86400", quota.value.min(MOST)));
    let members: Vec<String> = minute.into_iter().chain(day).collect();
    if members.is_empty() { None } else { HeaderValue::try_from(members.join(", ")).ok() }
}

/// A field on the stack.
struct Text {
    bytes: [u8; ROOM],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; ROOM], length: 0 }
    }
}

impl Text {
    fn push(&mut self, text: &str) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + text.len()) {
            room.copy_from_slice(text.as_bytes());
            self.length += text.len();
        }
    }

    fn number(&mut self, number: u64) {
        let mut number = number.min(MOST);
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(std::str::from_utf8(&digits[at..]).unwrap_or_default());
    }

    fn set(&self, name: HeaderName, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_bytes(&self.bytes[..self.length]) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::{Plan, Quota, QuotaMode};

    use super::*;

    fn field(headers: &HeaderMap, name: &str) -> String {
        headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned()).unwrap_or_default()
    }

    #[test]
    fn a_client_is_told_in_structured_fields() {
        let policy = policy(&Plan::catalogue()[0].limits);
        let told = Told {
            policy,
            minute: Some(Member { left: 49, seconds: 1 }),
            day: Some(Member { left: 150, seconds: 40_000 }),
            warning: Some(Warning { quota: QuotaKind::Requests, used: 850, value: 1_000 }),
        };
        let mut headers = HeaderMap::new();
        told.set(&mut headers);
        assert_eq!(field(&headers, "ratelimit-policy"), r#""minute";q=100;w=60, "day";q=1000;w=86400"#);
        assert_eq!(field(&headers, "ratelimit"), r#""minute";r=49;t=1, "day";r=150;t=40000"#);
        assert_eq!(field(&headers, "x-quota-warning"), "requests_per_day;used=850;limit=1000");
    }

    #[test]
    fn where_nothing_limits_nothing_is_said() {
        assert_eq!(policy(&Limits::default()), None);
        let mut headers = HeaderMap::new();
        Told::default().set(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn the_largest_numbers_are_cut_to_what_a_field_can_say() {
        let most = Member { left: u64::MAX, seconds: u64::MAX };
        let quota = Some(Quota { value: u64::MAX, mode: QuotaMode::Soft });
        let limits = Limits { requests_per_minute: Some(u64::MAX), requests_per_day: quota, ..Limits::default() };
        let warning = Some(Warning { quota: QuotaKind::Bytes, used: u64::MAX, value: u64::MAX });
        let told = Told { policy: policy(&limits), minute: Some(most), day: Some(most), warning };
        let mut headers = HeaderMap::new();
        told.set(&mut headers);
        let n = MOST;
        assert_eq!(field(&headers, "ratelimit"), format!("\"minute\";r={n};t={n}, \"day\";r={n};t={n}"));
        assert_eq!(field(&headers, "x-quota-warning"), format!("bytes_per_month;used={n};limit={n}"));
    }
}
