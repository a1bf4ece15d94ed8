//! The limits of a tenant, where a request meets them.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use schoolgate_config::feed::QuotaEvent;
use schoolgate_config::model::{LimitMode, RequestClass, Route, Tenant};
use schoolgate_config::table::TenantEntry;

use super::{Gateway, Refused};
use crate::exchange::Exchange;
use crate::limit::{Ask, Counts, Enforced, Kind, Layer, Layers, Level, QuotaKind, Reached, Rule};
use crate::live::NodeLive;

impl Gateway {
    /// Asks the limits of a tenant whether a request may come in.
    pub(super) fn limit(
        &self,
        tenant: &TenantEntry<NodeLive>,
        enforced: &Enforced,
        route: Option<&Route>,
        exchange: &mut Exchange,
    ) -> Result<(), Refused> {
        let limiter = &self.0.limiter;
        let action = route.map(|route| &route.action);
        let unspecified = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let ask = Ask {
            limits: &tenant.live.limits,
            enforced,
            tenant: tenant.live.number,
            calendar: tenant.live.today.at(exchange.began_ms),
            now_ns: limiter.now_ns(exchange.began),
            now_ms: exchange.began_ms,
            client: exchange.client.as_ref().map_or(unspecified, |client| client.ip),
            class: action.and_then(|action| action.rate_class.as_deref()),
            kind: if exchange.head.upgrade { Kind::WebSocket } else { Kind::Request },
            counts: match action.and_then(|action| action.class) {
                Some(RequestClass::Static | RequestClass::Public) => Counts::No,
                Some(RequestClass::Api | RequestClass::Page) | None => Counts::Yes,
            },
        };
        match limiter.admit(&ask) {
            Ok(passed) => {
                for reached in passed.reached.iter().flatten() {
                    self.0.observe.quota_reached(event(&tenant.tenant, reached, exchange.began_ms));
                }
                exchange.passed = Some(passed);
                Ok(())
            }
            Err(limited) => {
                let fault = limited.fault;
                exchange.limited = Some(limited);
                Err(fault.into())
            }
        }
    }

    /// A request that was let in begins again on another way: what it used up is given back.
    pub(crate) fn forget(&self, exchange: &Exchange) {
        if let (Some(passed), Some(tenant)) = (&exchange.passed, &exchange.tenant) {
            self.0.limiter.forget(&tenant.live.limits, passed, self.0.limiter.now_ns(exchange.began));
        }
    }

    /// Counts what a request that was let in carried, both ways.
    pub(super) fn transferred(&self, exchange: &Exchange, bytes: u64) {
        if let (Some(_), Some(tenant)) = (&exchange.passed, &exchange.tenant) {
            let calendar = tenant.live.today.at(exchange.now_ms());
            self.0.limiter.transferred(&tenant.live.limits, calendar, bytes);
        }
    }
}

/// The final answer has begun: a WebSocket is no request in progress any more, and what is none never becomes one.
pub(super) fn answered(status: StatusCode, exchange: &mut Exchange) {
    if let Some(passed) = &mut exchange.passed {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            passed.request = None;
        } else {
            passed.websocket = None;
        }
    }
}

/// Layers that would have refused a request, were they not in shadow.
pub(super) fn would_limit(exchange: &Exchange) -> Layers {
    let mut layers = exchange.passed.as_ref().map(|passed| passed.would_limit).unwrap_or_default();
    let announced = exchange.head.content_length.unwrap_or(0);
    if exchange.body.bytes().max(announced) > exchange.body_shadow && exchange.fault.is_none() {
        layers.add(Layer::Body);
    }
    layers
}

/// How large a body may be, as the route says, or else the tenant's limits for its type.
pub(super) fn body_rule(enforced: &Enforced, route: Option<&Route>, headers: &HeaderMap) -> Option<Rule<u64>> {
    if let Some(limit) = route.and_then(|route| route.action.body_bytes) {
        return Some(Rule { limit, mode: LimitMode::Enforce });
    }
    enforced.upload_bytes.filter(|_| is_upload(headers)).or(enforced.body_bytes)
}

/// The bytes above which a body is refused, and those above which it would be were that enforced. `most` is what the
/// edge bears where nobody says anything else.
pub(super) fn body_bytes(rule: Option<Rule<u64>>, most: u64) -> (u64, u64) {
    match rule {
        None => (most, u64::MAX),
        Some(Rule { limit, mode: LimitMode::Enforce }) => (limit, u64::MAX),
        Some(Rule { limit, mode: LimitMode::Shadow }) => (most, limit),
    }
}

/// Whether a body is a form with files (RFC 7578).
fn is_upload(headers: &HeaderMap) -> bool {
    const FORM: &[u8] = b"multipart/form-data";
    let kind = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    kind.and_then(|kind| kind.get(..FORM.len())).is_some_and(|kind| kind.eq_ignore_ascii_case(FORM))
}

fn event(tenant: &Tenant, reached: &Reached, at_ms: i64) -> QuotaEvent {
    QuotaEvent {
        kind: if reached.level == Level::Exceeded { QuotaEvent::EXCEEDED } else { QuotaEvent::WARNING }.to_owned(),
        at_ms,
        tenant: tenant.id,
        tenant_slug: tenant.slug.clone(),
        quota: match reached.quota {
            QuotaKind::Requests => "requests_per_day",
            QuotaKind::Bytes => "bytes_per_month",
        }
        .to_owned(),
        used: reached.used,
        limit: reached.value,
        period_starts_ms: reached.period.starts_ms,
        period_ends_ms: reached.period.ends_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_known_by_its_type() {
        let upload = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
            is_upload(&headers)
        };
        assert!(upload("multipart/form-data; boundary=x") && upload("Multipart/Form-Data"));
        assert!(!upload("multipart/mixed") && !upload("application/json") && !upload("m"));
    }

    #[test]
    fn a_body_in_shadow_is_bounded_by_the_edge_only() {
        let rule = |mode| Some(Rule { limit: 10, mode });
        assert_eq!(body_bytes(rule(LimitMode::Enforce), 100), (10, u64::MAX));
        assert_eq!(body_bytes(rule(LimitMode::Shadow), 100), (100, 10));
        assert_eq!(body_bytes(None, 100), (100, u64::MAX));
    }
}
