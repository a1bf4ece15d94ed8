//! A token that is good for school B, brought along by who asks for the test.
//!
//! The platform holds public keys of issuers only, so it cannot make one. What is brought is checked first: a token that is
//! refused for its own sake would prove nothing.

use schoolgate_config::identity::{Bearer, Identifier, Named, TokenError};
use schoolgate_config::table::RoutingTable;

use super::Subject;

/// Seconds that the token has to be good for still, so that it does not expire within the test.
const LEAST_LIFE_S: i64 = 60;

/// A token that an issuer of the platform signed, that is in force, and that names school B and nobody else.
pub struct TokenOfB(String);

impl std::fmt::Debug for TokenOfB {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenOfB")
    }
}

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenNotOfB {
    /// Nobody whom the platform knows signed it.
    #[error("no token issuer of this platform signed it: {0}")]
    Stranger(TokenError),
    /// It is of an issuer that the platform knows, and not good.
    #[error("the issuer {issuer} did not make it so that it is good here: {error}")]
    NotGood {
        /// Which issuer.
        issuer: String,
        /// What is wrong.
        error: TokenError,
    },
    /// It ends within the test.
    #[error("it is good for {0} seconds more; {LEAST_LIFE_S} are needed")]
    Ending(i64),
    /// It names nobody, or not B alone.
    #[error("it names {named}, and must name the second school, {b}, alone")]
    NotB {
        /// Whom it names.
        named: String,
        /// Whom it should name.
        b: String,
    },
    /// Its issuer has no say over A.
    #[error("the issuer {issuer} counts in the zone {zone} only, and {host} is not in it")]
    OtherZone {
        /// Which issuer.
        issuer: String,
        /// Where it counts.
        zone: String,
        /// The host of A.
        host: String,
    },
}

impl TokenOfB {
    /// Takes a token if it is good at `now` (seconds since 1970), for `b` alone, and its issuer counts at the host of `a`.
    ///
    /// # Errors
    /// [`TokenNotOfB`] says why it would prove nothing.
    pub fn check(table: &RoutingTable, token: &str, a: &Subject, b: &Subject, now: i64) -> Result<Self, TokenNotOfB> {
        let token = token.trim();
        let verified = match Bearer::of_token(table, token.as_bytes(), now) {
            Bearer::Verified(verified) => verified,
            Bearer::Refused { issuer, error } => {
                return Err(TokenNotOfB::NotGood { issuer: issuer.id.to_string(), error });
            }
            Bearer::Stranger(error) => return Err(TokenNotOfB::Stranger(error)),
            Bearer::Absent | Bearer::Several => return Err(TokenNotOfB::Stranger(TokenError::Format)),
        };
        let left = verified.expires_at.saturating_sub(now);
        if left < LEAST_LIFE_S {
            return Err(TokenNotOfB::Ending(left));
        }
        let is_b = |name: &str| {
            let named = Named { by: Identifier::Token, value: name.into() };
            named.tenant(table).is_some_and(|found| found.tenant.id == b.id)
        };
        if verified.names.is_empty() || !verified.names.iter().all(|name| is_b(name)) {
            let named = verified.names.join(", ");
            let named = if named.is_empty() { "no school".to_owned() } else { format!("`{named}`") };
            return Err(TokenNotOfB::NotB { named, b: b.slug.clone() });
        }
        let issuer = &verified.issuer;
        if let Some(zone) = issuer.zone.as_ref().filter(|zone| a.host != format!("{}.{zone}", a.slug)) {
            return Err(TokenNotOfB::OtherZone {
                issuer: issuer.id.to_string(),
                zone: zone.to_string(),
                host: a.host.clone(),
            });
        }
        Ok(Self(token.to_owned()))
    }

    /// As it travels.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The same with another signature.
    pub(super) fn tampered(&self) -> String {
        // Not the last character: some of its bits mean nothing.
        let at = self.0.rfind('.').map_or(0, |dot| dot + 1);
        let other = if self.0[at..].starts_with('A') { 'B' } else { 'A' };
        self.0.chars().enumerate().map(|(n, c)| if n == at { other } else { c }).collect()
    }
}
