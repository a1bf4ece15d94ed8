//! Where a client is sent instead: from plain HTTP to TLS, or where a route says.

use http::HeaderValue;
use schoolgate_config::model::Redirect;

/// The same address over TLS. `port` is where TLS is served to the public.
pub(crate) fn https_location(host: &str, port: u16, target: &str) -> Option<HeaderValue> {
    let location = match port {
        443 => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::try_from(location).ok()
}

/// Where a route sends its requests.
pub(crate) fn route_location(redirect: &Redirect) -> Option<HeaderValue> {
    HeaderValue::try_from(redirect.to.as_str()).ok()
}

/// The same address with a slash at its end: relative links of a directory's page need it.
pub(crate) fn slash_location(path: &str, query: Option<&str>) -> Option<HeaderValue> {
    let location = match query {
        None => format!("{path}/"),
        Some(query) => format!("{path}/?{query}"),
    };
    HeaderValue::try_from(location).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_named_unless_it_is_the_usual_one() {
        let to = |port| https_location("a.example", port, "/x?y=1").expect("a location");
        assert_eq!(to(443), "https://a.example/x?y=1");
        assert_eq!(to(8443), "https://a.example:8443/x?y=1");
    }
}
