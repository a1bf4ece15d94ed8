//! What has to be true of `[acme]` before anything is ordered.

use super::{Acme, AcmeLimits, Eab, Issuer, SettingsError};
use crate::model::{CaId, DomainName};

impl Acme {
    /// Checks that a CA that is to be asked can be asked.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        for suffix in &self.internal {
            if let Err(e) = DomainName::parse(suffix) {
                return refuse("acme.internal", suffix, &e.to_string());
            }
        }
        if self.issuer == Issuer::Internal {
            return Ok(());
        }
        for authority in self.authorities() {
            authority.check()?;
        }
        for name in &self.fallback.caa_identities {
            if let Err(e) = DomainName::parse(name) {
                return refuse("acme.fallback.caa_identities", name, &e.to_string());
            }
        }
        if self.fallback.name == self.name && !self.fallback.directory.is_empty() {
            return refuse("acme.fallback.name", &self.name, "another name than that of the first CA");
        }
        Ok(())
    }

    /// The CAs to ask: the first, then the second if there is one.
    pub fn authorities(&self) -> impl Iterator<Item = AcmeAuthority<'_>> {
        let first = AcmeAuthority {
            section: "acme",
            name: &self.name,
            directory: &self.directory,
            root_ca: &self.root_ca,
            contact: &self.contact,
            terms_agreed: self.terms_agreed,
            eab: &self.eab,
            profile: &self.profile,
            limits: self.limits,
        };
        let second = &self.fallback;
        let second = (!second.directory.is_empty()).then_some(AcmeAuthority {
            section: "acme.fallback",
            name: &second.name,
            directory: &second.directory,
            root_ca: &second.root_ca,
            contact: &second.contact,
            terms_agreed: second.terms_agreed,
            eab: &second.eab,
            profile: &second.profile,
            limits: second.limits,
        });
        std::iter::once(first).chain(second)
    }
}

/// One CA as the settings describe it.
#[derive(Debug, Clone, Copy)]
pub struct AcmeAuthority<'a> {
    /// Where in the settings it stands.
    section: &'static str,
    /// What it is called in the API and in metrics.
    pub name: &'a str,
    /// Its ACME directory, an `https://` address.
    pub directory: &'a str,
    /// A root to trust for the directory, PEM; empty: the system's.
    pub root_ca: &'a str,
    /// `mailto:` addresses.
    pub contact: &'a [String],
    terms_agreed: bool,
    /// The external account binding (RFC 8555 section 7.3.4), if it wants one.
    pub eab: &'a Eab,
    /// The certificate profile; empty: the CA's default.
    pub profile: &'a str,
    /// What may be asked of it.
    pub limits: AcmeLimits,
}

impl AcmeAuthority<'_> {
    fn check(&self) -> Result<(), SettingsError> {
        let key = |key: &str| format!("{}.{key}", self.section);
        if let Err(e) = self.name.parse::<CaId>() {
            return refuse(&key("name"), self.name, &e.to_string());
        }
        if !self.directory.starts_with("https://") || self.directory.contains(char::is_whitespace) {
            return refuse(&key("directory"), self.directory, "the https:// address of the CA's ACME directory");
        }
        if !self.terms_agreed {
            return refuse(
                &key("terms_agreed"),
                "false",
                "true: the CA issues only to those who agree to its terms of service; read them, then set this",
            );
        }
        if let Some(bad) = self.contact.iter().find(|c| !c.starts_with("mailto:") || !c.contains('@')) {
            return refuse(&key("contact"), bad, "addresses such as \"mailto:it@platform.example\"");
        }
        if self.eab.kid.is_empty() != self.eab.key_file.is_empty() {
            return refuse(&key("eab"), "only one of kid and key_file", "both of kid and key_file, or neither");
        }
        Ok(())
    }
}

fn refuse(key: &str, found: &str, expected: &str) -> Result<(), SettingsError> {
    Err(SettingsError::Value { key: key.to_owned(), found: found.to_owned(), expected: expected.to_owned() })
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    fn checked(toml: &str) -> Result<(), String> {
        let settings: Settings = toml::from_str(toml).map_err(|e| e.to_string())?;
        settings.check().map_err(|e| e.to_string())
    }

    const GOOD: &str = "[acme]\nissuer = \"acme\"\ndirectory = \"https://ca.example/dir\"\nterms_agreed = true\n";

    #[test]
    fn a_ca_needs_an_address_and_the_operators_agreement() {
        assert_eq!(checked(GOOD), Ok(()));
        for (from, to, key) in [
            ("terms_agreed = true", "terms_agreed = false", "acme.terms_agreed"),
            ("https://ca.example/dir", "http://ca.example/dir", "acme.directory"),
            ("https://ca.example/dir", "", "acme.directory"),
            ("terms_agreed", "contact = [\"it@platform.example\"]\nterms_agreed", "acme.contact"),
            ("terms_agreed", "eab = { kid = \"1\" }\nterms_agreed", "acme.eab"),
            ("terms_agreed", "name = \"Let's Encrypt\"\nterms_agreed", "acme.name"),
            ("terms_agreed", "internal = [\"a..b\"]\nterms_agreed", "acme.internal"),
        ] {
            let error = checked(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn the_second_ca_is_checked_like_the_first_and_is_another() {
        let with = |fallback: &str| checked(&format!("{GOOD}[acme.fallback]\n{fallback}"));
        let good = "directory = \"https://second.example/dir\"\nterms_agreed = true\n";
        assert_eq!(with(good), Ok(()));
        assert_eq!(with(""), Ok(()), "there need not be one");
        assert!(with("directory = \"https://second.example/dir\"").unwrap_err().contains("acme.fallback.terms_agreed"));
        let bad = with(&format!("{good}caa_identities = [\"a..b\"]\n")).unwrap_err();
        assert!(bad.contains("acme.fallback.caa_identities"), "{bad}");
        assert!(with(&format!("{good}name = \"acme\"\n")).unwrap_err().contains("acme.fallback.name"));
    }

    #[test]
    fn the_internal_issuer_asks_for_none_of_it() {
        assert_eq!(checked("[acme]\nissuer = \"internal\""), Ok(()));
    }
}
