//! The identifier of a request: a ULID, in the log, towards the backend and in the answer.

use bytes::Bytes;
use http::HeaderValue;
use ulid::{ULID_LEN, Ulid};

/// The identifier of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; ULID_LEN]);

impl RequestId {
    /// An identifier of `now_ms` (milliseconds since 1970). It names, it does not protect: the chance in it comes from a
    /// fast generator, not from the system's.
    pub(crate) fn new(now_ms: i64) -> Self {
        let mut text = [0; ULID_LEN];
        let at = u64::try_from(now_ms).unwrap_or(0);
        Ulid::from_parts(at, fastrand::u128(..)).array_to_str(&mut text);
        Self(text)
    }

    /// The 26 characters.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("Crockford's base 32 is ASCII")
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&self.0)).expect("Crockford's base 32 is visible ASCII")
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a client's own identifier is fit to be passed on and logged: 1-128 of letters, digits and `-_.:/+=`.
pub(crate) fn is_well_formed(sent: &[u8]) -> bool {
    (1..=128).contains(&sent.len()) && sent.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_a_ulid_of_its_moment() {
        let id = RequestId::new(1_700_000_000_123);
        let ulid = Ulid::from_string(id.as_str()).expect("a ULID");
        assert_eq!(ulid.timestamp_ms(), 1_700_000_000_123);
        assert_ne!(id, RequestId::new(1_700_000_000_123));
        assert_eq!(id.header(), id.as_str());
    }

    #[test]
    fn a_clients_identifier_is_kept_only_if_it_cannot_break_a_log_line() {
        assert!(is_well_formed(b"3f2a-41:req_7"));
        for bad in [&b""[..], b"a b", b"a\"b", b"a\x1b[31m", "é".as_bytes(), &[b'a'; 129]] {
            assert!(!is_well_formed(bad), "{bad:?} was kept");
        }
    }
}
