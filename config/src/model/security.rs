//! Security headers: what a browser is told about a school's pages.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a tenant wants otherwise than the platform. A backend's own values win where they are no weaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Seconds for which browsers use TLS only (`Strict-Transport-Security`, RFC 6797); 0 sends none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts_max_age_s: Option<u32>,
    /// Whether that holds for every name below the host too, which all of them must be ready for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts_include_subdomains: Option<bool>,
    /// Who may show its pages in a frame (`X-Frame-Options`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_options: Option<FrameOptions>,
    /// What a link on its pages tells of where it was (`Referrer-Policy`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referrer_policy: Option<ReferrerPolicy>,
}

impl Security {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Who may show a page in a frame (RFC 7034).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FrameOptions {
    /// Nobody.
    Deny,
    /// Pages of the same origin.
    #[default]
    SameOrigin,
    /// Whoever the application allows: no header is sent.
    Any,
}

impl FrameOptions {
    /// The value of the header.
    pub const fn value(self) -> Option<&'static str> {
        match self {
            Self::Deny => Some("DENY"),
            Self::SameOrigin => Some("SAMEORIGIN"),
            Self::Any => None,
        }
    }
}

/// What a link tells of where it was (W3C Referrer Policy). `unsafe-url` is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReferrerPolicy {
    /// Nothing.
    NoReferrer,
    /// The page to its own origin, nothing to others.
    SameOrigin,
    /// The origin, over TLS only.
    StrictOrigin,
    /// The page to its own origin, the origin to others, over TLS only.
    #[default]
    StrictOriginWhenCrossOrigin,
}

impl ReferrerPolicy {
    /// The value of the header.
    pub const fn value(self) -> &'static str {
        match self {
            Self::NoReferrer => "no-referrer",
            Self::SameOrigin => "same-origin",
            Self::StrictOrigin => "strict-origin",
            Self::StrictOriginWhenCrossOrigin => "strict-origin-when-cross-origin",
        }
    }
}
