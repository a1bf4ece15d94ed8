//! Certificates: what operators bring, take away and revoke. A private key comes in here and never leaves.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use schoolgate_config::model::{Certificate, CertificateRef, Der, Domain, DomainName, Fingerprint, Slug, TenantId};
use schoolgate_config::seal::Keeper;
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::rfc3339;
use schoolgate_store::{Aggregate, Revocation, RevocationReason, RevocationState, Store, Stored};

use super::document::{Errors, Place, Readable, Text, read, readable};
use super::permission::{Operator, Subject};
use super::tenants::tenant_of;
use super::{Done, Refusal, What, Work};
use crate::brought::{self, Brought, BroughtError};

/// Characters of PEM in one field: 256 KiB, ten certificates of any kind.
const LONGEST_PEM: usize = 262_144;

/// A certificate that an operator brings.
#[derive(ToSchema)]
pub(crate) struct CertificateInput {
    /// PEM: the certificate and those that lead from it to a root. Its order is mended.
    #[schema(value_type = String)]
    chain: Pem,
    /// PEM: its private key (PKCS#8, PKCS#1 or SEC 1), not encrypted. It is sealed at once and never shown again.
    #[schema(value_type = String)]
    key: Pem,
    /// Whose it is: `tnt_…` or a slug. Only names of this tenant are served with it.
    tenant: Option<Text<1, 80>>,
    /// Names to serve with it; every name of it that is proven here if not given.
    #[serde(default)]
    domains: Vec<DomainName>,
}
readable!(CertificateInput { chain, key, tenant, domains = Vec::new() });

/// Text with line ends of any kind, wiped when it is dropped. It has no `Debug`, and errors do not repeat it.
struct Pem(Zeroizing<String>);

impl Readable for Pem {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        match value.as_str() {
            None => errors.add(at, "wrong_type", "expected PEM as a string"),
            Some(text) if text.len() > LONGEST_PEM => {
                errors.add(at, "too_long", format!("at most {LONGEST_PEM} bytes are allowed"));
            }
            Some(text) => return Some(Self(Zeroizing::new(text.to_owned()))),
        }
        None
    }
}

/// A certificate as the API shows it; never a key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CertificateDetail {
    /// SHA-256 of the leaf, hexadecimal.
    fingerprint: Fingerprint,
    /// Names it serves: exact, or `*.zone`.
    names: Vec<String>,
    /// Where it comes from: `internal`, `acme` or `uploaded`.
    issuer: String,
    /// Whose names it serves, if all are of one tenant.
    tenant: Option<TenantId>,
    /// The slug of that tenant.
    tenant_slug: Option<Slug>,
    /// Begin of its validity.
    #[schema(format = DateTime)]
    not_before: String,
    /// End of its validity.
    #[schema(format = DateTime)]
    not_after: String,
    /// Certificates in its chain, itself included.
    chain_length: usize,
    /// When and why it was revoked.
    revoked: Option<RevokedView>,
    /// What was mended when it came, and what clients may not like; only in the answer to its upload.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<String>,
}

/// A revocation as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevokedView {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Who.
    by: String,
    /// Why.
    reason: &'static str,
    /// Whether its CA knows. Of one that was brought: whoever ordered it has to tell its CA.
    told: bool,
    /// Why telling its CA failed the last time.
    error: Option<String>,
}

impl From<&Revocation> for RevokedView {
    fn from(revocation: &Revocation) -> Self {
        let (told, error) = match &revocation.state {
            RevocationState::Requested { error } => (false, error.clone()),
            RevocationState::Done { .. } => (revocation.issuer != CertificateRef::UPLOADED, None),
        };
        let (at, by) = (rfc3339(revocation.at_ms), revocation.actor.clone());
        Self { at, by, reason: revocation.reason.as_str(), told, error }
    }
}

impl CertificateDetail {
    fn of(certificate: &Certificate, table: &RoutingTable) -> Self {
        let about = &certificate.about;
        let owner = owner(&about.names, table);
        Self {
            fingerprint: about.fingerprint,
            names: about.names.clone(),
            issuer: about.issuer.clone(),
            tenant: owner,
            tenant_slug: owner.and_then(|id| table.tenant(&id)).map(|entry| entry.tenant.slug.clone()),
            not_before: rfc3339(about.not_before.saturating_mul(1_000)),
            not_after: rfc3339(about.not_after.saturating_mul(1_000)),
            chain_length: certificate.chain.len(),
            revoked: None,
            notices: Vec::new(),
        }
    }
}

/// The one tenant that has all these names, if there is one.
fn owner(names: &[String], table: &RoutingTable) -> Option<TenantId> {
    let mut owners = names.iter().map(|name| table.tenant_of_domain(name).map(|entry| entry.tenant.id));
    let first = owners.next().flatten()?;
    owners.all(|owner| owner == Some(first)).then_some(first)
}

impl From<BroughtError> for Refusal {
    fn from(error: BroughtError) -> Self {
        let (pointer, code) = error.place();
        Self::invalid(pointer, code, error.to_string())
    }
}

/// One certificate, in service or revoked.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) async fn get(store: &Store, operator: &Operator, text: &str) -> Result<Value, Refusal> {
    operator.may_everywhere(Subject::Certificates.read())?;
    let fingerprint = fingerprint(text)?;
    let head = store.head();
    let revocation = store.revocation(&fingerprint).await?;
    let revoked = revocation.as_ref().map(RevokedView::from);
    if let Some(certificate) = head.table.certificate(&fingerprint) {
        return Ok(super::json(&CertificateDetail { revoked, ..CertificateDetail::of(certificate, &head.table) }));
    }
    let Some(revocation) = revocation else { return Err(missing(&fingerprint)) };
    let (fingerprint, names, issuer) = (revocation.fingerprint, revocation.names, revocation.issuer);
    Ok(json!({ "fingerprint": fingerprint, "names": names, "issuer": issuer, "revoked": revoked }))
}

/// The chain of a certificate, PEM: what every client is shown anyway.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) fn chain(store: &Store, operator: &Operator, text: &str) -> Result<String, Refusal> {
    operator.may_everywhere(Subject::Certificates.read())?;
    let fingerprint = fingerprint(text)?;
    let head = store.head();
    let certificate = head.table.certificate(&fingerprint).ok_or_else(|| missing(&fingerprint))?;
    Ok(brought::pem(certificate.chain.iter().map(|der| &**der)))
}

fn fingerprint(text: &str) -> Result<Fingerprint, Refusal> {
    text.to_ascii_lowercase().replace(':', "").parse().map_err(|_| Refusal::not_found("certificate"))
}

fn missing(fingerprint: &Fingerprint) -> Refusal {
    Refusal::not_found(&Certificate::object_key(fingerprint).to_string())
}

/// Takes a certificate into service. `now` is in seconds since 1970.
///
/// # Errors
/// [`Refusal::Invalid`] says what is wrong with it; [`Refusal::Conflict`] when it is here; [`Refusal::Forbidden`].
pub(crate) async fn upload(work: &mut Work, keeper: &Keeper, body: &Value) -> Result<Done, Refusal> {
    work.operator.may(Subject::Certificates.write())?;
    let mut errors = Errors::default();
    let input = read::<CertificateInput>(body, &mut errors);
    let table = work.transaction.table();
    let named = input.as_ref().and_then(|input| input.tenant.as_ref());
    let tenant = named.and_then(|text| tenant_of(&text.0, table, &mut errors));
    let input = errors.ok(input).map_err(Refusal::Invalid)?;
    let now_ms = work.transaction.now_ms();
    let brought = Brought::read(&input.chain.0, &input.key.0, now_ms.div_euclid(1_000))?;
    let names = served(&brought, tenant, &input.domains, table)?;
    match owner(&names, table) {
        Some(tenant) => work.operator.may_with(Subject::Certificates.write(), tenant)?,
        None => work.operator.may_everywhere(Subject::Certificates.write())?,
    }
    let fingerprint = Fingerprint::of(brought.chain.first().map(Vec::as_slice).unwrap_or_default());
    if work.store.revocation(&fingerprint).await?.is_some() {
        return Err(conflict("CERTIFICATE_REVOKED", format!("the certificate {fingerprint} was revoked here")));
    }
    let certificate = Certificate {
        about: CertificateRef {
            fingerprint,
            names,
            not_before: brought.not_before,
            not_after: brought.not_after,
            issuer: CertificateRef::UPLOADED.to_owned(),
        },
        chain: brought.chain.into_iter().map(Der::from).collect(),
        key: keeper.seal(Certificate::KEY_PURPOSE, &fingerprint.to_string(), &brought.key),
    };
    let stored = work.transaction.upload_certificate(certificate).await?;
    let table = work.transaction.table();
    let detail = CertificateDetail { notices: brought.notices, ..CertificateDetail::of(&stored.value, table) };
    Ok(done(&stored, What::Created, "upload", super::json(&detail), super::json(&stored.value.about)))
}

/// Names of a certificate that are to be served with it.
///
/// Exact names, and no wildcard but a zone's: under a wildcard of a school's own, a name that another school proves
/// tomorrow would be served with this one's certificate.
fn served(
    brought: &Brought,
    tenant: Option<TenantId>,
    wanted: &[DomainName],
    table: &RoutingTable,
) -> Result<Vec<String>, Refusal> {
    let covers = |name: &DomainName| {
        let wildcard = name.parent().map(|parent| format!("*.{parent}"));
        brought.names.iter().any(|own| own == name.as_str() || Some(own) == wildcard.as_ref())
    };
    let is_theirs = |domain: &Domain| domain.is_routable() && tenant.is_none_or(|tenant| domain.tenant == tenant);
    let mut errors = Errors::default();
    let mut names = BTreeSet::new();
    for (place, name) in wanted.iter().enumerate() {
        let at = Place::root().member("domains").element(place);
        match table.domain(name.as_str()) {
            None => errors.add(&at, "not_found", format!("{name} is no domain here")),
            Some(domain) if !domain.is_routable() => {
                errors.add(&at, "not_proven", format!("it is not proven that {name} belongs to its tenant"));
            }
            Some(domain) if !is_theirs(domain) => {
                errors.add(&at, "other_tenant", format!("{name} belongs to another tenant"));
            }
            Some(_) if !covers(name) => {
                let own = brought.names.join(", ");
                errors.add(&at, "not_covered", format!("the certificate is not for {name}, but for {own}"));
            }
            Some(_) => {
                names.insert(name.to_string());
            }
        }
    }
    errors.ok(Some(())).map_err(Refusal::Invalid)?;
    if wanted.is_empty() {
        let covered = table.domains().filter(|domain| is_theirs(domain) && covers(&domain.name));
        names.extend(covered.map(|domain| domain.name.to_string()));
        let is_zone = |name: &&String| name.strip_prefix("*.").is_some_and(|zone| table.zone(zone).is_some());
        if tenant.is_none() {
            names.extend(brought.names.iter().filter(is_zone).cloned());
        }
    }
    if names.is_empty() {
        let own = brought.names.join(", ");
        let whose = if tenant.is_some() { "that the tenant has proven" } else { "that is proven here, and no zone" };
        return Err(Refusal::invalid("/chain", "no_names", format!("it is for {own}: none is a domain {whose}")));
    }
    Ok(names.into_iter().collect())
}

fn conflict(code: &'static str, message: String) -> Refusal {
    Refusal::Conflict { code, message, pointer: None }
}

fn done(stored: &Stored<Certificate>, what: What, verb: &str, object: Value, summary: Value) -> Done {
    let fingerprint = stored.value.about.fingerprint;
    Done {
        what,
        object,
        version: Some(stored.version),
        path: format!("certificates/{fingerprint}"),
        action: format!("certificate.{verb}"),
        about: Certificate::object_key(&fingerprint).to_string(),
        summary,
        names: Vec::new(),
        again: None,
    }
}

/// The certificate at a path, if the operator may change it.
async fn changeable(work: &mut Work, text: &str) -> Result<Stored<Certificate>, Refusal> {
    work.operator.may(Subject::Certificates.write())?;
    let stored = work.existing::<Certificate>(&fingerprint(text)?).await?;
    match owner(&stored.value.about.names, work.transaction.table()) {
        Some(tenant) => work.operator.may_with(Subject::Certificates.write(), tenant)?,
        None => work.operator.may_everywhere(Subject::Certificates.write())?,
    }
    work.check_version(&stored)?;
    Ok(stored)
}

/// Removes a certificate that was brought. Those that were issued for its names serve from then on.
///
/// # Errors
/// [`Refusal::Conflict`] for one that was issued; [`Refusal::NotFound`], [`Refusal::Stale`], [`Refusal::Forbidden`].
pub(crate) async fn delete(work: &mut Work, text: &str) -> Result<Done, Refusal> {
    let stored = changeable(work, text).await?;
    let about = &stored.value.about;
    if !about.is_uploaded() {
        let message = format!(
            "the certificate {} was issued here and goes with its names; to take it out of service, revoke it",
            about.fingerprint
        );
        return Err(conflict("NOT_UPLOADED", message));
    }
    work.transaction.remove_upload(&about.fingerprint).await?;
    Ok(Done { version: None, ..done(&stored, What::Removed, "delete", Value::Null, super::json(about)) })
}

/// What a revocation says.
#[derive(Debug, ToSchema)]
pub(crate) struct RevocationInput {
    /// `unspecified`, `key_compromise`, `affiliation_changed`, `superseded` or `cessation_of_operation`.
    reason: Text<1, 40>,
}
readable!(RevocationInput { reason });

/// Takes a certificate out of service for good; names it was issued for get another.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Stale`], [`Refusal::Forbidden`], [`Refusal::Invalid`].
pub(crate) async fn revoke(work: &mut Work, text: &str, body: &Value) -> Result<Done, Refusal> {
    let stored = changeable(work, text).await?;
    let mut errors = Errors::default();
    let input = read::<RevocationInput>(body, &mut errors);
    let reason = input.as_ref().and_then(|input| RevocationReason::parse(&input.reason.0));
    if input.is_some() && reason.is_none() {
        let known = RevocationReason::ALL.map(RevocationReason::as_str).join(", ");
        errors.add_at("/reason", "invalid", format!("expected one of {known}"));
    }
    let reason = errors.ok(reason).map_err(Refusal::Invalid)?;
    let fingerprint = stored.value.about.fingerprint;
    let revocation = work.transaction.revoke_certificate(&fingerprint, reason).await?;
    let table = work.transaction.table();
    let detail = CertificateDetail {
        revoked: Some(RevokedView::from(&revocation)),
        ..CertificateDetail::of(&stored.value, table)
    };
    let summary = json!({ "reason": reason, "certificate": &stored.value.about });
    Ok(Done { version: None, ..done(&stored, What::Changed, "revoke", super::json(&detail), summary) })
}
