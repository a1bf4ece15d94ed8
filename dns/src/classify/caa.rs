//! Whether CAA records let our CA issue (RFC 8659, with the parameters of RFC 8657).

use crate::expected::{CaIdentity, DNS_01, Expected};
use crate::finding::{Axis, Code, Finding, Hinders, Hindrance, WhoActs};
use crate::observation::{Answer, CaaRecord, CaaSet, Failure, Observation};

/// Tags that a CA knows; an unknown one that is critical forbids everything (RFC 8659 section 4.5).
const KNOWN: [&str; 6] = ["issue", "issuewild", "iodef", "contactemail", "contactphone", "issuemail"];

/// Names what CAA forbids. When one of our CAs may issue, nothing is wrong; that the others may not is what they are
/// told by the hindrances.
pub(super) fn check(
    observation: &Observation,
    expected: &Expected,
    delegated: bool,
    (findings, hindrances): (&mut Vec<Finding>, &mut Vec<Hindrance>),
) {
    let Some(preferred) = expected.issuers.iter().find(|ca| !ca.names.is_empty()) else { return };
    match &observation.caa {
        Answer::Found { value: set, .. } => {
            let mut refused_by_all = true;
            let mut first = None;
            for ca in &expected.issuers {
                let looking: Vec<&str> = ca.methods.iter().map(String::as_str).filter(|m| *m != DNS_01).collect();
                let all: Vec<&str> =
                    ca.methods.iter().map(String::as_str).filter(|m| delegated || *m != DNS_01).collect();
                let (hinders, refusal) = match (refusal(set, ca, &all), refusal(set, ca, &looking)) {
                    (Some(refusal), _) => (Hinders::Everything, refusal),
                    (None, Some(refusal)) => (Hinders::Looking, refusal),
                    (None, None) => {
                        refused_by_all = false;
                        continue;
                    }
                };
                refused_by_all &= hinders == Hinders::Everything;
                hindrances.push(Hindrance {
                    ca: Some(ca.ca.clone()),
                    hinders,
                    code: Code::CaaForbids,
                    who_acts: WhoActs::School,
                    fix: format!("{}: {}", fix(set, ca, &refusal), recommended(&set.at, ca)),
                });
                first.get_or_insert(refusal);
            }
            if let Some(refusal) = first.filter(|_| refused_by_all) {
                findings.push(refused(set, preferred, &refusal));
            }
        }
        Answer::Failed(Failure::ServFail | Failure::Bogus) => {
            let fix = "The name servers fail when asked for CAA records, and a certificate authority must refuse then. Ask \
                       the DNS provider why";
            let what = format!("CAA records that can be read, or none, at {}", expected.name);
            findings.push(Finding::new(Code::CaaUnreadable, Axis::Certificate, what, fix).found("SERVFAIL"));
        }
        Answer::Failed(_) | Answer::NoData | Answer::NxDomain => {}
    }
}

/// Why a set of records refuses a CA.
enum Refusal<'a> {
    /// It does not name it.
    NotNamed,
    /// It names it for another account.
    Account(String),
    /// It names it for other methods.
    Method(String),
    /// It has a critical tag that no CA of ours knows.
    Critical(&'a CaaRecord),
}

fn refusal<'a>(set: &'a CaaSet, ca: &CaIdentity, ours: &[&str]) -> Option<Refusal<'a>> {
    if ca.names.is_empty() {
        return None;
    }
    if let Some(unknown) = set.records.iter().find(|r| r.critical && !KNOWN.contains(&r.tag.as_str())) {
        return Some(Refusal::Critical(unknown));
    }
    let issue: Vec<_> = set.records.iter().filter(|record| record.tag == "issue").collect();
    // Records of other tags only restrict nothing of what we ask for (RFC 8659 section 4.2).
    if issue.is_empty() {
        return None;
    }
    let mut why = Refusal::NotNamed;
    for record in issue {
        let (name, parameters) = parse(&record.value);
        if !ca.names.contains(&name) {
            continue;
        }
        let parameter = |tag: &str| parameters.iter().find(|(t, _)| t == tag).map(|(_, value)| value.as_str());
        if let (Some(wanted), Some(ours)) = (parameter("accounturi"), &ca.account_uri)
            && wanted != ours
        {
            why = Refusal::Account(wanted.to_owned());
            continue;
        }
        if let Some(methods) = parameter("validationmethods")
            && !methods.split(',').any(|method| ours.contains(&method.trim()))
        {
            why = Refusal::Method(methods.to_owned());
            continue;
        }
        return None;
    }
    Some(why)
}

/// An issuer's name and its parameters.
fn parse(value: &str) -> (String, Vec<(String, String)>) {
    let mut parts = value.split(';');
    let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let parameters = parts.filter_map(|part| {
        let (tag, value) = part.split_once('=')?;
        Some((tag.trim().to_ascii_lowercase(), value.trim().to_owned()))
    });
    (name, parameters.collect())
}

fn refused(set: &CaaSet, ca: &CaIdentity, refusal: &Refusal<'_>) -> Finding {
    let found: Vec<String> =
        set.records.iter().map(|r| format!("{} {} \"{}\"", u8::from(r.critical) * 128, r.tag, r.value)).collect();
    Finding::new(Code::CaaForbids, Axis::Certificate, recommended(&set.at, ca), fix(set, ca, refusal)).found(format!(
        "{} CAA {}",
        set.at,
        found.join(" and ")
    ))
}

fn fix(set: &CaaSet, ca: &CaIdentity, refusal: &Refusal<'_>) -> String {
    match refusal {
        Refusal::NotNamed => {
            format!("The CAA records at {} let only others issue certificates. Add this one beside them", set.at)
        }
        Refusal::Account(account) => format!(
            "The CAA record at {} names another account ({account}). Replace its accounturi, or remove it",
            set.at
        ),
        Refusal::Method(methods) => format!(
            "The CAA record at {} allows only the methods {methods}. Add {} to validationmethods, or remove it",
            set.at,
            ca.methods.join(",")
        ),
        Refusal::Critical(unknown) => format!(
            "The CAA record at {} with the tag {} is marked critical (128), and no certificate authority that does not \
             know it may issue. Set its flag to 0, or remove it",
            set.at, unknown.tag
        ),
    }
}

/// The record that lets a CA issue.
fn recommended(name: &str, ca: &CaIdentity) -> String {
    format!("{name} CAA {}", ca.record().unwrap_or_default())
}
