//! Published revisions.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use schoolgate_config::model::Revision;

use super::{signed, undecodable};
use crate::records::RevisionRecord;

pub(super) async fn revision_of(
    connection: &mut SqliteConnection,
    change: u64,
) -> Result<Option<Revision>, sqlx::Error> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT revision FROM revisions WHERE change_to >= ? ORDER BY change_to LIMIT 1")
            .bind(signed(change))
            .fetch_optional(connection)
            .await?;
    Ok(found.map(|revision| Revision(revision.cast_unsigned())))
}

pub(super) async fn insert_revision(
    connection: &mut SqliteConnection,
    record: &RevisionRecord,
    delta: &[u8],
) -> Result<(), sqlx::Error> {
    let actors = serde_json::to_string(&record.actors).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    sqlx::query(
        "INSERT INTO revisions (revision, created_at_ms, change_from, change_to, objects, actors, delta) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(signed(record.revision.0))
    .bind(record.created_at_ms)
    .bind(signed(record.change_from))
    .bind(signed(record.change_to))
    .bind(signed(record.objects))
    .bind(actors)
    .bind(delta.to_vec())
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets the deltas of revisions up to `last`; the revisions themselves stay.
pub(super) async fn forget_deltas(connection: &mut SqliteConnection, last: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE revisions SET delta = NULL WHERE delta IS NOT NULL AND revision <= ?")
        .bind(last)
        .execute(connection)
        .await?;
    Ok(())
}

fn read(row: &SqliteRow) -> Result<RevisionRecord, sqlx::Error> {
    let actors: String = row.try_get(5)?;
    Ok(RevisionRecord {
        revision: Revision(row.try_get::<i64, _>(0)?.cast_unsigned()),
        created_at_ms: row.try_get(1)?,
        change_from: row.try_get::<i64, _>(2)?.cast_unsigned(),
        change_to: row.try_get::<i64, _>(3)?.cast_unsigned(),
        objects: row.try_get::<i64, _>(4)?.cast_unsigned(),
        actors: serde_json::from_str(&actors).map_err(|e| undecodable("the actors of a revision", e))?,
    })
}

pub(super) async fn revisions(
    connection: &mut SqliteConnection,
    before: Option<Revision>,
    limit: u32,
) -> Result<Vec<RevisionRecord>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT revision, created_at_ms, change_from, change_to, objects, actors FROM revisions \
         WHERE revision < ? ORDER BY revision DESC LIMIT ?",
    )
    .bind(before.map_or(i64::MAX, |r| signed(r.0)))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn deltas_after(
    connection: &mut SqliteConnection,
    after: Revision,
    limit: u32,
) -> Result<Vec<(RevisionRecord, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT revision, created_at_ms, change_from, change_to, objects, actors, delta FROM revisions \
         WHERE revision > ? AND delta IS NOT NULL ORDER BY revision LIMIT ?",
    )
    .bind(signed(after.0))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((read(row)?, row.try_get(6)?))).collect()
}
