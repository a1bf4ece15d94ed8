//! One cookie of a `Cookie` field.

/// Whether a line of `Cookie` has a cookie of this name with this value (RFC 6265 section 4.2.1).
pub fn line_has_cookie(line: &[u8], name: &str, value: &str) -> bool {
    line.split(|byte| *byte == b';').any(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) == Some(value.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::line_has_cookie;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_and_value() {
        let has = |line: &str| line_has_cookie(line.as_bytes(), "beta", "1");
        assert!(has("beta=1") && has("a=b; beta=1") && has("beta=1;c=d"));
        for line in ["", "beta", "beta=", "beta=11", "xbeta=1", "x=beta=1", "BETA=1", "beta =1"] {
            assert!(!has(line), "{line}");
        }
    }
}
