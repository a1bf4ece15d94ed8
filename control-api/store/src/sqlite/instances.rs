//! Instances as rows.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use schoolgate_config::model::{BackendAddress, PoolId};

use super::undecodable;
use crate::instances::Instance;

fn read(row: &SqliteRow) -> Result<Instance, sqlx::Error> {
    let (backend, pool, address): (&str, &str, &str) =
        (row.try_get("backend")?, row.try_get("pool")?, row.try_get("address")?);
    Ok(Instance {
        backend: backend.parse().map_err(|e| undecodable("the backend of an instance", e))?,
        pool: pool.parse().map_err(|e| undecodable("the pool of an instance", e))?,
        address: address.parse().map_err(|e| undecodable("the address of an instance", e))?,
        token: row.try_get("token")?,
        heard_at_ms: row.try_get("heard_at_ms")?,
        leaving_at_ms: row.try_get("leaving_at_ms")?,
    })
}

pub(super) async fn instances(connection: &mut SqliteConnection) -> Result<Vec<Instance>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM instances ORDER BY pool, address").fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn instance_at(
    connection: &mut SqliteConnection,
    pool: &PoolId,
    address: &BackendAddress,
) -> Result<Option<Instance>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM instances WHERE pool = ? AND address = ?");
    let row = row.bind(pool.to_string()).bind(address.to_string());
    row.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

pub(super) async fn save_instance(connection: &mut SqliteConnection, instance: &Instance) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO instances (pool, address, backend, token, heard_at_ms, leaving_at_ms) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT (pool, address) DO UPDATE SET backend = excluded.backend, token = excluded.token, \
         heard_at_ms = excluded.heard_at_ms, leaving_at_ms = excluded.leaving_at_ms",
    )
    .bind(instance.pool.to_string())
    .bind(instance.address.to_string())
    .bind(instance.backend.to_string())
    .bind(instance.token.clone())
    .bind(instance.heard_at_ms)
    .bind(instance.leaving_at_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn forget_instance(
    connection: &mut SqliteConnection,
    pool: &PoolId,
    address: &BackendAddress,
) -> Result<(), sqlx::Error> {
    let done = sqlx::query("DELETE FROM instances WHERE pool = ? AND address = ?");
    done.bind(pool.to_string()).bind(address.to_string()).execute(connection).await?;
    Ok(())
}
