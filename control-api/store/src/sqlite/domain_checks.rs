//! Checks of domains, transfers, and names that were given up.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use schoolgate_config::model::{Domain, DomainName};
use schoolgate_config::snapshot::{Change, Object, ObjectKey};

use super::{signed, undecodable};
use crate::check::{DomainCheck, DomainTransfer, ReleasedName};

fn read_check(row: &SqliteRow) -> Result<DomainCheck, sqlx::Error> {
    let json = |column| -> Result<_, sqlx::Error> {
        serde_json::from_str(row.try_get(column)?).map_err(|e| undecodable("the check of a domain", e))
    };
    Ok(DomainCheck {
        name: read_name(row)?,
        next_check_ms: row.try_get("next_check_ms")?,
        checked_at_ms: row.try_get("checked_at_ms")?,
        life: json("life")?,
        findings: json("findings")?,
        order_facts: serde_json::from_value(json("order_facts")?).unwrap_or_default(),
        turn: row.try_get::<i64, _>("turn")?.cast_unsigned(),
    })
}

fn read_name(row: &SqliteRow) -> Result<DomainName, sqlx::Error> {
    row.try_get::<&str, _>("name")?.parse().map_err(|e| undecodable("the name of a domain", e))
}

pub(super) async fn domain_checks_due(
    connection: &mut SqliteConnection,
    now_ms: i64,
    limit: u32,
) -> Result<Vec<DomainCheck>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM domain_checks WHERE next_check_ms <= ? ORDER BY next_check_ms LIMIT ?")
        .bind(now_ms)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    rows.iter().map(read_check).collect()
}

pub(super) async fn next_domain_check(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT min(next_check_ms) FROM domain_checks").fetch_one(connection).await
}

pub(super) async fn domain_check(
    connection: &mut SqliteConnection,
    name: &DomainName,
) -> Result<Option<DomainCheck>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM domain_checks WHERE name = ?")
        .bind(name.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read_check).transpose()
}

pub(super) async fn save_domain_check(
    connection: &mut SqliteConnection,
    check: &DomainCheck,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE domain_checks SET next_check_ms = ?, checked_at_ms = ?, life = ?, findings = ?, \
         order_facts = ?, turn = turn + 1 WHERE name = ? AND turn = ?",
    )
    .bind(check.next_check_ms)
    .bind(check.checked_at_ms)
    .bind(check.life.to_string())
    .bind(check.findings.to_string())
    .bind(serde_json::to_string(&check.order_facts).map_err(|e| sqlx::Error::Encode(Box::new(e)))?)
    .bind(check.name.to_string())
    .bind(signed(check.turn))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Keeps a row for every domain, and nothing of those that are gone.
pub(super) async fn follow_domains(
    connection: &mut SqliteConnection,
    changes: &[Change],
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    for change in changes {
        match change {
            Change::Put(Object::Domain(domain)) => add_check(connection, domain, now_ms).await?,
            Change::Remove(ObjectKey::Domain(name)) => {
                for sql in ["DELETE FROM domain_checks WHERE name = ?", "DELETE FROM domain_transfers WHERE name = ?"] {
                    sqlx::query(sql).bind(name.to_string()).execute(&mut *connection).await?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

async fn add_check(connection: &mut SqliteConnection, domain: &Domain, now_ms: i64) -> Result<(), sqlx::Error> {
    // A turn that a row of the same name removed before has not had.
    sqlx::query(
        "INSERT INTO domain_checks (name, next_check_ms, life, findings, turn) VALUES (?, ?, 'null', '[]', ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(domain.name.to_string())
    .bind(now_ms)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn domain_transfer(
    connection: &mut SqliteConnection,
    name: &DomainName,
) -> Result<Option<DomainTransfer>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM domain_transfers WHERE name = ?")
        .bind(name.to_string())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(DomainTransfer {
        name: read_name(&row)?,
        tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(|e| undecodable("the tenant of a transfer", e))?,
        token: row.try_get("token")?,
        requested_at_ms: row.try_get("requested_at_ms")?,
        requested_by: row.try_get("requested_by")?,
        proven_at_ms: row.try_get("proven_at_ms")?,
    }))
}

pub(super) async fn save_domain_transfer(
    connection: &mut SqliteConnection,
    transfer: &DomainTransfer,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO domain_transfers (name, tenant, token, requested_at_ms, requested_by, proven_at_ms) \
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET tenant = excluded.tenant, token = excluded.token, \
         requested_at_ms = excluded.requested_at_ms, requested_by = excluded.requested_by, \
         proven_at_ms = excluded.proven_at_ms",
    )
    .bind(transfer.name.to_string())
    .bind(transfer.tenant.to_string())
    .bind(transfer.token.clone())
    .bind(transfer.requested_at_ms)
    .bind(transfer.requested_by.clone())
    .bind(transfer.proven_at_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn drop_domain_transfer(
    connection: &mut SqliteConnection,
    name: &DomainName,
) -> Result<bool, sqlx::Error> {
    let done =
        sqlx::query("DELETE FROM domain_transfers WHERE name = ?").bind(name.to_string()).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn released_name(
    connection: &mut SqliteConnection,
    name: &DomainName,
    now_ms: i64,
) -> Result<Option<ReleasedName>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM released_names WHERE name = ? AND until_ms > ?")
        .bind(name.to_string())
        .bind(now_ms)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(ReleasedName {
        name: read_name(&row)?,
        tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(|e| undecodable("the tenant of a name", e))?,
        released_at_ms: row.try_get("released_at_ms")?,
        until_ms: row.try_get("until_ms")?,
    }))
}

pub(super) async fn keep_released_name(
    connection: &mut SqliteConnection,
    released: &ReleasedName,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO released_names (name, tenant, released_at_ms, until_ms) VALUES (?, ?, ?, ?) \
         ON CONFLICT (name) DO UPDATE SET tenant = excluded.tenant, released_at_ms = excluded.released_at_ms, \
         until_ms = excluded.until_ms",
    )
    .bind(released.name.to_string())
    .bind(released.tenant.to_string())
    .bind(released.released_at_ms)
    .bind(released.until_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn drop_released_name(
    connection: &mut SqliteConnection,
    name: &DomainName,
) -> Result<bool, sqlx::Error> {
    let done =
        sqlx::query("DELETE FROM released_names WHERE name = ?").bind(name.to_string()).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn forget_released_names(
    connection: &mut SqliteConnection,
    before_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM released_names WHERE until_ms <= ?").bind(before_ms).execute(connection).await?;
    Ok(())
}
