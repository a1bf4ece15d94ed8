//! Identifiers: newtypes, never bare strings.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use ulid::Ulid;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Why a text is not an identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Generated identifiers have the form `<prefix>_<26 characters of Crockford base 32>`.
    #[error("expected `{prefix}_` and a ULID, found `{found}`")]
    NotAUlid {
        /// What the identifier begins with.
        prefix: &'static str,
        /// What was found, shortened.
        found: String,
    },
    /// Chosen names are 1-63 characters of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit.
    #[error("`{found}` is not a name: use 1-63 of a-z, 0-9 and -, not beginning or ending with -")]
    NotAName {
        /// What was found, shortened.
        found: String,
    },
    /// Fingerprints are 64 hexadecimal digits.
    #[error("expected 64 hexadecimal digits (SHA-256)")]
    NotAFingerprint,
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Gives a newtype the serde, text and OpenAPI faces of a plain string.
macro_rules! as_string {
    ($type:ty, $error:ty, $description:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse::<$type>().map_err(de::Error::custom)
            }
        }
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some($description))
                    .into()
            }
        }
        impl ToSchema for $type {}
    };
}
pub(super) use as_string;

macro_rules! generated_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Ulid);

        impl $name {
            /// What every identifier of this kind begins with, before `_`.
            pub const PREFIX: &'static str = $prefix;

            /// An identifier made at `unix_ms` (milliseconds since 1970) with 80 bits of `chance`.
            pub const fn from_parts(unix_ms: u64, chance: u128) -> Self {
                Self(Ulid::from_parts(unix_ms, chance))
            }

            /// Its 128 bits, most significant first.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// A new identifier from the system's clock and random numbers.
            pub fn generate() -> Self {
                Self(crate::time::new_ulid())
            }

            /// The 128 bits of it, as a number.
            pub const fn bits(&self) -> u128 {
                self.0.0
            }

            /// When the identifier was made, in milliseconds since 1970.
            pub const fn unix_ms(&self) -> u64 {
                self.0.timestamp_ms()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(|ulid| Ulid::from_string(ulid).ok())
                    .map(Self)
                    .ok_or_else(|| IdError::NotAUlid { prefix: $prefix, found: shortened(text) })
            }
        }
        as_string!($name, IdError, concat!($prefix, "_ and a ULID"));
    };
}

macro_rules! chosen_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_ldh_label(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(IdError::NotAName { found: shortened(text) })
                }
            }
        }
        as_string!($name, IdError, "1-63 of a-z, 0-9 and -");
    };
}

/// Whether `text` is one label of lower-case letters, digits and hyphens (RFC 1123 section 2.1), 1-63 bytes.
pub(super) fn is_ldh_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

generated_id!(
    /// A tenant, for ever: a slug may change, this may not. `tnt_` and a ULID.
    TenantId,
    "tnt"
);
generated_id!(
    /// A route. `rt_` and a ULID.
    RouteId,
    "rt"
);
generated_id!(
    /// A backend of a pool; it survives a change of weight or state, not of address. `be_` and a ULID.
    BackendId,
    "be"
);
chosen_id!(
    /// A pool, named by the operator.
    PoolId
);
chosen_id!(
    /// A plan, named by the operator.
    PlanId
);
chosen_id!(
    /// A proxy process, named by its settings.
    NodeId
);
chosen_id!(
    /// A signing key of the tenant context: the `kid` of its JWS.
    KeyId
);
chosen_id!(
    /// A certificate authority, named by the operator's settings.
    CaId
);
chosen_id!(
    /// An issuer of tokens, named by the operator.
    IssuerId
);

/// The number of a published state of the gateway. Never reused; 0 is "nothing yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = u64)]
pub struct Revision(pub u64);

impl Revision {
    /// The state before anything was published.
    pub const NONE: Self = Self(0);

    /// The revision that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 of a leaf certificate's DER: the name of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a leaf certificate in DER.
    pub fn of(leaf_der: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, leaf_der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for Fingerprint {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError::NotAFingerprint)?;
        Ok(Self(bytes))
    }
}
as_string!(Fingerprint, IdError, "SHA-256 of the leaf certificate, hexadecimal");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_reads_back_as_written() {
        let id = TenantId::from_parts(1_700_000_000_000, 42);
        assert_eq!(id.to_string().parse::<TenantId>(), Ok(id));
        assert!(id.to_string().starts_with("tnt_"));
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let id = RouteId::from_parts(1, 2).to_string();
        assert!(id.parse::<TenantId>().is_err());
    }

    #[test]
    fn a_chosen_name_is_one_label() {
        assert!("web-1".parse::<PoolId>().is_ok());
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64)] {
            assert!(bad.parse::<PoolId>().is_err(), "{bad} was taken");
        }
    }
}
