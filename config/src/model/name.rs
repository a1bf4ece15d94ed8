//! DNS names and the labels that tenants are known by.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::id::{as_string, is_ldh_label, shortened};

/// Labels that are never a tenant: they mean something on nearly every platform, or would let a school pass for the
/// platform itself.
pub const RESERVED_LABELS: &[&str] = &[
    "account",
    "accounts",
    "acme",
    "admin",
    "administrator",
    "api",
    "app",
    "apps",
    "assets",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "blog",
    "cdn",
    "cname",
    "console",
    "control",
    "dashboard",
    "dev",
    "dns",
    "docs",
    "ftp",
    "gateway",
    "health",
    "help",
    "id",
    "imap",
    "internal",
    "login",
    "mail",
    "metrics",
    "mx",
    "ns",
    "ns1",
    "ns2",
    "oauth",
    "ops",
    "platform",
    "pop",
    "postmaster",
    "root",
    "schoolgate",
    "security",
    "smtp",
    "sso",
    "staging",
    "static",
    "status",
    "support",
    "system",
    "test",
    "webmail",
    "wpad",
    "www",
];

/// Why a text is not a domain name. Nothing is repaired but case, internationalised labels and one final dot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainNameError {
    /// Nothing was given.
    #[error("a domain name cannot be empty")]
    Empty,
    /// RFC 1035 section 2.3.4: 253 characters without the final dot.
    #[error("a domain name has at most 253 characters, this one has {0}")]
    TooLong(usize),
    /// A label that is empty, longer than 63, or holds something other than letters, digits and inner hyphens.
    #[error("`{0}` is not a label of a domain name: letters, digits and inner hyphens, 1-63 long")]
    Label(String),
    /// The name looks like an IP address.
    #[error("`{0}` is an IP address, not a domain name")]
    IpAddress(String),
    /// UTS 46 refuses it.
    #[error("`{0}` is not a valid internationalised domain name")]
    Idna(String),
}

/// A DNS name in its one canonical form: A-labels (RFC 5890), lower case, no final dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(Arc<str>);

impl DomainName {
    /// Parses a name as typed by an operator or sent by a client.
    ///
    /// # Errors
    /// [`DomainNameError`] names the first offending label. Nothing is repaired but case, internationalised labels
    /// (UTS 46, non-transitional) and one final dot.
    pub fn parse(input: &str) -> Result<Self, DomainNameError> {
        let name = input.strip_suffix('.').unwrap_or(input);
        if name.is_empty() {
            return Err(DomainNameError::Empty);
        }
        if name.is_ascii() {
            let lower = name.to_ascii_lowercase();
            check_ascii(&lower)?;
            return Ok(Self(lower.into()));
        }
        let ascii = idna::domain_to_ascii_strict(name).map_err(|_| DomainNameError::Idna(shortened(name)))?;
        check_ascii(&ascii)?;
        Ok(Self(ascii.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its first label, if more than one is left: the zone a tenant's label would be in.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, rest)| rest)
    }

    /// How many labels the name has; at least one.
    pub fn labels(&self) -> usize {
        self.0.split('.').count()
    }

    /// Whether this name is `zone` or lies below it, on a label boundary.
    pub fn is_within(&self, zone: &str) -> bool {
        self.0.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// Whether `name` is already canonical: what [`DomainName::parse`] would return unchanged. Allocates nothing on success.
///
/// # Errors
/// The same as [`DomainName::parse`].
pub(crate) fn check_ascii(name: &str) -> Result<(), DomainNameError> {
    if name.len() > 253 {
        return Err(DomainNameError::TooLong(name.len()));
    }
    let mut last = "";
    for label in name.split('.') {
        if !is_ldh_label(label) {
            return Err(DomainNameError::Label(shortened(label)));
        }
        last = label;
    }
    // The last label decides whether a parser somewhere takes the whole for an IPv4 address (WHATWG URL, "ends in a
    // number"); such a name could be read differently by two of them.
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
        return Err(DomainNameError::IpAddress(shortened(name)));
    }
    Ok(())
}

/// Whether a name is in canonical form, decided in one pass over its bytes.
pub(crate) fn is_canonical(name: &str) -> bool {
    check_ascii(name).is_ok()
}

impl Borrow<str> for DomainName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl AsRef<str> for DomainName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for DomainName {
    type Err = DomainNameError;
    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        Self::parse(text)
    }
}
as_string!(DomainName, DomainNameError, "A DNS name; kept as lower-case A-labels without a final dot");

/// Why a text is not a slug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlugError {
    /// Not one DNS label in lower case.
    #[error("`{0}` is not a slug: use 1-63 of a-z, 0-9 and -, not beginning or ending with -")]
    NotALabel(String),
    /// One of [`RESERVED_LABELS`].
    #[error("`{0}` is reserved and cannot name a tenant")]
    Reserved(String),
}

/// A tenant's short name: one DNS label, unique over the platform, not reserved.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slug(Arc<str>);

impl Slug {
    /// The slug as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl Borrow<str> for Slug {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for Slug {
    type Err = SlugError;
    fn from_str(text: &str) -> Result<Self, SlugError> {
        // A label with hyphens in places 3 and 4 is reserved for encodings such as xn-- (RFC 5891 section 4.2.3.1).
        if !is_ldh_label(text) || text.as_bytes().get(2..4) == Some(b"--") {
            return Err(SlugError::NotALabel(shortened(text)));
        }
        if RESERVED_LABELS.binary_search(&text).is_ok() {
            return Err(SlugError::Reserved(text.to_owned()));
        }
        Ok(Self(Arc::from(text)))
    }
}
as_string!(Slug, SlugError, "One DNS label in lower case, not reserved");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_and_one_final_dot_are_the_only_repairs() {
        assert_eq!(
            DomainName::parse("ERP.Greenhill.Example.").map(|n| n.to_string()),
            Ok("erp.greenhill.example".into())
        );
        for bad in ["", ".", "a..b", "a.b..", "-a.b", "a_b.c", "a b.c", "1.2.3.4", "a.0x1", "exa\0mple.com"] {
            assert!(DomainName::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn an_internationalised_name_becomes_a_labels() {
        assert_eq!(DomainName::parse("Bücher.example").map(|n| n.to_string()), Ok("xn--bcher-kva.example".into()));
    }

    #[test]
    fn lying_below_a_zone_is_decided_on_label_boundaries() {
        let within = |name: &str| DomainName::parse(name).is_ok_and(|n| n.is_within("schools.example"));
        assert!(within("schools.example"));
        assert!(within("a.schools.example"));
        assert!(!within("notschools.example"));
        assert!(!within("schools.example.evil.example"));
    }

    #[test]
    fn reserved_labels_are_sorted_and_refused() {
        assert!(RESERVED_LABELS.is_sorted());
        assert_eq!("www".parse::<Slug>(), Err(SlugError::Reserved("www".into())));
        assert!("xn--abc".parse::<Slug>().is_err());
        assert!("greenhill".parse::<Slug>().is_ok());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_idempotent(input in "\\PC{0,300}") {
            if let Ok(name) = DomainName::parse(&input) {
                prop_assert_eq!(DomainName::parse(name.as_str()), Ok(name.clone()));
                prop_assert!(name.as_str().len() <= 253);
            }
        }
    }
}
