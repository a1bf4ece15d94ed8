//! Which two schools take part.

use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::model::{Tenant, TenantId, TenantState};
use schoolgate_config::table::RoutingTable;

/// A school that takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Subject {
    /// Its identifier.
    #[schema(value_type = String)]
    pub id: TenantId,
    /// Its slug.
    pub slug: String,
    /// A host of its own.
    pub host: String,
    /// The shared host of the zone in which it has that name, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_host: Option<String>,
}

/// Why there are no two schools to test with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Nobody has this name.
    #[error("no tenant is called `{0}`")]
    Unknown(String),
    /// It is not served.
    #[error("the tenant {slug} is {state}, not active")]
    NotActive {
        /// Which.
        slug: String,
        /// What it is.
        state: &'static str,
    },
    /// It has no host.
    #[error("the tenant {0} has no host of its own: no zone, and no domain that leads to it")]
    NoHost(String),
    /// One tenant, twice.
    #[error("`{0}` is named twice; two tenants are needed")]
    Same(String),
    /// Not two names.
    #[error("two tenants are needed, not {0}")]
    NotTwo(usize),
    /// There are no two.
    #[error("two active tenants with a host of their own are needed; there are {0}")]
    TooFew(usize),
}

/// Two active schools: those named by id or slug, or, when none is named, the two that were made first.
///
/// # Errors
/// [`SubjectError`] says what is missing.
pub fn pick(table: &RoutingTable, named: &[String]) -> Result<(Subject, Subject), SubjectError> {
    let subjects = match named {
        [] => first_two(table),
        [a, b] => vec![by_name(table, a)?, by_name(table, b)?],
        other => return Err(SubjectError::NotTwo(other.len())),
    };
    let [a, b]: [Subject; 2] = subjects.try_into().map_err(|few: Vec<_>| SubjectError::TooFew(few.len()))?;
    if a.id == b.id {
        return Err(SubjectError::Same(b.slug));
    }
    Ok((a, b))
}

fn first_two(table: &RoutingTable) -> Vec<Subject> {
    let active = table.tenants().map(|entry| &*entry.tenant).filter(|tenant| tenant.state == TenantState::Active);
    let mut active: Vec<&Tenant> = active.collect();
    active.sort_unstable_by_key(|tenant| tenant.id);
    active.into_iter().filter_map(|tenant| subject(table, tenant)).take(2).collect()
}

fn by_name(table: &RoutingTable, name: &str) -> Result<Subject, SubjectError> {
    let by_id = || name.parse().ok().and_then(|id| table.tenant(&id));
    let entry = table.tenant_by_slug(name).or_else(by_id).ok_or_else(|| SubjectError::Unknown(name.to_owned()))?;
    let tenant = &entry.tenant;
    let slug = tenant.slug.to_string();
    if tenant.state != TenantState::Active {
        return Err(SubjectError::NotActive { slug, state: tenant.state.as_str() });
    }
    subject(table, tenant).ok_or(SubjectError::NoHost(slug))
}

fn subject(table: &RoutingTable, tenant: &Tenant) -> Option<Subject> {
    let mut zones: Vec<_> = table.zones().collect();
    zones.sort_unstable_by_key(|zone| &zone.name);
    let leads_here = |host: &String| {
        schoolgate_config::identity::tenant_of(table, host).is_some_and(|(found, _)| found.tenant.id == tenant.id)
    };
    let mut in_zones = zones.into_iter().map(|zone| (format!("{}.{}", tenant.slug, zone.name), zone));
    // Looked for only where no zone has it: there may be a hundred thousand.
    let domains = || table.domains().filter(|d| d.tenant == tenant.id).map(|d| d.name.to_string());
    let in_zone = in_zones.find(|(host, _)| leads_here(host));
    let shared_host = in_zone.as_ref().and_then(|(_, zone)| zone.shared_host.as_ref()).map(ToString::to_string);
    let host = in_zone.map(|(host, _)| host).or_else(|| domains().find(leads_here))?;
    Some(Subject { id: tenant.id, slug: tenant.slug.to_string(), host, shared_host })
}
