//! Events.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{signed, undecodable};
use crate::event::{Event, EventQuery, KEPT_OF_A_KIND, NewEvent};

/// Events between two looks at how many there are of a kind: 256, so that a record costs no count.
const LOOK_EVERY: i64 = 256;

fn read(row: &SqliteRow) -> Result<Event, sqlx::Error> {
    let tenant: Option<&str> = row.try_get("tenant")?;
    Ok(Event {
        number: row.try_get::<i64, _>("number")?.cast_unsigned(),
        at_ms: row.try_get("at_ms")?,
        kind: row.try_get("kind")?,
        tenant: tenant.map(str::parse).transpose().map_err(|e| undecodable("the tenant of an event", e))?,
        object: row.try_get("object")?,
        summary: row.try_get("summary")?,
        detail: serde_json::from_str(row.try_get("detail")?).map_err(|e| undecodable("an event", e))?,
    })
}

pub(super) async fn events(connection: &mut SqliteConnection, query: &EventQuery) -> Result<Vec<Event>, sqlx::Error> {
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT * FROM events WHERE number < ");
    sql.push_bind(query.before.map_or(i64::MAX, signed));
    if let Some(kind) = &query.kind {
        // An area is a range of kinds: `/` comes right after `.`.
        sql.push(" AND (kind = ").push_bind(kind.clone());
        sql.push(" OR (kind >= ").push_bind(format!("{kind}."));
        sql.push(" AND kind < ").push_bind(format!("{kind}/")).push("))");
    }
    if let Some(tenant) = query.tenant {
        sql.push(" AND tenant = ").push_bind(tenant.to_string());
    }
    if let Some(object) = &query.object {
        sql.push(" AND object = ").push_bind(object.clone());
    }
    let limit = if query.limit == 0 { 100 } else { query.limit };
    sql.push(" ORDER BY number DESC LIMIT ").push_bind(i64::from(limit));
    let rows = sql.build().fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn insert_event(connection: &mut SqliteConnection, event: &NewEvent) -> Result<(), sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO events (at_ms, kind, tenant, object, summary, detail, once) VALUES (?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(event.at_ms)
    .bind(event.kind)
    .bind(event.tenant.map(|tenant| tenant.to_string()))
    .bind(event.object.clone())
    .bind(event.summary.clone())
    .bind(event.detail.to_string())
    .bind(event.once.clone())
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() > 0 && done.last_insert_rowid() % LOOK_EVERY == 0 {
        forget_surplus(connection, event.kind).await?;
    }
    Ok(())
}

async fn forget_surplus(connection: &mut SqliteConnection, kind: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM events WHERE kind = ?1 AND number <= \
         (SELECT number FROM events WHERE kind = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
    )
    .bind(kind.to_owned())
    .bind(KEPT_OF_A_KIND)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn forget_events(connection: &mut SqliteConnection, before_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM events WHERE at_ms < ?").bind(before_ms).execute(&mut *connection).await?;
    let kinds: Vec<String> = sqlx::query_scalar("SELECT DISTINCT kind FROM events").fetch_all(&mut *connection).await?;
    for kind in kinds {
        forget_surplus(connection, &kind).await?;
    }
    Ok(())
}
