//! Which names can be a school's domain at all.

use schoolgate_config::model::DomainName;

/// The registered domain that a name is in, by the public suffix list: `greenhill.co.uk` of `erp.greenhill.co.uk`;
/// `None` for a public suffix itself.
pub fn registrable(name: &DomainName) -> Option<&str> {
    psl::domain_str(name.as_str())
}

/// Whether a name is one under which strangers register theirs, such as `co.uk`: nobody can own it.
pub fn is_public_suffix(name: &DomainName) -> bool {
    psl::suffix_str(name.as_str()) == Some(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().expect("a name")
    }

    #[test]
    fn public_suffixes_are_nobodys() {
        assert!(
            is_public_suffix(&name("co.uk"))
                && is_public_suffix(&name("github.io"))
                && is_public_suffix(&name("example"))
        );
        assert!(!is_public_suffix(&name("greenhill.co.uk")) && !is_public_suffix(&name("erp.greenhill.example")));
        assert_eq!(registrable(&name("a.erp.greenhill.co.uk")), Some("greenhill.co.uk"));
        assert_eq!(registrable(&name("co.uk")), None);
    }
}
