//! Why a request goes nowhere.

use std::borrow::Cow;
use std::sync::Arc;

use super::{AuthorityError, Identifier, KeyAuthorization, Named, TokenError};
use crate::model::{Maintenance, Route};
use crate::table::{Live, TenantEntry};

/// Characters of an identifier that are kept of a disagreement: 64, a slug or an id.
const SHOWN: usize = 64;

/// Why a request goes nowhere. The tenant is named where its visitors may know it: their page is themed.
pub enum Refusal<'t, 'r, L: Live> {
    /// The authority is not a host: 400 `BAD_REQUEST`.
    BadAuthority(AuthorityError),
    /// What is left of the path after `/t/{slug}` could be read as another host: 400 `BAD_REQUEST`.
    BadPath,
    /// A certificate authority asks whether the name is here: 200 with this text.
    Challenge(KeyAuthorization<'t, 'r>),
    /// It looks as if one asked, and there is nothing to say: 404 `NO_ROUTE`.
    NoChallenge,
    /// Plain text, to a name that is served over TLS: 308 to there.
    Plain {
        /// The host, normalised, without port.
        host: Cow<'r, str>,
    },
    /// Nothing says which tenant: 400 `TENANT_NOT_FOUND`.
    NoIdentifier,
    /// The zone wants a token and there is none: 401 `MISSING_TOKEN`.
    MissingToken,
    /// The token is not good: 401, with the code of [`TokenError::code`].
    Token(TokenError),
    /// SNI and authority lead to different tenants: 421 `MISDIRECTED`.
    Misdirected,
    /// Another identifier names another tenant than the one selected: 403 `TENANT_MISMATCH`.
    Mismatch(Mismatch<'t, L>),
    /// The host is nobody's, or of a tenant that is not served: 404 `TENANT_NOT_ACTIVE`, the same for both.
    UnknownHost,
    /// The identifier that selects names nobody, or a tenant that is not served: 404 `TENANT_NOT_ACTIVE`.
    NotActive,
    /// The token that selects names nobody, or a tenant that is not served: 403 `TENANT_NOT_ACTIVE`.
    TokenNotActive,
    /// 403 `TENANT_SUSPENDED`.
    Suspended(&'t Arc<TenantEntry<L>>),
    /// 503 `TENANT_MAINTENANCE`, with what is said of it; a route or a state says nothing.
    Maintenance(&'t Arc<TenantEntry<L>>, Option<&'t Maintenance>),
    /// 403 `FEATURE_NOT_IN_PLAN`.
    FeatureNotInPlan(&'t Arc<TenantEntry<L>>),
    /// The route redirects: its status and target. A public route does so for nobody in particular.
    Redirect(Option<&'t Arc<TenantEntry<L>>>, &'t Arc<Route>),
    /// The route answers with a file; which one, this path says: 200, or 404 `NO_ROUTE` where there is none.
    Files(Option<&'t Arc<TenantEntry<L>>>, &'t Arc<Route>, &'r str),
    /// The route answers with files, which are only read: 405 `METHOD_NOT_ALLOWED`.
    ReadOnly(Option<&'t Arc<TenantEntry<L>>>),
    /// The route answers by itself.
    Answer(Option<&'t Arc<TenantEntry<L>>>, &'t Arc<Route>),
    /// The pool that a route or tenant names is not there; the whole-graph check prevents it: 404 `NO_ROUTE`.
    NoRoute(Option<&'t Arc<TenantEntry<L>>>),
}

/// Two identifiers of a request that name different tenants.
pub struct Mismatch<'t, L: Live> {
    /// The tenant selected; `None` when the first of two lines named nobody.
    pub tenant: Option<&'t Arc<TenantEntry<L>>>,
    /// What disagrees.
    pub by: Identifier,
    /// What it says, shortened, control characters replaced.
    pub named: Box<str>,
}

impl<'t, L: Live> Mismatch<'t, L> {
    pub(super) fn of(tenant: Option<&'t Arc<TenantEntry<L>>>, named: &Named<'_>) -> Self {
        let text: String = named
            .value
            .chars()
            .take(SHOWN)
            .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
            .collect();
        Self { tenant, by: named.by, named: text.into() }
    }
}

impl TokenError {
    /// The code of the answer: what a client can do about it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Format => "INVALID_TOKEN_FORMAT",
            Self::Expired => "TOKEN_EXPIRED",
            Self::Issuer
            | Self::Algorithm
            | Self::Critical
            | Self::Key
            | Self::Signature
            | Self::Audience
            | Self::NoExpiry
            | Self::NotYet => "INVALID_TOKEN",
        }
    }
}

impl<'t, L: Live> Refusal<'t, '_, L> {
    pub(super) const fn not_active(by: Identifier) -> Self {
        match by {
            Identifier::Token => Self::TokenNotActive,
            _ => Self::NotActive,
        }
    }

    /// The status, and the code of our own answer; a redirect has none.
    pub fn answer(&self) -> (u16, Option<&'static str>) {
        match self {
            Self::BadAuthority(_) | Self::BadPath => (400, Some("BAD_REQUEST")),
            Self::Challenge(_) => (200, None),
            Self::Plain { .. } => (308, None),
            Self::NoIdentifier => (400, Some("TENANT_NOT_FOUND")),
            Self::MissingToken => (401, Some("MISSING_TOKEN")),
            Self::Token(error) => (401, Some(error.code())),
            Self::Misdirected => (421, Some("MISDIRECTED")),
            Self::Mismatch(_) => (403, Some("TENANT_MISMATCH")),
            Self::UnknownHost | Self::NotActive => (404, Some("TENANT_NOT_ACTIVE")),
            Self::TokenNotActive => (403, Some("TENANT_NOT_ACTIVE")),
            Self::Suspended(_) => (403, Some("TENANT_SUSPENDED")),
            Self::Maintenance(..) => (503, Some("TENANT_MAINTENANCE")),
            Self::FeatureNotInPlan(_) => (403, Some("FEATURE_NOT_IN_PLAN")),
            Self::Redirect(_, route) => (route.action.redirect.as_ref().map_or(308, |to| to.status), None),
            Self::Files(..) => (200, None),
            Self::ReadOnly(_) => (405, Some("METHOD_NOT_ALLOWED")),
            Self::Answer(_, route) => (route.action.answer.as_ref().map_or(200, |answer| answer.status), None),
            Self::NoRoute(_) | Self::NoChallenge => (404, Some("NO_ROUTE")),
        }
    }

    /// The tenant whose request it was, where that was decided.
    pub fn tenant(&self) -> Option<&'t Arc<TenantEntry<L>>> {
        match self {
            Self::Suspended(tenant) | Self::Maintenance(tenant, _) | Self::FeatureNotInPlan(tenant) => Some(tenant),
            Self::Redirect(tenant, _) | Self::Answer(tenant, _) | Self::Files(tenant, ..) => *tenant,
            Self::ReadOnly(tenant) | Self::NoRoute(tenant) => *tenant,
            Self::Mismatch(mismatch) => mismatch.tenant,
            Self::BadAuthority(_)
            | Self::BadPath
            | Self::Challenge(_)
            | Self::NoChallenge
            | Self::Plain { .. }
            | Self::NoIdentifier
            | Self::MissingToken
            | Self::Token(_)
            | Self::Misdirected
            | Self::UnknownHost
            | Self::NotActive
            | Self::TokenNotActive => None,
        }
    }
}

impl<L: Live> std::fmt::Debug for Refusal<'_, '_, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::BadAuthority(e) => return write!(f, "BadAuthority({e})"),
            Self::Token(e) => return write!(f, "Token({e:?})"),
            Self::Mismatch(m) => {
                let tenant = m.tenant.map_or("nobody", |t| t.tenant.slug.as_str());
                return write!(f, "Mismatch({tenant}, {} {})", m.by.as_str(), m.named);
            }
            Self::BadPath => "BadPath",
            Self::Challenge(_) => "Challenge",
            Self::NoChallenge => "NoChallenge",
            Self::Plain { .. } => "Plain",
            Self::NoIdentifier => "NoIdentifier",
            Self::MissingToken => "MissingToken",
            Self::Misdirected => "Misdirected",
            Self::UnknownHost => "UnknownHost",
            Self::NotActive => "NotActive",
            Self::TokenNotActive => "TokenNotActive",
            Self::Suspended(_) => "Suspended",
            Self::Maintenance(..) => "Maintenance",
            Self::FeatureNotInPlan(_) => "FeatureNotInPlan",
            Self::Redirect(..) => "Redirect",
            Self::Files(..) => "Files",
            Self::ReadOnly(_) => "ReadOnly",
            Self::Answer(..) => "Answer",
            Self::NoRoute(_) => "NoRoute",
        };
        match self.tenant() {
            Some(t) => write!(f, "{name}({})", t.tenant.slug),
            None => f.write_str(name),
        }
    }
}
