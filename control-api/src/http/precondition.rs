//! `If-Match`, `If-None-Match` and `ETag` ↔ the object's own counter.

use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};

use super::problem::Problem;

/// Versions that `If-Match` allows; `None`: any, because there is no such header or because it is `*`.
///
/// # Errors
/// 400 for what is no list of entity tags (RFC 9110 section 13.1.1).
pub(crate) fn expected_versions(headers: &HeaderMap) -> Result<Option<Vec<u64>>, Problem> {
    let mut versions = Vec::new();
    let mut any = !headers.contains_key(IF_MATCH);
    for value in headers.get_all(IF_MATCH) {
        let text = value.to_str().unwrap_or_default();
        for tag in text.split(',').map(str::trim) {
            if tag == "*" {
                any = true;
                continue;
            }
            // A weak tag never matches here (RFC 9110 section 8.8.3.2), but it is one.
            let strong = tag.strip_prefix("W/").map_or(Some(tag), |_| None);
            let quoted = tag.strip_prefix("W/").unwrap_or(tag);
            let Some(opaque) = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
                return Err(Problem::bad_request("If-Match: expected an ETag in quotes, such as \"7\""));
            };
            // What is behind the version only says what was shown of it.
            let version = opaque.split('-').next().unwrap_or_default();
            versions.extend(strong.and_then(|_| version.parse::<u64>().ok()));
        }
    }
    Ok(if any { None } else { Some(versions) })
}

/// Whether `If-None-Match` names this entity tag, or any (RFC 9110 section 13.1.2, which compares weakly).
pub(crate) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let etag = etag.to_str().unwrap_or_default();
    let lines = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(value: &'static str) -> Result<Option<Vec<u64>>, ()> {
        let mut headers = HeaderMap::new();
        headers.insert(IF_MATCH, value.parse().expect("a header"));
        expected_versions(&headers).map_err(|_| ())
    }

    #[test]
    fn entity_tags_become_versions() {
        assert_eq!(expected_versions(&HeaderMap::new()).expect("nothing is wrong"), None);
        assert_eq!(versions("\"7\""), Ok(Some(vec![7])));
        assert_eq!(versions("\"7\", \"9\""), Ok(Some(vec![7, 9])));
        assert_eq!(versions("\"7-00ff\", \"9-\""), Ok(Some(vec![7, 9])));
        assert_eq!(versions("*"), Ok(None));
        assert_eq!(versions("W/\"7\""), Ok(Some(vec![])));
        assert_eq!(versions("\"of another server\""), Ok(Some(vec![])));
        assert_eq!(versions("7"), Err(()));
    }

    #[test]
    fn what_a_client_has_is_known_by_its_tag() {
        let known = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(value));
            is_known(&headers, &HeaderValue::from_static("\"7-ab\""))
        };
        assert!(known("\"7-ab\"") && known("W/\"7-ab\"") && known("\"1\", \"7-ab\"") && known("*"));
        assert!(!known("\"7\"") && !known("7-ab") && !known(""));
        assert!(!is_known(&HeaderMap::new(), &HeaderValue::from_static("\"7-ab\"")));
    }
}
