//! A domain as the API shows it: where it stands, and what is in the way.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{
    CertificateState, Domain, DomainName, Ownership, Routing, Slug, Tenant, TenantId, TenantState,
};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::rfc3339;
use schoolgate_dns::life::{CLAIM_MS, LEFT_AFTER_MS, TRANSFER_NOTICE_MS};
use schoolgate_dns::{Axis, Finding, Life, WhoActs};
use schoolgate_store::{CertificateWant, DomainCheck, DomainTransfer, Stored, WantState};

use super::records::{DnsRecord, assumed_owned, records};
use crate::operation::{Platform, Stamp};

/// A domain as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DomainView {
    /// The name.
    name: DomainName,
    /// Whose it is.
    tenant: TenantId,
    /// The slug of whose it is.
    tenant_slug: Option<Slug>,
    /// Whether it is the tenant's main name.
    primary: bool,
    /// Whether requests for it are served, with a certificate.
    ready: bool,
    /// Whether the tenant has proven that the name is its own.
    ownership: Ownership,
    /// Where the name points.
    routing: Routing,
    /// Where its certificate stands.
    certificate: CertificateState,
    /// When the certificate ends.
    #[schema(format = DateTime)]
    certificate_expires_at: Option<String>,
    /// What is in the way of `ready`, in the order to mend it.
    blocking: Vec<Blocking>,
    /// What is wrong and not yet in the way: it will be, when it is left so.
    warnings: Vec<Blocking>,
    /// When its DNS was last looked at.
    #[schema(format = DateTime)]
    checked_at: Option<String>,
    /// When it will be looked at next; `null`: when somebody asks for a check.
    #[schema(format = DateTime)]
    next_check_at: Option<String>,
    /// Until when it is served although its proof is missing.
    #[schema(format = DateTime)]
    served_until: Option<String>,
    /// Since when its name has been seen pointing elsewhere.
    #[schema(format = DateTime)]
    away_since: Option<String>,
    /// Another tenant that asks for it.
    transfer: Option<TransferView>,
    /// What the school sets in its DNS.
    records: Vec<DnsRecord>,
    #[serde(flatten)]
    stamp: Stamp,
}

/// One thing that is wrong with a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Blocking {
    /// What of the domain it is about: `ownership`, `routing`, `certificate` or `tenant`.
    axis: &'static str,
    /// What.
    code: String,
    /// What should be.
    expected: String,
    /// What is; `null` when nobody has looked yet, or nothing is there.
    found: Option<String>,
    /// Who said so.
    resolver: Option<String>,
    /// Who must act: `school`, `operator` or `nobody`.
    who_acts: WhoActs,
    /// What to do.
    fix: String,
}

impl From<&Finding> for Blocking {
    fn from(finding: &Finding) -> Self {
        let axis = match finding.axis {
            Axis::Ownership => "ownership",
            Axis::Routing => "routing",
            Axis::Certificate => "certificate",
        };
        Self {
            axis,
            code: crate::operation::json(&finding.code).as_str().unwrap_or_default().to_owned(),
            expected: finding.expected.clone(),
            found: finding.found.clone(),
            resolver: finding.resolver.clone(),
            who_acts: finding.who_acts,
            fix: finding.fix.clone(),
        }
    }
}

/// Another tenant that asks for a domain.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct TransferView {
    /// Who asks.
    pub(super) tenant: TenantId,
    /// When it asked.
    #[schema(format = DateTime)]
    pub(super) requested_at: String,
    /// When the request ends by itself, if its proof is not seen before.
    #[schema(format = DateTime)]
    pub(super) expires_at: String,
    /// When its proof was seen first.
    #[schema(format = DateTime)]
    pub(super) proven_at: Option<String>,
    /// When the domain becomes its own, if the proof is still there.
    #[schema(format = DateTime)]
    pub(super) moves_at: Option<String>,
}

impl TransferView {
    /// How a transfer is shown.
    pub(super) fn of(transfer: &DomainTransfer) -> Self {
        Self {
            tenant: transfer.tenant,
            requested_at: rfc3339(transfer.requested_at_ms),
            expires_at: rfc3339(transfer.requested_at_ms + CLAIM_MS),
            proven_at: transfer.proven_at_ms.map(rfc3339),
            moves_at: transfer.proven_at_ms.map(|at| rfc3339(at + TRANSFER_NOTICE_MS)),
        }
    }
}

/// What a domain is seen with.
pub(crate) struct Surroundings<'a> {
    /// Everything committed.
    pub(crate) table: &'a RoutingTable,
    /// What the settings say.
    pub(crate) platform: &'a Platform,
    /// Where its certificate stands.
    pub(crate) want: Option<CertificateWant>,
    /// What the checks of its DNS found.
    pub(crate) check: Option<DomainCheck>,
    /// Another tenant that asks for it.
    pub(crate) transfer: Option<DomainTransfer>,
    /// Milliseconds since 1970.
    pub(crate) now_ms: i64,
}

/// How the API shows a domain.
pub(crate) fn view(stored: &Stored<Domain>, tenant: Option<&Tenant>, around: &Surroundings<'_>) -> DomainView {
    let domain = &stored.value;
    let (certificate, not_after) = certificate_state(around);
    let active = tenant.is_some_and(Tenant::is_active);
    let check = around.check.as_ref();
    let life: Life = check.map(|check| read(&check.life)).unwrap_or_default();
    let findings: Vec<Finding> = check.map(|check| read(&check.findings)).unwrap_or_default();
    let (blocking, warnings) = Judged { domain, tenant, certificate, around, life: &life, findings: &findings }.split();
    let looked_at = !assumed_owned(&domain.name, around.platform);
    let next = check.and_then(|check| check.next_check_ms).filter(|_| looked_at);
    DomainView {
        name: domain.name.clone(),
        tenant: domain.tenant,
        tenant_slug: tenant.map(|tenant| tenant.slug.clone()),
        primary: domain.primary,
        ready: domain.ownership == Ownership::Proven
            && domain.routing == Routing::Here
            && certificate == CertificateState::Issued
            && active,
        ownership: domain.ownership,
        routing: domain.routing,
        certificate,
        certificate_expires_at: not_after.map(|s| rfc3339(s.saturating_mul(1_000))),
        blocking,
        warnings,
        checked_at: check.and_then(|check| check.checked_at_ms).map(rfc3339),
        next_check_at: next.map(|at| rfc3339(at.max(around.now_ms))),
        served_until: life.served_until_ms().map(rfc3339),
        away_since: life.away_since_ms().map(rfc3339),
        transfer: around.transfer.as_ref().map(TransferView::of),
        records: records(domain, around),
        stamp: Stamp::of(stored),
    }
}

/// Where a certificate stands, and when it ends (seconds since 1970).
fn certificate_state(around: &Surroundings<'_>) -> (CertificateState, Option<i64>) {
    let Some(want) = &around.want else { return (CertificateState::None, None) };
    let held = want.fingerprint.as_ref().and_then(|fingerprint| around.table.certificate(fingerprint));
    let not_after = held.map(|certificate| certificate.about.not_after);
    let usable = not_after.is_some_and(|end| end.saturating_mul(1_000) > around.now_ms);
    let state = match (want.state, not_after) {
        // One that still serves is usable, whatever became of its renewal.
        (_, Some(_)) if usable => CertificateState::Issued,
        (WantState::Failing, _) => CertificateState::Failing,
        (_, Some(_)) => CertificateState::Expired,
        // The table of the process may be a moment behind the row.
        (WantState::Issued, None) => CertificateState::Issued,
        (WantState::Queued, None) => CertificateState::Queued,
    };
    (state, not_after)
}

/// What was kept of a check; what another release kept may read differently, and the next check mends it.
fn read<T: serde::de::DeserializeOwned + Default>(kept: &Value) -> T {
    serde_json::from_value(kept.clone()).unwrap_or_default()
}

/// Everything that is known of a domain.
struct Judged<'a> {
    domain: &'a Domain,
    tenant: Option<&'a Tenant>,
    certificate: CertificateState,
    around: &'a Surroundings<'a>,
    life: &'a Life,
    findings: &'a [Finding],
}

impl Judged<'_> {
    /// What is in the way, and what will be.
    fn split(&self) -> (Vec<Blocking>, Vec<Blocking>) {
        let stands = |axis| match axis {
            Axis::Ownership => self.domain.ownership == Ownership::Proven,
            Axis::Routing => self.domain.routing == Routing::Here,
            Axis::Certificate => self.certificate == CertificateState::Issued,
        };
        let (mut blocking, mut warnings) = (Vec::new(), Vec::new());
        for axis in [Axis::Ownership, Axis::Routing, Axis::Certificate] {
            let found = self.findings.iter().filter(|finding| finding.axis == axis).map(Blocking::from);
            if stands(axis) {
                // A proof that an alias keeps is as good.
                let kept = axis == Axis::Ownership && self.life.served_until_ms().is_none();
                warnings.extend(found.filter(|_| !kept));
                continue;
            }
            let before = blocking.len();
            blocking.extend(found);
            match axis {
                Axis::Ownership => blocking.extend(self.ownership(blocking.len() == before)),
                Axis::Routing => blocking.extend(self.routing(blocking.len() == before)),
                Axis::Certificate => blocking.extend(self.certificate()),
            }
        }
        blocking.extend(self.tenant());
        (blocking, warnings)
    }

    fn record(&self, purpose: &str) -> String {
        let records = records(self.domain, self.around);
        records.iter().find(|record| record.purpose == purpose).map_or_else(String::new, DnsRecord::text)
    }

    fn ownership(&self, unexplained: bool) -> Option<Blocking> {
        let expected = self.record("ownership");
        let set = format!("Set this record where {} is managed: {expected}", self.domain.name);
        let (code, fix) = match self.domain.ownership {
            Ownership::Lapsed => ("OWNERSHIP_LAPSED", set),
            _ if self.life.is_expired() => {
                let fix = format!(
                    "Nobody looks at {} any more: set the record, then ask for a check (POST domains/{}/check)",
                    self.domain.name, self.domain.name
                );
                ("CLAIM_EXPIRED", fix)
            }
            _ if unexplained => ("OWNERSHIP_UNPROVEN", set),
            _ => return None,
        };
        Some(blocked("ownership", code, expected, None, (WhoActs::School, fix)))
    }

    fn routing(&self, unexplained: bool) -> Option<Blocking> {
        let expected = self.record("routing");
        if self.domain.routing == Routing::Left {
            let days = LEFT_AFTER_MS / schoolgate_dns::life::DAY_MS;
            let fix = format!(
                "{} has pointed elsewhere for {days} days: its certificate is no longer renewed. Point it here again, or \
                 remove the domain",
                self.domain.name
            );
            let found = Some("left".to_owned());
            return Some(blocked("routing", "DOMAIN_LEFT", expected, found, (WhoActs::School, fix)));
        }
        let found = match self.domain.routing {
            Routing::Elsewhere => "elsewhere",
            Routing::Partial => "partial",
            Routing::Drifted => "drifted",
            Routing::Left => "left",
            Routing::Here => "here",
        };
        let fix = format!("Point {} at the gateway: {expected}", self.domain.name);
        let found = Some(found.to_owned());
        unexplained.then(|| blocked("routing", "NOT_POINTING_HERE", expected, found, (WhoActs::School, fix)))
    }

    fn certificate(&self) -> Option<Blocking> {
        let error = || self.around.want.as_ref().and_then(|want| want.error.clone());
        let (code, found, fix) = match self.certificate {
            CertificateState::Issued => return None,
            CertificateState::None => (
                "CERTIFICATE_NOT_ORDERED",
                "none".to_owned(),
                "Nothing to do here: it is ordered when the ownership is proven",
            ),
            CertificateState::Queued => ("CERTIFICATE_PENDING", "queued".to_owned(), "Wait: it is being issued"),
            CertificateState::Failing => (
                "CERTIFICATE_FAILING",
                error().unwrap_or_else(|| "the last attempt failed".to_owned()),
                "It is tried again by itself; the reason is in `found`",
            ),
            CertificateState::Expired => (
                "CERTIFICATE_EXPIRED",
                error().unwrap_or_else(|| "expired".to_owned()),
                "It is tried again by itself; look at the certificates of the gateway",
            ),
        };
        let expected = "a usable certificate".to_owned();
        Some(blocked("certificate", code, expected, Some(found), (WhoActs::Nobody, fix.to_owned())))
    }

    fn tenant(&self) -> Option<Blocking> {
        let state = self.tenant.map_or(TenantState::Deleting, |tenant| tenant.state);
        (state != TenantState::Active).then(|| {
            let fix = "Resume the tenant (POST tenants/{id}/resume, or restore when it is archived)".to_owned();
            let found = Some(state.as_str().to_owned());
            blocked("tenant", "TENANT_NOT_ACTIVE", "active".to_owned(), found, (WhoActs::Operator, fix))
        })
    }
}

fn blocked(
    axis: &'static str,
    code: &str,
    expected: String,
    found: Option<String>,
    (who_acts, fix): (WhoActs, String),
) -> Blocking {
    Blocking { axis, code: code.to_owned(), expected, found, resolver: None, who_acts, fix }
}
