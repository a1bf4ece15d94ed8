//! What the store keeps beside the objects of the gateway.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use schoolgate_config::feed::NodeReport;
use schoolgate_config::model::{DomainName, Fingerprint, IssuerId, NodeId, Revision, TenantId};
use schoolgate_config::snapshot::Change;

/// Who asks for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Their name: of a token, or of a part of Schoolgate.
    pub name: String,
    /// The way they came: `api`, `system`, …
    pub via: String,
    /// The request they asked in.
    pub request_id: Option<String>,
    /// The address they asked from.
    pub client_ip: Option<IpAddr>,
}

impl Actor {
    /// A part of Schoolgate itself.
    pub fn system(name: &str) -> Self {
        Self { name: name.to_owned(), via: "system".to_owned(), request_id: None, client_ip: None }
    }
}

/// A change that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Its number: of the audit line, and of the versions it gave.
    pub change: u64,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The number of the change.
    pub number: u64,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
    /// The way they came.
    pub via: String,
    /// The request.
    pub request_id: Option<String>,
    /// The address.
    pub client_ip: Option<String>,
    /// What was done, such as `tenant.suspend`.
    pub action: String,
    /// To what, such as `tenant tnt_…`.
    pub object: String,
    /// More about it.
    pub summary: Value,
    /// The hash of the line before, hexadecimal.
    pub previous_hash: String,
    /// The hash of this line, hexadecimal.
    pub hash: String,
}

/// Which lines of the audit, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Those before this number.
    pub before: Option<u64>,
    /// At most this many; 0 means 100.
    pub limit: u32,
    /// Those about this object.
    pub object: Option<String>,
    /// Those of this actor.
    pub actor: Option<String>,
}

/// What one commit did to objects.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedChanges {
    /// The number of the change.
    pub number: u64,
    /// Who.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To which object.
    pub object: String,
    /// The objects made, replaced and removed.
    pub changes: Vec<Change>,
}

/// A published revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRecord {
    /// Its number.
    pub revision: Revision,
    /// When, milliseconds since 1970.
    pub created_at_ms: i64,
    /// The first change in it.
    pub change_from: u64,
    /// The last change in it.
    pub change_to: u64,
    /// How many objects it changes.
    pub objects: u64,
    /// Who made the changes, at most five names.
    pub actors: Vec<String>,
}

/// Where a wanted certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WantState {
    /// Waiting for its first certificate.
    Queued,
    /// Has one.
    Issued,
    /// The last attempt failed; an earlier certificate may still serve.
    Failing,
}

impl WantState {
    /// The name used in JSON and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Issued => "issued",
            Self::Failing => "failing",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Queued, Self::Issued, Self::Failing].into_iter().find(|s| s.as_str() == text)
    }
}

/// A name that needs a certificate.
///
/// These are kept by the store itself, in the transaction that changes a domain, zone or tenant: a domain whose
/// ownership is proven wants its name, a zone that takes a wildcard wants `*.zone`, any other zone wants one name for
/// each tenant. A want that goes takes its certificate with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateWant {
    /// The name: exact, or `*.zone`.
    pub name: String,
    /// Where it stands.
    pub state: WantState,
    /// The certificate it has.
    pub fingerprint: Option<Fingerprint>,
    /// Failures since the last success.
    pub attempts: u32,
    /// When to look again, milliseconds since 1970; of an issued one: when to renew.
    pub next_attempt_ms: i64,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Hand this back with what was done; see [`crate::Transaction::certificate_issued`].
    pub turn: u64,
}

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// The control API.
    Operator,
    /// The feed.
    Node,
    /// Reports of instances of the app.
    Instance,
}

impl TokenKind {
    /// The name used in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Node => "node",
            Self::Instance => "instance",
        }
    }
}

/// What an instance of the app reported of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppReport {
    /// Of whom.
    pub tenant: TenantId,
    /// People with an account.
    pub users: u64,
    /// Students.
    pub students: u64,
    /// Bytes of its data.
    pub storage_bytes: u64,
    /// What the instance calls itself.
    pub instance: String,
    /// When, milliseconds since 1970.
    pub reported_at_ms: i64,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The part of it that is no secret.
    pub id: String,
    /// What it opens.
    pub kind: TokenKind,
    /// What people call it.
    pub name: String,
    /// The role of who holds it.
    pub role: String,
    /// What it is good for, within the role; empty: all.
    pub scopes: Vec<String>,
    /// For which tenants; empty: all.
    pub tenants: Vec<TenantId>,
    /// From which networks; empty: all.
    pub networks: Vec<String>,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// When it was made, milliseconds since 1970.
    pub created_at_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// When it ends, milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
}

/// A proxy as it was last heard of.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    /// Who.
    pub node: NodeId,
    /// When it last polled or reported, milliseconds since 1970.
    pub seen_at_ms: i64,
    /// What it last said.
    pub report: Option<NodeReport>,
}

/// An answer that is given again when the same request comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// Who asked.
    pub actor: String,
    /// Their Idempotency-Key.
    pub key: String,
    /// SHA-256 of the request, so that the key of another request is noticed.
    pub request_hash: [u8; 32],
    /// The status answered.
    pub status: u16,
    /// The ETag answered.
    pub etag: Option<String>,
    /// The Location answered.
    pub location: Option<String>,
    /// The body answered.
    pub body: Vec<u8>,
    /// When, milliseconds since 1970.
    pub created_at_ms: i64,
}

/// How fetching the keys of an issuer of tokens went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFetch {
    /// Whose keys.
    pub issuer: IssuerId,
    /// When it was last tried, milliseconds since 1970.
    pub tried_at_ms: i64,
    /// When it last succeeded, milliseconds since 1970.
    pub fetched_at_ms: Option<i64>,
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// A host that no tenant has, and that nobody wants to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredHost {
    /// Its name.
    pub name: DomainName,
    /// Since when, milliseconds since 1970.
    pub at_ms: i64,
    /// Who said so.
    pub actor: String,
}
