//! Domains: a school's own names, what they need to be ready, and what a school has to set in its DNS.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use schoolgate_config::model::{
    CertificateState, Domain, DomainName, Ownership, Routing, Slug, Tenant, TenantId, TenantState,
};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::rfc3339;
use schoolgate_store::{CertificateWant, ListQuery, Page, Store, Stored, WantState};

use super::document::{Errors, Text, read, readable};
use super::permission::{Operator, Reach, Subject};
use super::tenants::TenantKey;
use super::{Done, Platform, Refusal, Stamp, What, Work};

/// What of a domain an operator sets.
#[derive(Debug, ToSchema)]
pub(crate) struct DomainInput {
    /// The name, unique over the platform.
    name: DomainName,
    /// Whose it is: `tnt_…` or a slug.
    tenant: Text<1, 80>,
    /// Whether it becomes the tenant's main name; a tenant's first domain always does.
    #[serde(default)]
    primary: bool,
}
readable!(DomainInput { name, tenant, primary = false });

/// What of a domain can change.
#[derive(Debug, ToSchema)]
pub(crate) struct DomainPatch {
    /// `true` makes it the tenant's main name.
    primary: Option<bool>,
}
readable!(DomainPatch { primary });

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
    /// What the school sets in its DNS.
    records: Vec<DnsRecord>,
    #[serde(flatten)]
    stamp: Stamp,
}

/// One thing in the way of a domain.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Blocking {
    /// What.
    code: &'static str,
    /// What should be.
    expected: String,
    /// What is; `null` when nobody has looked yet.
    found: Option<String>,
    /// Who said so.
    resolver: Option<String>,
    /// What to do.
    fix: String,
}

/// A DNS record that a school sets.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DnsRecord {
    /// Its type, such as `CNAME`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Its owner name.
    name: String,
    /// Its value.
    value: String,
    /// What it is for: `ownership`, `routing` or `certificate`.
    purpose: &'static str,
    /// Whether the domain can be ready without it.
    optional: bool,
}

/// What a domain is seen with.
pub(crate) struct Surroundings<'a> {
    /// Everything committed.
    pub(crate) table: &'a RoutingTable,
    /// What the settings say.
    pub(crate) platform: &'a Platform,
    /// Where its certificate stands.
    pub(crate) want: Option<CertificateWant>,
    /// Milliseconds since 1970.
    pub(crate) now_ms: i64,
}

/// How the API shows a domain.
pub(crate) fn view(stored: &Stored<Domain>, tenant: Option<&Tenant>, around: &Surroundings<'_>) -> DomainView {
    let domain = &stored.value;
    let (certificate, not_after) = certificate_state(around);
    let active = tenant.is_some_and(Tenant::is_active);
    let blocking = blocking(domain, tenant, certificate, around);
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

fn blocking(
    domain: &Domain,
    tenant: Option<&Tenant>,
    certificate: CertificateState,
    around: &Surroundings<'_>,
) -> Vec<Blocking> {
    let mut blocking = Vec::new();
    let mut add = |code, expected: String, found: Option<String>, fix: String| {
        blocking.push(Blocking { code, expected, found, resolver: None, fix });
    };
    let records = records(domain, around);
    let record = |purpose| records.iter().find(|r| r.purpose == purpose).map_or_else(String::new, DnsRecord::text);
    if domain.ownership != Ownership::Proven {
        let code = if domain.ownership == Ownership::Lapsed { "OWNERSHIP_LAPSED" } else { "OWNERSHIP_UNPROVEN" };
        let expected = record("ownership");
        add(code, expected.clone(), None, format!("Set this record where {} is managed: {expected}", domain.name));
    }
    if domain.routing != Routing::Here {
        let found = match domain.routing {
            Routing::Elsewhere => "elsewhere",
            Routing::Partial => "partial",
            Routing::Drifted => "drifted",
            Routing::Left => "left",
            Routing::Here => "here",
        };
        let expected = record("routing");
        let fix = format!("Point {} at the gateway: {expected}", domain.name);
        add("NOT_POINTING_HERE", expected, Some(found.to_owned()), fix);
    }
    let error = around.want.as_ref().and_then(|want| want.error.clone());
    let fix = |text: &str| text.to_owned();
    match certificate {
        CertificateState::Issued => {}
        CertificateState::None => add(
            "CERTIFICATE_NOT_ORDERED",
            "a usable certificate".to_owned(),
            Some("none".to_owned()),
            fix("Nothing to do here: it is ordered when the ownership is proven"),
        ),
        CertificateState::Queued => add(
            "CERTIFICATE_PENDING",
            "a usable certificate".to_owned(),
            Some("queued".to_owned()),
            fix("Wait: it is being issued"),
        ),
        CertificateState::Failing => add(
            "CERTIFICATE_FAILING",
            "a usable certificate".to_owned(),
            Some(error.unwrap_or_else(|| "the last attempt failed".to_owned())),
            fix("It is tried again by itself; the reason is in `found`"),
        ),
        CertificateState::Expired => add(
            "CERTIFICATE_EXPIRED",
            "a usable certificate".to_owned(),
            Some(error.unwrap_or_else(|| "expired".to_owned())),
            fix("It is tried again by itself; look at the certificates of the gateway"),
        ),
    }
    let state = tenant.map_or(TenantState::Deleting, |tenant| tenant.state);
    if state != TenantState::Active {
        add(
            "TENANT_NOT_ACTIVE",
            "active".to_owned(),
            Some(state.as_str().to_owned()),
            fix("Resume the tenant (POST tenants/{id}/resume, or restore when it is archived)"),
        );
    }
    blocking
}

impl DnsRecord {
    /// The record as a zone file has it.
    fn text(&self) -> String {
        match self.kind {
            "TXT" => format!("{} TXT \"{}\"", self.name, self.value),
            kind => format!("{} {kind} {}", self.name, self.value),
        }
    }
}

/// The zone that a school's records lead into: the first with more than one label, for those that have public names.
fn records_zone(table: &RoutingTable) -> Option<&DomainName> {
    let key = |name: &&DomainName| (name.labels() < 2, name.as_str().to_owned());
    table.zones().map(|zone| &zone.name).min_by_key(key)
}

fn records(domain: &Domain, around: &Surroundings<'_>) -> Vec<DnsRecord> {
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
    // A name of two labels is where a zone begins, and a CNAME cannot stand there (RFC 1034 section 3.6.2). Names
    // below public suffixes of two labels get the advice for a subdomain, which their DNS provider refuses loudly.
    if domain.name.labels() == 2 {
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

/// Whether the settings take a name's ownership for granted.
fn assumed_owned(name: &DomainName, platform: &Platform) -> bool {
    platform.assume_owned.iter().any(|suffix| name.is_within(suffix.as_str()))
}

/// The unguessable part of a domain's records: 100 bits as 20 letters and digits that survive any DNS editor.
fn new_token() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0; 20];
    SystemRandom::new().fill(&mut random).expect("the system's random numbers are there");
    random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// Adds a domain to a tenant.
///
/// # Errors
/// [`Refusal::Invalid`] with everything that is wrong; [`Refusal::Conflict`] when the name is taken.
pub(crate) async fn create(work: &mut Work, body: &Value) -> Result<Done, Refusal> {
    work.operator.may(Subject::Domains.write())?;
    let mut errors = Errors::default();
    let input = read::<DomainInput>(body, &mut errors);
    if let Some(input) = &input
        && input.name.labels() < 2
    {
        errors.add_at("/name", "invalid", "expected a name of at least two labels");
    }
    // Asked of the document if need be, so that a wrong name beside it does not hide that the tenant is not there.
    let named = input.as_ref().map(|input| &*input.tenant.0);
    let named = named.or_else(|| body.get("tenant").and_then(Value::as_str));
    let tenant = match named.map(TenantKey::parse_field) {
        None => None,
        Some(Err(_)) => Some(Err(Refusal::not_found("tenant"))),
        Some(Ok(key)) => Some(key.find_in(&mut work.transaction).await),
    };
    let tenant = match tenant {
        Some(Ok(tenant)) => Some(tenant),
        Some(Err(Refusal::NotFound { .. })) => {
            errors.add_at("/tenant", "not_found", "there is no such tenant");
            None
        }
        Some(Err(other)) => return Err(other),
        None => None,
    };
    let (input, tenant) = errors.ok(input.zip(tenant)).map_err(Refusal::Invalid)?;
    work.operator.may_with(Subject::Domains.write(), tenant.value.id)?;
    let query = ListQuery { tenant: Some(tenant.value.id), ..ListQuery::default() };
    let first = work.transaction.count::<Domain>(&query).await? == 0;
    let owned = assumed_owned(&input.name, &work.platform);
    if input.primary && !first {
        demote_primary(work, tenant.value.id).await?;
    }
    let domain = Domain {
        name: input.name,
        tenant: tenant.value.id,
        primary: input.primary || first,
        ownership: if owned { Ownership::Proven } else { Ownership::Unproven },
        routing: if owned { Routing::Here } else { Routing::Elsewhere },
        token: new_token(),
    };
    let summary = json!({ "tenant": domain.tenant, "primary": domain.primary, "ownership": domain.ownership });
    let stored = work.transaction.insert(domain).await?;
    done(work, &stored, &tenant.value, What::Created, "create", summary).await
}

/// Changes a domain: its one free field is whether it is the tenant's main name.
///
/// # Errors
/// [`Refusal::Invalid`], [`Refusal::NotFound`], [`Refusal::Stale`], [`Refusal::Forbidden`].
pub(crate) async fn patch(work: &mut Work, name: &DomainName, body: &Value) -> Result<Done, Refusal> {
    let (before, tenant) = changeable(work, name).await?;
    let shown = super::json(&shown(work, &before, &tenant).await?);
    let mut errors = Errors::default();
    let mut body = body.clone();
    if let Value::Object(members) = &mut body {
        let read_only: Vec<String> =
            members.keys().filter(|k| *k != "primary" && shown.get(k).is_some()).cloned().collect();
        for field in read_only {
            if members.remove(&field).as_ref() != shown.get(&field) {
                errors.add_at(&format!("/{field}"), "read_only", format!("`{field}` cannot be set"));
            }
        }
    }
    let patch = read::<DomainPatch>(&body, &mut errors);
    if let Some(DomainPatch { primary: Some(false) }) = patch
        && before.value.primary
    {
        errors.add_at("/primary", "invalid", "a tenant has one main name: make another domain primary instead");
    }
    let patch = errors.ok(patch).map_err(Refusal::Invalid)?;
    set_primary(work, before, &tenant, patch.primary.unwrap_or(false), "update").await
}

/// Makes a domain the main name of its tenant.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Stale`], [`Refusal::Forbidden`].
pub(crate) async fn make_primary(work: &mut Work, name: &DomainName) -> Result<Done, Refusal> {
    let (before, tenant) = changeable(work, name).await?;
    set_primary(work, before, &tenant, true, "make-primary").await
}

async fn set_primary(
    work: &mut Work,
    before: Stored<Domain>,
    tenant: &Tenant,
    primary: bool,
    verb: &str,
) -> Result<Done, Refusal> {
    if !primary || before.value.primary {
        // Nothing changes; the audit still has who asked.
        return done(work, &before, tenant, What::Changed, verb, json!({})).await;
    }
    demote_primary(work, before.value.tenant).await?;
    let after = Domain { primary: true, ..before.value };
    let stored = work.transaction.update(after, None).await?;
    done(work, &stored, tenant, What::Changed, verb, json!({ "primary": { "from": false, "to": true } })).await
}

/// Removes a domain. When it was the main name, another of the tenant's becomes that.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Stale`], [`Refusal::Forbidden`].
pub(crate) async fn delete(work: &mut Work, name: &DomainName) -> Result<Done, Refusal> {
    let (before, _) = changeable(work, name).await?;
    work.transaction.delete::<Domain>(name, None).await?;
    if before.value.primary {
        let query = ListQuery { tenant: Some(before.value.tenant), limit: 1_000, ..ListQuery::default() };
        let rest = work.transaction.list::<Domain>(&query).await?.items;
        // One that is served, before one that waits for its school; the oldest of those.
        let next = rest.into_iter().min_by_key(|d| (!d.value.is_routable(), d.created_at_ms));
        if let Some(next) = next {
            work.transaction.update(Domain { primary: true, ..next.value }, None).await?;
        }
    }
    Ok(Done {
        what: What::Removed,
        object: Value::Null,
        version: None,
        path: format!("domains/{name}"),
        action: "domain.delete".to_owned(),
        about: format!("domain {name}"),
        summary: json!({ "tenant": before.value.tenant }),
        names: Vec::new(),
        again: None,
    })
}

async fn demote_primary(work: &mut Work, tenant: TenantId) -> Result<(), Refusal> {
    let mut query = ListQuery { tenant: Some(tenant), limit: 1_000, ..ListQuery::default() };
    loop {
        let page = work.transaction.list::<Domain>(&query).await?;
        for domain in page.items.into_iter().filter(|domain| domain.value.primary) {
            work.transaction.update(Domain { primary: false, ..domain.value }, None).await?;
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(()),
        }
    }
}

async fn changeable(work: &mut Work, name: &DomainName) -> Result<(Stored<Domain>, Tenant), Refusal> {
    work.operator.may(Subject::Domains.write())?;
    let found = work.existing::<Domain>(name).await?;
    work.operator.may_with(Subject::Domains.write(), found.value.tenant)?;
    work.check_version(&found)?;
    let tenant = work.existing::<Tenant>(&found.value.tenant).await?;
    Ok((found, tenant.value))
}

/// A domain as this transaction leaves it.
async fn shown(work: &Work, stored: &Stored<Domain>, tenant: &Tenant) -> Result<DomainView, Refusal> {
    let name = stored.value.name.as_str();
    let want = if work.transaction.table().domain(name).is_some_and(|before| before.is_routable()) {
        work.store.certificate_want(name).await?
    } else {
        // The commit asks for the certificate of a domain that is proven.
        stored.value.is_routable().then(|| CertificateWant {
            name: name.to_owned(),
            state: WantState::Queued,
            fingerprint: None,
            attempts: 0,
            next_attempt_ms: 0,
            error: None,
            turn: 0,
        })
    };
    let around = Surroundings {
        table: work.transaction.table(),
        platform: &work.platform,
        want,
        now_ms: work.transaction.now_ms(),
    };
    Ok(view(stored, Some(tenant), &around))
}

async fn done(
    work: &Work,
    stored: &Stored<Domain>,
    tenant: &Tenant,
    what: What,
    verb: &str,
    summary: Value,
) -> Result<Done, Refusal> {
    let domain = &stored.value;
    Ok(Done {
        what,
        object: super::json(&shown(work, stored, tenant).await?),
        version: Some(stored.version),
        path: format!("domains/{}", domain.name),
        action: format!("domain.{verb}"),
        about: format!("domain {}", domain.name),
        summary,
        names: if domain.is_routable() { vec![domain.name.to_string()] } else { Vec::new() },
        again: Some(domain.name.clone()),
    })
}

/// Where committed domains are read.
pub(crate) struct Reading<'a> {
    /// The store.
    pub(crate) store: &'a Store,
    /// What the settings say.
    pub(crate) platform: &'a Platform,
    /// Milliseconds since 1970.
    pub(crate) now_ms: i64,
}

impl Reading<'_> {
    /// How the API shows a committed domain.
    ///
    /// # Errors
    /// [`Refusal::Store`].
    pub(crate) async fn shown(&self, stored: &Stored<Domain>) -> Result<DomainView, Refusal> {
        let want = self.store.certificate_want(stored.value.name.as_str()).await?;
        let head = self.store.head();
        let around = Surroundings { table: &head.table, platform: self.platform, want, now_ms: self.now_ms };
        let tenant = head.table.tenant(&stored.value.tenant).map(|entry| entry.tenant.clone());
        Ok(view(stored, tenant.as_deref(), &around))
    }

    /// One domain.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Forbidden`].
    pub(crate) async fn get(&self, operator: &Operator, name: &DomainName) -> Result<(u64, DomainView), Refusal> {
        let found = self.readable(operator, name).await?;
        Ok((found.version, self.shown(&found).await?))
    }

    /// Whose a domain is.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Forbidden`].
    pub(crate) async fn owner(&self, operator: &Operator, name: &DomainName) -> Result<TenantId, Refusal> {
        Ok(self.readable(operator, name).await?.value.tenant)
    }

    async fn readable(&self, operator: &Operator, name: &DomainName) -> Result<Stored<Domain>, Refusal> {
        operator.may(Subject::Domains.read())?;
        let found = self.store.get::<Domain>(name).await?;
        let found = found.ok_or_else(|| Refusal::not_found(&format!("domain {name}")))?;
        operator.may_with(Subject::Domains.read(), found.value.tenant)?;
        Ok(found)
    }

    /// A part of the domains, of one tenant or of all.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`], [`Refusal::Invalid`].
    pub(crate) async fn list(&self, operator: &Operator, mut query: ListQuery) -> Result<Page<DomainView>, Refusal> {
        let reach = operator.may(Subject::Domains.read())?;
        match (reach, query.tenant, operator.tenants.as_slice()) {
            (_, Some(tenant), _) => operator.may_with(Subject::Domains.read(), tenant)?,
            (Reach::Own, None, [only]) => query.tenant = Some(*only),
            (Reach::Own, None, _) => {
                return Err(Refusal::Forbidden("this token is for some tenants: ask with ?tenant=".to_owned()));
            }
            _ => {}
        }
        let page = self.store.list::<Domain>(&query).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for stored in &page.items {
            items.push(self.shown(stored).await?);
        }
        Ok(Page { items, next: page.next })
    }
}

/// How many domains stand where, for the summary of the gateway.
pub(crate) fn counts(table: &RoutingTable) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::from([("proven", 0), ("unproven", 0), ("lapsed", 0)]);
    for domain in table.domains() {
        let state = match domain.ownership {
            Ownership::Proven => "proven",
            Ownership::Unproven => "unproven",
            Ownership::Lapsed => "lapsed",
        };
        *counts.entry(state).or_default() += 1;
    }
    counts
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
