//! What an operator may do: check, decide, write through a store transaction. No HTTP types, no SQL.
//!
//! Every write is a function of [`Work`] (a transaction and who asks) and a JSON document, and gives [`Done`] or a
//! [`Refusal`]. It knows nothing of dry runs, of waiting and of repeated requests: `http/write.rs` does these for all.

pub(crate) mod above_limits;
pub(crate) mod acme;
pub(crate) mod backends;
pub(crate) mod canary;
pub(crate) mod certificates;
pub(crate) mod client_certificate;
pub(crate) mod context_keys;
pub(crate) mod document;
pub(crate) mod domains;
pub(crate) mod edit;
pub(crate) mod instances;
pub(crate) mod limits;
pub(crate) mod maintenance;
pub(crate) mod operations;
pub(crate) mod permission;
pub(crate) mod plans;
pub(crate) mod pools;
pub(crate) mod routes;
pub(crate) mod sealing;
pub(crate) mod tenants;
pub(crate) mod token_issuers;
pub(crate) mod tokens;
pub(crate) mod unknown_hosts;
pub(crate) mod usage;
pub(crate) mod zones;

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{DomainName, Limits};
use schoolgate_config::snapshot::ObjectKind;
use schoolgate_config::table::{Violation, Violations};
use schoolgate_config::time::rfc3339;
use schoolgate_dns::{CaIdentity, Proxies};
use schoolgate_store::{Aggregate, Store, StoreError, Stored, Transaction};

use document::FieldError;
use permission::Operator;

/// What an operation is told of the platform by the settings.
#[derive(Debug, Default)]
pub(crate) struct Platform {
    /// Names within these count as owned and pointing here.
    pub(crate) assume_owned: Vec<DomainName>,
    /// What apex domains point at.
    pub(crate) addresses: Vec<IpAddr>,
    /// The certificate authorities that CAA records must let issue, the preferred one first; none: CAA does not matter.
    pub(crate) issuers: Vec<CaIdentity>,
    /// Whether our own name server answers for what schools delegate to it.
    pub(crate) name_server: NameServer,
    /// Networks of proxies that stand in front of schools' names.
    pub(crate) proxies: Arc<Proxies>,
    /// The most that any tenant may have.
    pub(crate) caps: Limits,
    /// A pool that is not there can be made, with instances.
    pub(crate) makes_pools: bool,
    /// Instances that register themselves.
    pub(crate) instances: schoolgate_config::settings::Instances,
}

/// Whether our own name server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameServer {
    /// It answers: what schools delegate to it proves their names.
    Answers,
    /// There is none, or somebody else's answers.
    #[default]
    Absent,
}

/// A write in progress.
pub(crate) struct Work {
    /// What it writes through. Dropped, it has never been.
    pub(crate) transaction: Transaction,
    /// What is committed, for what a transaction does not read.
    pub(crate) store: Store,
    /// Who asks.
    pub(crate) operator: Operator,
    /// What the settings say of the platform.
    pub(crate) platform: Arc<Platform>,
    /// Versions that the object to change may be at; `None`: any.
    pub(crate) expected: Option<Vec<u64>>,
}

impl Work {
    /// Whether the object found is one that the caller knows.
    ///
    /// # Errors
    /// [`Refusal::Stale`].
    pub(crate) fn check_version<A: Aggregate>(&self, found: &Stored<A>) -> Result<(), Refusal> {
        match &self.expected {
            Some(expected) if !expected.contains(&found.version) => Err(Refusal::Stale {
                message: format!(
                    "{} was changed meanwhile: it is at version {}",
                    A::object_key(&found.value.key()),
                    found.version
                ),
            }),
            _ => Ok(()),
        }
    }

    /// The object with this key.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub(crate) async fn existing<A: Aggregate>(&mut self, key: &A::Key) -> Result<Stored<A>, Refusal> {
        let found = self.transaction.get::<A>(key).await?;
        found.ok_or_else(|| Refusal::not_found(&A::object_key(key).to_string()))
    }
}

/// What a write did.
#[derive(Debug)]
pub(crate) struct Done {
    /// Whether it made, changed or removed something.
    pub(crate) what: What,
    /// The object as the API shows it; `null` when it was removed.
    pub(crate) object: Value,
    /// Its version, for objects that have one.
    pub(crate) version: Option<u64>,
    /// Where it is, below `/api/v1/`.
    pub(crate) path: String,
    /// The action in the audit, such as `tenant.suspend`.
    pub(crate) action: String,
    /// What it was done to, such as `tenant tnt_…`.
    pub(crate) about: String,
    /// More about it, for the audit.
    pub(crate) summary: Value,
    /// Names whose certificates somebody who waits wants to see issued.
    pub(crate) names: Vec<String>,
    /// What the object becomes when its certificate is there; asked again after waiting.
    pub(crate) again: Option<DomainName>,
}

/// Whether a write made, changed or removed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Made.
    Created,
    /// Noted, and done from here on.
    Accepted,
    /// Changed.
    Changed,
    /// Removed.
    Removed,
}

/// Why an operation was not done. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The document, with everything that is wrong with it.
    #[error("the document is not valid")]
    Invalid(Vec<FieldError>),
    /// The document names another object than the path.
    #[error("the document is of `{there}`, the path of `{here}`")]
    Elsewhere {
        /// The field that names the object.
        field: &'static str,
        /// What the path says.
        here: String,
        /// What the document says.
        there: String,
    },
    /// There is no such object.
    #[error("{what} does not exist")]
    NotFound {
        /// What.
        what: String,
    },
    /// Something else is in the way.
    #[error("{message}")]
    Conflict {
        /// The code, such as `SUBDOMAIN_EXISTS`.
        code: &'static str,
        /// What is in the way.
        message: String,
        /// The field it is about, a JSON pointer.
        pointer: Option<&'static str>,
    },
    /// The object was changed since the caller read it.
    #[error("{message}")]
    Stale {
        /// What was changed.
        message: String,
    },
    /// The caller may not.
    #[error("{0}")]
    Forbidden(String),
    /// The store.
    #[error(transparent)]
    Store(StoreError),
}

impl Refusal {
    /// There is no such object.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::NotFound { what: what.to_owned() }
    }

    /// One field is wrong.
    pub(crate) fn invalid(pointer: &str, code: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { pointer: pointer.into(), code: code.into(), message: message.into() }])
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken { kind, field, .. } => {
                let (code, pointer) = taken(kind, field);
                Self::Conflict { code, message: error.to_string(), pointer: Some(pointer) }
            }
            StoreError::NotFound { object } => Self::not_found(&object.to_string()),
            StoreError::Stale { .. } => Self::Stale { message: error.to_string() },
            StoreError::Violations(violations) => violations.into(),
            other => Self::Store(other),
        }
    }
}

/// The code and pointer of a value that is taken. `SUBDOMAIN_EXISTS` is what older school platforms answer.
fn taken(kind: ObjectKind, field: &str) -> (&'static str, &'static str) {
    match (kind, field) {
        (ObjectKind::Tenant, "slug") => ("SUBDOMAIN_EXISTS", "/slug"),
        (ObjectKind::Tenant, "external_id") => ("EXTERNAL_ID_EXISTS", "/external_id"),
        (ObjectKind::Domain, _) => ("DOMAIN_EXISTS", "/name"),
        (ObjectKind::Zone, _) => ("ZONE_EXISTS", "/name"),
        (ObjectKind::Plan, _) => ("PLAN_EXISTS", "/id"),
        (ObjectKind::Pool, _) => ("POOL_EXISTS", "/id"),
        (ObjectKind::TokenIssuer, _) => ("TOKEN_ISSUER_EXISTS", "/id"),
        _ => ("ALREADY_EXISTS", ""),
    }
}

impl From<Violations> for Refusal {
    fn from(violations: Violations) -> Self {
        for violation in &violations.0 {
            let (code, pointer) = match violation {
                Violation::InUse { .. } => ("IN_USE", None),
                Violation::SlugTaken { .. } => ("SUBDOMAIN_EXISTS", Some("/slug")),
                Violation::IssuerTaken { .. } => ("TOKEN_ISSUER_EXISTS", Some("/issuer")),
                _ => continue,
            };
            return Self::Conflict { code, message: violations.to_string(), pointer };
        }
        let errors = violations.0.iter().map(|violation| {
            let (pointer, code) = match violation {
                Violation::Missing { missing, .. } => (format!("/{}", missing.kind().as_str()), "not_found"),
                Violation::DomainInZone { .. } => ("/name".to_owned(), "in_zone"),
                Violation::SharedHost { .. } => ("/shared_host".to_owned(), "not_in_zone"),
                Violation::Issuer { problem, .. } => (format!("/{}", problem.field()), "invalid"),
                _ => (String::new(), "invalid"),
            };
            FieldError { pointer, code: code.to_owned(), message: violation.to_string() }
        });
        Self::Invalid(errors.collect())
    }
}

/// What every object of the store carries in the API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stamp {
    /// The number of the change that last wrote it; its ETag.
    pub(crate) version: u64,
    /// When it was made.
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
    /// When it was last written.
    #[schema(format = DateTime)]
    pub(crate) updated_at: String,
}

impl Stamp {
    /// The stamp of a stored object.
    pub(crate) fn of<T>(stored: &Stored<T>) -> Self {
        Self {
            version: stored.version,
            created_at: rfc3339(stored.created_at_ms),
            updated_at: rfc3339(stored.updated_at_ms),
        }
    }
}

/// An object as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("our types serialise")
}
