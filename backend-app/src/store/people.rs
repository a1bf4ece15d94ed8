//! How many people a school has, and how much it keeps.

use sqlx::SqliteConnection;

use super::StoreError;

/// What a school's plan limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Everybody the school has on the platform. For now these are its students: there is nobody else in a school's database.
    pub(crate) users: i64,
    /// Those who learn there.
    pub(crate) students: i64,
    /// Bytes of its database, without what is not folded into it yet.
    pub(crate) storage_bytes: i64,
}

/// Everybody the school has on the platform. Within an immediate transaction nobody is added meanwhile.
pub(crate) async fn users(db: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM students").fetch_one(db).await?)
}

/// Counts the school.
pub(crate) async fn counted(db: &mut SqliteConnection) -> Result<Counted, StoreError> {
    let users = users(&mut *db).await?;
    let students: i64 = sqlx::query_scalar("SELECT count(*) FROM students").fetch_one(&mut *db).await?;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *db).await?;
    let page_size: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(db).await?;
    Ok(Counted { users, students, storage_bytes: pages * page_size })
}
