//! What holds for the platform as a whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use super::Maintenance;

/// What holds for the platform as a whole. There is one, or none where nothing was said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Platform {
    /// What visitors of all tenants are told while the platform is in maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Box<Maintenance>>,
}

/// Names the one platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PlatformId;

/// The name of the platform among the names of objects.
const NAME: &str = "platform";

/// A text does not name the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is one platform, and it is named `platform`")]
pub struct PlatformIdError;

impl fmt::Display for PlatformId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}
impl FromStr for PlatformId {
    type Err = PlatformIdError;
    fn from_str(text: &str) -> Result<Self, PlatformIdError> {
        if text == NAME { Ok(Self) } else { Err(PlatformIdError) }
    }
}
impl Serialize for PlatformId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(NAME)
    }
}
impl<'de> Deserialize<'de> for PlatformId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
