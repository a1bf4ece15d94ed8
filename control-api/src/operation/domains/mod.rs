//! Domains: a school's own names. What an operator does with them; what becomes of them by themselves is in [`fate`].

pub(crate) mod fate;
pub(crate) mod instructions;
mod reading;
mod records;
pub(crate) mod transfer;
mod view;

use serde_json::{Value, json};
use utoipa::ToSchema;

use schoolgate_config::model::{Domain, DomainName, Ownership, Routing, Tenant, TenantId};
use schoolgate_dns::life::QUARANTINE_MS;
use schoolgate_dns::names::is_public_suffix;
use schoolgate_store::{CertificateWant, ListQuery, NewEvent, ReleasedName, Stored, Transaction, WantState};

use super::document::{Errors, Text, read, readable};
use super::permission::Subject;
use super::tenants::TenantKey;
use super::{Done, Refusal, What, Work};

pub(crate) use reading::{Reading, counts};
pub(crate) use records::{assumed_owned, expected, issuers_of, order_facts};
pub(crate) use view::DomainView;

use records::new_token;
use view::{Surroundings, view};

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
    } else if let Some(input) = &input
        && is_public_suffix(&input.name)
        && !assumed_owned(&input.name, &work.platform)
    {
        let message =
            format!("{} is a public suffix: everybody registers names below it, and nobody owns it", input.name);
        errors.add_at("/name", "public_suffix", message);
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
    let has = work.transaction.count::<Domain>(&query).await?;
    let first = has == 0;
    if let Some(taken) = work.transaction.get::<Domain>(&input.name).await? {
        return Err(taken_by(&taken.value, tenant.value.id));
    }
    check_quota(work, &tenant.value, has)?;
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
    tell_who_had_it(work, &stored.value).await?;
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
    remove(&mut work.transaction, &before.value).await?;
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

/// Whether the tenant's plan has room for one more.
fn check_quota(work: &Work, tenant: &Tenant, has: u64) -> Result<(), Refusal> {
    let table = work.transaction.table();
    let most = table.plan(&tenant.plan).and_then(|plan| plan.limits.custom_domains);
    match most {
        Some(most) if has >= most => Err(Refusal::Conflict {
            code: "QUOTA_EXCEEDED",
            message: format!(
                "the plan {} allows {most} domain{}, and {} has {has}: remove one, or move the tenant to another plan",
                tenant.plan,
                if most == 1 { "" } else { "s" },
                tenant.slug
            ),
            pointer: Some("/tenant"),
        }),
        _ => Ok(()),
    }
}

/// A name that is a tenant's already; whose, is not for everybody to know.
fn taken_by(domain: &Domain, asking: TenantId) -> Refusal {
    let name = &domain.name;
    let message = if domain.tenant == asking {
        format!("{name} is a domain of this tenant already")
    } else {
        format!(
            "{name} is claimed by another tenant: POST domains/{name}/transfer gives the record that proves it is this \
             one's"
        )
    };
    Refusal::Conflict { code: "DOMAIN_EXISTS", message, pointer: Some("/name") }
}

/// Lets a name's last tenant know that another asks for it.
async fn tell_who_had_it(work: &mut Work, domain: &Domain) -> Result<(), Refusal> {
    let Some(released) = work.transaction.released_name(&domain.name).await? else { return Ok(()) };
    if released.tenant != domain.tenant {
        let said =
            format!("{} is asked for by another tenant; nothing of it is served before a fresh proof", domain.name);
        let now_ms = work.transaction.now_ms();
        let event = NewEvent::of_domain(now_ms, "domain.asked_for", &domain.name, released.tenant, said);
        work.transaction.record_event(&event).await?;
    }
    Ok(())
}

/// Removes a domain and remembers whose it was. When it was the main name, another of the tenant's becomes that.
async fn remove(transaction: &mut Transaction, domain: &Domain) -> Result<(), Refusal> {
    transaction.delete::<Domain>(&domain.name, None).await?;
    if domain.ownership != Ownership::Unproven {
        let now_ms = transaction.now_ms();
        let released = ReleasedName {
            name: domain.name.clone(),
            tenant: domain.tenant,
            released_at_ms: now_ms,
            until_ms: now_ms + QUARANTINE_MS,
        };
        transaction.keep_released_name(&released).await?;
    }
    if domain.primary {
        promote_another(transaction, domain.tenant).await?;
    }
    Ok(())
}

/// Gives a tenant another main name.
async fn promote_another(transaction: &mut Transaction, tenant: TenantId) -> Result<(), Refusal> {
    let query = ListQuery { tenant: Some(tenant), limit: 1_000, ..ListQuery::default() };
    let rest = transaction.list::<Domain>(&query).await?.items;
    // One that is served, before one that waits for its school; the oldest of those.
    let next = rest.into_iter().min_by_key(|d| (!d.value.is_routable(), d.created_at_ms));
    if let Some(next) = next {
        transaction.update(Domain { primary: true, ..next.value }, None).await?;
    }
    Ok(())
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
async fn shown(work: &mut Work, stored: &Stored<Domain>, tenant: &Tenant) -> Result<DomainView, Refusal> {
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
    let check = work.transaction.domain_check(&stored.value.name).await?;
    let transfer = work.transaction.domain_transfer(&stored.value.name).await?;
    let around = Surroundings {
        table: work.transaction.table(),
        platform: &work.platform,
        want,
        check,
        transfer,
        now_ms: work.transaction.now_ms(),
    };
    Ok(view(stored, Some(tenant), &around))
}

async fn done(
    work: &mut Work,
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
