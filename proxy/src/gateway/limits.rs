//! The limits of a tenant, where a request meets them.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::http::ServerSession;
use pingora_error::{Error, ErrorType};
use schoolgate_config::feed::QuotaEvent;
use schoolgate_config::model::{Lane, LimitMode, Pool, RequestClass, Route, Tenant, Weight};
use schoolgate_config::table::TenantEntry;

use super::{Admitted, Gateway, Refused};
use crate::balance::queue::{Busy, Claim, Turn};
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::limit::{Ask, Counts, Enforced, Kind, Layer, Layers, Level, Reached, Rule};
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

    /// A request waits for its turn in a pool that is full. Its client may go away meanwhile.
    pub(super) async fn wait_for_turn(
        &self,
        session: &mut ServerSession,
        exchange: &mut Exchange,
        turn: Turn,
    ) -> Result<Result<Admitted, Refused>, Box<Error>> {
        let Some(pool) = exchange.target.as_ref().map(|target| target.pool.clone()) else {
            return Ok(Err(Fault::Internal.into()));
        };
        let began = exchange.elapsed();
        let waiting = pool.live.queue.wait(&pool.pool.queue, turn);
        let waited = if session.is_body_done() {
            tokio::select! {
                biased;
                waited = waiting => waited,
                _ = session.read_body_or_idle(true) => {
                    return Err(Error::new_down(ErrorType::ConnectionClosed));
                }
            }
        } else {
            // To listen to its client would be to read its body.
            waiting.await
        };
        pool.live.counters.waited(exchange.elapsed().saturating_sub(began));
        match waited {
            Ok(slot) => exchange.slot = Some(slot),
            Err(Busy) => {
                self.forget(exchange);
                exchange.passed = None;
                return Ok(Err(Fault::PoolBusy.into()));
            }
        }
        Ok(self.guard(|| self.forward(session, exchange)).unwrap_or_else(|fault| Err(fault.into())))
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

/// Whose a place in a pool is.
pub(super) fn claim(tenant: Option<&TenantEntry<NodeLive>>) -> Claim {
    // What is for nobody in particular takes its turn as one more tenant.
    let (tenant, weight) = tenant.map_or((0, Weight::default()), |tenant| (tenant.live.number, tenant.plan.weight));
    Claim { tenant, weight }
}

/// Whose turn a request takes in the queue of a pool that is full.
pub(super) fn turn(claim: Claim, pool: &Pool, route: Option<&Route>, path: &str) -> Turn {
    let lane = route.and_then(|route| route.action.lane);
    let of_path = || if pool.queue.is_priority(path) { Lane::Priority } else { Lane::Fair };
    Turn { claim, lane: lane.unwrap_or_else(of_path) }
}

/// The final answer has begun: a WebSocket is no request in progress any more, and what is none never becomes one.
pub(super) fn answered(status: StatusCode, exchange: &mut Exchange) {
    if let Some(passed) = &mut exchange.passed {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            passed.request = None;
            exchange.slot = None;
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
pub(super) fn body_rule(enforced: Option<&Enforced>, route: Option<&Route>, headers: &HeaderMap) -> Option<Rule<u64>> {
    if let Some(limit) = route.and_then(|route| route.action.body_bytes) {
        return Some(Rule { limit, mode: LimitMode::Enforce });
    }
    let enforced = enforced?;
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
        quota: reached.quota.as_str().to_owned(),
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
