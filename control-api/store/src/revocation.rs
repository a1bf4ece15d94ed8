//! Certificates that were revoked, and what is still to be said to the CA that issued them.

use serde::{Deserialize, Serialize};

use schoolgate_config::model::Fingerprint;

/// A certificate that was revoked. It is out of service from that moment on, whatever its CA says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Which.
    pub fingerprint: Fingerprint,
    /// Where it came from: `internal`, `acme` or `uploaded`.
    pub issuer: String,
    /// Names it served.
    pub names: Vec<String>,
    /// Why.
    pub reason: RevocationReason,
    /// Whether its CA knows.
    pub state: RevocationState,
    /// The certificate itself, DER: what its CA wants to see.
    pub leaf: Vec<u8>,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
}

/// Whether the CA of a revoked certificate knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationState {
    /// It is to be told.
    Requested {
        /// Why telling it failed the last time.
        error: Option<String>,
    },
    /// It knows, or there is none that we could tell.
    Done {
        /// Since when, milliseconds since 1970.
        at_ms: i64,
    },
}

/// Why a certificate is revoked (RFC 5280 section 5.3.1; those that subscribers of public CAs may give).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// Nobody says.
    Unspecified,
    /// Somebody else may have its private key.
    KeyCompromise,
    /// Its names are somebody else's now.
    AffiliationChanged,
    /// Another is in its place.
    Superseded,
    /// Its names are not served any more.
    CessationOfOperation,
}

impl RevocationReason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
    ];

    /// The name used in JSON and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key_compromise",
            Self::AffiliationChanged => "affiliation_changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation_of_operation",
        }
    }

    /// The number in RFC 5280 section 5.3.1.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
        }
    }

    /// The reason with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}
