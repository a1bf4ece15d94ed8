//! Tenants.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{
    Canary, Domain, Isolation, Plan, PlanId, Pool, PoolId, PoolKind, PoolKindRule, Profile, Route, Security, Slug,
    Subscription, Tenant, TenantId, TenantState, Theme, TimeZone,
};
use schoolgate_config::table::RoutingTable;
use schoolgate_store::{ListQuery, Page, Store, Stored, Transaction};

use super::canary::check_canary;
use super::document::{Errors, Place, Text, read, readable};
use super::edit::{self, Reference, Resource};
use super::maintenance::read_maintenance;
use super::permission::{Operator, Permission, Reach, Subject};
use super::{Done, Refusal, Stamp, Work};

/// What of a tenant an operator sets.
#[derive(Debug, ToSchema)]
pub(crate) struct TenantInput {
    /// Unique short name; its label below the platform's zones.
    slug: Slug,
    /// What people call the school.
    name: Text<1, 200>,
    /// The operator's own reference.
    external_id: Option<Text<1, 200>>,
    /// The plan its limits and features come from; `basic` if not given.
    #[serde(default)]
    plan: PlanId,
    /// The pool that serves it; `shared` if not given.
    #[serde(default)]
    pool: PoolId,
    /// A share of its requests goes to another pool.
    canary: Option<Box<Canary>>,
    /// The commercial side.
    #[serde(default)]
    subscription: Subscription,
    /// How the app keeps its data apart.
    #[serde(default)]
    isolation: Isolation,
    /// Names and addresses of the school.
    #[serde(default)]
    profile: Box<Profile>,
    /// Colours, font and logo of its pages.
    #[serde(default)]
    theme: Box<Theme>,
    /// Security headers, where it wants others than the platform's.
    #[serde(default)]
    security: Security,
    /// Features switched on or off, over what the plan says.
    #[serde(default)]
    features: BTreeMap<String, bool>,
    /// People to reach, by role.
    #[serde(default)]
    contacts: BTreeMap<String, String>,
    /// The operator's own key-value pairs.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Where its days begin and end, as quotas count them: an IANA name; UTC if not given.
    time_zone: Option<TimeZone>,
    /// Where its data should live.
    region: Option<Text<1, 100>>,
    /// How many days its data is kept after it is archived.
    retention_days: Option<u32>,
}
readable!(TenantInput {
    slug,
    name,
    external_id,
    plan = "basic".parse().expect("a label"),
    pool = "shared".parse().expect("a label"),
    canary,
    subscription = Subscription::default(),
    isolation = Isolation::default(),
    profile = Box::default(),
    theme = Box::default(),
    security = Security::default(),
    features = BTreeMap::new(),
    contacts = BTreeMap::new(),
    labels = BTreeMap::new(),
    time_zone,
    region,
    retention_days,
});

/// Seconds a browser is told to use TLS only: two years, beyond which it protects nobody more.
const LONGEST_HSTS_S: u32 = 63_072_000;

/// A tenant as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantView {
    #[serde(flatten)]
    tenant: Tenant,
    /// Whether its requests are forwarded.
    active: bool,
    /// Its names below the platform's zones.
    hosts: Vec<String>,
    #[serde(flatten)]
    stamp: Stamp,
}

/// Why something is done to a tenant.
#[derive(Debug, ToSchema)]
pub(crate) struct Reason {
    /// For operators; visitors never see it.
    reason: Option<Text<1, 500>>,
}
readable!(Reason { reason });

impl Resource for Tenant {
    type Input = TenantInput;
    const SUBJECT: Subject = Subject::Tenants;
    const COLLECTION: &'static str = "tenants";
    const KEY: &'static str = "id";
    const READ_ONLY: &'static [&'static str] = &[
        "id",
        "state",
        "state_reason",
        "maintenance",
        "active",
        "hosts",
        "overrides",
        "version",
        "created_at",
        "updated_at",
    ];

    fn assemble(input: TenantInput, before: Option<&Self>, table: &RoutingTable, errors: &mut Errors) -> Self {
        if let Some(canary) = &input.canary {
            check_canary(canary, Some(&input.pool), table, &Place::root().member("canary"), errors);
        }
        check_subscription(&input.subscription, errors);
        check_theme(&input.theme, errors);
        if input.security.hsts_max_age_s.is_some_and(|age| age > LONGEST_HSTS_S) {
            errors.add_at("/security/hsts_max_age_s", "invalid", "expected 0 to 63072000 seconds, which is two years");
        }
        for name in input.features.keys() {
            let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if !is_name {
                let at = Place::root().member("features").member(name);
                errors.add(&at, "invalid", "features are named with a-z, 0-9 and _");
            }
        }
        Self {
            id: before.map_or_else(TenantId::generate, |tenant| tenant.id),
            slug: input.slug,
            name: input.name.0,
            external_id: input.external_id.map(|id| id.0),
            state: before.map(|tenant| tenant.state).unwrap_or_default(),
            state_reason: before.and_then(|tenant| tenant.state_reason.clone()),
            plan: input.plan,
            subscription: input.subscription,
            pool: input.pool,
            canary: input.canary,
            maintenance: before.and_then(|tenant| tenant.maintenance.clone()),
            isolation: input.isolation,
            profile: input.profile,
            theme: input.theme,
            security: input.security,
            features: input.features,
            contacts: input.contacts,
            labels: input.labels,
            time_zone: input.time_zone,
            overrides: before.map(|tenant| tenant.overrides.clone()).unwrap_or_default(),
            region: input.region.map(|region| region.0),
            retention_days: input.retention_days,
        }
    }

    fn view(stored: &Stored<Self>, table: &RoutingTable) -> Value {
        super::json(&TenantView {
            active: stored.value.is_active(),
            hosts: hosts(&stored.value, table),
            stamp: Stamp::of(stored),
            tenant: stored.value.clone(),
        })
    }

    fn references() -> &'static [Reference] {
        &[
            ("plan", |table, name| name.parse().map_or(true, |id| table.plan(&id).is_some())),
            ("pool", |table, name| name.parse().map_or(true, |id| table.pool(&id).is_some())),
        ]
    }

    fn tenant(&self) -> Option<TenantId> {
        Some(self.id)
    }

    fn names(&self, table: &RoutingTable) -> Vec<String> {
        let slug = self.slug.as_str();
        let zones = table.zones().filter(|zone| !zone.takes_wildcard() && !zone.reserves(slug));
        zones.map(|zone| format!("{slug}.{}", zone.name)).collect()
    }

    fn check(&self, before: Option<&Self>, table: &RoutingTable) -> Result<(), Refusal> {
        // A default that is not there is no field of the document; the reader must learn which one it was.
        let mut errors = Errors::default();
        if table.plan(&self.plan).is_none() {
            errors.add_at("/plan", "not_found", format!("the plan `{}` does not exist", self.plan));
        }
        if table.pool(&self.pool).is_none() {
            errors.add_at("/pool", "not_found", format!("the pool `{}` does not exist", self.pool));
        }
        let moved = before.is_none_or(|before| before.plan != self.plan || before.pool != self.pool);
        if let (true, Some(plan), Some(pool)) = (moved, table.plan(&self.plan), table.pool(&self.pool)) {
            check_pool_kind(plan, &pool.pool, &mut errors);
        }
        errors.ok(Some(())).map_err(Refusal::Invalid)
    }
}

/// A plan says which kind of pool its tenants belong on. Asked when either changes, so that one that was put elsewhere
/// before can still be renamed.
fn check_pool_kind(plan: &Plan, pool: &Pool, errors: &mut Errors) {
    let wanted = match (plan.pool_kind, pool.kind) {
        (PoolKindRule::Shared, PoolKind::Dedicated) => "shared",
        (PoolKindRule::Dedicated, PoolKind::Shared) => "dedicated",
        _ => return,
    };
    let message = format!("tenants on the plan `{}` belong on a {wanted} pool, and `{}` is none", plan.id, pool.id);
    errors.add_at("/pool", "wrong_pool_kind", message);
}

/// A tenant's names below the platform's zones, in alphabetical order.
fn hosts(tenant: &Tenant, table: &RoutingTable) -> Vec<String> {
    let slug = tenant.slug.as_str();
    let zones = table.zones().filter(|zone| !zone.reserves(slug));
    let mut hosts: Vec<String> = zones.map(|zone| format!("{slug}.{}", zone.name)).collect();
    hosts.sort_unstable();
    hosts
}

fn check_subscription(subscription: &Subscription, errors: &mut Errors) {
    let mut parsed = |field: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
        if at.is_err() {
            let pointer = format!("/subscription/{field}");
            errors.add_at(&pointer, "invalid", "expected a time such as 2026-11-20T20:15:00Z (RFC 3339)");
        }
        at.ok()
    };
    let (starts, ends) = (parsed("starts_at", &subscription.starts_at), parsed("ends_at", &subscription.ends_at));
    if let (Some(starts), Some(ends)) = (starts, ends)
        && ends < starts
    {
        errors.add_at("/subscription/ends_at", "invalid", "the end is before the start");
    }
}

/// What stands in a style sheet or an attribute of a page must not be able to leave it.
fn check_theme(theme: &Theme, errors: &mut Errors) {
    if let Some(family) = &theme.font_family {
        let is_safe = family.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | ',' | '-' | '_' | '\'' | '"'));
        let is_closed = family.matches('"').count() % 2 == 0 && family.matches('\'').count() % 2 == 0;
        if !is_safe || !is_closed || family.chars().count() > 200 {
            errors.add_at("/theme/font_family", "invalid", "expected names of fonts, such as \"Source Serif\", serif");
        }
    }
    for (field, url) in [("logo_url", &theme.logo_url), ("favicon_url", &theme.favicon_url)] {
        let Some(url) = url else { continue };
        let is_path = url.starts_with('/') && !url.starts_with("//");
        let is_url = ["https://", "http://"].iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme));
        let is_clean = !url.chars().any(|c| c.is_whitespace() || c.is_control() || "\"'<>\\`".contains(c));
        if !(is_clean && (is_path || is_url)) {
            errors.add_at(&format!("/theme/{field}"), "invalid", "expected a URL with http or https, or a path");
        }
    }
}

/// The tenant that the field `tenant` of a document names by identity or slug.
pub(crate) fn tenant_of(name: &str, table: &RoutingTable, errors: &mut Errors) -> Option<TenantId> {
    let found = match TenantKey::parse_field(name) {
        Ok(TenantKey::Id(id)) => table.tenant(&id),
        Ok(TenantKey::Slug(slug)) => table.tenant_by_slug(slug.as_str()),
        _ => None,
    };
    if found.is_none() {
        errors.add_at("/tenant", "not_found", "there is no such tenant");
    }
    found.map(|entry| entry.tenant.id)
}

/// How a tenant is named in a path: `tnt_…`, or `slug:greenhill`, or `external:4711`.
#[derive(Debug, Clone)]
pub(crate) enum TenantKey {
    /// By identity.
    Id(TenantId),
    /// By slug.
    Slug(Slug),
    /// By the operator's own reference.
    External(String),
}

impl TenantKey {
    /// Reads what stands in a path. A plain slug is no key there: it could be a word of the path one day.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]: a path that cannot name a tenant names none.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let missing = || Refusal::not_found(&format!("tenant {}", shortened(text)));
        if let Some(slug) = text.strip_prefix("slug:") {
            return slug.parse().map(Self::Slug).map_err(|_| missing());
        }
        if let Some(external_id) = text.strip_prefix("external:") {
            return Ok(Self::External(external_id.to_owned()));
        }
        text.parse().map(Self::Id).map_err(|_| missing())
    }

    /// Reads what stands in a field or a query: an identity or a slug, with or without its prefix.
    ///
    /// # Errors
    /// The same as [`Self::parse`].
    pub(crate) fn parse_field(text: &str) -> Result<Self, Refusal> {
        text.parse().map(Self::Slug).or_else(|_| Self::parse(text))
    }

    /// The tenant named.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub(crate) async fn find(&self, store: &Store) -> Result<Stored<Tenant>, Refusal> {
        let found = match self {
            Self::Id(id) => store.get::<Tenant>(id).await?,
            Self::Slug(slug) => store.tenant_by_slug(slug).await?,
            Self::External(id) => store.tenant_by_external_id(id).await?,
        };
        found.ok_or_else(|| Refusal::not_found(&format!("tenant {self}")))
    }

    /// The tenant named, as a transaction finds it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub(crate) async fn find_in(&self, transaction: &mut Transaction) -> Result<Stored<Tenant>, Refusal> {
        let found = match self {
            Self::Id(id) => transaction.get::<Tenant>(id).await?,
            Self::Slug(slug) => transaction.tenant_by_slug(slug).await?,
            Self::External(external_id) => {
                let query = ListQuery { search: Some(external_id.clone()), limit: 1_000, ..ListQuery::default() };
                let page = transaction.list::<Tenant>(&query).await?;
                page.items.into_iter().find(|t| t.value.external_id.as_ref() == Some(external_id))
            }
        };
        found.ok_or_else(|| Refusal::not_found(&format!("tenant {self}")))
    }
}

impl std::fmt::Display for TenantKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Slug(slug) => slug.fmt(f),
            Self::External(id) => write!(f, "external:{}", shortened(id)),
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// One tenant.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) async fn get(store: &Store, operator: &Operator, key: &TenantKey) -> Result<Stored<Tenant>, Refusal> {
    let permission = Subject::Tenants.read();
    operator.may(permission)?;
    let found = key.find(store).await?;
    operator.may_with(permission, found.value.id)?;
    Ok(found)
}

/// A part of the tenants that the operator may see.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub(crate) async fn list(
    store: &Store,
    operator: &Operator,
    query: &ListQuery,
) -> Result<Page<Stored<Tenant>>, Refusal> {
    if operator.may(Subject::Tenants.read())? == Reach::All {
        return Ok(store.list::<Tenant>(query).await?);
    }
    let mut items = Vec::new();
    for id in &operator.tenants {
        let Some(found) = store.get::<Tenant>(id).await? else { continue };
        let tenant = &found.value;
        let search = query.search.as_ref().map(|text| text.to_lowercase());
        let names = [Some(tenant.slug.as_str()), Some(&*tenant.name), tenant.external_id.as_deref()];
        let is_meant = query.state.is_none_or(|state| state == tenant.state)
            && query.plan.as_ref().is_none_or(|plan| *plan == tenant.plan)
            && query.pool.as_ref().is_none_or(|pool| *pool == tenant.pool)
            && search.is_none_or(|text| names.iter().flatten().any(|name| name.to_lowercase().contains(&text)));
        if is_meant {
            items.push(found);
        }
    }
    // A token names at most a few hundred tenants, so there is never a second page.
    items.sort_by_key(|stored| stored.value.id);
    Ok(Page { items, next: None })
}

/// The tenant to change.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`], [`Refusal::Stale`].
pub(super) async fn changeable(
    work: &mut Work,
    key: &TenantKey,
    permission: Permission,
) -> Result<Stored<Tenant>, Refusal> {
    work.operator.may(permission)?;
    let found = key.find_in(&mut work.transaction).await?;
    work.operator.may_with(permission, found.value.id)?;
    work.check_version(&found)?;
    Ok(found)
}

/// What a school's own administrator may change of its tenant.
const OWN_FIELDS: &[&str] = &["name", "profile", "theme", "contacts"];

/// Puts a whole new tenant in the place of one.
///
/// # Errors
/// As [`edit::replace`].
pub(crate) async fn replace(work: &mut Work, key: &TenantKey, body: &Value) -> Result<Done, Refusal> {
    let before = changeable(work, key, Subject::Tenants.write()).await?;
    if work.operator.role.is_of_tenants() {
        return Err(Refusal::Forbidden(format!("this token may PATCH {} only", OWN_FIELDS.join(", "))));
    }
    edit::write(work, before, body, "replace").await
}

/// Changes some fields of a tenant.
///
/// # Errors
/// As [`edit::patch`].
pub(crate) async fn patch(work: &mut Work, key: &TenantKey, body: &Value) -> Result<Done, Refusal> {
    let before = changeable(work, key, Subject::Tenants.write()).await?;
    if work.operator.role.is_of_tenants()
        && let Some(members) = body.as_object()
        && let Some(field) = members.keys().find(|field| !OWN_FIELDS.contains(&field.as_str()))
    {
        return Err(Refusal::Forbidden(format!(
            "this token may change {} of its tenant, not {}",
            OWN_FIELDS.join(", "),
            shortened(field)
        )));
    }
    let merged = edit::patched(&before, work.transaction.table(), body)?;
    edit::write(work, before, &merged, "update").await
}

/// Removes a tenant with its domains and routes.
///
/// # Errors
/// As [`edit::delete`].
pub(crate) async fn delete(work: &mut Work, key: &TenantKey) -> Result<Done, Refusal> {
    let before = changeable(work, key, Subject::Tenants.write()).await?;
    not_of_tenants(work)?;
    let id = before.value.id;
    let mut query = ListQuery { tenant: Some(id), limit: 1_000, ..ListQuery::default() };
    loop {
        let page = work.transaction.list::<Domain>(&query).await?;
        for domain in &page.items {
            work.transaction.delete::<Domain>(&domain.value.name, None).await?;
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    query.after = None;
    loop {
        let page = work.transaction.list::<Route>(&query).await?;
        for route in &page.items {
            work.transaction.delete::<Route>(&route.value.id, None).await?;
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    work.transaction.delete::<Tenant>(&id, None).await?;
    Ok(edit::removed(&before.value))
}

/// The tenant to change, by the platform's operators only.
///
/// # Errors
/// As [`edit::replace`].
pub(super) async fn changeable_by_operators(work: &mut Work, key: &TenantKey) -> Result<Stored<Tenant>, Refusal> {
    let before = changeable(work, key, Subject::Tenants.write()).await?;
    not_of_tenants(work)?;
    Ok(before)
}

/// Whether this is no token of a school's own.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub(super) fn not_of_tenants(work: &Work) -> Result<(), Refusal> {
    if work.operator.role.is_of_tenants() {
        return Err(Refusal::Forbidden("this is for the platform's operators".to_owned()));
    }
    Ok(())
}

/// What is done to the life of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Refuse its visitors.
    Suspend,
    /// Serve it (again).
    Resume,
    /// Tell its visitors to come back later.
    Maintenance,
    /// Stop serving it; keep what is known of it.
    Archive,
    /// Serve an archived tenant again.
    Restore,
}

impl Action {
    const fn verb(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Maintenance => "maintenance",
            Self::Archive => "archive",
            Self::Restore => "restore",
        }
    }

    /// The state that follows; `None` when there is no way from here.
    pub(crate) const fn after(self, state: TenantState) -> Option<TenantState> {
        use TenantState::{Active, Archived, Deleting, Maintenance, Provisioning, Suspended};
        match (self, state) {
            (_, Deleting) => None,
            (Self::Archive, _) => Some(Archived),
            (Self::Restore, Archived) => Some(Active),
            (Self::Restore, _) | (_, Archived) => None,
            (Self::Suspend, Provisioning | Active | Suspended | Maintenance) => Some(Suspended),
            (Self::Maintenance, Provisioning | Active | Suspended | Maintenance) => Some(Maintenance),
            (Self::Resume, Provisioning | Active | Suspended | Maintenance) => Some(Active),
        }
    }
}

/// Changes the state of a tenant.
///
/// # Errors
/// [`Refusal::Conflict`] when there is no way from its state; as [`edit::patch`] otherwise.
pub(crate) async fn act(work: &mut Work, key: &TenantKey, action: Action, body: &Value) -> Result<Done, Refusal> {
    if action == Action::Maintenance {
        return maintain(work, key, body).await;
    }
    let reason = if body.is_null() {
        None
    } else {
        let mut errors = Errors::default();
        let input = read::<Reason>(body, &mut errors);
        errors.ok(input).map_err(Refusal::Invalid)?.reason
    };
    let before = changeable(work, key, Subject::Tenants.write()).await?;
    not_of_tenants(work)?;
    let state = state_after(action, before.value.state)?;
    let state_reason = if state == TenantState::Active { None } else { reason.map(|reason| reason.0) };
    let tenant = Tenant { state, state_reason, maintenance: None, ..before.value.clone() };
    edit::save(work, before, tenant, action.verb()).await
}

fn state_after(action: Action, state: TenantState) -> Result<TenantState, Refusal> {
    action.after(state).ok_or_else(|| Refusal::Conflict {
        code: "INVALID_STATE",
        message: format!("a tenant that is {} has no action {}", state.as_str(), action.verb()),
        pointer: None,
    })
}

/// Turns a tenant's visitors away, now or when a window begins. Until then its state stays what it is.
async fn maintain(work: &mut Work, key: &TenantKey, body: &Value) -> Result<Done, Refusal> {
    let now_ms = work.transaction.now_ms();
    let maintenance = read_maintenance(body, now_ms)?;
    let before = changeable(work, key, Subject::Tenants.write()).await?;
    not_of_tenants(work)?;
    let (is_now, next) = (maintenance.is_on(now_ms), state_after(Action::Maintenance, before.value.state)?);
    if !is_now && before.value.state != TenantState::Active {
        return Err(Refusal::Conflict {
            code: "INVALID_STATE",
            message: format!("a tenant that is {} has no window to wait for", before.value.state.as_str()),
            pointer: Some("/starts_at"),
        });
    }
    let state = if is_now { next } else { before.value.state };
    let state_reason = maintenance.reason.clone().filter(|_| is_now);
    let tenant = Tenant { state, state_reason, maintenance: Some(Box::new(maintenance)), ..before.value.clone() };
    edit::save(work, before, tenant, Action::Maintenance.verb()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_restore_leads_out_of_the_archive_and_nothing_out_of_deleting() {
        use Action::{Archive, Maintenance, Restore, Resume, Suspend};
        for action in [Suspend, Resume, Maintenance] {
            assert_eq!(action.after(TenantState::Archived), None);
        }
        assert_eq!(Restore.after(TenantState::Archived), Some(TenantState::Active));
        assert_eq!(Restore.after(TenantState::Suspended), None);
        for action in [Suspend, Resume, Maintenance, Archive, Restore] {
            assert_eq!(action.after(TenantState::Deleting), None);
        }
    }

    #[test]
    fn a_theme_cannot_leave_the_page_it_is_put_into() {
        let refused = |theme: Theme| {
            let mut errors = Errors::default();
            check_theme(&theme, &mut errors);
            !errors.is_empty()
        };
        let font = |text: &str| Theme { font_family: Some(text.into()), ..Theme::default() };
        let logo = |text: &str| Theme { logo_url: Some(text.into()), ..Theme::default() };
        assert!(!refused(font("\"Source Serif\", Georgia, serif")));
        assert!(refused(font("serif; } body { display: none")));
        assert!(refused(font("\"open")));
        assert!(!refused(logo("https://cdn.example/l.png")));
        assert!(!refused(logo("/logo.svg")));
        for bad in ["javascript:alert(1)", "//evil.example/x", "https://a/\"onload=", "https://"] {
            assert!(refused(logo(bad)), "{bad} was taken");
        }
    }
}
