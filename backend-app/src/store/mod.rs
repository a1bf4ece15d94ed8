//! The schools' databases: a SQLite file for each, opened through the verified tenant context and no other way.
//!
//! [`Schools`] keeps the most recently used open. [`mod@file`] makes, migrates and seeds one when it is first needed, in a way that
//! no process ever sees a half-made file. [`students`], [`classes`] and [`people`] are what is read and written.

pub(crate) mod classes;
mod file;
mod open;
pub(crate) mod people;
mod seed;
pub(crate) mod students;

use std::io;
use std::path::PathBuf;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqlitePool, Transaction};

pub(crate) use self::open::{CONNECTIONS_PER_SCHOOL, Schools};
use crate::context::TenantId;

/// One school's open database. Whoever holds it keeps it open.
#[derive(Debug)]
pub(crate) struct SchoolDb {
    pool: SqlitePool,
}

impl SchoolDb {
    /// A connection to read with. Take one at a time: holding one while waiting for another can stall the school.
    pub(crate) async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// A transaction to write with. It locks at once: a read lock that becomes a write lock fails instead of waiting.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Why a school's database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Its file or directory cannot be made, locked or moved.
    #[error("{path} cannot be prepared")]
    File { path: PathBuf, source: io::Error },
    /// The file holds another school's data: someone moved it. It is not touched.
    #[error("the database of {expected} says that it is of {found:?}")]
    WrongTenant { expected: TenantId, found: String },
    /// Written by a newer release; this one does not know what it holds.
    #[error("{path} has schema {found}, this release knows up to {known}")]
    TooNew { path: PathBuf, found: i64, known: i64 },
    /// A migration did not apply; the file is as it was.
    #[error("{path} could not be migrated")]
    Migrate { path: PathBuf, source: sqlx::migrate::MigrateError },
    /// The database refused or could not be reached.
    #[error("the database failed")]
    Sql(#[from] sqlx::Error),
}

impl StoreError {
    /// Whether the same request may succeed in a moment, here or on another instance.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) | Self::TooNew { .. } => true,
            // SQLITE_BUSY (5) and its extended codes.
            Self::Sql(sqlx::Error::Database(error)) => {
                error.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 5)
            }
            _ => false,
        }
    }
}
