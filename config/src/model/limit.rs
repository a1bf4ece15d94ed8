//! Limits by name, and what an operator sets in the place of one for a while.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Timestamp;
use super::id::{as_string, shortened};

macro_rules! limit_names {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A limit of a plan, by the name it has there.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum LimitName {
            $($(#[$doc])* $variant,)*
        }

        impl LimitName {
            /// Every limit, in the order a plan lists them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

limit_names! {
    /// People with an account; enforced by the school app.
    Users = "users",
    /// Bytes of storage; enforced by the school app.
    StorageBytes = "storage_bytes",
    /// API requests per calendar day of the tenant.
    RequestsPerDay = "requests_per_day",
    /// Bytes of bodies, both ways, per calendar month of the tenant.
    BytesPerMonth = "bytes_per_month",
    /// Requests per minute, averaged.
    RequestsPerMinute = "requests_per_minute",
    /// Requests that may come at once.
    Burst = "burst",
    /// Requests per minute of one client address.
    RequestsPerMinutePerClient = "requests_per_minute_per_client",
    /// Requests at the same time.
    InFlight = "in_flight",
    /// WebSockets at the same time.
    WebSockets = "websockets",
    /// Names of its own.
    CustomDomains = "custom_domains",
    /// Bytes of one request body.
    BodyBytes = "body_bytes",
    /// Bytes of one upload (`multipart/form-data`).
    UploadBytes = "upload_bytes",
}

/// Why a text names no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a limit: {names}", names = LimitName::ALL.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", "))]
pub struct LimitNameError(String);

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for LimitName {
    type Err = LimitNameError;
    fn from_str(text: &str) -> Result<Self, LimitNameError> {
        let found = Self::ALL.iter().copied().find(|name| name.as_str() == text);
        found.ok_or_else(|| LimitNameError(shortened(text)))
    }
}
as_string!(LimitName, LimitNameError, "the name of a limit, such as requests_per_minute");

/// What holds in the place of a plan's limit, for one tenant and for a while: an exam week, a results day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The limit while it holds.
    pub value: u64,
    /// Why, for whoever looks at it later.
    pub reason: String,
    /// From when it holds; absent: from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// Until when; absent: until it is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Override {
    /// Whether it holds at `now_ms` (milliseconds since 1970). It ends by itself: every reader asks its own clock.
    pub fn holds(&self, now_ms: i64) -> bool {
        self.starts_at.is_none_or(|at| at.unix_ms() <= now_ms) && self.expires_at.is_none_or(|at| now_ms < at.unix_ms())
    }

    /// When it next begins or ends after `now_ms`.
    pub fn next_turn(&self, now_ms: i64) -> Option<i64> {
        [self.starts_at, self.expires_at].into_iter().flatten().map(Timestamp::unix_ms).filter(|at| *at > now_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_reads_back_from_its_name() {
        assert!(LimitName::ALL.iter().all(|name| name.as_str().parse() == Ok(*name)));
        let error = "rpm".parse::<LimitName>().expect_err("no such limit").to_string();
        assert!(error.contains("requests_per_minute"), "{error}");
    }

    #[test]
    fn an_override_holds_from_its_start_and_ends_by_itself() {
        let exam = Override {
            value: 3_000,
            reason: "exam week".into(),
            starts_at: Some(Timestamp::from_unix_ms(1_000)),
            expires_at: Some(Timestamp::from_unix_ms(2_000)),
        };
        let turns: Vec<_> = [999, 1_000, 1_999, 2_000].map(|now| (exam.holds(now), exam.next_turn(now))).into();
        assert_eq!(turns, [(false, Some(1_000)), (true, Some(2_000)), (true, Some(2_000)), (false, None)]);
    }
}
