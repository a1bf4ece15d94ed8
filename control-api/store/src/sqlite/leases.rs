//! Leases. Every statement here runs in a transaction that was begun with `BEGIN IMMEDIATE`: nobody is between the
//! look and the write.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::signed;
use crate::lease::{Lease, LeaseRecord};

fn read(row: &SqliteRow) -> Result<LeaseRecord, sqlx::Error> {
    Ok(LeaseRecord {
        name: row.try_get(0)?,
        holder: row.try_get(1)?,
        fence: row.try_get::<i64, _>(2)?.cast_unsigned(),
        since_ms: row.try_get(3)?,
        expires_at_ms: row.try_get(4)?,
    })
}

pub(super) async fn leases(connection: &mut SqliteConnection) -> Result<Vec<LeaseRecord>, sqlx::Error> {
    let rows = sqlx::query("SELECT name, holder, fence, since_ms, expires_at_ms FROM leases ORDER BY name")
        .fetch_all(connection)
        .await?;
    rows.iter().map(read).collect()
}

/// Takes the lease when it is free, was given back or has run out; a holder that asks again keeps its number.
pub(super) async fn take_lease(
    connection: &mut SqliteConnection,
    (name, holder): (&str, &str),
    now_ms: i64,
    expires_at_ms: i64,
) -> Result<Option<Lease>, sqlx::Error> {
    let fence: Option<i64> = sqlx::query_scalar(
        "INSERT INTO leases (name, holder, fence, since_ms, expires_at_ms) VALUES (?1, ?2, 1, ?3, ?4) \
         ON CONFLICT (name) DO UPDATE SET \
             fence = fence + (holder IS NOT ?2 OR expires_at_ms <= ?3), \
             since_ms = CASE WHEN holder IS NOT ?2 OR expires_at_ms <= ?3 THEN ?3 ELSE since_ms END, \
             holder = ?2, expires_at_ms = ?4 \
         WHERE holder IS NULL OR holder = ?2 OR expires_at_ms <= ?3 \
         RETURNING fence",
    )
    .bind(name.to_owned())
    .bind(holder.to_owned())
    .bind(now_ms)
    .bind(expires_at_ms)
    .fetch_optional(connection)
    .await?;
    Ok(fence.map(|fence| Lease::new(name, holder, fence.cast_unsigned())))
}

/// Says whether the lease was still held under its number.
pub(super) async fn renew_lease(
    connection: &mut SqliteConnection,
    lease: &Lease,
    now_ms: i64,
    expires_at_ms: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE leases SET expires_at_ms = ? WHERE name = ? AND fence = ? AND holder IS NOT NULL AND expires_at_ms > ?",
    )
    .bind(expires_at_ms)
    .bind(lease.name().to_owned())
    .bind(signed(lease.fence()))
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn release_lease(connection: &mut SqliteConnection, lease: &Lease) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE leases SET holder = NULL WHERE name = ? AND fence = ? AND holder IS NOT NULL")
        .bind(lease.name().to_owned())
        .bind(signed(lease.fence()))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Whether the lease has its number still. That it ran out does not matter while nobody else has taken it: who takes it
/// waits for this transaction.
pub(super) async fn is_lease_held(connection: &mut SqliteConnection, lease: &Lease) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM leases WHERE name = ? AND fence = ? AND holder IS NOT NULL)")
        .bind(lease.name().to_owned())
        .bind(signed(lease.fence()))
        .fetch_one(connection)
        .await
}
