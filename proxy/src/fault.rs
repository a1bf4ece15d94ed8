//! Fault: every way we refuse or fail, with its status, code, text and metric label, in one table.
//!
//! What a client reads of a fault is written here and nowhere else, so that it says nothing of our insides.

use pingora_error::{Error, ErrorSource, ErrorType};

use crate::limit::Layer;
use crate::transport::BadChunks;

/// Why a request got an answer of ours instead of a backend's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request head breaks a rule of the gate, or its authority is no host.
    BadRequest,
    /// Nothing says which tenant.
    NoIdentifier,
    /// The zone wants a token and there is none.
    MissingToken,
    /// The token cannot be read.
    InvalidTokenFormat,
    /// The token is not good.
    InvalidToken,
    /// The token was good until some time ago.
    TokenExpired,
    /// SNI and authority lead to different tenants.
    Misdirected,
    /// Another identifier names another tenant than the one selected.
    TenantMismatch,
    /// The token names no tenant that is served.
    TokenNotActive,
    /// No such tenant, or one that is not served.
    NotActive,
    /// The tenant is suspended.
    Suspended,
    /// The tenant, or the route, is in maintenance.
    Maintenance,
    /// The name waits for its certificate.
    Waiting,
    /// The route needs a feature that the tenant does not have.
    FeatureNotInPlan,
    /// The pool or the file that should serve is not there.
    NoRoute,
    /// The route answers with files, which are only read.
    MethodNotAllowed,
    /// The body is larger than route, plan or gateway allow.
    BodyTooLarge,
    /// The request target is longer than the gateway takes.
    UriTooLong,
    /// The head has more fields than the gateway takes.
    HeadersTooLarge,
    /// The client did not send its body in time.
    RequestTimeout,
    /// Something of ours failed.
    Internal,
    /// The backend could not be reached, broke off, or answered something that is not HTTP.
    Upstream,
    /// The tenant, one of its clients or a class of its requests is above its rate.
    RateLimited,
    /// A hard quota is used up.
    QuotaExceeded,
    /// The tenant has too much in progress.
    ConcurrencyLimited,
    /// The pool has as much in flight as it bears, and waiting did not help.
    PoolBusy,
    /// No backend of the pool takes requests.
    NoBackend,
    /// The backend took longer than its timeouts.
    UpstreamTimeout,
    /// As much is held for clients as may be.
    Overloaded,
}

/// What a fault looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The HTTP status.
    pub status: u16,
    /// The code in `error`, and the metric label.
    pub code: &'static str,
    /// The status in words.
    pub title: &'static str,
    /// One sentence for the one who asked.
    pub message: &'static str,
    /// `Retry-After` in seconds, where trying again can help.
    pub retry_after_s: Option<u32>,
}

impl Fault {
    /// Every fault, for metrics and tests.
    pub const ALL: [Self; 29] = [
        Self::BadRequest,
        Self::NoIdentifier,
        Self::MissingToken,
        Self::InvalidTokenFormat,
        Self::InvalidToken,
        Self::TokenExpired,
        Self::Misdirected,
        Self::TenantMismatch,
        Self::TokenNotActive,
        Self::NotActive,
        Self::Suspended,
        Self::Maintenance,
        Self::Waiting,
        Self::FeatureNotInPlan,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::HeadersTooLarge,
        Self::RequestTimeout,
        Self::Internal,
        Self::Upstream,
        Self::RateLimited,
        Self::QuotaExceeded,
        Self::ConcurrencyLimited,
        Self::PoolBusy,
        Self::NoBackend,
        Self::UpstreamTimeout,
        Self::Overloaded,
    ];

    /// What it looks like from outside.
    pub const fn row(self) -> Row {
        const fn row(status: u16, code: &'static str, title: &'static str, message: &'static str) -> Row {
            Row { status, code, title, message, retry_after_s: None }
        }
        const fn later(row: Row, seconds: u32) -> Row {
            Row { retry_after_s: Some(seconds), ..row }
        }
        match self {
            Self::BadRequest => row(400, "BAD_REQUEST", "Bad Request", "The request is not valid HTTP."),
            Self::NoIdentifier => {
                row(400, "TENANT_NOT_FOUND", "Bad Request", "The request does not say which school it is for.")
            }
            Self::MissingToken => row(401, "MISSING_TOKEN", "Unauthorized", "A token is needed here."),
            Self::InvalidTokenFormat => row(401, "INVALID_TOKEN_FORMAT", "Unauthorized", "The token cannot be read."),
            Self::InvalidToken => row(401, "INVALID_TOKEN", "Unauthorized", "The token is not valid."),
            Self::TokenExpired => row(401, "TOKEN_EXPIRED", "Unauthorized", "The token has expired; get a new one."),
            Self::TenantMismatch => row(403, "TENANT_MISMATCH", "Forbidden", "The request names more than one school."),
            Self::TokenNotActive => {
                row(403, "TENANT_NOT_ACTIVE", "Forbidden", "There is no active school for this token.")
            }
            Self::Misdirected => row(
                421,
                "MISDIRECTED",
                "Misdirected Request",
                "This connection was opened for another name; open a new one.",
            ),
            Self::NotActive => row(404, "TENANT_NOT_ACTIVE", "Not Found", "There is no active school at this address."),
            Self::Suspended => row(403, "TENANT_SUSPENDED", "Forbidden", "This school's platform is suspended."),
            Self::Maintenance => later(
                row(
                    503,
                    "TENANT_MAINTENANCE",
                    "Service Unavailable",
                    "This school's platform is in maintenance and will be back soon.",
                ),
                // Maintenance is announced in minutes; a client that asks each two minutes is soon enough.
                120,
            ),
            Self::Waiting => later(
                row(
                    503,
                    "DOMAIN_PENDING",
                    "Service Unavailable",
                    "This address is being set up. Please try again in a few minutes.",
                ),
                // An authority takes some seconds when all is well.
                30,
            ),
            Self::FeatureNotInPlan => {
                row(403, "FEATURE_NOT_IN_PLAN", "Forbidden", "This feature is not part of the school's plan.")
            }
            Self::NoRoute => row(404, "NO_ROUTE", "Not Found", "Nothing serves this address."),
            Self::MethodNotAllowed => {
                row(405, "METHOD_NOT_ALLOWED", "Method Not Allowed", "This address can only be read.")
            }
            Self::BodyTooLarge => {
                row(413, "BODY_TOO_LARGE", "Content Too Large", "The request body is larger than allowed.")
            }
            Self::UriTooLong => row(414, "URI_TOO_LONG", "URI Too Long", "The address is longer than allowed."),
            Self::HeadersTooLarge => row(
                431,
                "HEADERS_TOO_LARGE",
                "Request Header Fields Too Large",
                "The request has more or larger header fields than allowed.",
            ),
            Self::RequestTimeout => {
                row(408, "REQUEST_TIMEOUT", "Request Timeout", "The request did not arrive in time.")
            }
            Self::Internal => {
                row(500, "TENANT_PROCESSING_ERROR", "Internal Server Error", "The request could not be processed.")
            }
            Self::Upstream => row(502, "UPSTREAM_ERROR", "Bad Gateway", "The school's platform did not answer."),
            // How long to wait is told by whatever refused.
            Self::RateLimited => row(
                429,
                "RATE_LIMITED",
                "Too Many Requests",
                "There are too many requests at the moment; wait a little.",
            ),
            Self::QuotaExceeded => {
                row(429, "QUOTA_EXCEEDED", "Too Many Requests", "What this school's plan includes for now is used up.")
            }
            Self::ConcurrencyLimited => row(
                429,
                "CONCURRENCY_LIMITED",
                "Too Many Requests",
                "There are too many requests at the same time; wait a little.",
            ),
            Self::PoolBusy => later(
                row(
                    503,
                    "POOL_BUSY",
                    "Service Unavailable",
                    "The school's platform is very busy; try again in a moment.",
                ),
                // A quarter of a second was waited already; who comes a second later finds another queue.
                1,
            ),
            Self::NoBackend => later(
                row(503, "NO_BACKEND", "Service Unavailable", "The school's platform is not available right now."),
                // Two rounds of health checks at their default second, and a little.
                5,
            ),
            Self::Overloaded => later(
                row(503, "OVERLOADED", "Service Unavailable", "Too much is going on right now; try again in a moment."),
                // What is held is mostly given back within the deadlines for bodies and answers; half of it goes sooner.
                5,
            ),
            Self::UpstreamTimeout => {
                row(504, "UPSTREAM_TIMEOUT", "Gateway Timeout", "The school's platform did not answer in time.")
            }
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// The code in `error`, and the metric label.
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// The layer of limits that refused.
    pub(crate) const fn layer(self) -> Option<Layer> {
        match self {
            Self::RateLimited => Some(Layer::Rate),
            Self::QuotaExceeded => Some(Layer::Quota),
            Self::ConcurrencyLimited => Some(Layer::Concurrency),
            Self::BodyTooLarge => Some(Layer::Body),
            Self::PoolBusy => Some(Layer::Queue),
            _ => None,
        }
    }

    /// The methods that `Allow` names (RFC 9110 section 15.5.6).
    pub const fn allows(self) -> Option<&'static str> {
        if matches!(self, Self::MethodNotAllowed) { Some("GET, HEAD") } else { None }
    }

    /// What `WWW-Authenticate` says where a token would help (RFC 6750 section 3).
    pub const fn challenge(self) -> Option<&'static str> {
        match self {
            Self::MissingToken => Some("Bearer"),
            Self::InvalidTokenFormat | Self::InvalidToken | Self::TokenExpired => {
                Some("Bearer error=\"invalid_token\"")
            }
            _ => None,
        }
    }

    /// The fault that an error of the proxy machinery is for the client; `None`: the client is gone, nobody reads an
    /// answer.
    ///
    /// `body_pending` says whether the request's body was still arriving: the same timeout is then the client's.
    pub(crate) fn of_error(error: &Error, body_pending: bool) -> Option<Self> {
        use ErrorType as E;
        match (&error.esource, &error.etype) {
            (ErrorSource::Downstream, E::ReadError) if is_bad_chunks(error) => Some(Self::BadRequest),
            (ErrorSource::Downstream, E::ReadTimedout) => Some(Self::RequestTimeout),
            (
                ErrorSource::Downstream,
                E::WriteError | E::WriteTimedout | E::ReadError | E::ConnectionClosed | E::ConnectError | E::H2Error,
            ) => None,
            (ErrorSource::Downstream, _) => Some(Self::BadRequest),
            (ErrorSource::Upstream, E::ReadTimedout | E::WriteTimedout) if body_pending => Some(Self::RequestTimeout),
            (ErrorSource::Upstream, E::ReadTimedout | E::WriteTimedout | E::ConnectTimedout) => {
                Some(Self::UpstreamTimeout)
            }
            (ErrorSource::Upstream, _) => Some(Self::Upstream),
            (ErrorSource::Internal | ErrorSource::Unset, _) => Some(Self::Internal),
        }
    }
}

/// Whether the client's framing is what stopped the reading.
fn is_bad_chunks(error: &Error) -> bool {
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.and_then(std::io::Error::get_ref).is_some_and(<dyn std::error::Error + Send + Sync>::is::<BadChunks>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_status_name_one_fault_and_statuses_are_errors() {
        let mut codes: Vec<_> = Fault::ALL.iter().map(|f| (f.code(), f.status())).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Fault::ALL.len());
        assert!(Fault::ALL.iter().all(|f| (400..600).contains(&f.status())));
        assert!(Fault::ALL.iter().all(|f| f.challenge().is_some() == (f.status() == 401)));
    }

    #[test]
    fn a_timeout_is_the_clients_while_its_body_is_on_the_way() {
        let mut error = Error::new_up(ErrorType::ReadTimedout);
        assert_eq!(Fault::of_error(&error, true), Some(Fault::RequestTimeout));
        assert_eq!(Fault::of_error(&error, false), Some(Fault::UpstreamTimeout));
        error.esource = ErrorSource::Downstream;
        assert_eq!(Fault::of_error(&error, false), Some(Fault::RequestTimeout));
    }

    #[test]
    fn a_client_that_is_gone_gets_no_answer() {
        assert_eq!(Fault::of_error(&Error::new_down(ErrorType::ConnectionClosed), false), None);
        assert_eq!(Fault::of_error(&Error::new_down(ErrorType::WriteError), false), None);
    }

    #[test]
    fn a_body_in_malformed_chunks_is_a_bad_request() {
        let cause = std::io::Error::new(std::io::ErrorKind::InvalidData, BadChunks);
        let mut error = Error::because(ErrorType::ReadError, "when reading the body", cause);
        error.esource = ErrorSource::Downstream;
        assert_eq!(Fault::of_error(&error, true), Some(Fault::BadRequest));
    }

    #[test]
    fn what_a_backend_does_wrong_is_a_bad_gateway() {
        for etype in [ErrorType::ConnectRefused, ErrorType::ConnectionClosed, ErrorType::InvalidHTTPHeader] {
            assert_eq!(Fault::of_error(&Error::new_up(etype), false), Some(Fault::Upstream));
        }
        assert_eq!(Fault::of_error(&Error::new_up(ErrorType::ConnectTimedout), false), Some(Fault::UpstreamTimeout));
    }
}
