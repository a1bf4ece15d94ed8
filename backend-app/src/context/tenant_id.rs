//! The name of a tenant, which also names the directory of its data.

use std::fmt;

/// `tnt_` and 26 characters of Crockford's base 32, upper case: safe in a path, and written in one way only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TenantId(String);

/// The text is not a tenant's id.
#[derive(Debug, thiserror::Error)]
#[error("a tenant's id is tnt_ and 26 characters of Crockford's base 32")]
pub(crate) struct TenantIdError;

impl TenantId {
    /// Parses an id. Nothing is repaired.
    ///
    /// # Errors
    /// [`TenantIdError`] when the text is anything else.
    pub(crate) fn parse(text: &str) -> Result<Self, TenantIdError> {
        let ulid = text.strip_prefix("tnt_").ok_or(TenantIdError)?;
        let crockford = |c: u8| matches!(c, b'0'..=b'9' | b'A'..=b'Z') && !matches!(c, b'I' | b'L' | b'O' | b'U');
        if ulid.len() == 26 && ulid.bytes().all(crockford) { Ok(Self(text.to_owned())) } else { Err(TenantIdError) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_tnt_and_a_ulid_in_upper_case() {
        assert!(TenantId::parse("tnt_01JD0000000000000000000001").is_ok());
        for wrong in [
            "",
            "tnt_",
            "01JD0000000000000000000001",
            "tnt_01jd0000000000000000000001",
            "tnt_01JD000000000000000000000I",
            "tnt_01JD00000000000000000000011",
            "tnt_../../../../etc/passwd0000",
            "TNT_01JD0000000000000000000001",
            "tnt_01JD000000000000000000000\u{e9}",
        ] {
            assert!(TenantId::parse(wrong).is_err(), "{wrong:?} was taken for an id");
        }
    }
}
