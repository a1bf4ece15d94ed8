//! What a failure means: whose it is, and what to do next. Pure.

use std::time::Duration;

use time::PrimitiveDateTime;
use time::macros::format_description;

use crate::directory::CaError;
use crate::order::INVALID;

/// What to do about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// The CA looked and did not see what it should: the school's DNS, or a firewall. Costs one of the few failures that
    /// a CA grants a name in an hour.
    Mend,
    /// The CA will never do it.
    Block,
    /// A limit of the CA.
    Wait {
        /// Whom it concerns.
        of: Limited,
        /// When it is over, milliseconds since 1970, if the CA said so.
        until_ms: Option<i64>,
    },
    /// The CA has paused the name for this account; a person lifts that on its page.
    Unpause,
    /// Nobody's fault; the same request again.
    Repeat,
    /// The CA is not well.
    Authority,
    /// The CA does not know our account.
    Account,
    /// The CA has shut our account, or wants something of the operator.
    Operator,
    /// It does not know the profile.
    Profile,
    /// It does not want to hear which certificate is replaced.
    Replacement,
    /// The order is gone or in a state that leads nowhere; a new one may do.
    Anew,
}

/// Whom a limit concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Everything this account orders.
    Account,
    /// All names under one registered domain.
    RegisteredDomain,
    /// Certificates for exactly this name.
    NameSet,
    /// This name.
    Name,
}

/// A failure, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to do.
    pub remedy: Remedy,
    /// For programs.
    pub reason: &'static str,
    /// For people, with the CA's own words.
    pub message: String,
    /// `school`, `operator` or `nobody`.
    pub who_acts: &'static str,
    /// A page of the CA that helps.
    pub link: Option<String>,
}

/// What was being done when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    /// Making an account.
    Registering,
    /// Placing an order.
    Placing,
    /// Proving the name.
    Proving,
    /// All else.
    Finishing,
}

/// Sorts a failure.
pub fn classify(error: &CaError, during: During, now_ms: i64) -> Failure {
    let message = error.to_string();
    let failure = |remedy, reason, who_acts| Failure { remedy, reason, message: message.clone(), who_acts, link: None };
    let (kind, detail, retry_after) = match error {
        CaError::Unreachable(_) | CaError::Timeout => return failure(Remedy::Authority, "ca_unavailable", "nobody"),
        CaError::Protocol(_) => return failure(Remedy::Authority, "ca_error", "nobody"),
        CaError::Status { status, retry_after, .. } => {
            return match *status {
                429 => limited(&message, *retry_after, now_ms, failure),
                404 if during != During::Placing => failure(Remedy::Anew, "order_lost", "nobody"),
                _ => failure(Remedy::Authority, "ca_unavailable", "nobody"),
            };
        }
        CaError::Problem { kind, detail, retry_after } => (kind.as_str(), detail.as_str(), *retry_after),
    };
    match kind {
        "rateLimited" => limited(detail, retry_after, now_ms, failure),
        "badNonce" | "orderNotReady" => failure(Remedy::Repeat, "ca_busy", "nobody"),
        "dns" => failure(Remedy::Mend, "dns", "school"),
        "connection" | "tls" => failure(Remedy::Mend, "unreachable", "school"),
        "incorrectResponse" => failure(Remedy::Mend, "wrong_answer", "school"),
        "caa" => failure(Remedy::Mend, "caa", "school"),
        "unauthorized" if during == During::Proving => failure(Remedy::Mend, "wrong_answer", "school"),
        "alreadyReplaced" => failure(Remedy::Replacement, "already_replaced", "nobody"),
        "rejectedIdentifier" | "unsupportedIdentifier" => failure(Remedy::Block, "rejected_by_ca", "school"),
        "invalidProfile" => failure(Remedy::Profile, "invalid_profile", "operator"),
        "accountDoesNotExist" => failure(Remedy::Account, "account_lost", "nobody"),
        "userActionRequired" | "externalAccountRequired" | "invalidContact" | "unsupportedContact" => {
            failure(Remedy::Operator, "account_refused", "operator")
        }
        "unauthorized" if during == During::Registering || names_account(detail) => {
            failure(Remedy::Operator, "account_refused", "operator")
        }
        // What CAs say of a certificate to be replaced that is another account's, or shares no name; and of an order
        // that they have forgotten.
        "malformed" | "unauthorized" | "serverInternal" if during == During::Placing => {
            failure(Remedy::Replacement, "ca_error", "nobody")
        }
        // Told to look while it was looking: the next look tells.
        "malformed" if during == During::Proving => failure(Remedy::Repeat, "ca_busy", "nobody"),
        "malformed" | "unauthorized" | INVALID => failure(Remedy::Anew, "order_lost", "nobody"),
        "badCSR" | "badPublicKey" | "badSignatureAlgorithm" => failure(Remedy::Anew, "refused_request", "operator"),
        _ => failure(Remedy::Authority, "ca_error", "nobody"),
    }
}

/// Whether a refusal is about the account and not about a name or an order.
fn names_account(detail: &str) -> bool {
    let detail = detail.to_ascii_lowercase();
    detail.contains("deactivated") || detail.contains("account is not valid") || detail.contains("revoked account")
}

fn limited(
    detail: &str,
    retry_after: Option<Duration>,
    now_ms: i64,
    failure: impl Fn(Remedy, &'static str, &'static str) -> Failure,
) -> Failure {
    let text = detail.to_ascii_lowercase();
    if let Some(link) = link_in(detail)
        && (text.contains("unpause") || text.contains("temporarily prevented"))
    {
        return Failure { link: Some(link), ..failure(Remedy::Unpause, "paused_by_ca", "operator") };
    }
    let of = if text.contains("failed authorization") || text.contains("failed validation") {
        Limited::Name
    } else if text.contains("exact set") {
        Limited::NameSet
    } else if text.contains("new orders") || text.contains("account") || text.contains("requests") {
        Limited::Account
    } else if text.contains("already issued for") {
        Limited::RegisteredDomain
    } else {
        Limited::Name
    };
    let waited = retry_after.and_then(|wait| Some(now_ms + i64::try_from(wait.as_millis()).ok()?));
    failure(Remedy::Wait { of, until_ms: waited.or_else(|| retry_after_in(detail)) }, "rate_limited", "nobody")
}

/// The first address in a text.
fn link_in(text: &str) -> Option<String> {
    let start = text.find("https://")?;
    let link: String = text[start..].chars().take_while(|c| !c.is_whitespace() && !"\"'<>)".contains(*c)).collect();
    Some(link.trim_end_matches(['.', ',']).to_owned())
}

/// `… retry after 2026-11-21 18:00:00 UTC …`, milliseconds since 1970.
fn retry_after_in(detail: &str) -> Option<i64> {
    const FORMAT: &[time::format_description::FormatItem<'_>] =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let at = detail.find("retry after ")? + "retry after ".len();
    let text = detail.get(at..at + 19)?;
    let at = PrimitiveDateTime::parse(text, FORMAT).ok()?.assume_utc();
    Some(at.unix_timestamp() * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000_000;

    fn problem(kind: &str, detail: &str) -> CaError {
        CaError::Problem { kind: kind.into(), detail: detail.into(), retry_after: None }
    }

    fn remedy(kind: &str, during: During) -> Remedy {
        classify(&problem(kind, "words"), during, NOW).remedy
    }

    #[test]
    fn what_the_school_can_mend_is_told_to_the_school() {
        for kind in ["dns", "connection", "tls", "caa", "unauthorized", "incorrectResponse"] {
            let failure = classify(&problem(kind, "No valid IP addresses found"), During::Proving, NOW);
            assert_eq!((failure.remedy, failure.who_acts), (Remedy::Mend, "school"), "{kind}");
            assert!(failure.message.contains("No valid IP addresses found"), "the CA's own words are kept");
        }
    }

    #[test]
    fn a_limit_moves_only_whom_it_names() {
        let of = |detail: &str| match classify(&problem("rateLimited", detail), During::Placing, NOW).remedy {
            Remedy::Wait { of, .. } => of,
            other => panic!("{other:?}"),
        };
        assert_eq!(of("too many new orders (300) from this account in the last 3h0m0s"), Limited::Account);
        assert_eq!(of("too many certificates (50) already issued for \"example.com\""), Limited::RegisteredDomain);
        assert_eq!(of("too many certificates (5) already issued for this exact set of identifiers"), Limited::NameSet);
        assert_eq!(of("too many failed authorizations (5) for \"a.example.com\""), Limited::Name);
        assert_eq!(of("something new"), Limited::Name, "what is not understood holds up nobody else");
    }

    #[test]
    fn how_long_is_read_from_the_header_and_else_from_the_words() {
        let until = |error: &CaError| match classify(error, During::Placing, NOW).remedy {
            Remedy::Wait { until_ms, .. } => until_ms,
            other => panic!("{other:?}"),
        };
        let words = "too many new orders, retry after 2026-11-21 18:00:00 UTC: see https://letsencrypt.org/docs/";
        assert_eq!(until(&problem("rateLimited", words)), Some(1_795_284_000_000));
        let header = CaError::Problem {
            kind: "rateLimited".into(),
            detail: words.into(),
            retry_after: Some(Duration::from_secs(60)),
        };
        assert_eq!(until(&header), Some(NOW + 60_000));
        assert_eq!(until(&problem("rateLimited", "retry after never")), None);
        let html = CaError::Status { status: 429, excerpt: String::new(), retry_after: Some(Duration::from_secs(5)) };
        assert_eq!(until(&html), Some(NOW + 5_000));
    }

    #[test]
    fn a_pause_keeps_its_link() {
        let words = "Your account is temporarily prevented from requesting certificates for a.example and possibly \
                     others. Please visit: https://portal.example/sfe/v1/unpause?jwt=abc.";
        let failure = classify(&problem("rateLimited", words), During::Placing, NOW);
        assert_eq!(failure.remedy, Remedy::Unpause);
        assert_eq!(failure.link.as_deref(), Some("https://portal.example/sfe/v1/unpause?jwt=abc"));
        assert_eq!(failure.who_acts, "operator");
    }

    #[test]
    fn a_ca_that_is_not_well_is_nobodys_fault() {
        let status = |status| CaError::Status { status, excerpt: "<html>".into(), retry_after: None };
        for error in [CaError::Timeout, CaError::Unreachable("refused".into()), status(503), status(502), status(400)] {
            let failure = classify(&error, During::Proving, NOW);
            assert_eq!((failure.remedy, failure.who_acts), (Remedy::Authority, "nobody"), "{error}");
        }
        assert_eq!(remedy("serverInternal", During::Finishing), Remedy::Authority);
        assert_eq!(remedy("badNonce", During::Finishing), Remedy::Repeat);
    }

    #[test]
    fn a_replacement_that_is_not_wanted_is_dropped() {
        for kind in ["alreadyReplaced", "malformed", "unauthorized", "serverInternal"] {
            assert_eq!(remedy(kind, During::Placing), Remedy::Replacement, "{kind}");
        }
        assert_eq!(remedy("malformed", During::Finishing), Remedy::Anew);
    }

    #[test]
    fn an_account_that_is_gone_is_not_one_that_was_shut() {
        assert_eq!(remedy("accountDoesNotExist", During::Placing), Remedy::Account);
        let shut = classify(&problem("unauthorized", "Account has been deactivated"), During::Placing, NOW);
        assert_eq!((shut.remedy, shut.who_acts), (Remedy::Operator, "operator"));
        assert_eq!(remedy("externalAccountRequired", During::Registering), Remedy::Operator);
    }
}
