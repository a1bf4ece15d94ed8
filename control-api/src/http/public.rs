//! What anybody may ask: whether a school is on this platform.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use schoolgate_config::model::{DomainName, Slug, Tenant, Theme};

use super::envelope::Peer;
use super::params::Params;
use super::problem::Problem;
use super::{Answer, Api};

/// Questions that one address may ask at once: 30, a class that opens the app behind one address.
const BURST: u32 = 30;
/// Time after which one more is allowed: 1 s.
const EVERY: Duration = Duration::from_secs(1);
/// Addresses remembered: 10,000, about 1 MB. Beyond that the idle are forgotten, then everyone.
const REMEMBERED: usize = 10_000;

/// Who has asked lately.
#[derive(Debug, Default)]
pub(crate) struct Visitors(Mutex<HashMap<IpAddr, Instant>>);

impl Visitors {
    /// Counts a question. One too many gives the time to wait (GCRA: the moment when the address is even again).
    fn ask(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        // A network of its own is the least that one IPv6 customer has.
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
            v4 => v4,
        };
        let mut even = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if even.len() >= REMEMBERED && !even.contains_key(&address) {
            even.retain(|_, at| *at > now);
            if even.len() >= REMEMBERED {
                even.clear();
            }
        }
        let at = even.entry(address).or_insert(now);
        let next = (*at).max(now) + EVERY;
        let ahead = next.saturating_duration_since(now);
        let most = EVERY * BURST;
        if ahead > most {
            return Err(ahead - most);
        }
        *at = next;
        Ok(())
    }
}

/// A school, as anybody may know it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SchoolView {
    /// Always `true`.
    valid: bool,
    /// Its short name.
    slug: Slug,
    /// Its name.
    name: String,
    /// Where it is: its main domain, or its name below a zone.
    host: Option<String>,
    /// Its motto.
    motto: Option<String>,
    /// Colours, font and logo of its pages.
    theme: Theme,
}

/// A school by its code (`slug`) or by one of its names (`domain`): for a mobile app's first screen.
#[utoipa::path(get, path = "/api/public/verify-tenant", tag = "public",
    params(
        ("slug" = Option<String>, Query, description = "The school's short name"),
        ("domain" = Option<String>, Query, description = "One of its names"),
    ),
    responses((status = 200, body = SchoolView), (status = 404), (status = 429)))]
pub(super) async fn verify_tenant(State(api): State<Api>, peer: Option<Extension<Peer>>, mut params: Params) -> Answer {
    if let Some(ip) = peer.and_then(|Extension(peer)| peer.ip())
        && let Err(wait) = api.visitors.ask(ip, Instant::now())
    {
        let seconds = u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX);
        let problem =
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", "too many questions from this address");
        return Err(problem.retry_after(seconds).into());
    }
    let (slug, domain) = (params.take("slug")?, params.take("domain")?);
    params.finish()?;
    let head = api.store.head();
    let table = &head.table;
    let found = match (slug, domain) {
        (Some(slug), None) => table.tenant_by_slug(slug.trim().to_ascii_lowercase().as_str()),
        (None, Some(domain)) => DomainName::parse(domain.trim()).ok().and_then(|name| {
            let by_zone = || table.tenant_of_zone_name(name.as_str()).map(|(_, entry)| entry);
            table.tenant_of_domain(name.as_str()).or_else(by_zone)
        }),
        _ => return Err(Problem::bad_request("give one of the parameters slug and domain").into()),
    };
    // Unknown and inactive read the same.
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "TENANT_NOT_ACTIVE", "there is no such school here");
    let tenant = found.map(|entry| entry.tenant.clone()).filter(|t| t.is_active()).ok_or_else(unknown)?;
    Ok(Json(school(&api, &tenant).await?).into_response())
}

async fn school(api: &Api, tenant: &Tenant) -> Result<SchoolView, super::Stop> {
    let query =
        schoolgate_store::ListQuery { tenant: Some(tenant.id), limit: 100, ..schoolgate_store::ListQuery::default() };
    let domains = api.store.list::<schoolgate_config::model::Domain>(&query).await?.items;
    let routable = domains.iter().filter(|domain| domain.value.is_routable());
    let main = routable.max_by_key(|domain| domain.value.primary).map(|domain| domain.value.name.to_string());
    let head = api.store.head();
    let zones = head.table.zones().filter(|zone| !zone.reserves(tenant.slug.as_str()));
    let in_zone = zones.map(|zone| format!("{}.{}", tenant.slug, zone.name)).min();
    Ok(SchoolView {
        valid: true,
        slug: tenant.slug.clone(),
        name: tenant.name.clone(),
        host: main.or(in_zone),
        motto: tenant.profile.motto.clone(),
        theme: (*tenant.theme).clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_asks_a_burst_and_then_one_a_second() {
        let visitors = Visitors::default();
        let (now, me) = (Instant::now(), "192.0.2.1".parse().expect("an address"));
        for _ in 0..BURST {
            assert!(visitors.ask(me, now).is_ok());
        }
        assert!(visitors.ask(me, now).is_err());
        assert!(visitors.ask("192.0.2.2".parse().expect("an address"), now).is_ok());
        assert!(visitors.ask(me, now + EVERY).is_ok());
        assert!(visitors.ask(me, now + EVERY).is_err());
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded() {
        let visitors = Visitors::default();
        let now = Instant::now();
        for i in 0..(REMEMBERED as u32 + 10) {
            assert!(visitors.ask(IpAddr::from(i.to_be_bytes()), now).is_ok());
        }
        assert!(visitors.0.lock().expect("not poisoned").len() <= REMEMBERED);
    }
}
