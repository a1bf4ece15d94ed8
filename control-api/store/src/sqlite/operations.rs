//! Operations as rows.

use sqlx::sqlite::{Sqlite as Db, SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row};

use schoolgate_config::model::TenantId;

use super::undecodable;
use crate::operations::{Operation, OperationId, OperationQuery};

const COLUMNS: &str =
    "SELECT id, kind, tenant, state, cancelled, created_at_ms, created_by, updated_at_ms, body FROM operations";

fn read(row: &SqliteRow) -> Result<Operation, sqlx::Error> {
    let state: &str = row.try_get(3)?;
    Ok(Operation {
        id: row.try_get::<&str, _>(0)?.parse().map_err(|e| undecodable("the id of an operation", e))?,
        kind: row.try_get(1)?,
        tenant: row.try_get::<&str, _>(2)?.parse().map_err(|e| undecodable("the tenant of an operation", e))?,
        state: state.parse().map_err(|e: String| undecodable("the state of an operation", std::io::Error::other(e)))?,
        cancelled: row.try_get(4)?,
        created_at_ms: row.try_get(5)?,
        created_by: row.try_get(6)?,
        updated_at_ms: row.try_get(7)?,
        body: serde_json::from_str(row.try_get(8)?).map_err(|e| undecodable("an operation", e))?,
    })
}

async fn rows(connection: &mut SqliteConnection, mut query: QueryBuilder<Db>) -> Result<Vec<Operation>, sqlx::Error> {
    query.build().fetch_all(connection).await?.iter().map(read).collect()
}

pub(super) async fn operation(
    connection: &mut SqliteConnection,
    id: OperationId,
) -> Result<Option<Operation>, sqlx::Error> {
    let mut query = QueryBuilder::new(COLUMNS);
    query.push(" WHERE id = ").push_bind(id.to_string());
    Ok(rows(connection, query).await?.pop())
}

pub(super) async fn operations(
    connection: &mut SqliteConnection,
    asked: &OperationQuery,
) -> Result<Vec<Operation>, sqlx::Error> {
    let mut query = QueryBuilder::new(COLUMNS);
    query.push(" WHERE 1");
    if let Some(before) = asked.before {
        query.push(" AND id < ").push_bind(before.to_string());
    }
    if let Some(tenant) = asked.tenant {
        query.push(" AND tenant = ").push_bind(tenant.to_string());
    }
    if let Some(state) = asked.state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(asked.limit));
    rows(connection, query).await
}

pub(super) async fn unfinished_operations(connection: &mut SqliteConnection) -> Result<Vec<Operation>, sqlx::Error> {
    let mut query = QueryBuilder::new(COLUMNS);
    query.push(" WHERE state IN ('running', 'reverting') ORDER BY id");
    rows(connection, query).await
}

pub(super) async fn unfinished_operation(
    connection: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<Option<Operation>, sqlx::Error> {
    let mut query = QueryBuilder::new(COLUMNS);
    query.push(" WHERE state IN ('running', 'reverting') AND tenant = ").push_bind(tenant.to_string());
    Ok(rows(connection, query).await?.pop())
}

pub(super) async fn insert_operation(
    connection: &mut SqliteConnection,
    operation: &Operation,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO operations (id, kind, tenant, state, cancelled, created_at_ms, created_by, updated_at_ms, body) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(operation.id.to_string())
    .bind(operation.kind.clone())
    .bind(operation.tenant.to_string())
    .bind(operation.state.as_str())
    .bind(operation.cancelled)
    .bind(operation.created_at_ms)
    .bind(operation.created_by.clone())
    .bind(operation.updated_at_ms)
    .bind(operation.body.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn save_operation(
    connection: &mut SqliteConnection,
    operation: &Operation,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE operations SET state = ?, updated_at_ms = ?, body = ? WHERE id = ?")
        .bind(operation.state.as_str())
        .bind(operation.updated_at_ms)
        .bind(operation.body.to_string())
        .bind(operation.id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn cancel_operation(connection: &mut SqliteConnection, id: OperationId) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE operations SET cancelled = 1 WHERE id = ? AND state = 'running'")
        .bind(id.to_string())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}
