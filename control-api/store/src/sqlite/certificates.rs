//! Names that need a certificate.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use schoolgate_config::model::{CertificateRef, Fingerprint};

use super::{signed, undecodable};
use crate::records::{CertificateWant, WantState};

pub(super) fn read(row: &SqliteRow) -> Result<CertificateWant, sqlx::Error> {
    let state: String = row.try_get(1)?;
    let fingerprint: Option<String> = row.try_get(2)?;
    Ok(CertificateWant {
        name: row.try_get(0)?,
        state: WantState::parse(&state).ok_or_else(|| undecodable("the state of a certificate", &state))?,
        fingerprint: fingerprint.map(|text| read_fingerprint(&text)).transpose()?,
        attempts: u32::try_from(row.try_get::<i64, _>(3)?).unwrap_or(u32::MAX),
        next_attempt_ms: row.try_get(4)?,
        error: row.try_get(5)?,
        turn: row.try_get::<i64, _>(6)?.cast_unsigned(),
    })
}

fn read_fingerprint(text: &str) -> Result<Fingerprint, sqlx::Error> {
    text.parse().map_err(|e| undecodable("a fingerprint", e))
}

pub(super) async fn certificates_due(
    connection: &mut SqliteConnection,
    now_ms: i64,
    limit: u32,
) -> Result<Vec<CertificateWant>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT name, state, fingerprint, attempts, next_attempt_ms, error, turn FROM certificate_wants \
         WHERE next_attempt_ms <= ? AND issuer IS NOT 'acme' ORDER BY next_attempt_ms LIMIT ?",
    )
    .bind(now_ms)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn next_certificate_due(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT min(next_attempt_ms) FROM certificate_wants WHERE issuer IS NOT 'acme'")
        .fetch_one(connection)
        .await
}

pub(super) async fn certificate_want(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<CertificateWant>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT name, state, fingerprint, attempts, next_attempt_ms, error, turn FROM certificate_wants \
         WHERE name = ?",
    )
    .bind(name.to_owned())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn certificate_wants(
    connection: &mut SqliteConnection,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<CertificateWant>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT name, state, fingerprint, attempts, next_attempt_ms, error, turn FROM certificate_wants \
         WHERE name > ? ORDER BY name LIMIT ?",
    )
    .bind(after.unwrap_or_default().to_owned())
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn certificate_counts(
    connection: &mut SqliteConnection,
) -> Result<Vec<(WantState, u64)>, sqlx::Error> {
    let rows = sqlx::query("SELECT state, count(*) FROM certificate_wants GROUP BY state ORDER BY state")
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let state: String = row.try_get(0)?;
            let state = WantState::parse(&state).ok_or_else(|| undecodable("the state of a certificate", &state))?;
            Ok((state, row.try_get::<i64, _>(1)?.cast_unsigned()))
        })
        .collect()
}

/// `bulk` is whether it is one of many that came together.
pub(super) async fn add_want(
    connection: &mut SqliteConnection,
    name: &str,
    bulk: bool,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO certificate_wants (name, state, attempts, next_attempt_ms, since_ms, bulk, turn) VALUES (?1, \
         'queued', 0, ?2, ?2, ?3, (SELECT coalesce(max(number), 0) FROM audit)) ON CONFLICT DO NOTHING",
    )
    .bind(name.to_owned())
    .bind(now_ms)
    .bind(bulk)
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives the certificate that the want had.
pub(super) async fn drop_want(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<Fingerprint>, sqlx::Error> {
    let row: Option<Option<String>> =
        sqlx::query_scalar("DELETE FROM certificate_wants WHERE name = ? RETURNING fingerprint")
            .bind(name.to_owned())
            .fetch_optional(connection)
            .await?;
    row.flatten().map(|text| read_fingerprint(&text)).transpose()
}

pub(super) async fn is_fingerprint_wanted(
    connection: &mut SqliteConnection,
    fingerprint: &Fingerprint,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM certificate_wants WHERE fingerprint = ?)")
        .bind(fingerprint.to_string())
        .fetch_one(connection)
        .await
}

pub(super) async fn want_issued(
    connection: &mut SqliteConnection,
    want: &CertificateWant,
    about: &CertificateRef,
    renew_at_ms: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE certificate_wants SET state = 'issued', fingerprint = ?1, attempts = 0, next_attempt_ms = ?2, \
         since_ms = ?2, bulk = 0, not_after_ms = ?3, issuer = ?4, ca = NULL, renewal = NULL, renewal_ask_ms = NULL, \
         error = NULL, reason = NULL, who_acts = NULL, link = NULL, turn = turn + 1 WHERE name = ?5 AND turn = ?6",
    )
    .bind(about.fingerprint.to_string())
    .bind(renew_at_ms)
    .bind(about.not_after.saturating_mul(1_000))
    .bind(about.issuer.clone())
    .bind(want.name.clone())
    .bind(signed(want.turn))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn want_failed(
    connection: &mut SqliteConnection,
    want: &CertificateWant,
    error: &str,
    next_attempt_ms: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE certificate_wants SET state = 'failing', attempts = attempts + 1, next_attempt_ms = ?, error = ?, \
         turn = turn + 1 WHERE name = ? AND turn = ?",
    )
    .bind(next_attempt_ms)
    .bind(error.to_owned())
    .bind(want.name.clone())
    .bind(signed(want.turn))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn want_now(connection: &mut SqliteConnection, name: &str, now_ms: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE certificate_wants SET next_attempt_ms = ?1, since_ms = min(since_ms, ?1), turn = turn + 1 WHERE name = ?2")
        .bind(now_ms)
        .bind(name.to_owned())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}
