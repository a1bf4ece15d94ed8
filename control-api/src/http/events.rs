//! `events`: what happened that somebody should look at; of all, of a tenant, of a domain.

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{DomainName, Slug, TenantId};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::rfc3339;
use schoolgate_store::{Event, EventQuery, Page, StoreError};

use super::params::{Params, unreadable_cursor};
use super::{Answer, Api, ListAnswer, Stop, domains};
use crate::operation::permission::{Operator, Subject};
use crate::operation::tenants::{self, TenantKey};

/// An event as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventView {
    /// Its number; later ones are higher, with gaps.
    number: u64,
    /// When it happened.
    #[schema(format = DateTime)]
    at: String,
    /// What happened: an area and a word, such as `domain.left` or `security.cross_tenant_attempt`.
    kind: String,
    /// The tenant it concerns.
    tenant: Option<TenantId>,
    /// The slug of that tenant.
    tenant_slug: Option<Slug>,
    /// What it happened to, such as `domain erp.greenhill.example`.
    object: String,
    /// It in a sentence.
    summary: String,
    /// More about it, by kind.
    detail: Value,
}

impl EventView {
    fn of(event: Event, table: &RoutingTable) -> Self {
        let tenant = event.tenant.as_ref().and_then(|tenant| table.tenant(tenant));
        Self {
            number: event.number,
            at: rfc3339(event.at_ms),
            kind: event.kind,
            tenant: event.tenant,
            tenant_slug: tenant.map(|entry| entry.tenant.slug.clone()),
            object: event.object,
            summary: event.summary,
            detail: event.detail,
        }
    }
}

/// Events, the last recorded first; those of the last 30 days, and at most 20,000 of a kind.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("kind" = Option<String>, Query, description = "Of this kind, such as `domain.left`, or area, such as `domain`"),
        ("tenant" = Option<String>, Query, description = "About this tenant: `tnt_…` or a slug"),
        ("object" = Option<String>, Query, description = "About this object, such as `domain erp.greenhill.example`"),
    ),
    responses((status = 200, body = ListAnswer<EventView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let query = take_query(&mut params)?;
    let (tenant, object) = (params.take("tenant")?, params.take("object")?);
    params.finish()?;
    operator.may_everywhere(Subject::Events.read())?;
    let tenant = match tenant {
        Some(text) => Some(TenantKey::parse_field(&text)?.find(&api.store).await?.value.id),
        None => None,
    };
    Ok(answer(&api, EventQuery { tenant, object, ..query }).await?)
}

/// Events that concern a tenant, the last recorded first.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/events", tag = "tenants",
    params(
        ("tenant" = String, Path, description = "`tnt_…`, `slug:…` or `external:…`"),
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("kind" = Option<String>, Query, description = "Of this kind, such as `domain.left`, or area, such as `domain`"),
    ),
    responses((status = 200, body = ListAnswer<EventView>)))]
pub(super) async fn of_tenant(
    State(api): State<Api>,
    operator: Operator,
    Path(key): Path<String>,
    mut params: Params,
) -> Answer {
    let query = take_query(&mut params)?;
    params.finish()?;
    let tenant = tenants::get(&api.store, &operator, &TenantKey::parse(&key)?).await?;
    Ok(answer(&api, EventQuery { tenant: Some(tenant.value.id), ..query }).await?)
}

/// Events of a domain while it was its present tenant's, the last recorded first.
#[utoipa::path(get, path = "/api/v1/domains/{name}/events", tag = "domains",
    params(
        ("name" = String, Path),
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("kind" = Option<String>, Query, description = "Of this kind, such as `domain.left`, or area, such as `domain`"),
    ),
    responses((status = 200, body = ListAnswer<EventView>)))]
pub(super) async fn of_domain(
    State(api): State<Api>,
    operator: Operator,
    Path(text): Path<String>,
    mut params: Params,
) -> Answer {
    let query = take_query(&mut params)?;
    params.finish()?;
    let name: DomainName = domains::name(&text)?;
    // What the name did under another tenant is not this one's to read.
    let tenant = Some(api.reading().owner(&operator, &name).await?);
    Ok(answer(&api, EventQuery { tenant, object: Some(format!("domain {name}")), ..query }).await?)
}

/// Takes what every list of events has.
fn take_query(params: &mut Params) -> Result<EventQuery, Stop> {
    let (cursor, limit) = params.paging()?;
    let before = cursor.map(|text| text.parse().map_err(|_| unreadable_cursor())).transpose()?;
    Ok(EventQuery { before, limit, kind: params.take("kind")?, ..EventQuery::default() })
}

async fn answer(api: &Api, query: EventQuery) -> Result<Response, StoreError> {
    let limit = query.limit;
    // One more than asked for, to know whether there is another page.
    let mut events = api.store.events(&EventQuery { limit: limit + 1, ..query }).await?;
    let more = events.len() > limit as usize;
    events.truncate(limit as usize);
    let next = events.last().filter(|_| more).map(|last| last.number.to_string());
    let head = api.store.head();
    let items = events.into_iter().map(|event| EventView::of(event, &head.table)).collect();
    Ok(ListAnswer::of(Page { items, next }))
}
