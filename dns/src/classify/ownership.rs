//! The proof of ownership, and the ways it goes wrong.

use super::{Proof, deciding, explain_failures};
use crate::expected::Expected;
use crate::finding::{Axis, Code, Finding, WhoActs};
use crate::observation::{Answer, Observation, Seen, Server};

/// What the proof of any tenant begins with.
const PREFIX: &str = "v1; tenant=";

fn answers(observation: &Observation) -> impl Iterator<Item = (&Server, &Answer<Vec<String>>)> + Clone {
    observation.seen.iter().map(|seen| (&seen.server, &seen.proof))
}

fn holds(answer: &Answer<Vec<String>>, proof: &str) -> bool {
    answer.found().is_some_and(|values| values.iter().any(|value| value == proof))
}

/// Whether a TXT value stands where proofs stand.
pub(super) fn proof(observation: &Observation, value: &str) -> Proof {
    let deciding = deciding(answers(observation));
    let present = deciding.iter().filter(|(_, answer)| holds(answer, value)).count();
    match (present, deciding.len()) {
        (0, 0) => Proof::Unknown,
        (0, _) => Proof::Absent,
        (present, all) if present == all => Proof::Present,
        _ => Proof::Unknown,
    }
}

/// Names why the proof is not there.
pub(super) fn explain(observation: &Observation, expected: &Expected, proof: Proof, findings: &mut Vec<Finding>) {
    let record = format!("{} TXT \"{}\"", expected.proof_name(), expected.proof());
    if proof == Proof::Unknown {
        findings.push(unknown(observation, expected, &record));
        return;
    }
    if let Answer::NxDomain = observation.registered {
        findings.push(not_registered(expected, &record));
        return;
    }
    // A resolver that has the record already, while the source has not: an old answer of the source's own cache, or a
    // record that was just removed. The source is right.
    let all = || observation.seen.iter().flat_map(|seen| values(seen).iter().map(move |value| (&seen.server, value)));
    if let Some((server, value)) = all().find(|(_, value)| is_deformed(value, expected)) {
        findings.push(
            Finding::new(Code::TxtMalformed, Axis::Ownership, &record, malformed_fix(value, expected))
                .found(value)
                .said_by(server),
        );
    } else if let Some(stray) = observation.strays.proof_zone_appended.iter().find(|s| is_ours(&s.value, expected)) {
        let zone = observation.zone.as_deref().unwrap_or_default();
        let short = expected.proof_name();
        let short = short.strip_suffix(&format!(".{zone}")).unwrap_or(&short);
        let fix = format!(
            "The DNS editor appends {zone} by itself, so the record went to {}. Enter the name as {short}, or as {}. \
             with a final dot",
            stray.name,
            expected.proof_name()
        );
        let found = format!("{} TXT \"{}\"", stray.name, stray.value);
        findings.push(Finding::new(Code::TxtZoneAppended, Axis::Ownership, &record, fix).found(found));
    } else if let Some(stray) = observation.strays.proof_at_name.iter().find(|s| is_ours(&s.value, expected)) {
        let fix = format!("Move the record from {} to {}", stray.name, expected.proof_name());
        let found = format!("{} TXT \"{}\"", stray.name, stray.value);
        findings.push(Finding::new(Code::TxtAtWrongName, Axis::Ownership, &record, fix).found(found));
    } else if let Some((server, value)) = all().find(|(_, value)| is_of_another(value, expected)) {
        let fix = "The record at this name belongs to another school, or to an earlier attempt. Put this value beside it \
                   or in its place, whole, without changing a letter";
        findings.push(Finding::new(Code::TxtOtherClaim, Axis::Ownership, &record, fix).found(value).said_by(server));
    } else {
        let found = all().next();
        let fix = format!(
            "Where the DNS of {} is managed, add a TXT record with this name and this value. If it is there already, \
             wait some minutes: name servers take up changes one after the other",
            expected.name
        );
        let finding = Finding::new(Code::OwnershipUnproven, Axis::Ownership, &record, fix);
        let server = deciding(answers(observation)).first().map(|(server, _)| *server);
        let finding = match found {
            Some((server, value)) => finding.found(value).said_by(server),
            None => match server {
                Some(server) => finding.found("no TXT record there").said_by(server),
                None => finding,
            },
        };
        findings.push(finding);
    }
}

fn unknown(observation: &Observation, expected: &Expected, record: &str) -> Finding {
    let deciding = deciding(answers(observation));
    let have = deciding.iter().filter(|(_, answer)| holds(answer, &expected.proof())).count();
    if have > 0 {
        let lacks = deciding.iter().find(|(_, answer)| !holds(answer, &expected.proof())).map(|(server, _)| *server);
        let fix = "Some name servers of the domain have the record and some do not. Wait some minutes; if it stays so, \
                   ask the DNS provider why its servers differ";
        let finding = Finding::new(Code::SplitAnswers, Axis::Ownership, record, fix)
            .found(format!("{have} of {} name servers have it", deciding.len()))
            .acts(WhoActs::Nobody);
        return lacks.map_or(finding.clone(), |server| finding.said_by(server));
    }
    explain_failures(Axis::Ownership, record, answers(observation)).unwrap_or_else(|| {
        Finding::new(
            Code::NoAnswer,
            Axis::Ownership,
            record,
            "No name server was found for the domain; it is asked again",
        )
        .acts(WhoActs::Operator)
    })
}

pub(super) fn not_registered(expected: &Expected, record: &str) -> Finding {
    let domain = crate::names::registrable(&expected.name).unwrap_or(expected.name.as_str()).to_owned();
    let fix = format!(
        "{domain} is not in the DNS: look for a misspelling, and ask where it was registered whether it has expired"
    );
    Finding::new(Code::DomainNotRegistered, Axis::Ownership, record, fix).found(format!("{domain} does not exist"))
}

fn values(seen: &Seen) -> &[String] {
    seen.proof.found().map_or(&[], Vec::as_slice)
}

/// Whether a value, quotes and case and spaces aside, is the proof.
fn is_ours(value: &str, expected: &Expected) -> bool {
    bare(value) == bare(&expected.proof())
}

/// Whether a value is the proof but for how it is written, or holds the token in other words.
fn is_deformed(value: &str, expected: &Expected) -> bool {
    value != expected.proof()
        && (is_ours(value, expected) || value.to_ascii_lowercase().contains(&expected.token.to_ascii_lowercase()))
}

fn is_of_another(value: &str, expected: &Expected) -> bool {
    let value = bare(value);
    value.starts_with(&bare(PREFIX)) && !value.contains(&bare(&expected.token))
}

/// A value without what editors add and people lose.
fn bare(value: &str) -> String {
    value
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\'))
        .collect::<String>()
        .to_ascii_lowercase()
}

fn malformed_fix(value: &str, expected: &Expected) -> String {
    let proof = expected.proof();
    let what = if value.contains(['"', '\'', '\\']) {
        "The value has quotes in it: enter it without them"
    } else if value.eq_ignore_ascii_case(&proof) {
        "The value has capital and small letters mixed up: copy it as it is shown"
    } else if bare(value) == bare(&proof) {
        "The value has spaces too many or too few: copy it as it is shown"
    } else {
        "The value is not whole: copy all of it, from v1 to the end of the token"
    };
    what.to_owned()
}
