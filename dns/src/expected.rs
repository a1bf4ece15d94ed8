//! What the DNS should say of a domain.

use std::net::IpAddr;

use schoolgate_config::model::{DomainName, TenantId};

/// How CAA records name a CA of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaIdentity {
    /// The issuer's domain name, such as `letsencrypt.org`.
    pub name: String,
    /// The account that orders (RFC 8657 `accounturi`), when there is one.
    pub account_uri: Option<String>,
    /// The methods that we may use (RFC 8657 `validationmethods`).
    pub methods: Vec<String>,
}

impl CaIdentity {
    /// The CA behind an ACME directory, for those that are known by it.
    pub fn of_directory(url: &str) -> Option<Self> {
        const KNOWN: [(&str, &str); 6] = [
            (".letsencrypt.org", "letsencrypt.org"),
            (".pki.goog", "pki.goog"),
            (".zerossl.com", "sectigo.com"),
            (".sectigo.com", "sectigo.com"),
            (".ssl.com", "ssl.com"),
            (".buypass.com", "buypass.com"),
        ];
        let host = url.split_once("://")?.1.split(['/', ':']).next()?.to_ascii_lowercase();
        let (_, name) = KNOWN.iter().find(|(suffix, _)| host.ends_with(suffix))?;
        Some(Self::named(name))
    }

    /// A CA by the name that CAA records have for it, with the method that every order may use.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_ascii_lowercase(), account_uri: None, methods: vec!["http-01".to_owned()] }
    }
}

/// Another tenant that asks for the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherClaim {
    /// Who.
    pub tenant: TenantId,
    /// The token of its proof.
    pub token: String,
}

impl OtherClaim {
    /// The TXT value that proves it.
    pub fn proof(&self) -> String {
        proof(self.tenant, &self.token)
    }
}

/// What the DNS should say of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The name.
    pub name: DomainName,
    /// Whose it is.
    pub tenant: TenantId,
    /// The unguessable part of its records.
    pub token: String,
    /// The platform's zone that its records lead into.
    pub platform_zone: Option<DomainName>,
    /// The platform's addresses.
    pub addresses: Vec<IpAddr>,
    /// The CAs that may be asked for its certificate; none: CAA does not matter.
    pub issuers: Vec<CaIdentity>,
    /// Another tenant that asks for the name.
    pub other: Option<OtherClaim>,
}

impl Expected {
    /// Where the proof of ownership stands.
    pub fn proof_name(&self) -> String {
        format!("_schoolgate.{}", self.name)
    }

    /// The proof of ownership.
    pub fn proof(&self) -> String {
        proof(self.tenant, &self.token)
    }

    /// What the name should be an alias of.
    pub fn target(&self) -> Option<String> {
        self.platform_zone.as_ref().map(|zone| format!("{}.cname.{zone}", self.token))
    }
}

fn proof(tenant: TenantId, token: &str) -> String {
    format!("v1; tenant={tenant}; token={token}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_is_known_by_its_directory() {
        let name = |url| CaIdentity::of_directory(url).map(|ca| ca.name);
        assert_eq!(name("https://acme-v02.api.letsencrypt.org/directory").as_deref(), Some("letsencrypt.org"));
        assert_eq!(name("https://dv.acme-v02.api.pki.goog/directory").as_deref(), Some("pki.goog"));
        assert_eq!(name("https://127.0.0.1:14000/dir"), None);
        assert_eq!(name("https://notletsencrypt.org/"), None);
    }
}
