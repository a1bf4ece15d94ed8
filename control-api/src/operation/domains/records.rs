//! What a school sets in its DNS.

use std::net::IpAddr;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::model::{Domain, DomainName};
use schoolgate_config::table::RoutingTable;
use schoolgate_dns::{Assessment, CaIdentity, Expected, Hinders, OtherClaim, Proof};
use schoolgate_store::{Hindered, Hindrance, OrderFacts, Store, StoreError};

use super::view::Surroundings;
use crate::operation::{NameServer, Platform, json};

/// A DNS record that a school sets.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DnsRecord {
    /// Its type, such as `CNAME`.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// Its owner name.
    pub(super) name: String,
    /// Its value.
    pub(super) value: String,
    /// What it is for: `ownership`, `routing` or `certificate`.
    pub(super) purpose: &'static str,
    /// Whether the domain can be ready without it.
    pub(super) optional: bool,
}

impl DnsRecord {
    /// The record as a zone file has it.
    pub(super) fn text(&self) -> String {
        match self.kind {
            "TXT" => format!("{} TXT \"{}\"", self.name, self.value),
            kind => format!("{} {kind} {}", self.name, self.value),
        }
    }
}

/// The zone that a school's records lead into: the first with more than one label, for those that have public names.
pub(super) fn records_zone(table: &RoutingTable) -> Option<&DomainName> {
    let key = |name: &&DomainName| (name.labels() < 2, name.as_str().to_owned());
    table.zones().map(|zone| &zone.name).min_by_key(key)
}

pub(super) fn records(domain: &Domain, around: &Surroundings<'_>) -> Vec<DnsRecord> {
    if assumed_owned(&domain.name, around.platform) {
        // Reserved names are in nobody's DNS.
        return Vec::new();
    }
    let name = domain.name.to_string();
    let record =
        |kind, name: String, value: String, purpose, optional| DnsRecord { kind, name, value, purpose, optional };
    let mut records = vec![record(
        "TXT",
        format!("_schoolgate.{name}"),
        format!("v1; tenant={}; token={}", domain.tenant, domain.token),
        "ownership",
        false,
    )];
    let Some(zone) = records_zone(around.table) else { return records };
    let target = format!("{}.cname.{zone}", domain.token);
    // A registered domain is where a zone begins, and a CNAME cannot stand there (RFC 1034 section 3.6.2).
    if schoolgate_dns::names::registrable(&domain.name) == Some(domain.name.as_str()) {
        records.push(record("ALIAS", name.clone(), target, "routing", false));
        records.extend(around.platform.addresses.iter().map(|address| {
            let kind = if matches!(address, IpAddr::V4(_)) { "A" } else { "AAAA" };
            record(kind, name.clone(), address.to_string(), "routing", true)
        }));
    } else {
        records.push(record("CNAME", name.clone(), target, "routing", false));
    }
    let challenge = format!("_acme-challenge.{name}");
    records.push(record("CNAME", challenge, format!("{}.acme.{zone}", domain.token), "certificate", true));
    records
}

/// The CAs that may be asked, with our accounts there as far as they have been made.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn issuers_of(store: &Store, platform: &Platform) -> Result<Vec<CaIdentity>, StoreError> {
    let mut issuers = platform.issuers.clone();
    if issuers.is_empty() {
        return Ok(issuers);
    }
    let accounts = store.acme_credentials().await?;
    for issuer in &mut issuers {
        let account = accounts.iter().find(|account| account.ca.as_str() == issuer.ca);
        issuer.account_uri = account.map(|account| account.url.clone());
    }
    Ok(issuers)
}

/// What the DNS should say of a domain, for a check.
pub(crate) fn expected(
    domain: &Domain,
    other: Option<OtherClaim>,
    issuers: Vec<CaIdentity>,
    (table, platform): (&RoutingTable, &Platform),
) -> Expected {
    Expected {
        name: domain.name.clone(),
        tenant: domain.tenant,
        token: domain.token.clone(),
        platform_zone: records_zone(table).cloned(),
        addresses: platform.addresses.clone(),
        issuers,
        thumbprints: table.acme_accounts().map(|account| account.thumbprint.to_string()).collect(),
        proxies: Arc::clone(&platform.proxies),
        other,
    }
}

/// What a check says to whoever orders the domain's certificate.
pub(crate) fn order_facts(assessment: &Assessment, expected: &Expected, platform: &Platform) -> OrderFacts {
    let answered = platform.name_server == NameServer::Answers && assessment.delegated == Proof::Present;
    let hindrance = |found: &schoolgate_dns::Hindrance| {
        Some(Hindrance {
            // A name from the settings, where it was checked.
            ca: found.ca.as_ref().and_then(|ca| ca.parse().ok()),
            hinders: match found.hinders {
                Hinders::Nothing => return None,
                Hinders::Looking => Hindered::Looking,
                Hinders::Everything => Hindered::Everything,
            },
            message: format!("{}: {}", json(&found.code).as_str().unwrap_or_default(), found.fix),
            who_acts: json(&found.who_acts).as_str().unwrap_or_default().to_owned(),
        })
    };
    OrderFacts {
        delegated_to: expected.challenge_target().filter(|_| answered),
        hindrances: assessment.hindrances.iter().filter_map(hindrance).collect(),
    }
}

/// Whether the settings take a name's ownership for granted.
pub(crate) fn assumed_owned(name: &DomainName, platform: &Platform) -> bool {
    platform.assume_owned.iter().any(|suffix| name.is_within(suffix.as_str()))
}

/// The unguessable part of a domain's records: 100 bits as 20 letters and digits that survive any DNS editor.
pub(super) fn new_token() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0; 20];
    SystemRandom::new().fill(&mut random).expect("the system's random numbers are there");
    random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_a_dns_editor() {
        let token = new_token();
        assert_eq!(token.len(), 20);
        assert!(token.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        assert_ne!(token, new_token());
    }

    #[test]
    fn only_names_within_a_suffix_count_as_owned() {
        let platform = Platform { assume_owned: vec!["test".parse().expect("a name")], ..Platform::default() };
        let is_owned = |name: &str| assumed_owned(&name.parse().expect("a name"), &platform);
        assert!(is_owned("erp.greenhill.test"));
        assert!(!is_owned("latest"));
        assert!(!is_owned("erp.test.example"));
    }
}
