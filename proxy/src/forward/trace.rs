//! `traceparent` (W3C Trace Context): continued when the client's is well-formed, begun otherwise.

use bytes::Bytes;
use http::HeaderValue;

/// Length of a version 00 `traceparent`: `00-<32>-<16>-<2>`.
const LENGTH: usize = 55;

/// The `traceparent` for the backend, and whether it continues the client's trace (only then `tracestate` means
/// anything).
pub(crate) fn traceparent(sent: Option<&[u8]>) -> (HeaderValue, bool) {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let continued = sent.filter(|s| is_well_formed(s));
    match continued {
        Some(sent) => {
            text[3..35].copy_from_slice(&sent[3..35]);
            text[53..].copy_from_slice(&sent[53..LENGTH]);
        }
        // Zero is not a valid identifier; one in 2^128 would be.
        None => write_hex(fastrand::u128(1..), &mut text[3..35]),
    }
    write_hex(u128::from(fastrand::u64(1..)), &mut text[36..52]);
    let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text)).expect("hexadecimal digits and hyphens");
    (value, continued.is_some())
}

fn is_well_formed(sent: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let some = |part: &[u8]| part.iter().any(|b| *b != b'0');
    sent.len() == LENGTH
        && sent.starts_with(b"00-")
        && sent[35] == b'-'
        && sent[52] == b'-'
        && hex(&sent[3..35])
        && hex(&sent[36..52])
        && hex(&sent[53..])
        && some(&sent[3..35])
        && some(&sent[36..52])
}

fn write_hex(mut value: u128, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_formed_trace_is_continued_by_a_span_of_ours() {
        let sent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (value, continued) = traceparent(Some(sent));
        let text = value.to_str().expect("ASCII");
        assert!(continued);
        assert!(text.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && text.ends_with("-01"));
        assert_ne!(&text[36..52], "00f067aa0ba902b7");
    }

    #[test]
    fn anything_else_begins_a_trace() {
        for sent in [
            None,
            Some(&b""[..]),
            Some(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            Some(b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
            Some(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"),
        ] {
            let (value, continued) = traceparent(sent);
            assert!(!continued);
            assert!(is_well_formed(value.as_bytes()));
        }
    }
}
