//! What instances of the app report of tenants.

use serde_json::{Value, json};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use schoolgate_config::model::TenantId;

use super::{signed, undecodable};
use crate::records::AppReport;

pub(super) async fn save_app_reports(
    connection: &mut SqliteConnection,
    reports: &[AppReport],
) -> Result<(), sqlx::Error> {
    let rows: Vec<Value> = reports
        .iter()
        .map(|r| {
            let [users, students, storage] = [r.users, r.students, r.storage_bytes].map(signed);
            json!([r.tenant, users, students, storage, r.instance, r.reported_at_ms])
        })
        .collect();
    sqlx::query(
        "INSERT INTO app_reports (tenant, users, students, storage_bytes, instance, reported_at_ms) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?) WHERE true \
         ON CONFLICT (tenant) DO UPDATE SET users = excluded.users, students = excluded.students, \
         storage_bytes = excluded.storage_bytes, instance = excluded.instance, reported_at_ms = excluded.reported_at_ms",
    )
    .bind(Value::from(rows).to_string())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn app_reports(
    connection: &mut SqliteConnection,
    tenants: &[TenantId],
) -> Result<Vec<AppReport>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT r.* FROM json_each(?) AS k CROSS JOIN app_reports AS r ON r.tenant = k.value ORDER BY r.tenant",
    )
    .bind(json!(tenants).to_string())
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &SqliteRow) -> Result<AppReport, sqlx::Error> {
    let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    let tenant: &str = row.try_get("tenant")?;
    Ok(AppReport {
        tenant: tenant.parse().map_err(|e| undecodable("the tenant of a report", e))?,
        users: number("users")?,
        students: number("students")?,
        storage_bytes: number("storage_bytes")?,
        instance: row.try_get("instance")?,
        reported_at_ms: row.try_get("reported_at_ms")?,
    })
}
