//! Certificates that were brought, and those that were revoked.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use schoolgate_config::model::Fingerprint;

use super::undecodable;
use crate::revocation::{Revocation, RevocationReason, RevocationState};

fn read_fingerprint(text: &str) -> Result<Fingerprint, sqlx::Error> {
    text.parse().map_err(|e| undecodable("a fingerprint", e))
}

pub(super) async fn add_upload(
    connection: &mut SqliteConnection,
    fingerprint: &Fingerprint,
    names: &[String],
) -> Result<(), sqlx::Error> {
    for name in names {
        sqlx::query("INSERT INTO uploaded_names (name, fingerprint) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(name.clone())
            .bind(fingerprint.to_string())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

pub(super) async fn forget_upload(
    connection: &mut SqliteConnection,
    fingerprint: &Fingerprint,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM uploaded_names WHERE fingerprint = ?")
        .bind(fingerprint.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn uploads_of(connection: &mut SqliteConnection, name: &str) -> Result<Vec<Fingerprint>, sqlx::Error> {
    let rows: Vec<String> = sqlx::query_scalar("SELECT fingerprint FROM uploaded_names WHERE name = ?")
        .bind(name.to_owned())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|text| read_fingerprint(text)).collect()
}

pub(super) async fn uploaded_names(
    connection: &mut SqliteConnection,
) -> Result<Vec<(String, Fingerprint)>, sqlx::Error> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT name, fingerprint FROM uploaded_names ORDER BY name, fingerprint")
            .fetch_all(connection)
            .await?;
    rows.into_iter().map(|(name, text)| Ok((name, read_fingerprint(&text)?))).collect()
}

fn read(row: &SqliteRow) -> Result<Revocation, sqlx::Error> {
    let (reason, state): (String, String) = (row.try_get(3)?, row.try_get(4)?);
    Ok(Revocation {
        fingerprint: read_fingerprint(row.try_get(0)?)?,
        issuer: row.try_get(1)?,
        names: serde_json::from_str(row.try_get(2)?).map_err(|e| undecodable("the names of a revocation", e))?,
        reason: RevocationReason::parse(&reason).ok_or_else(|| undecodable("the reason of a revocation", &reason))?,
        state: match (state.as_str(), row.try_get::<Option<i64>, _>(8)?) {
            ("done", at_ms) => RevocationState::Done { at_ms: at_ms.unwrap_or_default() },
            _ => RevocationState::Requested { error: row.try_get(9)? },
        },
        leaf: row.try_get(5)?,
        at_ms: row.try_get(6)?,
        actor: row.try_get(7)?,
    })
}

const COLUMNS: &str = "fingerprint, issuer, names, reason, state, leaf, at_ms, actor, done_at_ms, error";

pub(super) async fn revocation(
    connection: &mut SqliteConnection,
    fingerprint: &Fingerprint,
) -> Result<Option<Revocation>, sqlx::Error> {
    let statement = format!("SELECT {COLUMNS} FROM revocations WHERE fingerprint = ?");
    let row =
        sqlx::query(sqlx::AssertSqlSafe(statement)).bind(fingerprint.to_string()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn revocations_requested(
    connection: &mut SqliteConnection,
    limit: u32,
) -> Result<Vec<Revocation>, sqlx::Error> {
    let statement = format!("SELECT {COLUMNS} FROM revocations WHERE state = 'requested' ORDER BY at_ms LIMIT ?");
    let rows = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(i64::from(limit)).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn insert_revocation(
    connection: &mut SqliteConnection,
    revocation: &Revocation,
) -> Result<(), sqlx::Error> {
    let names = serde_json::to_string(&revocation.names).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    let (state, done_at_ms) = match revocation.state {
        RevocationState::Requested { .. } => ("requested", None),
        RevocationState::Done { at_ms } => ("done", Some(at_ms)),
    };
    sqlx::query(
        "INSERT INTO revocations (fingerprint, issuer, names, reason, state, leaf, at_ms, actor, done_at_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(revocation.fingerprint.to_string())
    .bind(revocation.issuer.clone())
    .bind(names)
    .bind(revocation.reason.as_str())
    .bind(state)
    .bind(revocation.leaf.clone())
    .bind(revocation.at_ms)
    .bind(revocation.actor.clone())
    .bind(done_at_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// Says whether there was one that the CA had not been told of.
pub(super) async fn revocation_done(
    connection: &mut SqliteConnection,
    fingerprint: &Fingerprint,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE revocations SET state = 'done', done_at_ms = ?, error = NULL \
         WHERE fingerprint = ? AND state = 'requested'",
    )
    .bind(now_ms)
    .bind(fingerprint.to_string())
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn revocation_failed(
    connection: &mut SqliteConnection,
    fingerprint: &Fingerprint,
    error: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE revocations SET error = ? WHERE fingerprint = ? AND state = 'requested'")
        .bind(error.to_owned())
        .bind(fingerprint.to_string())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Names that had this certificate want another, now.
pub(super) async fn want_instead(
    connection: &mut SqliteConnection,
    fingerprint: &Fingerprint,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE certificate_wants SET state = 'queued', fingerprint = NULL, attempts = 0, next_attempt_ms = ?, \
         error = NULL, turn = turn + 1 WHERE fingerprint = ?",
    )
    .bind(now_ms)
    .bind(fingerprint.to_string())
    .execute(connection)
    .await?;
    Ok(())
}
