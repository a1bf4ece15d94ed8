//! What an answer proves.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::cases::{Case, Expected};
use super::connection::Reply;
use super::{IsolationRow, Subject};

/// How it is known for whom a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The backends say it at `/whoami`, as the school app does.
    Whoami,
    /// The backends do not say it: an answer of theirs counts as one for the school whose host was asked. What should be
    /// refused is told by the gateway's own answer all the same.
    Status,
}

/// What the gateway answers to what it does not let through.
const REFUSALS: [(u16, &str); 10] = [
    (400, "BAD_REQUEST"),
    (400, "TENANT_NOT_FOUND"),
    (401, "MISSING_TOKEN"),
    (401, "INVALID_TOKEN"),
    (401, "INVALID_TOKEN_FORMAT"),
    (401, "TOKEN_EXPIRED"),
    (403, "TENANT_MISMATCH"),
    (403, "TENANT_NOT_ACTIVE"),
    (404, "TENANT_NOT_ACTIVE"),
    (421, "MISDIRECTED"),
];

impl Evidence {
    /// What there is, by the answers to requests without a trick.
    pub(super) fn of<'a>(mut replies: impl Iterator<Item = &'a Reply>) -> Self {
        if replies.all(|reply| answered_for(reply).is_some()) { Self::Whoami } else { Self::Status }
    }
}

/// The row of a trick.
pub(super) fn row(case: &Case, reply: &Reply, evidence: Evidence, a: &Subject, b: &Subject) -> IsolationRow {
    let (expected, ok) = match &case.expected {
        Expected::For(slug) => (format!("answered for {slug}"), is_for(reply, slug, evidence, a, b)),
        Expected::Refusal => ("refused".to_owned(), is_refused(reply)),
        Expected::ForOrRefusal(slug) => {
            (format!("answered for {slug}, or refused"), is_refused(reply) || is_for(reply, slug, evidence, a, b))
        }
    };
    IsolationRow { case: case.name.clone(), protocol: case.protocol().as_str(), expected, got: words(reply), ok }
}

fn is_refused(reply: &Reply) -> bool {
    match reply {
        Reply::HandshakeRefused(_) | Reply::Closed => true,
        // What the HTTP/2 layer refuses before a request exists has no page.
        Reply::Answer { status: 400, body: Value::Null } => true,
        Reply::Answer { status, body } => code(body).is_some_and(|code| REFUSALS.contains(&(*status, code))),
        Reply::Unreachable(_) | Reply::Certificate(_) | Reply::Silent => false,
    }
}

fn is_for(reply: &Reply, slug: &str, evidence: Evidence, a: &Subject, b: &Subject) -> bool {
    let Reply::Answer { status, body } = reply else { return false };
    if is_refused(reply) || *status >= 500 {
        return false;
    }
    match evidence {
        Evidence::Status => true,
        Evidence::Whoami => {
            let other = if slug == a.slug { b } else { a };
            answered_for(reply) == Some(slug) && !names(body, other)
        }
    }
}

/// Whether a field that says who the tenant is reached the backend with another school in it.
fn names(body: &Value, other: &Subject) -> bool {
    let headers = body.get("headers").and_then(Value::as_object).into_iter().flatten();
    let ours = headers.filter(|(name, _)| {
        let plain = name.replace('_', "-");
        plain.starts_with("x-tenant") || plain == "x-subdomain"
    });
    let id = other.id.to_string();
    let mut values = ours.filter_map(|(_, value)| value.as_str());
    values.any(|value| value.split(", ").any(|value| value == other.slug || value == id))
}

fn answered_for(reply: &Reply) -> Option<&str> {
    match reply {
        Reply::Answer { status: 200, body } => body.pointer("/tenant/slug")?.as_str(),
        _ => None,
    }
}

fn code(body: &Value) -> Option<&str> {
    body.get("error")?.as_str()
}

fn words(reply: &Reply) -> String {
    match reply {
        Reply::Answer { status, body } => match (answered_for(reply), code(body)) {
            (Some(slug), _) => format!("{status} for {}", printable(slug)),
            (None, Some(code)) => format!("{status} {}", printable(code)),
            (None, None) => status.to_string(),
        },
        Reply::HandshakeRefused(why) => format!("handshake refused: {why}"),
        Reply::Closed => "connection closed".to_owned(),
        Reply::Certificate(name) => format!("a certificate that is not for {name}"),
        Reply::Silent => "no answer in time".to_owned(),
        Reply::Unreachable(why) => format!("not reached: {why}"),
    }
}

/// What a stranger's server says is shown on a terminal.
fn printable(text: &str) -> String {
    text.chars().take(60).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cases::{Protocol, alone, tricks};
    use super::*;

    fn subject(n: u128, slug: &str) -> Subject {
        let id = schoolgate_config::model::TenantId::from_parts(1, n);
        Subject {
            id,
            slug: slug.to_owned(),
            host: format!("{slug}.schools.example"),
            shared_host: Some("api.schools.example".to_owned()),
        }
    }

    fn whoami(slug: &str, seen: &str) -> Reply {
        Reply::Answer { status: 200, body: json!({"tenant": {"slug": slug}, "headers": {"x-tenant-slug": seen}}) }
    }

    #[test]
    fn an_answer_for_the_other_school_is_a_crossing_whatever_was_expected() {
        let (a, b) = (subject(1, "ash"), subject(2, "birch"));
        for case in tricks(&a, &b, None).iter().chain([&alone(&a, Protocol::H1)]) {
            assert!(!row(case, &whoami("birch", "birch"), Evidence::Whoami, &a, &b).ok, "{}", case.name);
            assert!(!row(case, &whoami("ash", "ash, birch"), Evidence::Whoami, &a, &b).ok, "{}", case.name);
            assert!(!row(case, &Reply::Silent, Evidence::Whoami, &a, &b).ok, "{}", case.name);
        }
        assert!(row(&alone(&a, Protocol::H2), &whoami("ash", "ash"), Evidence::Whoami, &a, &b).ok);
    }

    #[test]
    fn a_backends_own_404_is_no_refusal_of_the_gateway() {
        let of_backend = Reply::Answer { status: 404, body: json!({"error": "NO_SUCH_PAGE"}) };
        let of_gateway = Reply::Answer { status: 404, body: json!({"error": "TENANT_NOT_ACTIVE"}) };
        assert!(!is_refused(&of_backend) && is_refused(&of_gateway));
        assert!(is_refused(&Reply::Answer { status: 400, body: Value::Null }), "HTTP/2 has no page of ours");
        assert!(!is_refused(&Reply::Answer { status: 400, body: json!("") }), "some page");
        let (a, b) = (subject(1, "ash"), subject(2, "birch"));
        assert!(is_for(&of_backend, "ash", Evidence::Status, &a, &b));
        assert!(!is_for(&of_gateway, "ash", Evidence::Status, &a, &b));
    }

    #[test]
    fn there_is_evidence_only_when_every_backend_says_for_whom() {
        let silent = Reply::Answer { status: 200, body: Value::Null };
        assert_eq!(Evidence::of([whoami("ash", ""), whoami("birch", "")].iter()), Evidence::Whoami);
        assert_eq!(Evidence::of([whoami("ash", ""), silent].iter()), Evidence::Status);
    }
}
