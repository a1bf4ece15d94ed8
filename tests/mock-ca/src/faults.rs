//! Faults on demand.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{Method, Response};

/// A resource of the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The directory.
    Directory,
    /// A fresh nonce.
    Nonce,
    /// Accounts.
    Account,
    /// New orders.
    NewOrder,
    /// One order.
    Order,
    /// One authorization.
    Authorization,
    /// One challenge.
    Challenge,
    /// Signing requests.
    Finalize,
    /// Certificates.
    Certificate,
    /// Renewal information.
    Renewal,
    /// Revocation.
    Revoke,
}

impl Endpoint {
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        let first = path.trim_start_matches('/').split('/').next()?;
        Some(match (method.as_str(), first) {
            ("GET", "dir") => Self::Directory,
            ("HEAD", "nonce") => Self::Nonce,
            ("POST", "account") => Self::Account,
            ("POST", "new-order") => Self::NewOrder,
            ("POST", "order") => Self::Order,
            ("POST", "authorization") => Self::Authorization,
            ("POST", "challenge") => Self::Challenge,
            ("POST", "finalize") => Self::Finalize,
            ("POST", "certificate") => Self::Certificate,
            ("GET", "renewal") => Self::Renewal,
            ("POST", "revoke") => Self::Revoke,
            _ => return None,
        })
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A problem document: status, type, words, seconds of `Retry-After`.
    Problem(u16, &'static str, String, Option<u64>),
    /// An HTML page with this status.
    Html(u16),
    /// No answer, ever.
    Hang,
    /// The request is done, and the answer is lost.
    LostAnswer,
}

impl Fault {
    pub(crate) fn response(&self) -> Option<Response<Bytes>> {
        match self {
            Self::Hang | Self::LostAnswer => None,
            Self::Html(status) => {
                let page = "<html><body><h1>Service busy; retry later.</h1></body></html>";
                let builder = Response::builder().status(*status).header("content-type", "text/html");
                builder.body(Bytes::from_static(page.as_bytes())).ok()
            }
            Self::Problem(status, kind, detail, retry_after) => Some(problem(*status, kind, detail, *retry_after)),
        }
    }
}

pub(crate) fn problem(status: u16, kind: &str, detail: &str, retry_after: Option<u64>) -> Response<Bytes> {
    let body = serde_json::json!({
        "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status,
    });
    let mut builder = Response::builder().status(status).header("content-type", "application/problem+json");
    if let Some(seconds) = retry_after {
        builder = builder.header("retry-after", seconds);
    }
    builder.body(Bytes::from(body.to_string())).expect("the parts are valid")
}

/// Faults to come, in order, and how often each.
#[derive(Debug, Default)]
pub(crate) struct Faults(VecDeque<(Endpoint, Fault, usize)>);

impl Faults {
    pub(crate) fn add(&mut self, endpoint: Endpoint, fault: Fault, times: usize) {
        self.0.push_back((endpoint, fault, times));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn next(&mut self, endpoint: Endpoint) -> Option<Fault> {
        self.0.retain(|(.., times)| *times > 0);
        let (_, fault, times) = self.0.iter_mut().find(|(of, ..)| *of == endpoint)?;
        *times -= 1;
        Some(fault.clone())
    }
}
