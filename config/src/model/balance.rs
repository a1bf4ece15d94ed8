//! How one backend of a pool is chosen.

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The less loaded of two drawn at random ("power of two choices"), by requests in flight over weight.
    #[default]
    LeastRequest,
    /// Each in turn, by weight.
    RoundRobin,
    /// A tenant's own (rendezvous hashing on the tenant), unless that one has more than 1.25 times its share of what is
    /// in flight; then the tenant's next.
    TenantHash,
    /// The one that a cookie of ours names; without a good cookie as `least_request`.
    Sticky,
}

/// The cookie of `sticky`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StickyCookie {
    /// Its name. One that begins with `__Host-` is taken from this very host only, and over HTTPS only.
    pub name: CookieName,
    /// Seconds for which it is good; 0: until the browser closes.
    pub max_age_s: u32,
    /// Whether it comes with requests that other sites cause.
    pub same_site: SameSite,
}
impl Default for StickyCookie {
    fn default() -> Self {
        Self { name: CookieName("__Host-schoolgate".to_owned()), max_age_s: 0, same_site: SameSite::Lax }
    }
}

impl StickyCookie {
    /// The most seconds that a cookie may be good for: 30 days. A backend rarely lives for longer.
    pub const MOST_S: u32 = 30 * 24 * 3_600;
}

/// The name of a cookie: 1 to 64 characters of a token (RFC 6265 section 4.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, min_length = 1, max_length = 64)]
pub struct CookieName(String);

/// A text that no cookie can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cookie's name is 1-64 letters, digits or characters of !#$%&'*+-.^_`|~")]
pub struct CookieNameError;

impl CookieName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl std::str::FromStr for CookieName {
    type Err = CookieNameError;
    fn from_str(text: &str) -> Result<Self, CookieNameError> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        ((1..=64).contains(&text.len()) && text.bytes().all(token))
            .then(|| Self(text.to_owned()))
            .ok_or(CookieNameError)
    }
}
impl<'de> Deserialize<'de> for CookieName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Whether a cookie comes with requests that other sites cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// With links that a visitor follows.
    #[default]
    Lax,
    /// Never.
    Strict,
    /// Always: for pages shown in frames of other sites.
    None,
}

impl SameSite {
    /// As in `Set-Cookie`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::Strict => "Strict",
            Self::None => "None",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_name_is_a_token() {
        assert!("__Host-sg.1".parse::<CookieName>().is_ok());
        for bad in ["", "a b", "a=b", "a;b", "ä", "\u{1}", &"x".repeat(65)] {
            assert!(bad.parse::<CookieName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_cookie_reads_back_as_written_and_has_defaults() {
        let read: StickyCookie = serde_json::from_str(r#"{"max_age_s":60,"same_site":"strict"}"#).unwrap();
        assert_eq!((read.name.as_str(), read.max_age_s), ("__Host-schoolgate", 60));
        assert_eq!(serde_json::from_value::<StickyCookie>(serde_json::to_value(&read).unwrap()).unwrap(), read);
        assert!(serde_json::from_str::<StickyCookie>(r#"{"name":"a b"}"#).is_err());
    }
}
