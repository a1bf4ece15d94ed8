//! TXT values that our own DNS responder answers.

use sqlx::sqlite::SqliteConnection;

pub(super) async fn publish_txt(
    connection: &mut SqliteConnection,
    name: &str,
    value: &str,
    expires_at_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO dns_txt (name, value, expires_at_ms) VALUES (?, ?, ?) \
         ON CONFLICT (name, value) DO UPDATE SET expires_at_ms = excluded.expires_at_ms",
    )
    .bind(name.to_owned())
    .bind(value.to_owned())
    .bind(expires_at_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn withdraw_txt(
    connection: &mut SqliteConnection,
    name: &str,
    value: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("DELETE FROM dns_txt WHERE name = ? AND value = ?")
        .bind(name.to_owned())
        .bind(value.to_owned())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn txt_values(
    connection: &mut SqliteConnection,
    name: &str,
    now_ms: i64,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM dns_txt WHERE name = ? AND expires_at_ms > ? ORDER BY value")
        .bind(name.to_owned())
        .bind(now_ms)
        .fetch_all(connection)
        .await
}

pub(super) async fn forget_txt(connection: &mut SqliteConnection, before_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM dns_txt WHERE expires_at_ms <= ?").bind(before_ms).execute(connection).await?;
    Ok(())
}
