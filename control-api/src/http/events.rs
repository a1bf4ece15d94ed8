//! `events`: what happened that somebody should look at.

use std::net::IpAddr;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::model::{NodeId, Slug, TenantId};
use schoolgate_config::time::rfc3339;
use schoolgate_store::Page;

use super::params::{Params, unreadable_cursor};
use super::{Answer, Api, ListAnswer};
use crate::operation::permission::{Operator, Subject};
use crate::operation::tenants::TenantKey;
use crate::publish::Attempt;

/// The one kind of event that there is.
const CROSS_TENANT_ATTEMPT: &str = "security.cross_tenant_attempt";

/// An event as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventView {
    /// What happened: `security.cross_tenant_attempt`, a request that named two tenants and was refused.
    kind: &'static str,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// The proxy that saw it.
    node: NodeId,
    /// The tenant it was for.
    tenant: Option<TenantId>,
    /// The slug of that tenant.
    tenant_slug: Option<Slug>,
    /// The host that was asked for.
    host: String,
    /// Who asked.
    #[schema(value_type = Option<String>)]
    client: Option<IpAddr>,
    /// What disagreed: `header`, `slug_header`, `query`, `token` or `path`.
    identifier: String,
    /// Whom it named, shortened.
    named: String,
    /// The request, as in the proxy's access log.
    request_id: String,
}

impl From<Attempt> for EventView {
    fn from(Attempt { node, attempt }: Attempt) -> Self {
        Self {
            kind: CROSS_TENANT_ATTEMPT,
            at: rfc3339(attempt.at_ms),
            node,
            tenant: attempt.tenant,
            tenant_slug: attempt.tenant_slug,
            host: attempt.host,
            client: attempt.client,
            identifier: attempt.kind,
            named: attempt.named,
            request_id: attempt.request_id,
        }
    }
}

/// The latest events, newest first: what proxies reported to this control process, at most 2,000.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(
        ("cursor" = Option<String>, Query, description = "Where the next part begins: `next` of the last answer"),
        ("limit" = Option<u32>, Query, description = "1-1000; 100 if not given"),
        ("kind" = Option<String>, Query, description = "Of this kind, such as `security.cross_tenant_attempt`"),
        ("tenant" = Option<String>, Query, description = "About this tenant: `tnt_…` or a slug"),
    ),
    responses((status = 200, body = ListAnswer<EventView>)))]
pub(super) async fn list(State(api): State<Api>, operator: Operator, mut params: Params) -> Answer {
    let (cursor, limit) = params.paging()?;
    let (kind, tenant) = (params.take("kind")?, params.take("tenant")?);
    params.finish()?;
    operator.may_everywhere(Subject::Events.read())?;
    let cursor = cursor.as_deref().map(|text| read_cursor(text).ok_or_else(unreadable_cursor)).transpose()?;
    let tenant = match tenant {
        Some(text) => Some(TenantKey::parse_field(&text)?.find(&api.store).await?.value.id),
        None => None,
    };
    let mut events = api.feed.cross_tenant_attempts();
    events.retain(|event| {
        kind.as_deref().is_none_or(|kind| kind == CROSS_TENANT_ATTEMPT)
            && tenant.is_none_or(|tenant| event.attempt.tenant == Some(tenant))
            && cursor.is_none_or(|cursor| event.place() < cursor)
    });
    let more = events.len() > limit as usize;
    events.truncate(limit as usize);
    let next = events.last().filter(|_| more).map(|last| {
        let (at_ms, request) = last.place();
        format!("{at_ms}.{request}")
    });
    Ok(ListAnswer::of(Page { items: events.into_iter().map(EventView::from).collect(), next }))
}

fn read_cursor(text: &str) -> Option<(i64, &str)> {
    let (at_ms, request) = text.split_once('.')?;
    Some((at_ms.parse().ok()?, request))
}
