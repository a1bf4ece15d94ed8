//! Reading what has no members of its own: text, numbers, lists, names.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use schoolgate_config::model::{
    BackendAddress, BackendId, BackendState, Balance, CaBundle, CanaryBy, Color, CookieName, DomainName, FilePath,
    FrameOptions, HostClass, Isolation, IssuerId, Jwks, KeyUrl, Lane, LimitMode, LimitName, Percent, PlanId, PoolId,
    PoolKind, PoolKindRule, ProbeKind, QuotaMode, ReferrerPolicy, RequestClass, SameSite, ServerName, ShardSize, Slug,
    SubscriptionStatus, TenantId, TimeZone, Timestamp, TokenAlgorithm, Weight,
};

use super::{Errors, Place, Readable, kind_of};

/// Elements of one list, and members of one free map, in a document. More is a mistake, and the table carries it.
const MOST_ELEMENTS: usize = 1_000;

/// Characters of a text that has no narrower bound.
const LONGEST_TEXT: usize = 2_000;

/// Text of `MIN` to `MAX` characters without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<const MIN: usize, const MAX: usize>(pub(crate) String);

impl<const MIN: usize, const MAX: usize> PartialSchema for Text<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).min_length(Some(MIN)).max_length(Some(MAX)).into()
    }
}
impl<const MIN: usize, const MAX: usize> ToSchema for Text<MIN, MAX> {
    fn name() -> std::borrow::Cow<'static, str> {
        format!("Text{MIN}To{MAX}").into()
    }
}
impl<const MIN: usize, const MAX: usize> Readable for Text<MIN, MAX> {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        text(value, at, errors, MIN, MAX).map(Self)
    }
}

impl Readable for String {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        text(value, at, errors, 0, LONGEST_TEXT)
    }
}

fn text(value: &Value, at: &Place, errors: &mut Errors, min: usize, max: usize) -> Option<String> {
    let Value::String(text) = value else {
        errors.add(at, "wrong_type", format!("expected a string, found {}", kind_of(value)));
        return None;
    };
    let length = text.chars().count();
    if length < min || (min > 0 && text.trim().is_empty()) {
        errors.add(at, "too_short", format!("at least {min} characters are needed"));
    } else if length > max {
        errors.add(at, "too_long", format!("at most {max} characters are allowed, this has {length}"));
    } else if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        errors.add(at, "invalid", "control characters are not allowed");
    } else if text.chars().any(turns_text) {
        errors.add(at, "invalid", "characters that turn the direction of the text around them are not allowed");
    } else {
        return Some(text.clone());
    }
    None
}

/// The embeddings, overrides and isolates of Unicode (UAX #9 section 2), by which a name shows as another. The marks that
/// right-to-left names need are not among them.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl Readable for bool {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        if value.as_bool().is_none() {
            errors.add(at, "wrong_type", format!("expected true or false, found {}", kind_of(value)));
        }
        value.as_bool()
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Readable for $type {
            fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
                let Value::Number(number) = value else {
                    errors.add(at, "wrong_type", format!("expected a number, found {}", kind_of(value)));
                    return None;
                };
                // The store and JavaScript alike keep whole numbers exactly up to 2^53.
                let exact = number.as_i64().filter(|n| n.unsigned_abs() <= 1 << 53);
                let number = exact.and_then(|n| <$type>::try_from(n).ok());
                if number.is_none() {
                    let most = i128::from(<$type>::MAX).min(1 << 53);
                    errors.add(at, "out_of_range", format!("expected a whole number from {} to {most}", <$type>::MIN));
                }
                number
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64);

impl Readable for i32 {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        let number = value.as_i64().and_then(|n| Self::try_from(n).ok());
        if number.is_none() {
            errors.add(at, "out_of_range", format!("expected a whole number from {} to {}", Self::MIN, Self::MAX));
        }
        number
    }
}

impl<T: Readable> Readable for Vec<T> {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        let Value::Array(elements) = value else {
            errors.add(at, "wrong_type", format!("expected a list, found {}", kind_of(value)));
            return None;
        };
        if elements.len() > MOST_ELEMENTS {
            errors.add(at, "too_long", format!("at most {MOST_ELEMENTS} elements are allowed"));
            return None;
        }
        // Every element is read, so that every error is found, before one that failed counts.
        let read: Vec<_> = elements.iter().enumerate().map(|(i, e)| T::read(e, &at.element(i), errors)).collect();
        read.into_iter().collect()
    }
}

impl<T: Readable> Readable for BTreeMap<String, T> {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        let Value::Object(members) = value else {
            errors.add(at, "wrong_type", format!("expected an object, found {}", kind_of(value)));
            return None;
        };
        if members.len() > MOST_ELEMENTS {
            errors.add(at, "too_long", format!("at most {MOST_ELEMENTS} members are allowed"));
            return None;
        }
        let read: Vec<_> = members
            .iter()
            .map(|(name, member)| {
                let at = at.member(name);
                if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
                    errors.add(&at, "invalid", "names are 1-64 characters without control characters");
                    return None;
                }
                T::read(member, &at, errors).map(|member| (name.clone(), member))
            })
            .collect();
        read.into_iter().collect()
    }
}

impl<T: Readable + Ord> Readable for BTreeSet<T> {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        Vec::<T>::read(value, at, errors).map(|elements| elements.into_iter().collect())
    }
}

impl<T: Readable> Readable for Box<T> {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        T::read(value, at, errors).map(Self::new)
    }
}

impl<T: Readable> Readable for (T, T) {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        match value.as_array().map(Vec::as_slice) {
            Some([first, last]) => {
                let first = T::read(first, &at.element(0), errors);
                let last = T::read(last, &at.element(1), errors);
                Some((first?, last?))
            }
            _ => {
                errors.add(at, "wrong_type", "expected a list of two");
                None
            }
        }
    }
}

/// Types of the model that are written as text and parse themselves.
macro_rules! parsed {
    ($($type:ty),*) => {$(
        impl Readable for $type {
            fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
                let Value::String(text) = value else {
                    errors.add(at, "wrong_type", format!("expected a string, found {}", kind_of(value)));
                    return None;
                };
                text.parse().map_err(|e: <$type as std::str::FromStr>::Err| errors.add(at, "invalid", e.to_string())).ok()
            }
        }
    )*};
}
parsed!(Slug, PlanId, PoolId, TenantId, BackendId, DomainName, Color, BackendAddress, IssuerId, KeyUrl);
parsed!(LimitName, TimeZone, Timestamp);
parsed!(CaBundle, CookieName, FilePath, ServerName);

/// As the issuer publishes it; what is no public key of a kind that we take is told.
impl Readable for Jwks {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        let Value::Object(_) = value else {
            errors.add(at, "wrong_type", format!("expected a JSON Web Key Set, found {}", kind_of(value)));
            return None;
        };
        Self::parse(value.to_string().as_bytes()).map_err(|e| errors.add(at, "invalid", e.to_string())).ok()
    }
}

/// Enums of the model: read by serde, whose message lists the alternatives.
macro_rules! chosen {
    ($($type:ty),*) => {$(
        impl Readable for $type {
            fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
                let Value::String(_) = value else {
                    errors.add(at, "wrong_type", format!("expected a string, found {}", kind_of(value)));
                    return None;
                };
                <$type>::deserialize(value).map_err(|e| errors.add(at, "invalid", e.to_string())).ok()
            }
        }
    )*};
}
chosen!(
    FrameOptions,
    ReferrerPolicy,
    Isolation,
    SubscriptionStatus,
    QuotaMode,
    PoolKindRule,
    PoolKind,
    ProbeKind,
    Balance,
    SameSite,
    BackendState,
    TokenAlgorithm,
    LimitMode,
    RequestClass,
    Lane,
    HostClass,
    CanaryBy
);

impl Readable for Percent {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        let percent = value.as_u64().and_then(|n| u8::try_from(n).ok()).and_then(Self::new);
        if percent.is_none() {
            errors.add(at, "out_of_range", "a share is a whole number from 0 to 100");
        }
        percent
    }
}

impl Readable for Weight {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        let weight = value.as_u64().and_then(|n| u16::try_from(n).ok()).and_then(Self::new);
        if weight.is_none() {
            errors.add(at, "out_of_range", "a weight is a number from 1 to 1000");
        }
        weight
    }
}

impl Readable for ShardSize {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        let size = value.as_u64().and_then(|n| u8::try_from(n).ok()).and_then(Self::new);
        if size.is_none() {
            errors.add(at, "out_of_range", "a shard is of 1 to 32 backends; leave it out for all");
        }
        size
    }
}

/// Networks, written as `10.0.0.0/8`, or as one address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(value_type = Vec<String>)]
pub(crate) struct Networks(pub(crate) Vec<IpNet>);

impl Readable for Networks {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        struct Network(IpNet);
        impl Readable for Network {
            fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
                let network = value.as_str().and_then(|text| {
                    text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
                });
                if network.is_none() {
                    errors.add(at, "invalid", "expected a network such as 10.0.0.0/8, or an address");
                }
                network.map(|network| Self(network.trunc()))
            }
        }
        Vec::<Network>::read(value, at, errors).map(|networks| Self(networks.into_iter().map(|n| n.0).collect()))
    }
}
