//! Who may say in a token which school a caller belongs to.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::id::{as_string, shortened};
use super::{DomainName, IssuerId, Jwks, TenantId};

/// An issuer of JSON Web Tokens (RFC 7519) whose word counts.
///
/// It counts everywhere, or only on one zone's names, and it speaks for any tenant or only for one. A token that says it
/// is of this issuer and is not good is refused where the issuer counts, on a tenant's own host too: 401. What a good one
/// says must agree with everything else that names a tenant, wherever it is shown. Its keys travel with it, so that a
/// proxy asks nobody and a past revision can be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenIssuer {
    /// Its name here.
    pub id: IssuerId,
    /// The `iss` of its tokens, to the letter. No two issuers have the same.
    pub issuer: String,
    /// Tokens must be meant for one of these (`aud`). Empty: tokens that are meant for anybody in particular are refused
    /// (RFC 7519 section 4.1.3).
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Algorithms its tokens may be signed with.
    #[serde(default = "TokenAlgorithm::all")]
    pub algorithms: Vec<TokenAlgorithm>,
    /// Where its keys come from.
    pub source: KeySource,
    /// Its keys. Empty until they have been fetched; no token of it is good until then.
    #[serde(default)]
    pub keys: Jwks,
    /// Seconds by which its clock may differ from ours, 0-300.
    #[serde(default = "default_leeway_s")]
    pub leeway_s: u32,
    /// The only tenant it can speak for. A token of it that names no tenant names this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The only zone on whose names it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<DomainName>,
    /// Claims that name a tenant by id or slug. Each that is there must agree.
    #[serde(default = "TokenIssuer::default_claims")]
    pub claims: Vec<String>,
}

/// 60 s, as for tokens of our own: what clocks kept by NTP never differ by, and a stolen token's gain is small.
const fn default_leeway_s() -> u32 {
    60
}

/// The longest leeway: 300 s. Beyond it a lifetime of minutes would mean nothing.
const LONGEST_LEEWAY_S: u32 = 300;
/// Characters of an issuer's name, an audience or a claim's name: 512.
const LONGEST_TEXT: usize = 512;
/// Audiences, and claims: 16.
const MOST_VALUES: usize = 16;

/// How a token may be signed. Nothing without a signature, and nothing symmetric: whoever checks an HMAC can make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum TokenAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3).
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4).
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519 (RFC 8037 section 3.1).
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl TokenAlgorithm {
    /// Every algorithm.
    pub fn all() -> Vec<Self> {
        vec![Self::Rs256, Self::Es256, Self::EdDsa]
    }

    /// The `alg` of a token's header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Where an issuer's keys come from. The control plane reads and refreshes them; proxies get them with the issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// They were given with it.
    Inline,
    /// A file on the control plane's machine.
    #[schema(value_type = String)]
    File(PathBuf),
    /// A document of the issuer.
    Url(KeyUrl),
}

/// Why a text is not an address of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyUrlError {
    /// Not `https://`. Over plain HTTP anybody on the way could put keys of his own.
    #[error("`{0}` does not begin with https:// (http:// only for a loopback address)")]
    Scheme(String),
    /// No host, user information, a fragment, or a sign that no URL has.
    #[error("`{0}` is not an address such as https://id.example/.well-known/jwks.json")]
    Form(String),
}

/// An address of keys: `https://`, or `http://` on a loopback address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyUrl(Box<str>);

impl KeyUrl {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for KeyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for KeyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for KeyUrl {
    type Err = KeyUrlError;
    fn from_str(text: &str) -> Result<Self, KeyUrlError> {
        let form = || KeyUrlError::Form(shortened(text));
        let (rest, secure) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (rest, true),
            (None, Some(rest)) => (rest, false),
            _ => return Err(KeyUrlError::Scheme(shortened(text))),
        };
        if text.len() > 2_000
            || !text.bytes().all(|b| b.is_ascii_graphic())
            || text.contains(['#', '\\', '"', '<', '>'])
        {
            return Err(form());
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((v6, port)) => (v6, port.strip_prefix(':').or(port.is_empty().then_some("443"))),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, Some("443")),
            },
        };
        let port_is_good = port.is_some_and(|port| port.parse::<u16>().is_ok_and(|n| n != 0));
        let ip: Option<IpAddr> = host.parse().ok();
        if !port_is_good || (ip.is_none() && DomainName::parse(host).is_err()) {
            return Err(form());
        }
        if !secure && !ip.is_some_and(|ip| ip.is_loopback()) {
            return Err(KeyUrlError::Scheme(shortened(text)));
        }
        Ok(Self(text.into()))
    }
}
as_string!(KeyUrl, KeyUrlError, "https://…, or http:// on a loopback address");

/// What is wrong with an issuer as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenIssuerError {
    /// `issuer`, an audience or a claim is empty, too long, or holds control characters.
    #[error("{field}: expected 1-{LONGEST_TEXT} characters without control characters")]
    Text {
        /// Which field.
        field: &'static str,
    },
    /// Too many of something.
    #[error("{field}: at most {MOST_VALUES} values are taken")]
    TooMany {
        /// Which field.
        field: &'static str,
    },
    /// No algorithm is allowed.
    #[error("algorithms: name at least one of RS256, ES256 and EdDSA")]
    NoAlgorithm,
    /// No claim is looked at, and the issuer is no one tenant's.
    #[error("claims: name at least one, or give the issuer a tenant")]
    NoClaim,
    /// The leeway is too long.
    #[error("leeway_s: at most {LONGEST_LEEWAY_S} seconds, found {0}")]
    Leeway(u32),
    /// Keys were said to be given, and were not.
    #[error("jwks: give the issuer's public keys, or where to fetch them (jwks_url, jwks_file)")]
    NoKeys,
    /// None of its keys is for one of its algorithms.
    #[error("algorithms: none of the issuer's keys is for {0}")]
    NoKeyForAlgorithms(String),
    /// The file is not named from the root.
    #[error("jwks_file: `{0}` is not an absolute path")]
    RelativePath(String),
}

impl TokenIssuerError {
    /// The field at fault, by its name in the API.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Text { field } | Self::TooMany { field } => field,
            Self::NoAlgorithm | Self::NoKeyForAlgorithms(_) => "algorithms",
            Self::NoClaim => "claims",
            Self::Leeway(_) => "leeway_s",
            Self::NoKeys => "jwks",
            Self::RelativePath(_) => "jwks_file",
        }
    }
}

impl TokenIssuer {
    /// `tenantId`, and as older platforms spell it `tenant_id`.
    pub fn default_claims() -> Vec<String> {
        ["tenantId", "tenant_id"].map(str::to_owned).to_vec()
    }

    /// Everything that is wrong with it in itself; what it refers to is checked with the whole graph.
    pub fn problems(&self) -> Vec<TokenIssuerError> {
        use TokenIssuerError as E;
        let good =
            |text: &String| (1..=LONGEST_TEXT).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        let mut problems = Vec::new();
        if !good(&self.issuer) {
            problems.push(E::Text { field: "issuer" });
        }
        for (field, values) in [("audiences", &self.audiences), ("claims", &self.claims)] {
            if values.len() > MOST_VALUES {
                problems.push(E::TooMany { field });
            } else if !values.iter().all(good) {
                problems.push(E::Text { field });
            }
        }
        if self.algorithms.is_empty() {
            problems.push(E::NoAlgorithm);
        } else if !self.keys.is_empty()
            && !self.keys.keys().iter().any(|key| self.algorithms.contains(&key.key.algorithm()))
        {
            let names: Vec<_> = self.algorithms.iter().map(|a| a.as_str()).collect();
            problems.push(E::NoKeyForAlgorithms(names.join(" or ")));
        }
        if self.claims.is_empty() && self.tenant.is_none() {
            problems.push(E::NoClaim);
        }
        if self.leeway_s > LONGEST_LEEWAY_S {
            problems.push(E::Leeway(self.leeway_s));
        }
        match &self.source {
            KeySource::Inline if self.keys.is_empty() => problems.push(E::NoKeys),
            KeySource::File(path) if !path.is_absolute() => {
                problems.push(E::RelativePath(shortened(&path.to_string_lossy())));
            }
            _ => {}
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn issuer(change: serde_json::Value) -> TokenIssuer {
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let mut value = json!({
            "id": "idp", "issuer": "https://id.example", "audiences": ["school"], "source": "inline",
            "keys": {"keys": [key]},
        });
        value.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        serde_json::from_value(value).expect("an issuer")
    }

    #[test]
    fn what_is_not_said_has_a_safe_default() {
        let issuer = issuer(json!({}));
        assert_eq!(issuer.problems(), []);
        assert_eq!((issuer.leeway_s, issuer.algorithms.len()), (60, 3));
        assert_eq!(issuer.claims, ["tenantId", "tenant_id"]);
    }

    #[test]
    fn an_issuer_reads_back_from_the_wire_as_it_was() {
        for source in [json!("inline"), json!({"file": "/etc/keys.json"}), json!({"url": "https://id.example/keys"})] {
            let issuer = issuer(json!({"source": source, "zone": "schools.example"}));
            let bytes = rmp_serde::to_vec_named(&issuer).expect("bytes");
            assert_eq!(rmp_serde::from_slice::<TokenIssuer>(&bytes).expect("reads back"), issuer);
        }
    }

    #[test]
    fn every_problem_is_found_and_names_its_field() {
        let wrong = issuer(json!({
            "issuer": "", "audiences": ["a\u{0}"], "claims": [], "leeway_s": 301, "source": {"file": "keys.json"},
            "algorithms": ["RS256"],
        }));
        let fields: Vec<_> = wrong.problems().iter().map(TokenIssuerError::field).collect();
        assert_eq!(fields, ["issuer", "audiences", "algorithms", "claims", "leeway_s", "jwks_file"]);
        assert_eq!(issuer(json!({"keys": {"keys": []}})).problems(), [TokenIssuerError::NoKeys]);
        assert_eq!(issuer(json!({"algorithms": []})).problems(), [TokenIssuerError::NoAlgorithm]);
        let many: Vec<_> = (0..17).map(|n| n.to_string()).collect();
        assert_eq!(issuer(json!({"audiences": many})).problems(), [TokenIssuerError::TooMany { field: "audiences" }]);
        assert_eq!(issuer(json!({"claims": [], "tenant": TenantId::from_parts(1, 1)})).problems(), []);
    }

    #[test]
    fn no_algorithm_without_a_key_pair_can_be_named() {
        for name in ["none", "HS256", "HS512", "PS256", "rs256"] {
            assert!(serde_json::from_value::<TokenAlgorithm>(json!(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn keys_are_fetched_over_tls_or_from_this_machine() {
        for good in [
            "https://id.example/.well-known/jwks.json",
            "https://id.example:8443/keys?v=1",
            "https://192.0.2.1/",
            "https://[2001:db8::1]:8443/keys",
            "http://127.0.0.1:9000/keys",
            "http://[::1]:9000/keys",
        ] {
            assert!(good.parse::<KeyUrl>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "id.example/keys",
            "http://id.example/keys",
            "http://127.0.0.1.evil.example/",
            "http://192.0.2.1/",
            "file:///etc/passwd",
            "https://",
            "https://user@id.example/",
            "https://id.example:0/",
            "https://id.example:x/",
            "https://id.example/#keys",
            "https://id.example/a b",
            "https://[::1/",
        ] {
            assert!(bad.parse::<KeyUrl>().is_err(), "{bad}");
        }
    }
}
