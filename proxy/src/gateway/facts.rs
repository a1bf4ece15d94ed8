//! Facts of a request, as the decision reads them.

use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;
use schoolgate_config::identity::{self, Headers, Selected, Via};
use schoolgate_config::table::Live;

use crate::admit::client_addr::Client;
use crate::exchange::{Cut, Exchange};
use crate::forward::request::{X_TENANT_ID, X_TENANT_SLUG};
use crate::forward::security::Transport;
use crate::transport::ConnInfo;

/// On a shared host, the target without what named the tenant in it.
pub(super) fn cut<L: Live>(selected: &Selected<'_, '_, L>, query: Option<&str>) -> Option<Cut> {
    if !matches!(selected.via, Via::Shared(_)) {
        return None;
    }
    let shorter = query.and_then(identity::without_tenant);
    if shorter.is_none() && selected.prefix.is_none() {
        return None;
    }
    let left = shorter.as_deref().or(query).filter(|left| !left.is_empty());
    let target = left.map_or_else(|| selected.path.to_owned(), |left| format!("{}?{left}", selected.path));
    Some(Cut { target, prefix: selected.prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok()) })
}

/// Looks fields up for the decision.
pub(super) struct Fields<'a> {
    pub(super) headers: &'a HeaderMap,
    /// The gate saw fields of ours: only then it is worth looking for those that name a tenant.
    pub(super) name_us: bool,
}

impl Fields<'_> {
    fn lines(&self, name: &http::HeaderName) -> impl Iterator<Item = &[u8]> {
        let lines = self.name_us.then(|| self.headers.get_all(name));
        lines.into_iter().flatten().map(HeaderValue::as_bytes)
    }
}

impl Headers for Fields<'_> {
    fn tenant_ids(&self) -> impl Iterator<Item = &[u8]> {
        self.lines(&X_TENANT_ID)
    }

    fn tenant_slugs(&self) -> impl Iterator<Item = &[u8]> {
        self.lines(&X_TENANT_SLUG)
    }

    fn has_cookie(&self, name: &str, value: &str) -> bool {
        self.headers.get_all(COOKIE).iter().any(|line| identity::line_has_cookie(line.as_bytes(), name, value))
    }

    fn has(&self, name: &str, value: Option<&str>) -> bool {
        let mut lines = self.headers.get_all(name).iter();
        match value {
            None => lines.next().is_some(),
            Some(value) => lines.any(|line| line.as_bytes() == value.as_bytes()),
        }
    }
}

/// `:authority` or `Host`, as sent.
pub(super) fn authority(request: &RequestHeader) -> Option<&str> {
    let pseudo = request.uri.authority().map(|a| a.as_str());
    // Not UTF-8 is not a host either; the decision then finds no identifier it could read.
    pseudo.or_else(|| std::str::from_utf8(request.headers.get(HOST)?.as_bytes()).ok())
}

/// How the client came, as far as security headers are concerned.
pub(super) fn transport(request: &RequestHeader, exchange: &Exchange) -> Transport {
    Transport::of(exchange.client.is_some_and(|client| client.secure), authority(request))
}

/// The canonical authority, if it is not what was sent.
pub(super) fn canonical_host(sent: Option<&str>, host: &str, port: Option<u16>) -> Option<HeaderValue> {
    if sent.is_some_and(|sent| sent.split(':').next() == Some(host)) {
        return None;
    }
    let text = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    HeaderValue::try_from(text).ok()
}

pub(super) fn client(conn: Option<&ConnInfo>, session: &ServerSession, trusted: &[IpNet]) -> Client {
    let unknown = || std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let peer = conn.map(|c| c.client).or_else(|| session.client_addr()?.as_inet().copied()).unwrap_or_else(unknown);
    Client::of(peer, conn.is_some_and(ConnInfo::is_tls), &session.req_header().headers, trusted)
}
