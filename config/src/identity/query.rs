//! The tenant in a query: `tenant` or `tenantId`, read as a form is (WHATWG URL, application/x-www-form-urlencoded).

use std::borrow::Cow;

/// The values of every parameter that names a tenant, decoded, in their order.
pub(super) fn tenants(query: Option<&str>) -> impl Iterator<Item = Cow<'_, str>> {
    parameters(query).filter(|(name, _)| names_tenant(name)).map(|(_, value)| decoded(value))
}

/// The query without the parameters that name a tenant; everything else as it was, byte for byte. `None`: there is
/// nothing to take out.
pub fn without_tenant(query: &str) -> Option<String> {
    if !parameters(Some(query)).any(|(name, _)| names_tenant(name)) {
        return None;
    }
    let kept = query.split('&').filter(|pair| !names_tenant(pair.split_once('=').map_or(*pair, |(name, _)| name)));
    Some(kept.collect::<Vec<_>>().join("&"))
}

/// The parameters that name a tenant, as they were written; `None`: there are none.
pub(super) fn only_tenant(query: &str) -> Option<String> {
    let named = query.split('&').filter(|pair| names_tenant(pair.split_once('=').map_or(*pair, |(name, _)| name)));
    let named: Vec<_> = named.collect();
    (!named.is_empty()).then(|| named.join("&"))
}

fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn names_tenant(name: &str) -> bool {
    // Most parameters are passed over by their first byte.
    matches!(name.as_bytes().first(), Some(b't' | b'%')) && matches!(&*decoded(name), "tenant" | "tenantId")
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let escaped = digit(bytes.get(at + 1)).zip(digit(bytes.get(at + 2))).filter(|_| *byte == b'%');
        match (byte, escaped) {
            (_, Some((high, low))) => {
                out.push(u8::try_from(high * 16 + low).expect("two digits"));
                at += 3;
            }
            (b'+', None) => {
                out.push(b' ');
                at += 1;
            }
            (byte, None) => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(query: &str) -> Vec<String> {
        tenants(Some(query)).map(Cow::into_owned).collect()
    }

    #[test]
    fn both_names_count_however_they_are_escaped() {
        assert_eq!(all("a=1&tenant=ash&b=2&tenantId=birch"), ["ash", "birch"]);
        assert_eq!(all("%74enant=%61sh&tenan%74%49d=a+b%2"), ["ash", "a b%2"]);
        assert_eq!(all("tenant&tenant="), ["", ""]);
        assert!(all("Tenant=a&tenants=a&tenant_id=a&x=tenant=a&tenantid=a").is_empty());
        assert!(tenants(None).next().is_none());
    }

    #[test]
    fn only_the_tenant_is_taken_out() {
        assert_eq!(without_tenant("a=1&b=%20+x"), None);
        assert_eq!(without_tenant("a=1&tenant=ash&&b=%20+x&%74enantId=z").as_deref(), Some("a=1&&b=%20+x"));
        assert_eq!(without_tenant("tenant=ash").as_deref(), Some(""));
    }

    #[test]
    fn nothing_but_the_tenant_is_kept() {
        assert_eq!(only_tenant("a=secret&b=%20+x"), None);
        assert_eq!(only_tenant("a=1&tenant=ash&&%74enantId=z").as_deref(), Some("tenant=ash&%74enantId=z"));
    }

    proptest! {
        #[test]
        fn nothing_that_names_a_tenant_is_left(query in "([a-zA-Z%+=&0-9]|tenant|tenantId|%74enant){0,30}") {
            let left = without_tenant(&query).unwrap_or(query);
            prop_assert!(tenants(Some(&left)).next().is_none(), "{}", left);
        }
    }
}
