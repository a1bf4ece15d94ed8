//! What the DNS should say of a domain.

use std::net::IpAddr;
use std::sync::Arc;

use schoolgate_config::model::{DomainName, TenantId};

use crate::cdn::Proxies;

/// A method that only a CNAME at `_acme-challenge` makes possible.
pub(crate) const DNS_01: &str = "dns-01";

/// How CAA records name a CA of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaIdentity {
    /// What the settings call the CA.
    pub ca: String,
    /// The issuer's domain names, such as `letsencrypt.org`, the preferred one first; none: as far as we know it does not
    /// look at CAA records.
    pub names: Vec<String>,
    /// The account that orders (RFC 8657 `accounturi`), when there is one.
    pub account_uri: Option<String>,
    /// The methods that we may use (RFC 8657 `validationmethods`).
    pub methods: Vec<String>,
}

impl CaIdentity {
    /// The name of the CA behind an ACME directory in CAA records, for those that are known by it.
    pub fn name_of_directory(url: &str) -> Option<&'static str> {
        const KNOWN: [(&str, &str); 6] = [
            (".letsencrypt.org", "letsencrypt.org"),
            (".pki.goog", "pki.goog"),
            (".zerossl.com", "sectigo.com"),
            (".sectigo.com", "sectigo.com"),
            (".ssl.com", "ssl.com"),
            (".buypass.com", "buypass.com"),
        ];
        let host = url.split_once("://")?.1.split(['/', ':']).next()?.to_ascii_lowercase();
        KNOWN.iter().find(|(suffix, _)| host.ends_with(suffix)).map(|(_, name)| *name)
    }

    /// The CA that the settings call `ca`, by the name that CAA records have for it, with the method that every order may
    /// use.
    pub fn named(ca: &str, name: &str) -> Self {
        Self {
            ca: ca.to_owned(),
            names: vec![name.to_ascii_lowercase()],
            account_uri: None,
            methods: vec!["http-01".to_owned()],
        }
    }

    /// The value of the CAA record that lets this CA, our account there and our methods issue; `None` where it has no name.
    pub fn record(&self) -> Option<String> {
        let name = self.names.first()?;
        let account = self.account_uri.as_ref().map(|account| format!("; accounturi={account}")).unwrap_or_default();
        let methods = match self.methods.as_slice() {
            // Without our account others could use the methods as well: there is nothing to win.
            methods if methods.is_empty() || self.account_uri.is_none() => String::new(),
            methods => format!("; validationmethods={}", methods.join(",")),
        };
        Some(format!("0 issue \"{name}{account}{methods}\""))
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
    /// Thumbprints of our accounts, one of which every proxy answers a challenge with; none: nobody looks at port 80.
    pub thumbprints: Vec<String>,
    /// Networks of proxies that stand in front of schools' names.
    pub proxies: Arc<Proxies>,
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

    /// Where a certificate authority looks for the TXT record that proves the name.
    pub fn challenge_name(&self) -> String {
        format!("_acme-challenge.{}", self.name)
    }

    /// What that should be an alias of, for us to answer it.
    pub fn challenge_target(&self) -> Option<String> {
        self.platform_zone.as_ref().map(|zone| format!("{}.acme.{zone}", self.token))
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
        let name = CaIdentity::name_of_directory;
        assert_eq!(name("https://acme-v02.api.letsencrypt.org/directory"), Some("letsencrypt.org"));
        assert_eq!(name("https://dv.acme-v02.api.pki.goog/directory"), Some("pki.goog"));
        assert_eq!(name("https://127.0.0.1:14000/dir"), None);
        assert_eq!(name("https://notletsencrypt.org/"), None);
    }

    #[test]
    fn the_record_for_a_ca_names_our_account_and_methods_when_there_is_an_account() {
        let mut ca = CaIdentity::named("first", "LetsEncrypt.org");
        assert_eq!(ca.record().as_deref(), Some("0 issue \"letsencrypt.org\""));
        ca.account_uri = Some("https://ca.example/acct/1".to_owned());
        ca.methods.push(DNS_01.to_owned());
        let whole =
            "0 issue \"letsencrypt.org; accounturi=https://ca.example/acct/1; validationmethods=http-01,dns-01\"";
        assert_eq!(ca.record().as_deref(), Some(whole));
        ca.names.clear();
        assert_eq!(ca.record(), None);
    }
}
