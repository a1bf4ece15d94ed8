//! The latest attempts at another tenant: requests whose identifiers named two.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use schoolgate_config::feed;
use schoolgate_config::model::{Slug, TenantId};
use schoolgate_config::time::rfc3339;
use serde::Serialize;

use super::Mismatch;

/// Attempts that are kept: 256, some 100 kB. They are counted in `schoolgate_identity_mismatch_total` and logged, each;
/// this is what an operator looks at first.
const KEPT: usize = 256;

/// A request whose identifiers named two tenants. It was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossTenantAttempt {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Our identifier of the request.
    pub request_id: String,
    /// Who asked.
    pub client: Option<IpAddr>,
    /// The host, normalised.
    pub host: String,
    /// The tenant it was for: id and slug.
    pub tenant: Option<(TenantId, Slug)>,
    /// What disagreed.
    pub kind: Mismatch,
    /// What it said, shortened, without control characters.
    pub named: Box<str>,
}

/// The form in which attempts are told.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    event: &'a str,
    at: String,
    request_id: &'a str,
    client: Option<IpAddr>,
    host: &'a str,
    tenant: Option<&'a Slug>,
    tenant_id: Option<&'a TenantId>,
    kind: &'a str,
    named: &'a str,
}

impl CrossTenantAttempt {
    /// Its name as an event.
    pub const EVENT: &'static str = "security.cross_tenant_attempt";
}

impl Serialize for CrossTenantAttempt {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Event {
            event: Self::EVENT,
            at: rfc3339(self.at_ms),
            request_id: &self.request_id,
            client: self.client,
            host: &self.host,
            tenant: self.tenant.as_ref().map(|(_, slug)| slug),
            tenant_id: self.tenant.as_ref().map(|(id, _)| id),
            kind: self.kind.as_str(),
            named: &self.named,
        }
        .serialize(serializer)
    }
}

impl From<CrossTenantAttempt> for feed::CrossTenantAttempt {
    fn from(attempt: CrossTenantAttempt) -> Self {
        let (tenant, tenant_slug) = attempt.tenant.unzip();
        Self {
            at_ms: attempt.at_ms,
            request_id: attempt.request_id,
            client: attempt.client,
            host: attempt.host,
            tenant,
            tenant_slug,
            kind: attempt.kind.as_str().to_owned(),
            named: attempt.named.into(),
        }
    }
}

/// The latest attempts.
#[derive(Debug, Default)]
pub(super) struct Crossings(Mutex<VecDeque<CrossTenantAttempt>>);

impl Crossings {
    pub(super) fn add(&self, attempt: CrossTenantAttempt) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() >= KEPT {
            latest.pop_front();
        }
        latest.push_back(attempt);
    }

    /// The latest first.
    pub(super) fn latest(&self) -> Vec<CrossTenantAttempt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_told_first() {
        let crossings = Crossings::default();
        for n in 0..KEPT + 10 {
            crossings.add(CrossTenantAttempt {
                at_ms: 1_700_000_000_000,
                request_id: n.to_string(),
                client: None,
                host: "ash.example".into(),
                tenant: None,
                kind: Mismatch::Header,
                named: "birch".into(),
            });
        }
        let latest = crossings.latest();
        assert_eq!((latest.len(), latest[0].request_id.as_str()), (KEPT, "265"));
        let json = serde_json::to_value(&latest[0]).expect("JSON");
        assert_eq!((&json["type"], &json["kind"]), (&CrossTenantAttempt::EVENT.into(), &"header".into()));
    }
}
