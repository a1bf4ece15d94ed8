//! What the people of a school's DNS are told to set: for programs, as lines of a zone file, and as a letter.

use std::fmt::Write as _;

use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::model::{Domain, DomainName};
use schoolgate_dns::CaIdentity;

use super::records::{DnsRecord, records};
use super::view::Surroundings;

/// The TTL that lines of a zone file have: an hour in seconds.
const TTL: u32 = 3_600;

/// Characters of one string in a TXT record (RFC 1035 section 3.3).
const STRING: usize = 255;

/// What the people of a school's DNS are told to set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Instructions {
    /// The domain.
    name: DomainName,
    /// The records, in the order to set them.
    records: Vec<DnsRecord>,
    /// Records that let our certificate authority, and our account there, issue for the name; good to have.
    recommended: Vec<DnsRecord>,
    /// What not to forget.
    notes: Vec<String>,
}

impl Instructions {
    pub(super) fn of(domain: &Domain, issuers: &[CaIdentity], around: &Surroundings<'_>) -> Self {
        let records = records(domain, around);
        let recommended = issuers.iter().filter_map(|ca| caa(&domain.name, ca)).collect();
        let mut notes = Vec::new();
        if records.is_empty() {
            notes.push(format!("{} is in nobody's DNS: there is nothing to set.", domain.name));
        } else {
            notes.push("Leave the TXT record in place: it is looked at again every day.".to_owned());
            notes.push(
                "If your DNS editor appends the domain by itself, enter names without it; compare what it shows in the end."
                    .to_owned(),
            );
            notes.push(format!("Remove A and AAAA records of {} that are not in this list.", domain.name));
            if records.iter().any(|record| record.kind == "ALIAS") {
                notes.push(
                    "Set either the ALIAS (ANAME, flattened CNAME) record or the addresses, whichever your DNS provider \
                     offers."
                        .to_owned(),
                );
            }
        }
        Self { name: domain.name.clone(), records, recommended, notes }
    }

    /// Lines for a BIND zone file.
    pub(crate) fn bind(&self) -> String {
        let mut text = format!("; {}\n", self.name);
        for record in &self.records {
            let line = bind_line(record);
            // BIND has no ALIAS, and a zone must not have both an address and an alias.
            let comment = if record.kind == "ALIAS" { "; " } else { "" };
            let purpose =
                if record.optional { format!("{}, optional", record.purpose) } else { record.purpose.to_owned() };
            let _ = writeln!(text, "; {purpose}\n{comment}{line}");
        }
        for record in &self.recommended {
            let _ = writeln!(text, "; recommended\n; {}", bind_line(record));
        }
        text
    }

    /// A letter for the person who manages the DNS.
    pub(crate) fn letter(&self) -> String {
        let mut text = format!("To use {} with your school's site, please set these DNS records.\n", self.name);
        for (number, record) in (1..).zip(&self.records) {
            let why = match (record.purpose, record.optional) {
                ("ownership", _) => "proves that the name is yours",
                ("routing", false) => "leads visitors to the site",
                ("routing", true) => "the same by address, where an alias is not possible",
                _ => "optional: lets the certificate be made before visitors are led here",
            };
            let DnsRecord { kind, name, value, .. } = record;
            let _ = write!(text, "\n{number}. {why}\n   Type:  {kind}\n   Name:  {name}\n   Value: {value}\n");
        }
        if !self.recommended.is_empty() {
            text.push_str("\nGood to have: it keeps others from getting a certificate for the name.\n");
            for DnsRecord { kind, name, value, .. } in &self.recommended {
                let _ = write!(text, "   Type:  {kind}\n   Name:  {name}\n   Value: {value}\n");
            }
        }
        text.push('\n');
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }
}

fn caa(name: &DomainName, ca: &CaIdentity) -> Option<DnsRecord> {
    let value = ca.record()?;
    Some(DnsRecord { kind: "CAA", name: name.to_string(), value, purpose: "certificate", optional: true })
}

fn bind_line(record: &DnsRecord) -> String {
    let value = match record.kind {
        "TXT" => quoted(&record.value),
        // Without the final dot BIND appends the zone.
        "CNAME" | "ALIAS" => format!("{}.", record.value),
        _ => record.value.clone(),
    };
    format!("{}. {TTL} IN {} {value}", record.name, record.kind)
}

/// A TXT value in quoted strings.
fn quoted(value: &str) -> String {
    let escaped: Vec<char> = value.chars().collect();
    let strings = escaped.chunks(STRING).map(|chunk| {
        let text: String = chunk.iter().collect();
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    });
    strings.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instructions() -> Instructions {
        let record = |kind, name: &str, value: &str, purpose, optional| DnsRecord {
            kind,
            name: name.into(),
            value: value.into(),
            purpose,
            optional,
        };
        let name: DomainName = "erp.greenhill.example".parse().expect("a name");
        let account = Some("https://ca.example/1".into());
        let ca = CaIdentity { account_uri: account, ..CaIdentity::named("first", "letsencrypt.org") };
        Instructions {
            records: vec![
                record("TXT", "_schoolgate.erp.greenhill.example", "v1; tenant=t; token=k", "ownership", false),
                record("CNAME", "erp.greenhill.example", "k.cname.schools.example", "routing", false),
                record("ALIAS", "greenhill.example", "k.cname.schools.example", "routing", false),
            ],
            recommended: caa(&name, &ca).into_iter().collect(),
            notes: vec!["Leave it.".into()],
            name,
        }
    }

    #[test]
    fn lines_of_a_zone_file_have_final_dots_and_quotes() {
        let bind = instructions().bind();
        let lines: Vec<_> = bind.lines().filter(|line| !line.starts_with("; ")).collect();
        assert_eq!(
            lines,
            [
                "_schoolgate.erp.greenhill.example. 3600 IN TXT \"v1; tenant=t; token=k\"",
                "erp.greenhill.example. 3600 IN CNAME k.cname.schools.example.",
            ]
        );
        assert!(bind.contains("\n; greenhill.example. 3600 IN ALIAS k.cname.schools.example.\n"), "{bind}");
        let caa = "; erp.greenhill.example. 3600 IN CAA 0 issue \"letsencrypt.org; accounturi=https://ca.example/1; \
                   validationmethods=http-01\"\n";
        assert!(bind.contains(caa), "{bind}");
        assert_eq!(quoted(&"x".repeat(300)).len(), 300 + 5);
    }

    #[test]
    fn the_letter_says_why_and_in_which_order() {
        let letter = instructions().letter();
        let at = |text: &str| letter.find(text).unwrap_or_else(|| panic!("{text} is not in {letter}"));
        assert!(at("1. proves that the name is yours") < at("2. leads visitors to the site"));
        assert!(at("Value: v1; tenant=t; token=k") < at("Leave it."));
    }
}
