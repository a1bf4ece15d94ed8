//! Why the store did not do what it was asked.

use std::path::PathBuf;

use schoolgate_config::snapshot::{ObjectKey, ObjectKind};
use schoolgate_config::table::Violations;

/// Why the store did not do what it was asked. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A value that must be unique belongs to another object.
    #[error("{} with the {field} `{value}` exists already", with_article(.kind))]
    Taken {
        /// What kind of object has it.
        kind: ObjectKind,
        /// Which of its fields: `slug`, `external_id`, or the name of its key (`id`, `name`).
        field: &'static str,
        /// The value.
        value: String,
    },
    /// A record that is not an object of the gateway exists already: a token, a revision, an idempotency key.
    #[error("{what} exists already")]
    Exists {
        /// What.
        what: String,
    },
    /// The object was changed since the caller read it.
    #[error("{object} was changed meanwhile: it is at version {found}, not {expected}")]
    Stale {
        /// Which object.
        object: ObjectKey,
        /// The version the caller knows.
        expected: u64,
        /// The version it has.
        found: u64,
    },
    /// The object to change or remove is not there.
    #[error("{object} does not exist")]
    NotFound {
        /// Which object.
        object: ObjectKey,
    },
    /// Another process has taken over what this one was doing.
    #[error("the lease {name} belongs to another process now")]
    LeaseLost {
        /// Which.
        name: String,
    },
    /// The state after the commit would not hold together.
    #[error("the change would leave what does not hold together: {0}")]
    Violations(#[from] Violations),
    /// The caller asked for what this kind of object does not have; a bug.
    #[error("a list of {} cannot be filtered by {filter}", .kind.as_str())]
    Filter {
        /// The kind listed.
        kind: ObjectKind,
        /// The filter.
        filter: &'static str,
    },
    /// There is no database, and none was to be made.
    #[error("there is no database at {path}: start `schoolgate up` or `schoolgate control` once to make it")]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The address of the store is none.
    #[error("`{url}` is not the address of a store: write sqlite:///path/to/control.db")]
    Url {
        /// What was given.
        url: String,
    },
    /// The database was written by a newer release.
    #[error(
        "the database {path} has schema {found}, this release knows {known}: start the newer release, or restore a backup made before the upgrade"
    )]
    Newer {
        /// Which database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest this release knows.
        known: i64,
    },
    /// The database is damaged.
    #[error(
        "the database {path} is damaged ({detail}): move it away together with its -wal and -shm files and restore a backup; proxies go on serving what they have"
    )]
    Corrupt {
        /// Which database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The database cannot be used now: busy, full, not permitted, or gone.
    #[error("the database {path} cannot be used: {detail}")]
    Unavailable {
        /// Which database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
}

fn with_article(kind: &ObjectKind) -> String {
    format!("a {}", kind.as_str().replace('_', " "))
}
