//! Does one school reach another? Asked of the running gateway, over real connections.
//!
//! Two schools, A and B, and every known way to confuse a gateway about which of them a request is for: the name in the
//! handshake, the host, fields, query, token, framing. Each is a row that says what should come, what came, and
//! whether that is right.
//!
//! * `subjects`: which two schools.
//! * `cases`: the tricks.
//! * `token`: a token that is good for B, if somebody brings one.
//! * `connection`: TLS, HTTP/1.1 by hand, HTTP/2.
//! * `verdict`: what an answer proves.

mod cases;
mod connection;
mod subjects;
mod token;
mod verdict;

use std::net::SocketAddr;

use serde::Serialize;
use utoipa::ToSchema;

pub use subjects::{Subject, SubjectError, pick};
pub use token::{TokenNotOfB, TokenOfB};
pub use verdict::Evidence;

use cases::{Case, Protocol};
use connection::Reply;

/// What the self-test found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct IsolationReport {
    /// Whether every row is right.
    pub passed: bool,
    /// School A, whose host is asked.
    pub a: Subject,
    /// School B, which the tricks try to reach.
    pub b: Subject,
    /// How it is known for whom a request was answered.
    pub evidence: Evidence,
    /// A row per trick and protocol.
    pub rows: Vec<IsolationRow>,
}

/// One trick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct IsolationRow {
    /// The trick.
    pub case: String,
    /// `h1` or `h2`.
    #[schema(value_type = String)]
    pub protocol: &'static str,
    /// What should come.
    pub expected: String,
    /// What came.
    pub got: String,
    /// Whether that is right.
    pub ok: bool,
}

/// Drives the gateway at `https` with the schools `a` and `b`; with a token of `b`, if there is one.
pub async fn run(https: SocketAddr, a: Subject, b: Subject, token: Option<TokenOfB>) -> IsolationReport {
    let alone = [
        cases::alone(&a, Protocol::H1),
        cases::alone(&a, Protocol::H2),
        cases::alone(&b, Protocol::H1),
        cases::alone(&b, Protocol::H2),
    ];
    let mut asked: Vec<(Case, Reply)> = Vec::new();
    for case in alone {
        let reply = connection::ask(https, &case).await;
        asked.push((case, reply));
    }
    let evidence = Evidence::of(asked.iter().map(|(_, reply)| reply));
    for case in cases::tricks(&a, &b, token.as_ref()) {
        let reply = connection::ask(https, &case).await;
        asked.push((case, reply));
    }
    let rows: Vec<_> = asked.iter().map(|(case, reply)| verdict::row(case, reply, evidence, &a, &b)).collect();
    IsolationReport { passed: rows.iter().all(|row| row.ok), a, b, evidence, rows }
}
