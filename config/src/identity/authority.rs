//! `Host` and `:authority` → one canonical form, used by routing, logs and upstream alike.

use std::borrow::Cow;

use crate::model::{DomainName, DomainNameError};

/// A host and an optional port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Lower-case A-labels, no final dot.
    pub host: Cow<'a, str>,
    /// 1-65535.
    pub port: Option<u16>,
}

/// Why an authority is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// What stands after the colon is no port.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The host is not a domain name. IP literals and user information end here too.
    #[error(transparent)]
    Host(#[from] DomainNameError),
}

/// Normalises an authority: lower case, IDN to A-labels, port split off, one final dot dropped.
///
/// Allocates nothing when the name is canonical already, as browsers send it.
///
/// # Errors
/// [`AuthorityError`]; nothing else is repaired.
pub fn normalise(sent: &str) -> Result<Authority<'_>, AuthorityError> {
    let (host, port) = match sent.split_once(':') {
        None => (sent, None),
        Some((host, digits)) => (host, Some(parse_port(digits)?)),
    };
    if crate::model::is_canonical(host) {
        return Ok(Authority { host: Cow::Borrowed(host), port });
    }
    let name = DomainName::parse(host)?;
    Ok(Authority { host: Cow::Owned(name.as_str().to_owned()), port })
}

fn parse_port(digits: &str) -> Result<u16, AuthorityError> {
    // `u16::from_str` takes a sign; RFC 3986 does not.
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AuthorityError::Port);
    }
    digits.parse().ok().filter(|port| *port != 0).ok_or(AuthorityError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_canonical_host_is_borrowed() {
        let authority = normalise("greenhill.localhost:8443").expect("valid");
        assert!(matches!(authority.host, Cow::Borrowed("greenhill.localhost")));
        assert_eq!(authority.port, Some(8443));
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for bad in [
            "a.example:",
            "a.example:0",
            "a.example:65536",
            "a.example:+80",
            "a.example:abc",
            "user@a.example",
            "[::1]",
            "127.0.0.1",
            "a.example:80:80",
            "a.example/",
            "a example",
            "a_b.example",
            "",
            ":80",
            "a.example..",
        ] {
            assert!(normalise(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn case_final_dot_and_unicode_lead_to_one_form() {
        for same in ["BÜCHER.example", "bücher.example.", "xn--bcher-kva.EXAMPLE:443"] {
            assert_eq!(normalise(same).expect("valid").host, "xn--bcher-kva.example");
        }
    }

    proptest! {
        #[test]
        fn normalising_never_panics_and_is_idempotent(input in "\\PC{0,80}(:[0-9]{0,6})?") {
            if let Ok(Authority { host, .. }) = normalise(&input) {
                let again = normalise(&host).expect("a canonical host is valid");
                prop_assert_eq!(&again.host, &host);
            }
        }
    }
}
