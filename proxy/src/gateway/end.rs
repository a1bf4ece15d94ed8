//! The end of a request: what is counted, logged and kept of it.

use http::Version;
use pingora_core::protocols::http::ServerSession;
use schoolgate_config::identity::{self, Conditions, RecordedRequest, RecordedToken, Shortened};

use super::facts::{Fields, authority};
use super::{Gateway, limits};
use crate::balance::InFlight;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::observe::{Finished, Phases};
use crate::transport::conn_info;

impl Gateway {
    /// Counts a request that is over, writes its line, and keeps it where `explain` finds it.
    pub(crate) fn finished(&self, session: &ServerSession, exchange: &Exchange) {
        let request = session.req_header();
        let conn = conn_info(session);
        let client = exchange.client.map(|c| c.ip).or_else(|| conn.map(|c| c.client.ip()));
        let status = session.response_written().map_or(0, |r| r.status.as_u16());
        if let Some(conn) = conn.filter(|conn| conn.is_h2()) {
            if status == 0 { conn.unanswered(self.0.limits.h2_unanswered_resets) } else { conn.answered() }
        }
        let host = authority(request).and_then(|sent| identity::normalise(sent).ok());
        let times = &exchange.times;
        let attempt = exchange.attempts.current.as_ref().filter(|_| times.attempt.is_some()).map(InFlight::backend);
        let finished = Finished {
            request_id: exchange.request_id.as_str(),
            client: client.unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
            protocol: match request.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            tls: conn.and_then(|c| c.tls.as_ref()).map(|tls| tls.version),
            method: request.method.as_str(),
            host: host.as_ref().map(|authority| &*authority.host),
            path: request.uri.path(),
            status,
            error: exchange.fault.map(Fault::code),
            tenant: exchange.tenant.as_ref().map(|t| (&*t.tenant, &*t.live.counters)),
            pool: exchange.target.as_ref().map(|t| (&t.pool.pool.id, &*t.pool.live.counters)),
            backend: attempt.map(|b| (&b.address, &*b.counters)),
            backend_status: exchange.attempts.status,
            retries: u32::from(exchange.attempts.retries) + u32::from(exchange.attempts.stale),
            revision: exchange.revision,
            bytes_in: exchange.body.bytes(),
            bytes_out: session.body_bytes_sent() as u64,
            phases: Phases {
                decide: times.decided,
                connect: times.connected.zip(times.attempt).map(|(at, from)| at.saturating_sub(from)),
                first_byte: times.first_byte,
                total: exchange.elapsed(),
            },
            mismatch: exchange.mismatch,
            unknown_host: exchange.unknown_host,
            limited: exchange.fault.filter(|_| exchange.tenant.is_some()).and_then(Fault::layer),
            would_limit: limits::would_limit(exchange),
        };
        self.transferred(exchange, finished.bytes_in.saturating_add(finished.bytes_out));
        if let (Some(share), Some((pool, _))) = (&exchange.share, finished.pool) {
            share.ended(status, times.first_byte.unwrap_or(finished.phases.total), pool);
        }
        self.0.observe.request(&finished);
        if self.0.observe.keeps(&finished) {
            let tenant = finished.tenant.map(|(tenant, _)| tenant.id);
            self.0.observe.record(tenant, self.recorded(session, exchange, &finished));
        }
    }

    /// A request as it is kept: what the decision read of it, and what came of it.
    fn recorded(&self, session: &ServerSession, exchange: &Exchange, finished: &Finished<'_>) -> RecordedRequest {
        let request = session.req_header();
        let sent = Fields { headers: &request.headers, name_us: true };
        let names = request.headers.keys().map(http::HeaderName::as_str);
        let Conditions { tenant_ids, tenant_slugs, fields, met, cookies } =
            Conditions::of(&self.0.table.load(), exchange.tenant.as_deref(), &sent, names);
        RecordedRequest {
            request_id: finished.request_id.to_owned(),
            at_ms: exchange.began_ms,
            revision: exchange.revision,
            client_ip: finished.client,
            tls: exchange.client.is_some_and(|client| client.secure),
            sni: conn_info(session).and_then(|conn| conn.sni()).map(|sni| sni.to_string()),
            host: authority(request).map(|host| Shortened(host).into()),
            method: Shortened(finished.method).into(),
            path: Shortened(finished.path).into(),
            tenant_query: RecordedRequest::tenant_query(request.uri.query()),
            tenant_ids,
            tenant_slugs,
            fields,
            conditions: met,
            cookies,
            chance: exchange.chance,
            token: exchange.bearer.as_ref().map(RecordedToken::from).unwrap_or_default(),
            happened: finished.happened(),
        }
    }
}
