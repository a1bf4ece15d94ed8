//! Gateway: the life of a request, phase by phase. Each phase is a few lines that call the modules beside this one.

mod end;
mod facts;
mod limits;
mod pingora;
mod target;

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{HOST, SET_COOKIE, TE};
use http::{HeaderMap, HeaderValue, Version};
use ipnet::IpNet;
use pingora_core::protocols::http::ServerSession;
use pingora_error::Result;
use pingora_http::RequestHeader;
use schoolgate_config::identity::{self, Refusal, RequestFacts, Selected, TokenError};
use schoolgate_config::model::{PoolId, PoolTimeouts, Route};
use schoolgate_config::settings::EdgeLimits;
use schoolgate_config::table::{Live, PoolEntry, RoutingTable, TenantEntry};
use schoolgate_config::time::Clock;
use tracing::debug;

use crate::admit::gate::{self, HeadLimits};
use crate::admit::limits::{BodyMeter, LeastRate};
use crate::admit::token::{Presented, TokenCache};
use crate::answer::{self, Answer, Said};
use crate::balance::retry::{self, Attempt, Failure, Verdict};
use crate::balance::{Avoided, Choice, InFlight, LiveBackend, NoBackend, NoConnection, Trouble};
use crate::exchange::{Exchange, Target};
use crate::fault::Fault;
use crate::feed::Signing;
use crate::files::{Files, Found};
use crate::forward::context::context;
use crate::forward::peer::{UPGRADED_IDLE, Wants};
use crate::forward::request::{self, Upward, X_FORWARDED_PREFIX};
use crate::forward::response;
use crate::limit::Limiter;
use crate::live::{NodeLive, TenantPermit};
use crate::observe::{CrossTenantAttempt, InShare, Mismatch, Observe, ShareSide};
use crate::tls::Certificates;
use crate::transport::{ConnInfo, conn_info};

use facts::{Fields, authority, canonical_host, client, cut, transport};
pub(crate) use target::rewritten_target;
use target::{change_fields, forget_nominations, forget_upgrade, set_target, to_origin_form};

/// What every request reads; swapped whole when a revision is adopted.
pub type SharedTable = Arc<ArcSwap<RoutingTable<NodeLive>>>;

/// What a gateway is made of.
pub struct GatewayParts {
    /// The table that requests read.
    pub table: SharedTable,
    /// The key that signs tenant contexts.
    pub signing: Signing,
    /// Counts and logs.
    pub observe: Arc<Observe>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where TLS is served to the public: what plain HTTP redirects to.
    pub https_port: u16,
    /// What answers for which name: a name without a certificate is not sent to TLS.
    pub certificates: Arc<dyn Certificates>,
    /// Networks of hops whose `X-Forwarded-*` count.
    pub trusted_hops: Vec<IpNet>,
    /// What the edge bears.
    pub limits: EdgeLimits,
    /// What tenants may use.
    pub limiter: Arc<Limiter>,
    /// Files that routes answer with.
    pub files: Arc<Files>,
}

/// Serves requests; each worker has a clone. Beside its parts it has the tokens that were found good.
#[derive(Clone)]
pub struct Gateway(Arc<GatewayParts>, Arc<TokenCache>);

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

/// The attempt that begins.
pub(crate) struct Next {
    /// Which backend is asked.
    pub(crate) backend: Arc<LiveBackend>,
    /// Its pool's.
    pub(crate) timeouts: PoolTimeouts,
    /// What is asked of the connection.
    pub(crate) wants: Wants,
    /// When all must be over, if that is bounded.
    pub(crate) until: Option<tokio::time::Instant>,
}

/// What admission came to.
enum Admitted {
    /// To a backend, which is chosen.
    Forward,
    /// An answer of ours.
    Answer(Answer),
}

/// A request refused, and whether its connection can be trusted to frame another.
struct Refused {
    fault: Fault,
    keep: bool,
    said: Said,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        // After a request that is not valid, where the next one begins is not sure.
        Self { fault, keep: fault != Fault::BadRequest, said: Said::default() }
    }
}

impl Gateway {
    /// A gateway of these parts.
    pub fn new(parts: GatewayParts) -> Self {
        Self(Arc::new(parts), Arc::default())
    }

    /// Runs a step of ours; a panic in it is caught, counted, and becomes a fault. It is a bug, but not one that may
    /// take other tenants' connections down.
    pub(crate) fn guard<T>(&self, step: impl FnOnce() -> T) -> Result<T, Fault> {
        catch_unwind(AssertUnwindSafe(step)).map_err(|_| {
            self.0.observe.panicked();
            Fault::Internal
        })
    }

    /// What becomes of a request before a backend is asked: says whether it has been answered.
    ///
    /// # Errors
    /// The client is gone.
    pub(crate) async fn receive(&self, session: &mut ServerSession, exchange: &mut Exchange) -> Result<bool> {
        let mut admitted = self.guard(|| self.admit(session, exchange)).unwrap_or_else(|fault| Err(fault.into()));
        if let (Ok(Admitted::Forward), Some(turn)) = (&admitted, exchange.turn.take()) {
            // In a box: what it needs would be memory of every exchange.
            admitted = Box::pin(self.wait_for_turn(session, exchange, turn)).await?;
        }
        let (answer, keep) = match admitted {
            Ok(Admitted::Forward) => return Ok(false),
            Ok(Admitted::Answer(answer)) => (secured(answer, session, exchange), true),
            Err(Refused { fault, keep, said }) => {
                exchange.fault = Some(fault);
                (Self::told_saying(fault, &said, session, exchange), keep)
            }
        };
        answer.send(session, keep).await?;
        Ok(true)
    }

    /// What the client is told of a fault: in its school's colours and with its security headers, if it has a school.
    pub(crate) fn told(fault: Fault, session: &ServerSession, exchange: &Exchange) -> Answer {
        Self::told_saying(fault, &Said::default(), session, exchange)
    }

    fn told_saying(fault: Fault, said: &Said, session: &ServerSession, exchange: &Exchange) -> Answer {
        let tenant = exchange.tenant.as_ref().map(|tenant| &*tenant.tenant);
        let headers = &session.req_header().headers;
        let answer = Answer::fault(fault, said, &exchange.request_id, tenant, headers);
        secured(answer.limited(exchange.limited.as_deref()), session, exchange)
    }

    /// The context of a request that has just arrived.
    pub(crate) fn begin(&self) -> Exchange {
        Exchange::new(self.0.clock.unix_ms())
    }

    /// Everything that is decided before a backend is asked.
    fn admit(&self, session: &mut ServerSession, exchange: &mut Exchange) -> Result<Admitted, Refused> {
        let parts = &*self.0;
        let conn = conn_info(session).cloned();
        if let Some(conn) = &conn {
            conn.see_request();
            if conn.budget().is_spent() {
                return Err(Refused { fault: Fault::Overloaded, keep: false, said: Said::default() });
            }
        }
        let limits = HeadLimits {
            target_bytes: parts.limits.uri_bytes as usize,
            fields: parts.limits.header_fields as usize,
            field_bytes: parts.limits.field_bytes as usize,
            list_bytes: parts.limits.head_bytes as usize,
        };
        let raw = || session.as_http1().map(|h1| h1.get_headers_raw_bytes());
        let head = gate::check(session.req_header(), raw, &limits)
            // Where the next message begins is not sure after a head like that.
            .map_err(|fault| Refused { fault, keep: false, said: Said::default() })?;
        exchange.head = head;
        if head.absolute_form {
            to_origin_form(session.req_header_mut());
        }
        if head.ignored_upgrade {
            forget_upgrade(session.req_header_mut());
        }
        if head.nominates_unwanted {
            forget_nominations(session.req_header_mut());
        }
        exchange.client = Some(client(conn.as_deref(), session, &parts.trusted_hops));
        if head.asterisk {
            return Ok(Admitted::Answer(Answer::no_content(&exchange.request_id)));
        }
        self.decide(conn.as_deref(), session, exchange)
    }

    fn decide(
        &self,
        conn: Option<&ConnInfo>,
        session: &mut ServerSession,
        exchange: &mut Exchange,
    ) -> Result<Admitted, Refused> {
        let parts = &*self.0;
        let table = parts.table.load();
        exchange.revision = table.revision();
        let request = session.req_header();
        let authority = authority(request);
        let client = exchange.client.as_ref();
        let token = Presented {
            headers: &request.headers,
            cache: &self.1,
            now: exchange.began_ms.div_euclid(1_000),
            observe: &parts.observe,
            found: OnceCell::new(),
        };
        let facts = RequestFacts {
            secure: client.is_some_and(|c| c.secure),
            sni: conn.and_then(ConnInfo::sni).map(|sni| &**sni),
            authority,
            client: client.map_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |c| c.ip),
            method: request.method.as_str(),
            path: request.uri.path(),
            query: request.uri.query(),
            headers: &Fields { headers: &request.headers, name_us: exchange.head.has_unwanted },
            token: &token,
            now_ms: exchange.began_ms,
            chance: exchange.chance,
        };
        let decision = identity::decide(&table, &facts);
        exchange.times.decided = Some(exchange.elapsed());
        exchange.bearer = token.found.get().cloned();
        let selected = match decision {
            Err(Refusal::Challenge(authorization)) => {
                return Ok(Admitted::Answer(Answer::challenge(&authorization, &exchange.request_id)));
            }
            Err(Refusal::Plain { host }) => {
                if parts.certificates.resolve(&host).is_none() {
                    let tenant = identity::tenant_of(&table, &host).map(|(tenant, _)| tenant);
                    return Err(wait(tenant, exchange));
                }
                return self.to_https(&host, request, exchange);
            }
            Ok(Selected { tenant, .. }) if conn.is_some_and(ConnInfo::is_waiting) => {
                return Err(wait(tenant, exchange));
            }
            Ok(selected) => selected,
            Err(refusal) => return self.refuse(refusal, request, exchange),
        };
        let host = canonical_host(authority, &selected.host, selected.port);
        let cut = cut(&selected, facts.query);
        let route = selected.route.cloned();
        let (tenant, pool, otherwise) = (selected.tenant.cloned(), selected.pool.clone(), selected.otherwise.cloned());
        drop(table);
        exchange.permit = tenant.as_ref().map(|t| TenantPermit::take(&parts.observe, &t.live.counters));
        exchange.share = tenant.as_deref().and_then(|tenant| share(tenant, &pool.pool.id));
        let edge = &parts.limits;
        let rate = LeastRate { bytes_s: edge.body_rate_bytes_s, after: edge.body_rate_after_s.duration() };
        let held = tenant.as_ref().map(|t| t.live.enforced(&parts.limiter, t, exchange.began_ms));
        let body = limits::body_rule(held.as_deref(), route.as_deref(), &request.headers);
        let (body, shadow) = limits::body_bytes(body, parts.limits.body_bytes);
        exchange.body = BodyMeter::new(body, rate, exchange.began);
        exchange.body_shadow = shadow;
        exchange.tenant = tenant.clone();
        exchange.body.announced(exchange.head.content_length)?;
        if let (Some(tenant), Some(held)) = (&tenant, &held) {
            self.limit(tenant, held, route.as_deref(), exchange)?;
        }
        pool.live.budget.earn(pool.pool.retry.budget_percent);
        let claim = limits::claim(tenant.as_deref());
        let entered = pool.live.queue.enter(&pool.pool, claim, exchange.began_ms);
        let turn = entered.is_err().then(|| limits::turn(claim, &pool.pool, route.as_deref(), facts.path));
        exchange.target = Some(Target { pool, otherwise, route, host, cut });
        exchange.slot = entered.unwrap_or_default();
        if turn.is_some() {
            exchange.turn = turn;
            return Ok(Admitted::Forward);
        }
        self.forward(session, exchange)
    }

    /// It goes to a backend, which is chosen.
    fn forward(&self, session: &mut ServerSession, exchange: &mut Exchange) -> Result<Admitted, Refused> {
        self.read_cookie(session.req_header(), exchange);
        choose(exchange, exchange.began_ms).map_err(|NoBackend| Fault::NoBackend)?;
        self.set_deadlines(session, exchange);
        Ok(Admitted::Forward)
    }

    /// Which backend a cookie of ours leads to, where the pool has such.
    fn read_cookie(&self, request: &RequestHeader, exchange: &mut Exchange) {
        let (Some(target), Some(tenant)) = (&exchange.target, &exchange.tenant) else { return };
        let Some(sticky) = &target.pool.live.sticky else { return };
        exchange.attempts.sticky = sticky.read(&request.headers, tenant.tenant.id, exchange.began_ms.div_euclid(1_000));
    }

    /// Plain HTTP: a host we know is sent to TLS, any other is unknown here as there.
    fn to_https(&self, host: &str, request: &RequestHeader, exchange: &Exchange) -> Result<Admitted, Refused> {
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        let location = answer::https_location(host, self.0.https_port, target).ok_or(Fault::BadRequest)?;
        Ok(Admitted::Answer(Answer::redirect(308, location, &exchange.request_id)))
    }

    fn refuse(
        &self,
        refusal: Refusal<'_, '_, NodeLive>,
        request: &RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<Admitted, Refused> {
        let fault = fault_of(&refusal);
        let tenant = refusal.tenant();
        let mut said = Said::default();
        match refusal {
            Refusal::Misdirected => exchange.mismatch = Some(Mismatch::Sni),
            Refusal::UnknownHost => exchange.unknown_host = true,
            Refusal::Mismatch(mismatch) => {
                let kind = Mismatch::from(mismatch.by);
                exchange.mismatch = Some(kind);
                self.0.observe.cross_tenant_attempt(CrossTenantAttempt {
                    at_ms: exchange.began_ms,
                    request_id: exchange.request_id.as_str().to_owned(),
                    client: exchange.client.map(|client| client.ip),
                    host: authority(request)
                        .and_then(|sent| identity::normalise(sent).ok())
                        .map_or_else(String::new, |a| a.host.into_owned()),
                    tenant: mismatch.tenant.map(|t| (t.tenant.id, t.tenant.slug.clone())),
                    kind,
                    named: mismatch.named,
                });
            }
            Refusal::Answer(_, route) => {
                exchange.tenant = tenant.cloned();
                let answer = route.action.answer.as_ref().ok_or(Fault::Internal)?;
                return Ok(Admitted::Answer(Answer::fixed(answer, &exchange.request_id).of_route(route)));
            }
            Refusal::Files(_, route, path) => {
                exchange.tenant = tenant.cloned();
                let answer = self.file(route, path, request, exchange)?;
                return Ok(Admitted::Answer(answer.of_route(route)));
            }
            Refusal::Maintenance(_, Some(maintenance)) => {
                said = Said {
                    retry_after_s: maintenance.ends_in_s(exchange.began_ms),
                    message: maintenance.message.clone(),
                };
            }
            Refusal::Redirect(_, route) => {
                exchange.tenant = tenant.cloned();
                let redirect = route.action.redirect.as_ref();
                let location = redirect.and_then(answer::route_location).ok_or(Fault::Internal)?;
                let status = redirect.map_or(308, |r| r.status);
                let answer = Answer::redirect(status, location, &exchange.request_id);
                return Ok(Admitted::Answer(answer.of_route(route)));
            }
            _ => {}
        }
        exchange.tenant = tenant.cloned();
        Err(Refused { said, ..fault.into() })
    }

    /// The file of a route that a path names.
    fn file(&self, route: &Route, path: &str, request: &RequestHeader, exchange: &Exchange) -> Result<Answer, Fault> {
        let rule = route.action.files.as_ref().ok_or(Fault::Internal)?;
        let found = rule.name(&route.matches, path).and_then(|name| self.0.files.find(&name));
        match found.ok_or(Fault::NoRoute)? {
            Found::File(file) => Ok(Answer::file(file, rule, &request.headers, &exchange.request_id)),
            Found::Directory => {
                let location = answer::slash_location(request.uri.path(), request.uri.query());
                Ok(Answer::redirect(308, location.ok_or(Fault::BadRequest)?, &exchange.request_id))
            }
        }
    }

    fn set_deadlines(&self, session: &mut ServerSession, exchange: &Exchange) {
        // The time without a byte of the body is the transport's; a switched protocol has a longer one.
        if exchange.head.upgrade {
            session.set_read_timeout(Some(UPGRADED_IDLE));
        }
        session.set_write_timeout(Some(self.0.limits.write_stall_s.duration()));
    }

    /// Begins an attempt: which backend, and what is asked of the connection to it.
    pub(crate) fn attempt(&self, session: &mut ServerSession, exchange: &mut Exchange) -> Result<Next, Fault> {
        if !exchange.attempts.fresh {
            choose(exchange, exchange.now_ms()).map_err(|NoBackend| Fault::NoBackend)?;
            // What was read of the body is sent, and counted, again.
            exchange.body.restart();
        }
        exchange.attempts.fresh = false;
        exchange.attempts.status = None;
        exchange.times.attempt = Some(exchange.elapsed());
        let target = exchange.target.as_ref().ok_or(Fault::Internal)?;
        let backend = exchange.attempts.current.as_ref().ok_or(Fault::Internal)?.backend();
        let pool = &target.pool;
        let timeouts = timeouts(&pool.pool.timeouts, target.route.as_deref());
        let mut read = Duration::from_millis(timeouts.read_ms);
        let mut first_byte = timeouts.first_byte_ms.map_or(read, Duration::from_millis);
        if !session.is_body_done() {
            // The clock of the answer starts anew with every piece of the body, so it also cuts a body that stalls; a
            // route's short timeout must not.
            read = read.max(self.0.limits.body_stall_s.duration());
            first_byte = first_byte.max(self.0.limits.body_stall_s.duration());
        }
        let wants = Wants {
            // Tenants are counted from 1: what is for nobody shares its connections with nobody's.
            group: group(exchange.tenant.as_ref().map_or(0, |tenant| tenant.live.number), pool.live.number),
            first_byte,
            read,
            left: exchange.time_left(),
            upgrade: exchange.head.upgrade,
        };
        let until = wants.left.map(|left| tokio::time::Instant::now() + left);
        Ok(Next { backend: backend.clone(), timeouts, wants, until })
    }

    /// Rewrites the fields of a request for its backend.
    pub(crate) fn rewrite_fields(&self, session: &ServerSession, headers: &mut HeaderMap, exchange: &Exchange) {
        let (Some(target), Some(client)) = (&exchange.target, &exchange.client) else { return };
        let key = self.0.signing.load();
        let now_s = exchange.began_ms.div_euclid(1_000);
        let tenant = exchange.tenant.as_ref();
        let context = tenant.map(|tenant| context(key.as_ref(), &self.0.limiter, tenant, &target.pool.pool.id, now_s));
        let peer = conn_info(session).map_or(client.ip, |conn| conn.client.ip().to_canonical());
        // HTTP/2 has no `Host`; one is set so that all ways are the same from here on.
        let from_authority = match &target.host {
            None if !headers.contains_key(HOST) => {
                session.req_header().uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok())
            }
            _ => None,
        };
        let up = Upward {
            has_unwanted: exchange.head.has_unwanted,
            cookie_crumbs: exchange.head.cookie_crumbs,
            tenant: tenant.map(|tenant| &*tenant.live).zip(context.as_ref()),
            route: target.route.as_deref(),
            request_id: &exchange.request_id.header(),
            peer,
            via_hop: client.via_hop,
            secure: client.secure,
            host: target.host.as_ref().or(from_authority.as_ref()),
        };
        request::rewrite(headers, &up);
        if let Some(prefix) = target.cut.as_ref().and_then(|cut| cut.prefix.as_ref()) {
            headers.insert(&X_FORWARDED_PREFIX, prefix.clone());
        }
    }

    fn rewrite_request(&self, session: &ServerSession, upstream: &mut RequestHeader, exchange: &Exchange) {
        if let Some(target) = rewritten_target(upstream, exchange) {
            set_target(upstream, &target);
        }
        change_fields(upstream, |headers| self.rewrite_fields(session, headers, exchange));
        let sent = session.req_header();
        if (sent.version, upstream.version) == (Version::HTTP_2, Version::HTTP_2) && sent.headers.contains_key(TE) {
            // Pingora forgets it of a session that is not its own. The gate lets nothing else through, and a gRPC server
            // insists on it.
            let _ = upstream.insert_header(TE, HeaderValue::from_static("trailers"));
        }
    }

    /// The backend's final answer begins.
    pub(crate) fn answered(&self, status: http::StatusCode, exchange: &mut Exchange) {
        exchange.times.first_byte = Some(exchange.elapsed());
        exchange.attempts.status = Some(status.as_u16());
        limits::answered(status, exchange);
        if let (Some(target), Some(attempt)) = (&exchange.target, &exchange.attempts.current) {
            let (pool, backend) = (&target.pool, attempt.backend());
            let Some(whose) = exchange.whose() else { return };
            if matches!(status.as_u16(), 502..=504) {
                pool.live.failed(backend, whose, Trouble::Said, &pool.pool.ejection, exchange.now_ms());
            } else {
                pool.live.succeeded(backend, whose, || exchange.now_ms());
            }
        }
    }

    /// Rewrites the fields of a final answer for the client.
    pub(crate) fn rewrite_answer(
        &self,
        session: &ServerSession,
        status: http::StatusCode,
        headers: &mut HeaderMap,
        exchange: &Exchange,
    ) {
        response::rewrite(headers, status, &exchange.request_id.header());
        if let Some(cookie) = cookie(exchange) {
            headers.append(SET_COOKIE, cookie);
        }
        if let Some(tenant) = &exchange.tenant {
            tenant.live.security.set(headers, transport(session.req_header(), exchange));
        }
        if let Some(passed) = &exchange.passed {
            passed.told.set(headers);
        }
        if let Some(route) = exchange.target.as_ref().and_then(|target| target.route.as_ref()) {
            response::apply_route(headers, route);
        }
        if session.req_header().version == Version::HTTP_10 {
            response::without_chunks(headers);
        }
        if session.req_header().version == Version::HTTP_2 {
            response::for_http2(headers);
        }
    }

    /// Takes a failed attempt into account and says whether another follows.
    pub(crate) fn after_failure(&self, session: &mut ServerSession, exchange: &mut Exchange, failure: Failure) -> bool {
        let now_ms = exchange.now_ms();
        let Some(target) = &exchange.target else { return false };
        let Some(backend) = exchange.attempts.current.as_ref().map(|a| a.backend().clone()) else { return false };
        let (live, rules) = (&target.pool.live, &target.pool.pool);
        let failure = match failure {
            // The client stalls in the middle of its body: nobody behind us is to blame, nor would do better.
            Failure::TimedOut if !session.is_body_done() => Failure::Final,
            other => other,
        };
        match (failure, exchange.whose()) {
            (Failure::Refused, _) => {
                live.not_connected(&backend, NoConnection::Refused, &rules.ejection, now_ms);
            }
            (Failure::NotConnected, _) => live.not_connected(&backend, NoConnection::Other, &rules.ejection, now_ms),
            (Failure::Broken | Failure::TimedOut, Some(whose)) => {
                live.failed(&backend, whose, Trouble::Silent, &rules.ejection, now_ms);
            }
            _ => {}
        }
        if exchange.time_left().is_some_and(|left| left.is_zero()) {
            return false;
        }
        let held = exchange.body.bytes() <= u64::from(rules.retry.buffer_bytes);
        let attempt = Attempt {
            failure,
            idempotent: session.req_header().method.is_idempotent(),
            replayable: held && !session.retry_buffer_truncated(),
            answered: session.response_written().is_some() || exchange.attempts.status.is_some(),
            retries: exchange.attempts.retries,
            stale: exchange.attempts.stale,
        };
        let mut leaves_canary = false;
        match retry::verdict(&rules.retry, attempt) {
            Verdict::GiveUp => return false,
            Verdict::RetryStale => exchange.attempts.stale += 1,
            Verdict::Retry => {
                exchange.attempts.failed.push(backend.id);
                // The failure is the better answer than "no backend" when there is no other.
                let again = picked(exchange, &target.pool, now_ms).is_ok() && target.pool.live.budget.spend(now_ms);
                if !again && target.otherwise.is_none() {
                    return false;
                }
                // Of a canary: the rest would have had this request without it, so there it is no repeated one.
                leaves_canary = !again;
                exchange.attempts.retries += 1;
                self.0.observe.retried(&target.pool.live.counters);
            }
        }
        backend.counters.failed();
        debug!(
            request.id = %exchange.request_id, pool.id = %rules.id, backend.addr = %backend.address,
            "{} did not answer ({failure:?}); trying again", backend.address
        );
        if leaves_canary {
            go_with_the_rest(exchange);
        }
        true
    }
}

/// An answer of ours with the security headers of its school.
fn secured(answer: Answer, session: &ServerSession, exchange: &Exchange) -> Answer {
    let security = exchange.tenant.as_ref().map(|tenant| &tenant.live.security);
    answer.secured(security, transport(session.req_header(), exchange))
}

/// How a refusal is answered. One that is no answer of ours but a redirect has no fault; it is made elsewhere.
fn fault_of<L: Live>(refusal: &Refusal<'_, '_, L>) -> Fault {
    match refusal {
        Refusal::BadAuthority(_) | Refusal::BadPath => Fault::BadRequest,
        Refusal::NoIdentifier => Fault::NoIdentifier,
        Refusal::MissingToken => Fault::MissingToken,
        Refusal::Token(TokenError::Format) => Fault::InvalidTokenFormat,
        Refusal::Token(TokenError::Expired) => Fault::TokenExpired,
        Refusal::Token(_) => Fault::InvalidToken,
        Refusal::Misdirected => Fault::Misdirected,
        Refusal::Mismatch(_) => Fault::TenantMismatch,
        Refusal::UnknownHost | Refusal::NotActive => Fault::NotActive,
        Refusal::TokenNotActive => Fault::TokenNotActive,
        Refusal::Suspended(_) => Fault::Suspended,
        Refusal::Maintenance(..) => Fault::Maintenance,
        Refusal::FeatureNotInPlan(_) => Fault::FeatureNotInPlan,
        Refusal::NoRoute(_) | Refusal::NoChallenge => Fault::NoRoute,
        Refusal::ReadOnly(_) => Fault::MethodNotAllowed,
        Refusal::Challenge(_)
        | Refusal::Plain { .. }
        | Refusal::Redirect(..)
        | Refusal::Files(..)
        | Refusal::Answer(..) => Fault::Internal,
    }
}

/// A name that waits for its certificate: the school's page says so. The connection ends with it, so that the next one
/// finds the certificate.
fn wait(tenant: Option<&Arc<TenantEntry<NodeLive>>>, exchange: &mut Exchange) -> Refused {
    exchange.tenant = tenant.cloned();
    Refused { fault: Fault::Waiting, keep: false, said: Said::default() }
}

/// The cookie that leads back to the backend that answers, if the client has none or another.
fn cookie(exchange: &Exchange) -> Option<HeaderValue> {
    let (target, tenant) = (exchange.target.as_ref()?, exchange.tenant.as_ref()?);
    let sticky = target.pool.live.sticky.as_ref()?;
    let backend = exchange.attempts.current.as_ref()?.backend().id;
    let new = exchange.attempts.sticky != Some(backend);
    new.then(|| sticky.write(backend, tenant.tenant.id, exchange.began_ms.div_euclid(1_000))).flatten()
}

/// Chooses a backend for the next attempt, at `now_ms`.
fn choose(exchange: &mut Exchange, now_ms: i64) -> Result<(), NoBackend> {
    let pick = |pool: &PoolEntry<NodeLive>| picked(exchange, pool, now_ms).map(InFlight::take);
    let target = exchange.target.as_ref().ok_or(NoBackend)?;
    let chosen = match (pick(&target.pool), &target.otherwise) {
        // A canary that has nobody costs no request: it goes with the rest.
        (Err(NoBackend), Some(rest)) => {
            let chosen = pick(rest)?;
            go_with_the_rest(exchange);
            chosen
        }
        (chosen, _) => chosen?,
    };
    exchange.attempts.current = Some(chosen);
    exchange.attempts.fresh = true;
    Ok(())
}

/// A request of a canary's share becomes one of the rest. It gives its place back, and takes one there if there is one:
/// that a canary died refuses nobody.
fn go_with_the_rest(exchange: &mut Exchange) {
    let Some(target) = &mut exchange.target else { return };
    let Some(rest) = target.otherwise.take() else { return };
    let claim = limits::claim(exchange.tenant.as_deref());
    exchange.slot = rest.live.queue.enter(&rest.pool, claim, exchange.began_ms).unwrap_or_default();
    target.pool = rest;
}

/// The backend of a pool that the next attempt would go to.
fn picked<'a>(
    exchange: &Exchange,
    pool: &'a PoolEntry<NodeLive>,
    now_ms: i64,
) -> Result<&'a Arc<LiveBackend>, NoBackend> {
    let live = &pool.live;
    let tenant = exchange.tenant.as_ref().map(|tenant| &tenant.live);
    let avoided = tenant.map(|tenant| tenant.circuits.avoided(live.number, &pool.pool.ejection, now_ms));
    live.pick(&Choice {
        tenant: tenant.map(|tenant| tenant.point).unwrap_or_default(),
        sticky: exchange.attempts.sticky,
        tried: &exchange.attempts.failed,
        avoided: &avoided.unwrap_or(Avoided::NONE),
        now_ms,
        seed: fastrand::u64(..),
    })
}

/// On which side of its tenant's canary a request to this pool is. One that a route sends elsewhere is on none.
fn share(tenant: &TenantEntry<NodeLive>, pool: &PoolId) -> Option<InShare> {
    let counters = tenant.live.canary.as_ref()?;
    if *pool == counters.pool {
        Some(InShare::begin(counters, ShareSide::Moved))
    } else if *pool == tenant.tenant.pool {
        Some(InShare::begin(counters, ShareSide::Rest))
    } else {
        None
    }
}

/// How long each phase of a request may take: as its pool says, and its route where it says otherwise.
fn timeouts(pool: &PoolTimeouts, route: Option<&Route>) -> PoolTimeouts {
    route.map_or_else(|| pool.clone(), |route| route.action.times(pool))
}

/// Connections are kept per tenant and pool. Both numbers are of this process and never used twice; 2^40 tenants and
/// 2^24 pools later they would be.
const fn group(tenant: u64, pool: u64) -> u64 {
    (tenant << 24) | (pool & 0x00ff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> Gateway {
        Gateway::new(GatewayParts {
            table: Arc::default(),
            signing: Arc::default(),
            observe: Arc::new(Observe::off()),
            clock: Arc::new(schoolgate_config::time::SystemClock),
            https_port: 443,
            certificates: Arc::new(crate::tls::Keyring::new(Arc::new(schoolgate_config::time::SystemClock))),
            trusted_hops: Vec::new(),
            limits: EdgeLimits::default(),
            limiter: Arc::default(),
            files: Arc::default(),
        })
    }

    #[test]
    fn a_panic_of_ours_becomes_an_answer() {
        let outcome = gateway().guard(|| -> u8 { panic!("a test's own") });
        assert_eq!(outcome, Err(Fault::Internal));
        assert_eq!(gateway().guard(|| 7), Ok(7));
    }

    #[test]
    fn what_explain_says_of_a_refusal_is_what_a_client_gets() {
        type R = Refusal<'static, 'static, schoolgate_config::table::NoLive>;
        let refusals: [R; 14] = [
            Refusal::ReadOnly(None),
            Refusal::BadAuthority(identity::AuthorityError::Port),
            Refusal::BadPath,
            Refusal::NoChallenge,
            Refusal::NoIdentifier,
            Refusal::MissingToken,
            Refusal::Token(TokenError::Format),
            Refusal::Token(TokenError::Expired),
            Refusal::Token(TokenError::Signature),
            Refusal::Misdirected,
            Refusal::UnknownHost,
            Refusal::NotActive,
            Refusal::TokenNotActive,
            Refusal::Mismatch(identity::Mismatch {
                tenant: None,
                by: identity::Identifier::Query,
                named: "birch".into(),
            }),
        ];
        for refusal in refusals {
            let fault = fault_of(&refusal);
            assert_eq!(refusal.answer(), (fault.status(), Some(fault.code())), "{refusal:?}");
        }
    }

    #[test]
    fn two_tenants_or_pools_never_have_one_group() {
        let groups = [group(1, 1), group(1, 2), group(2, 1), group(2, 2)];
        assert!(groups.iter().enumerate().all(|(n, g)| !groups[..n].contains(g)));
    }

    #[test]
    fn only_another_spelling_of_the_host_is_replaced() {
        assert_eq!(canonical_host(Some("a.example:8443"), "a.example", Some(8443)), None);
        let replaced = canonical_host(Some("A.example.:8443"), "a.example", Some(8443));
        assert_eq!(replaced, Some(HeaderValue::from_static("a.example:8443")));
    }

    #[test]
    fn a_rewritten_target_keeps_an_authority() {
        let mut request = RequestHeader::build("GET", b"/", None).expect("parsed");
        request.set_uri("https://a.example/api?x".parse().expect("a URI"));
        set_target(&mut request, "/v2?x");
        assert_eq!(request.uri, "https://a.example/v2?x");
    }
}
