//! The one path that goes before every other rule: a certificate authority looks whether a name is here (RFC 8555
//! section 8.3).
//!
//! The answer follows from the token and the thumbprint of our account, so that every proxy gives it without having been
//! told of the order. It opens nothing: a thumbprint is public, and only the holder of the account's key can use it.

use std::fmt;

use super::is_known;
use crate::model::{ChallengeAnswer, Thumbprint};
use crate::table::{Live, RoutingTable};

/// Where authorities look.
const PLACE: &str = "/.well-known/acme-challenge/";

/// Characters of a token: at least 22, the 128 bits that RFC 8555 section 8.3 wants, and at most 128, more than any
/// authority uses. A longer one would be somebody's own text in an answer of ours.
const TOKEN: std::ops::RangeInclusive<usize> = 22..=128;

/// The key authorization for a token (RFC 8555 section 8.1), as text `token.thumbprint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAuthorization<'t, 'r> {
    token: &'r str,
    thumbprint: &'t Thumbprint,
}

impl fmt::Display for KeyAuthorization<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.token, self.thumbprint)
    }
}

/// The token asked for, if the path is one where authorities look and the host is one that they may ask about: one that
/// leads to a tenant, or has a challenge (before its ownership is proven it leads nowhere).
pub(super) fn asked<'r, L: Live>(table: &RoutingTable<L>, host: &str, path: &'r str) -> Option<&'r str> {
    let token = path.strip_prefix(PLACE)?;
    (is_known(table, host) || table.challenge(host).is_some()).then_some(token)
}

/// What to answer; `None` when the token is no token, or we have no account.
pub(super) fn answer<'t, 'r, L: Live>(
    table: &'t RoutingTable<L>,
    host: &str,
    method: &str,
    token: &'r str,
) -> Option<KeyAuthorization<'t, 'r>> {
    let is_base64url = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !is_base64url || !TOKEN.contains(&token.len()) || !matches!(method, "GET" | "HEAD") {
        return None;
    }
    let own = table.challenge(host).and_then(|challenge| match &challenge.answer {
        ChallengeAnswer::Http01 { ca } => table.acme_account(ca),
        ChallengeAnswer::TlsAlpn01 { .. } => None,
    });
    let account = own.or_else(|| table.primary_acme_account())?;
    Some(KeyAuthorization { token, thumbprint: &account.thumbprint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{pool, tenant, zone};
    use crate::identity::{Refusal, RequestFacts, decide};
    use crate::model::{AcmeAccount, Challenge, Domain, Ownership, Plan, Revision, Routing, TenantState};
    use crate::snapshot::{Object, Snapshot};
    use crate::table::NoLive;

    const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
    const PRIMARY: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    const OTHER: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

    fn table(accounts: &[(&str, &str, bool)]) -> RoutingTable {
        let greenhill = tenant("greenhill", TenantState::Active);
        let domain = |name: &str, ownership| Domain {
            name: name.parse().expect("a name"),
            tenant: greenhill.id,
            primary: false,
            ownership,
            routing: Routing::Here,
            token: String::new(),
        };
        let challenge = |name: &str, answer| Challenge { name: name.parse().expect("a name"), answer, expires_at: 0 };
        let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
        objects.extend([
            pool("shared").into(),
            zone("schools.example").into(),
            domain("erp.greenhill.example", Ownership::Proven).into(),
            domain("other.greenhill.example", Ownership::Proven).into(),
            domain("early.greenhill.example", Ownership::Unproven).into(),
            domain("new.greenhill.example", Ownership::Unproven).into(),
            greenhill.clone().into(),
        ]);
        for (ca, thumbprint, primary) in accounts {
            let (ca, thumbprint) = (ca.parse().expect("a name"), thumbprint.parse().expect("a thumbprint"));
            objects.push(AcmeAccount { ca, thumbprint, primary: *primary }.into());
        }
        if accounts.len() > 1 {
            let ca = || "second".parse().expect("a name");
            objects.push(challenge("other.greenhill.example", ChallengeAnswer::Http01 { ca: ca() }).into());
            objects.push(challenge("early.greenhill.example", ChallengeAnswer::TlsAlpn01 { digest: [0; 32] }).into());
        }
        RoutingTable::from_snapshot(&Snapshot { revision: Revision(1), objects }, &NoLive, None)
            .expect("holds together")
    }

    /// What a stranger gets over plain HTTP: the text of an answer, or the name of the refusal.
    fn ask(table: &RoutingTable, method: &str, host: &str, path: &str) -> String {
        let facts = RequestFacts {
            secure: false,
            sni: None,
            authority: Some(host),
            client: [203, 0, 113, 9].into(),
            method,
            path,
            query: None,
            headers: &(),
            token: &(),
            now_ms: 0,
            chance: 0,
        };
        match decide(table, &facts) {
            Err(Refusal::Challenge(answer)) => answer.to_string(),
            Err(other) => format!("{other:?}"),
            Ok(_) => "a backend".to_owned(),
        }
    }

    #[test]
    fn names_that_lead_to_a_tenant_answer_for_the_primary_account_and_others_for_their_challenges() {
        let table = table(&[("first", PRIMARY, true), ("second", OTHER, false)]);
        let path = format!("{PLACE}{TOKEN}");
        for host in ["erp.greenhill.example", "ERP.greenhill.example:80", "greenhill.schools.example"] {
            assert_eq!(ask(&table, "GET", host, &path), format!("{TOKEN}.{PRIMARY}"), "{host}");
        }
        assert_eq!(ask(&table, "GET", "api.schools.example", &path), format!("{TOKEN}.{PRIMARY}"));
        assert_eq!(ask(&table, "HEAD", "other.greenhill.example", &path), format!("{TOKEN}.{OTHER}"));
        assert_eq!(ask(&table, "GET", "early.greenhill.example", &path), format!("{TOKEN}.{PRIMARY}"));
        for unknown in ["new.greenhill.example", "nobody.schools.example", "schools.example", "evil.example"] {
            assert_eq!(ask(&table, "GET", unknown, &path), "UnknownHost", "{unknown}");
        }
    }

    #[test]
    fn what_is_no_token_gets_no_answer_and_is_not_repeated() {
        let table = table(&[("first", PRIMARY, true)]);
        let long = "a".repeat(128);
        assert_eq!(ask(&table, "GET", "erp.greenhill.example", &format!("{PLACE}{long}")), format!("{long}.{PRIMARY}"));
        let bad = ["", "short", &TOKEN[..21], &format!("{long}a"), &format!("{TOKEN}/x"), &format!("{}<b>", TOKEN)];
        for token in bad {
            let said = ask(&table, "GET", "erp.greenhill.example", &format!("{PLACE}{token}"));
            assert_eq!(said, "NoChallenge", "{token}");
        }
        assert_eq!(ask(&table, "POST", "erp.greenhill.example", &format!("{PLACE}{TOKEN}")), "NoChallenge");
        let beside = format!("/.well-known/acme-challenges/{TOKEN}");
        assert_eq!(ask(&table, "GET", "erp.greenhill.example", &beside), "Plain");
    }

    #[test]
    fn without_an_account_there_is_nothing_to_say() {
        let path = format!("{PLACE}{TOKEN}");
        assert_eq!(ask(&table(&[]), "GET", "erp.greenhill.example", &path), "NoChallenge");
    }
}
