//! Security headers on the way down: prepared with the table, set where the backend has said nothing as strict.

use http::header::{REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue};
use schoolgate_config::model::Security;
use schoolgate_config::settings::SecurityHeaders;

/// What tells what a backend runs on.
static FINGERPRINTS: [HeaderName; 4] = [
    HeaderName::from_static("x-powered-by"),
    HeaderName::from_static("x-aspnet-version"),
    HeaderName::from_static("x-aspnetmvc-version"),
    HeaderName::from_static("x-generator"),
];

/// The values of one tenant's security headers.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    hsts: Option<HeaderValue>,
    hsts_max_age_s: u32,
    frame_options: Option<HeaderValue>,
    referrer_policy: HeaderValue,
}

impl Prepared {
    /// What the platform's settings and the tenant's own wishes come to.
    pub(crate) fn new(platform: &SecurityHeaders, tenant: Security) -> Self {
        let max_age = tenant.hsts_max_age_s.unwrap_or(platform.hsts_max_age_s);
        let below = tenant.hsts_include_subdomains.unwrap_or(platform.hsts_include_subdomains);
        let hsts = format!("max-age={max_age}{}", if below { "; includeSubDomains" } else { "" });
        Self {
            // Digits and a word are a value.
            hsts: (max_age > 0).then(|| HeaderValue::try_from(hsts).ok()).flatten(),
            hsts_max_age_s: max_age,
            frame_options: tenant.frame_options.unwrap_or(platform.frame_options).value().map(HeaderValue::from_static),
            referrer_policy: HeaderValue::from_static(
                tenant.referrer_policy.unwrap_or(platform.referrer_policy).value(),
            ),
        }
    }

    /// Sets what the answer lacks. `transport` is what the client may be told of TLS.
    pub(crate) fn set(&self, headers: &mut HeaderMap, transport: Transport) {
        for name in &FINGERPRINTS {
            headers.remove(name);
        }
        match (transport, &self.hsts) {
            (Transport::Public, Some(hsts)) => {
                let own = headers.get(STRICT_TRANSPORT_SECURITY).and_then(max_age);
                if own.is_none_or(|own| own < u64::from(self.hsts_max_age_s)) {
                    headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
                }
            }
            // Switched off for this school: the application may still say it.
            (Transport::Public, None) => {}
            // A browser would hold it against everything else that runs under `localhost`.
            (Transport::Plain | Transport::Reserved, _) => {
                headers.remove(STRICT_TRANSPORT_SECURITY);
            }
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let framed = headers.get(X_FRAME_OPTIONS).map(HeaderValue::as_bytes);
        let strict =
            framed.is_some_and(|own| own.eq_ignore_ascii_case(b"deny") || own.eq_ignore_ascii_case(b"sameorigin"));
        if !strict && let Some(value) = &self.frame_options {
            headers.insert(X_FRAME_OPTIONS, value.clone());
        }
        let referrer = headers.get(REFERRER_POLICY);
        if referrer.is_none_or(|own| own.is_empty() || own.as_bytes().eq_ignore_ascii_case(b"unsafe-url")) {
            headers.insert(REFERRER_POLICY, self.referrer_policy.clone());
        }
    }
}

/// How the client reached us, as far as `Strict-Transport-Security` is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Without TLS, where browsers pass the header over (RFC 6797 section 7.2).
    Plain,
    /// Over TLS, under a name for tests (RFC 6761).
    Reserved,
    /// Over TLS, under a name of the Internet.
    Public,
}

impl Transport {
    /// How the client of a request for this authority came.
    pub(crate) fn of(secure: bool, authority: Option<&str>) -> Self {
        let host = authority.and_then(|sent| sent.split(':').next()).unwrap_or_default();
        let host = host.strip_suffix('.').unwrap_or(host);
        let last = host.rsplit('.').next().unwrap_or_default();
        if !secure {
            Self::Plain
        } else if last.eq_ignore_ascii_case("localhost") || last.eq_ignore_ascii_case("test") {
            Self::Reserved
        } else {
            Self::Public
        }
    }
}

/// The `max-age` of a `Strict-Transport-Security`.
fn max_age(value: &HeaderValue) -> Option<u64> {
    let directives = value.to_str().ok()?.split(';').map(str::trim);
    let mut ages = directives.filter_map(|directive| {
        let (name, age) = directive.split_once('=')?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| age.trim().trim_matches('"').parse().ok())?
    });
    ages.next()
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::{FrameOptions, ReferrerPolicy};

    use super::*;

    fn answered(tenant: Security, transport: Transport, own: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers: HeaderMap = own.iter().map(pair).collect();
        Prepared::new(&SecurityHeaders::default(), tenant).set(&mut headers, transport);
        headers
    }

    #[test]
    fn a_school_has_sane_headers_without_asking() {
        let headers = answered(Security::default(), Transport::Public, &[]);
        assert_eq!(headers["strict-transport-security"], "max-age=31536000");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["x-frame-options"], "SAMEORIGIN");
        assert_eq!(headers["referrer-policy"], "strict-origin-when-cross-origin");
    }

    #[test]
    fn a_school_can_have_others() {
        let wishes = Security {
            hsts_max_age_s: Some(600),
            hsts_include_subdomains: Some(true),
            frame_options: Some(FrameOptions::Any),
            referrer_policy: Some(ReferrerPolicy::NoReferrer),
        };
        let headers = answered(wishes, Transport::Public, &[]);
        assert_eq!(headers["strict-transport-security"], "max-age=600; includeSubDomains");
        assert_eq!(headers.get("x-frame-options"), None);
        assert_eq!(headers["referrer-policy"], "no-referrer");
        let off = Security { hsts_max_age_s: Some(0), ..Security::default() };
        assert_eq!(answered(off, Transport::Public, &[]).get("strict-transport-security"), None);
    }

    #[test]
    fn what_the_application_says_wins_unless_it_is_weaker() {
        let strict = [
            ("strict-transport-security", "max-age=63072000; includeSubDomains"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
        ];
        let headers = answered(Security::default(), Transport::Public, &strict);
        assert!(strict.iter().all(|(name, value)| headers[*name] == *value), "{headers:?}");
        let weak = [
            ("strict-transport-security", "max-age=0"),
            ("x-frame-options", "ALLOWALL"),
            ("referrer-policy", "unsafe-url"),
            ("x-content-type-options", "sniff"),
            ("x-powered-by", "PHP/5.3"),
        ];
        let headers = answered(Security::default(), Transport::Public, &weak);
        assert_eq!(headers, answered(Security::default(), Transport::Public, &[]));
    }

    #[test]
    fn names_for_tests_and_plain_http_are_told_nothing_of_tls() {
        let own = [("strict-transport-security", "max-age=63072000")];
        for transport in [Transport::Plain, Transport::Reserved] {
            assert_eq!(answered(Security::default(), transport, &own).get("strict-transport-security"), None);
        }
        assert_eq!(Transport::of(true, Some("a.localhost:8443")), Transport::Reserved);
        assert_eq!(Transport::of(true, Some("A.TEST.")), Transport::Reserved);
        assert_eq!(Transport::of(true, Some("test.example:443")), Transport::Public);
        assert_eq!(Transport::of(false, Some("a.example")), Transport::Plain);
    }
}
