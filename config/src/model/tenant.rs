//! A tenant: one school on the platform, joining its names, plan and pool.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::id::{as_string, shortened};
use super::{Canary, LimitName, Maintenance, Override, PlanId, PoolId, Security, Slug, TenantId, TimeZone};

/// A school on the platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Immutable identity.
    pub id: TenantId,
    /// Unique short name; also its label below the platform's zones.
    pub slug: Slug,
    /// What people call the school, 1-200 characters.
    pub name: String,
    /// The operator's own reference, such as a customer number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Whether requests are served.
    pub state: TenantState,
    /// Why it is suspended or in maintenance, for operators; visitors never see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// The plan its limits and features come from.
    pub plan: PlanId,
    /// The commercial side: trial, paid, overdue.
    #[serde(default)]
    pub subscription: Subscription,
    /// The pool that serves it unless a route says otherwise.
    pub pool: PoolId,
    /// A share of its requests goes to another pool, unless a route says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Box<Canary>>,
    /// What its visitors are told while it is in maintenance, and when that begins and ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Box<Maintenance>>,
    /// How the app keeps this school's data apart.
    #[serde(default)]
    pub isolation: Isolation,
    /// Names and addresses of the school.
    #[serde(default, skip_serializing_if = "Profile::is_empty")]
    pub profile: Box<Profile>,
    /// Colours, font and logo of its pages.
    #[serde(default, skip_serializing_if = "Theme::is_empty")]
    pub theme: Box<Theme>,
    /// Security headers, where it wants others than the platform's.
    #[serde(default, skip_serializing_if = "Security::is_empty")]
    pub security: Security,
    /// Features switched on or off for this tenant, over what its plan says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, bool>,
    /// People to reach, by role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contacts: BTreeMap<String, String>,
    /// The operator's own key-value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where its days begin and end; UTC if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZone>,
    /// Limits that hold in the place of its plan's, each for a while.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<LimitName, Override>,
    /// Where its data should live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// How many days its data is kept after it is archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
}

impl Tenant {
    /// Whether its requests are forwarded.
    pub fn is_active(&self) -> bool {
        self.state == TenantState::Active
    }

    /// Pools that it names: its own, and its canary's.
    pub fn pools(&self) -> impl Iterator<Item = &PoolId> {
        std::iter::once(&self.pool).chain(self.canary.as_ref().map(|canary| &canary.pool))
    }

    /// Whether its visitors are told to come back later at `now_ms` (milliseconds since 1970), unless one is a tester.
    /// A window that has ended is over though nobody changed the state.
    pub fn is_in_maintenance(&self, now_ms: i64) -> bool {
        match (self.state, &self.maintenance) {
            (TenantState::Maintenance, None) => true,
            (TenantState::Active | TenantState::Maintenance, Some(maintenance)) => maintenance.is_on(now_ms),
            _ => false,
        }
    }
}

/// The life of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// Being set up; reads as unknown from outside.
    Provisioning,
    /// Served.
    #[default]
    Active,
    /// Refused with 403 `TENANT_SUSPENDED`.
    Suspended,
    /// Answered with 503 `TENANT_MAINTENANCE`.
    Maintenance,
    /// Kept but not served; reads as unknown from outside.
    Archived,
    /// On its way out; reads as unknown from outside.
    Deleting,
}

impl TenantState {
    /// The name used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Maintenance => "maintenance",
            Self::Archived => "archived",
            Self::Deleting => "deleting",
        }
    }
}

/// What the school has bought, and for how long. Informs operators; the gateway acts on [`TenantState`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// Where the subscription stands.
    #[serde(default)]
    pub status: SubscriptionStatus,
    /// When it began, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<String>,
    /// When it ends, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<String>,
}

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionStatus {
    /// Not paid for yet.
    Trial,
    /// Paid.
    #[default]
    Active,
    /// A payment is late.
    PastDue,
    /// Ran out.
    Expired,
    /// Ended by the school.
    Cancelled,
}

/// How the app keeps one school's data apart from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A database of its own.
    #[default]
    Database,
    /// A schema of its own in a shared database.
    Schema,
    /// Rows in shared tables.
    Shared,
}

/// Names and addresses of a school.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Full legal name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub legal_name: Option<String>,
    /// Short form of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short_name: Option<String>,
    /// Postal address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Public mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Public telephone number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The school's motto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub motto: Option<String>,
}

impl Profile {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Colours, font and logo of a school's pages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Theme {
    /// Main colour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_color: Option<Color>,
    /// Second colour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secondary_color: Option<Color>,
    /// CSS font family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub font_family: Option<String>,
    /// Where the logo is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logo_url: Option<String>,
    /// Where the icon is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub favicon_url: Option<String>,
}

impl Theme {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a text is not a colour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a colour: write #rrggbb")]
pub struct ColorError(String);

/// A colour as `#rrggbb`: parsed, so that it can be put into a style sheet without escaping.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Color([u8; 3]);

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.0;
        write!(f, "#{r:02x}{g:02x}{b:02x}")
    }
}
impl fmt::Debug for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for Color {
    type Err = ColorError;
    fn from_str(text: &str) -> Result<Self, ColorError> {
        let error = || ColorError(shortened(text));
        let digits = text.strip_prefix('#').ok_or_else(error)?;
        let long = match digits.len() {
            3 => digits.chars().flat_map(|c| [c, c]).collect(),
            6 => digits.to_owned(),
            _ => return Err(error()),
        };
        let mut rgb = [0; 3];
        hex::decode_to_slice(long, &mut rgb).map_err(|_| error())?;
        Ok(Self(rgb))
    }
}
as_string!(Color, ColorError, "#rrggbb");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_is_parsed_not_copied() {
        assert_eq!("#1F6f43".parse::<Color>().map(|c| c.to_string()), Ok("#1f6f43".into()));
        assert_eq!("#abc".parse::<Color>().map(|c| c.to_string()), Ok("#aabbcc".into()));
        assert!("red;}body{".parse::<Color>().is_err());
        assert!("#ééé".parse::<Color>().is_err());
    }
}
