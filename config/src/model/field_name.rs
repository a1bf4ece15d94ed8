//! Which header fields a route may set and remove.

/// Fields of our own beside those that begin with `x-tenant-`, `x-forwarded-` and `x-schoolgate-`: they frame a message
/// (RFC 9110 section 7.6.1, RFC 9113 section 8.2.2), or say what the gateway vouches for.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-client-request-id",
    "x-forwarded",
    "x-real-ip",
    "x-request-id",
    "x-subdomain",
    "x-tenant",
];

/// Why no route may set or remove a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldNameError {
    /// No field has such a name.
    #[error("expected the name of a header")]
    Name,
    /// An application server that makes variables of fields reads `_` and `.` like `-`, so a name with them could be taken
    /// for another. The gateway passes none on.
    #[error("expected letters, digits and hyphens: application servers take other signs for a hyphen")]
    Sign,
    /// It is the gateway's.
    #[error("this header belongs to the gateway")]
    Ours,
}

/// Says whether a route may set or remove the field of this name, in any case.
///
/// # Errors
/// Why not.
pub fn changeable(name: &str) -> Result<(), FieldNameError> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(FieldNameError::Name);
    }
    let name = name.to_ascii_lowercase();
    let begins = ["x-tenant-", "x-forwarded-", "x-schoolgate-"].into_iter().any(|begin| name.starts_with(begin));
    if begins || OURS.contains(&name.as_str()) {
        return Err(FieldNameError::Ours);
    }
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') { Ok(()) } else { Err(FieldNameError::Sign) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_changes_what_is_neither_ours_nor_could_be_taken_for_it() {
        for name in ["x-school-banner", "Cache-Control", "set-cookie", "X-Tenants", "server"] {
            assert_eq!(changeable(name), Ok(()), "{name}");
        }
        for name in ["Host", "x-tenant-id", "X-Forwarded-For", "transfer-encoding", "Keep-Alive", "X-Schoolgate-Probe"]
        {
            assert_eq!(changeable(name), Err(FieldNameError::Ours), "{name}");
        }
        for name in ["x_tenant_id", "x.tenant.id", "X_Banner"] {
            assert_eq!(changeable(name), Err(FieldNameError::Sign), "{name}");
        }
        for name in ["", "a b", "x:", ":path", "ä"] {
            assert_eq!(changeable(name), Err(FieldNameError::Name), "{name}");
        }
    }
}
