//! A real request, kept to be explained later: what the decision read of it, and what came of it.
//!
//! Kept is what the decision needs to be made again. Values that open doors are not: of a token it is what it was found
//! to be worth, of a query the parameters that name a tenant, of the other fields their names.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::explain::{Explanation, explain_facts};
use super::{Bearer, Headers, RequestFacts, Token, TokenError, VerifiedToken, query};
use crate::model::{CookieMatch, HeaderMatch, IssuerId, Revision};
use crate::table::{Live, RoutingTable, TenantEntry};

/// Bytes of one value that are kept: 1,024. What is longer names nobody, or is matched by its beginning.
const LONGEST: usize = 1_024;
/// Values of one kind that are kept, such as lines of `X-Tenant-ID`: 8. A second one that differs is refused already.
const MOST: usize = 8;
/// Names of fields that are kept: 64.
const MOST_FIELDS: usize = 64;

/// A request as a proxy keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecordedRequest {
    /// The gateway's identifier of it.
    pub request_id: String,
    /// When its head had arrived, milliseconds since 1970.
    pub at_ms: i64,
    /// The revision that decided; 0 when it was refused before anything was decided.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// The client's address, as far as it was believed.
    #[schema(value_type = String)]
    pub client_ip: IpAddr,
    /// Whether the client came over TLS.
    pub tls: bool,
    /// The name in the handshake.
    pub sni: Option<String>,
    /// `Host` or `:authority`, as sent.
    pub host: Option<String>,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// What in the query names a tenant; nothing else of it.
    pub tenant_query: Option<String>,
    /// Lines of `X-Tenant-ID`.
    pub tenant_ids: Vec<String>,
    /// Lines of `X-Tenant-Slug`.
    pub tenant_slugs: Vec<String>,
    /// Names of all fields; values are not kept.
    pub fields: Vec<String>,
    /// Conditions of routes on fields that it met.
    #[schema(value_type = Vec<Object>)]
    pub conditions: Vec<HeaderMatch>,
    /// Cookies of canaries that were there.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub cookies: Vec<CookieMatch>,
    /// The chance that a canary shared it by.
    #[serde(default)]
    pub chance: u64,
    /// What its token was found to be worth.
    #[schema(value_type = Object)]
    pub token: RecordedToken,
    /// What came of it.
    pub happened: Happened,
}

/// What a token was found to be worth; never the token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedToken {
    /// There was none, or nobody asked.
    #[default]
    Absent,
    /// Of nobody that is known.
    Stranger(TokenError),
    /// Of this issuer, and not good.
    Refused {
        /// Whose it claimed to be.
        issuer: IssuerId,
        /// Why it was not good.
        error: TokenError,
    },
    /// Good.
    Verified {
        /// Whose.
        issuer: IssuerId,
        /// The tenants it named.
        names: Vec<Box<str>>,
        /// Until when it was good, seconds since 1970.
        expires_at: i64,
    },
    /// There were several.
    Several,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Happened {
    /// The status answered; 0 when the client went away before.
    pub status: u16,
    /// The code of the gateway's own answer.
    pub error: Option<String>,
    /// The tenant, by its slug.
    pub tenant: Option<String>,
    /// The pool it was forwarded to.
    pub pool: Option<String>,
    /// The last backend asked.
    pub backend: Option<String>,
    /// What that backend answered; `null` when it did not.
    pub backend_status: Option<u16>,
    /// Attempts beyond the first.
    pub retries: u32,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Until it was known where it goes, microseconds.
    pub decide_us: Option<u64>,
    /// To get a connection to the backend, microseconds.
    pub connect_us: Option<u64>,
    /// Until the first byte of the backend's answer, microseconds.
    pub first_byte_us: Option<u64>,
    /// Until the last byte of the answer, microseconds.
    pub total_us: u64,
}

/// A value no longer than what is kept of one.
pub struct Shortened<'a>(pub &'a str);

impl From<Shortened<'_>> for String {
    fn from(Shortened(text): Shortened<'_>) -> Self {
        text[..text.floor_char_boundary(LONGEST)].to_owned()
    }
}

/// What is kept of a request's fields.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conditions {
    /// Lines of `X-Tenant-ID`.
    pub tenant_ids: Vec<String>,
    /// Lines of `X-Tenant-Slug`.
    pub tenant_slugs: Vec<String>,
    /// Names of all fields.
    pub fields: Vec<String>,
    /// Conditions of routes that they met.
    pub met: Vec<HeaderMatch>,
    /// Cookies of canaries that were there.
    pub cookies: Vec<CookieMatch>,
}

impl Conditions {
    /// What is kept of `headers`, whose fields have these `names`, where a request of `tenant` was decided by `table`.
    pub fn of<'n, L: Live, H: Headers>(
        table: &RoutingTable<L>,
        tenant: Option<&TenantEntry<L>>,
        headers: &H,
        names: impl Iterator<Item = &'n str>,
    ) -> Self {
        let lines = |lines: &mut dyn Iterator<Item = &[u8]>| -> Vec<String> {
            lines.take(MOST).map(|line| Shortened(&String::from_utf8_lossy(line)).into()).collect()
        };
        let mut fields: Vec<String> = Vec::new();
        for name in names {
            if fields.len() == MOST_FIELDS {
                break;
            }
            if !fields.iter().any(|field| field == name) {
                fields.push(Shortened(name).into());
            }
        }
        let own = tenant.and_then(|tenant| table.pool(&tenant.tenant.pool));
        let of_tenant = tenant.into_iter().flat_map(|tenant| tenant.routes.iter());
        let of_pool = own.into_iter().flat_map(|pool| pool.routes.iter());
        let of_all = table.public_routes().iter().chain(table.platform_routes().iter());
        let routes: Vec<_> = of_tenant.chain(of_pool).chain(of_all).collect();
        let on_routes = routes.iter().filter_map(|route| route.action.canary.as_ref());
        let canaries = on_routes.chain(tenant.and_then(|tenant| tenant.tenant.canary.as_deref()));
        let (mut met, mut cookies): (Vec<HeaderMatch>, Vec<CookieMatch>) = (Vec::new(), Vec::new());
        let conditions = routes.iter().flat_map(|route| &route.matches.headers);
        for condition in conditions.chain(canaries.clone().filter_map(|canary| canary.header.as_ref())) {
            if headers.has(&condition.name, condition.value.as_deref()) && !met.contains(condition) {
                met.push(condition.clone());
            }
        }
        for cookie in canaries.filter_map(|canary| canary.cookie.as_ref()) {
            if headers.has_cookie(&cookie.name, &cookie.value) && !cookies.contains(cookie) {
                cookies.push(cookie.clone());
            }
        }
        Self {
            tenant_ids: lines(&mut headers.tenant_ids()),
            tenant_slugs: lines(&mut headers.tenant_slugs()),
            fields,
            met,
            cookies,
        }
    }
}

impl From<&Bearer> for RecordedToken {
    fn from(bearer: &Bearer) -> Self {
        match bearer {
            Bearer::Absent => Self::Absent,
            Bearer::Stranger(error) => Self::Stranger(*error),
            Bearer::Refused { issuer, error } => Self::Refused { issuer: issuer.id.clone(), error: *error },
            Bearer::Verified(token) => Self::Verified {
                issuer: token.issuer.id.clone(),
                names: token.names.iter().take(MOST).map(|name| String::from(Shortened(name)).into()).collect(),
                expires_at: token.expires_at,
            },
            Bearer::Several => Self::Several,
        }
    }
}

impl RecordedRequest {
    /// The explanation, when it was refused before anything was decided.
    pub fn undecided(&self) -> Option<Explanation> {
        (self.revision == Revision::NONE)
            .then(|| Explanation::undecided(self.happened.status, self.happened.error.as_deref()))
    }

    /// The parameters of `query` that are kept.
    pub fn tenant_query(query: Option<&str>) -> Option<String> {
        query::only_tenant(query?).map(|kept| Shortened(&kept).into())
    }
}

impl Headers for RecordedRequest {
    fn has(&self, name: &str, value: Option<&str>) -> bool {
        self.conditions.iter().any(|met| met.name == name && met.value.as_deref() == value)
    }

    fn has_cookie(&self, name: &str, value: &str) -> bool {
        self.cookies.iter().any(|met| met.name == name && met.value == value)
    }

    fn tenant_ids(&self) -> impl Iterator<Item = &[u8]> {
        self.tenant_ids.iter().map(String::as_bytes)
    }

    fn tenant_slugs(&self) -> impl Iterator<Item = &[u8]> {
        self.tenant_slugs.iter().map(String::as_bytes)
    }
}

impl Token for RecordedToken {
    fn bearer<L: Live>(&self, table: &RoutingTable<L>) -> Bearer {
        match self {
            Self::Absent => Bearer::Absent,
            Self::Several => Bearer::Several,
            Self::Stranger(error) => Bearer::Stranger(*error),
            Self::Refused { issuer, error } => match table.issuer(issuer) {
                Some(issuer) => Bearer::Refused { issuer: issuer.clone(), error: *error },
                None => Bearer::Stranger(TokenError::Issuer),
            },
            Self::Verified { issuer, names, expires_at } => match table.issuer(issuer) {
                Some(issuer) => Bearer::Verified(Arc::new(VerifiedToken {
                    issuer: issuer.clone(),
                    names: names.clone(),
                    expires_at: *expires_at,
                })),
                None => Bearer::Stranger(TokenError::Issuer),
            },
        }
    }
}

/// Makes the decision on a recorded request again, by `table`, which should be of the revision that made it.
pub fn explain_recorded<L: Live>(table: &RoutingTable<L>, request: &RecordedRequest) -> Explanation {
    explain_facts(
        table,
        &RequestFacts {
            secure: request.tls,
            sni: request.sni.as_deref(),
            authority: request.host.as_deref(),
            client: request.client_ip,
            method: &request.method,
            path: &request.path,
            query: request.tenant_query.as_deref(),
            headers: request,
            token: &request.token,
            now_ms: request.at_ms,
            chance: request.chance,
        },
    )
}
