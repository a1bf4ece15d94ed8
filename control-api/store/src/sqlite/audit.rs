//! The audit and the changes it counts.

use sqlx::sqlite::{Sqlite as Db, SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row};

use schoolgate_config::model::Revision;
use schoolgate_config::snapshot::{Change, Delta, decode_delta, encode_delta};

use super::{signed, undecodable};
use crate::audit::{AuditBroken, FIRST, hash};
use crate::records::{AuditEntry, AuditQuery, CommittedChanges};

/// Lines verified at a time: 1000, so that an audit of any length is verified in little memory.
const VERIFY_STEP: i64 = 1_000;

/// Lines in one answer when the caller does not say.
const DEFAULT_LIMIT: u32 = 100;

pub(super) async fn insert_changes(
    connection: &mut SqliteConnection,
    number: u64,
    changes: &[Change],
) -> Result<(), sqlx::Error> {
    // The wire form has a schema number and a checksum; which revisions it leads between is not known yet.
    let delta = Delta { from: Revision::NONE, to: Revision::NONE, changes: changes.to_vec() };
    sqlx::query("INSERT INTO changes (number, changes) VALUES (?, ?)")
        .bind(signed(number))
        .bind(encode_delta(&delta))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn insert_audit(
    connection: &mut SqliteConnection,
    entry: &AuditEntry,
    summary: &str,
) -> Result<(), sqlx::Error> {
    let digest = |text: &str| hex::decode(text).map_err(|e| undecodable("a hash", e));
    sqlx::query(
        "INSERT INTO audit (number, at_ms, actor, via, request_id, client_ip, action, object, summary, previous_hash, hash) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(signed(entry.number))
    .bind(entry.at_ms)
    .bind(entry.actor.clone())
    .bind(entry.via.clone())
    .bind(entry.request_id.clone())
    .bind(entry.client_ip.clone())
    .bind(entry.action.clone())
    .bind(entry.object.clone())
    .bind(summary.to_owned())
    .bind(digest(&entry.previous_hash)?)
    .bind(digest(&entry.hash)?)
    .execute(connection)
    .await?;
    Ok(())
}

const LINE: &str =
    "SELECT number, at_ms, actor, via, request_id, client_ip, action, object, summary, previous_hash, hash FROM audit";

/// A line, and its summary as it was hashed.
fn read(row: &SqliteRow) -> Result<(AuditEntry, String), sqlx::Error> {
    let summary: String = row.try_get(8)?;
    let entry = AuditEntry {
        number: row.try_get::<i64, _>(0)?.cast_unsigned(),
        at_ms: row.try_get(1)?,
        actor: row.try_get(2)?,
        via: row.try_get(3)?,
        request_id: row.try_get(4)?,
        client_ip: row.try_get(5)?,
        action: row.try_get(6)?,
        object: row.try_get(7)?,
        summary: serde_json::from_str(&summary).unwrap_or_else(|_| serde_json::Value::String(summary.clone())),
        previous_hash: hex::encode(row.try_get::<Vec<u8>, _>(9)?),
        hash: hex::encode(row.try_get::<Vec<u8>, _>(10)?),
    };
    Ok((entry, summary))
}

pub(super) async fn audit(
    connection: &mut SqliteConnection,
    query: &AuditQuery,
) -> Result<Vec<AuditEntry>, sqlx::Error> {
    let mut builder = QueryBuilder::<Db>::new(LINE);
    builder.push(" WHERE number < ").push_bind(query.before.map_or(i64::MAX, signed));
    if let Some(object) = &query.object {
        builder.push(" AND object = ").push_bind(object.clone());
    }
    if let Some(actor) = &query.actor {
        builder.push(" AND actor = ").push_bind(actor.clone());
    }
    let limit = if query.limit == 0 { DEFAULT_LIMIT } else { query.limit };
    builder.push(" ORDER BY number DESC LIMIT ").push_bind(i64::from(limit));
    let rows = builder.build().fetch_all(connection).await?;
    rows.iter().map(|row| read(row).map(|(entry, _)| entry)).collect()
}

pub(super) async fn verify_audit(connection: &mut SqliteConnection) -> Result<Result<u64, AuditBroken>, sqlx::Error> {
    let mut number = 0;
    let mut previous = FIRST;
    loop {
        let mut builder = QueryBuilder::<Db>::new(LINE);
        builder.push(" WHERE number > ").push_bind(signed(number));
        builder.push(" ORDER BY number LIMIT ").push_bind(VERIFY_STEP);
        let rows = builder.build().fetch_all(&mut *connection).await?;
        if rows.is_empty() {
            return Ok(Ok(number));
        }
        for row in &rows {
            let (entry, summary) = read(row)?;
            number += 1;
            if entry.number != number {
                return Ok(Err(AuditBroken::Missing { number }));
            }
            let expected = hash(&previous, &entry, &summary);
            if entry.previous_hash != hex::encode(previous) || entry.hash != hex::encode(expected) {
                return Ok(Err(AuditBroken::Changed { number }));
            }
            previous = expected;
        }
    }
}

pub(super) async fn changes_between(
    connection: &mut SqliteConnection,
    after: u64,
    to: u64,
    limit: u32,
) -> Result<Vec<CommittedChanges>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT c.number, a.actor, a.action, a.object, c.changes FROM changes c JOIN audit a ON a.number = c.number \
         WHERE c.number > ? AND c.number <= ? ORDER BY c.number LIMIT ?",
    )
    .bind(signed(after))
    .bind(signed(to))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let number = row.try_get::<i64, _>(0)?.cast_unsigned();
            let delta = decode_delta(row.try_get(4)?).map_err(|e| undecodable(&format!("change {number}"), e))?;
            Ok(CommittedChanges {
                number,
                actor: row.try_get(1)?,
                action: row.try_get(2)?,
                object: row.try_get(3)?,
                changes: delta.changes,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schoolgate_config::time::SystemClock;
    use serde_json::json;

    use super::super::Sqlite;
    use super::*;
    use crate::{Actor, OpenMode, Transaction};

    #[tokio::test]
    async fn a_line_that_was_changed_or_taken_away_is_found() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite://{}", directory.path().join("control.db").display());
        let sqlite = Arc::new(Sqlite::open(&url, OpenMode::Create, Arc::new(SystemClock)).await.expect("opens"));
        for n in 0..5 {
            let transaction = Transaction::begin(sqlite.clone(), Actor::system("test")).await.expect("begins");
            transaction.commit("test", "test", json!({ "n": n })).await.expect("commits");
        }
        assert_eq!(sqlite.verify_audit().await.expect("reads"), Ok(5));
        let mut connection = sqlite.writer.clone().lock_owned().await;
        let connection = connection.connection().expect("is open");
        for statement in ["UPDATE audit SET actor = 'eve' WHERE number = 3", "DELETE FROM audit WHERE number = 5"] {
            let refused = sqlx::query(statement).execute(&mut *connection).await;
            assert!(refused.is_err_and(|e| e.to_string().contains("append-only")), "{statement}");
        }
        sqlx::query("DROP TRIGGER audit_is_not_changed").execute(&mut *connection).await.expect("drops");
        sqlx::query("DROP TRIGGER audit_is_not_removed").execute(&mut *connection).await.expect("drops");
        let change = "UPDATE audit SET actor = 'eve' WHERE number = 3";
        sqlx::query(change).execute(&mut *connection).await.expect("changes");
        assert_eq!(sqlite.verify_audit().await.expect("reads"), Err(AuditBroken::Changed { number: 3 }));
        sqlx::query("DELETE FROM audit WHERE number = 2").execute(&mut *connection).await.expect("removes");
        assert_eq!(sqlite.verify_audit().await.expect("reads"), Err(AuditBroken::Missing { number: 2 }));
    }
}
