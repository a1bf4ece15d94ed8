//! Sums of what tenants used.
//!
//! A flush of 300 tenants touches 900 sums. They are read in one statement and written in another, with JSON for the list:
//! a statement for each would hold the connection that writes for a hundred times as long.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use schoolgate_config::model::TenantId;
use schoolgate_config::usage::{CodeClass, QuotaKind, QuotaUse, Step, Usage, UsageFlush, UsagePart};

use super::{signed, undecodable};
use crate::usage::{TotalsQuery, UsagePeak, UsageQuery, UsageTotal};

/// How far a proxy's clock may be ahead: 1 h. Usage from further on is counted now.
const AHEAD_S: i64 = 3_600;

/// How long the number of a proxy's last flush is remembered after it was heard of: 40 days. One that was away longer
/// and still has a flush to repeat would have it counted twice.
const FLUSHES_KEPT_MS: i64 = 40 * 86_400_000;

/// How long what was used of a quota is kept after it was last used: 62 days, the month before and the one before that.
const QUOTAS_KEPT_MS: i64 = 62 * 86_400_000;

/// The longest a day lasts, 25 hours, and a month.
const DAY_MS: i64 = 25 * 3_600_000;
const MONTH_MS: i64 = 31 * 86_400_000 + 3_600_000;

/// Steps whose sums are forgotten in one go: 10.
const FORGOTTEN_STEPS: i64 = 10;

/// A sum by its key: step in seconds, tenant, beginning.
type Key = (i64, TenantId, i64);

/// Counts a flush, unless it has been counted. Says whether it is counted now.
pub(super) async fn count_usage(
    connection: &mut SqliteConnection,
    flush: &UsageFlush,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let counted: Option<i64> = sqlx::query_scalar("SELECT number FROM usage_flushes WHERE node = ? AND boot = ?")
        .bind(flush.node.to_string())
        .bind(flush.boot.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    if counted.is_some_and(|number| flush.number <= number.cast_unsigned()) {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO usage_flushes (node, boot, number, at_ms) VALUES (?, ?, ?, ?) \
         ON CONFLICT (node, boot) DO UPDATE SET number = excluded.number, at_ms = excluded.at_ms",
    )
    .bind(flush.node.to_string())
    .bind(flush.boot.to_string())
    .bind(signed(flush.number))
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    let mut sums = sums_of(&flush.parts, now_ms.div_euclid(1_000));
    if !sums.is_empty() {
        merge_present(connection, &mut sums).await?;
        write_sums(connection, &sums).await?;
    }
    if !flush.quotas.is_empty() {
        add_quotas(connection, &flush.quotas, now_ms).await?;
    }
    Ok(true)
}

/// What the parts of a flush add to which sums.
fn sums_of(parts: &[UsagePart], now_s: i64) -> BTreeMap<Key, Usage> {
    let mut sums: BTreeMap<Key, Usage> = BTreeMap::new();
    for part in parts {
        let at_s = if part.at_s > now_s + AHEAD_S { now_s } else { part.at_s };
        let kept = |step: &Step| step.seconds() >= part.step.seconds() && at_s > now_s - step.kept_s();
        for step in Step::ALL.into_iter().filter(kept) {
            sums.entry((step.seconds(), part.tenant, step.floor(at_s))).or_default().merge(&part.usage);
        }
    }
    sums
}

/// Merges what the store has under the same keys.
async fn merge_present(connection: &mut SqliteConnection, sums: &mut BTreeMap<Key, Usage>) -> Result<(), sqlx::Error> {
    let keys: Vec<Value> = sums.keys().map(|(step, tenant, at)| json!([step, tenant, at])).collect();
    // CROSS JOIN: the list first, then a look-up for each of its keys.
    let rows = sqlx::query(
        "SELECT s.step_s, s.tenant, s.at_s, s.usage FROM json_each(?) AS k CROSS JOIN usage_sums AS s \
         ON s.step_s = k.value ->> 0 AND s.tenant = k.value ->> 1 AND s.at_s = k.value ->> 2",
    )
    .bind(Value::from(keys).to_string())
    .fetch_all(connection)
    .await?;
    for row in &rows {
        let key = (row.try_get(0)?, read_tenant(row, 1)?, row.try_get(2)?);
        let present = read_usage(row, 3)?;
        if let Some(sum) = sums.get_mut(&key) {
            sum.merge(&present);
        }
    }
    Ok(())
}

async fn write_sums(connection: &mut SqliteConnection, sums: &BTreeMap<Key, Usage>) -> Result<(), sqlx::Error> {
    let rows: Vec<Value> = sums
        .iter()
        .map(|((step, tenant, at), usage)| {
            let errors = usage.requests.of_code(CodeClass::ServerError);
            json!([
                step,
                tenant,
                at,
                signed(usage.requests.total()),
                signed(errors),
                signed(usage.limited),
                signed(usage.bytes_in),
                signed(usage.bytes_out),
                signed(usage.in_flight_peak),
                serde_json::to_string(usage).unwrap_or_default(),
            ])
        })
        .collect();
    sqlx::query(
        "INSERT OR REPLACE INTO usage_sums (step_s, tenant, at_s, requests, errors, limited, bytes_in, bytes_out, \
         in_flight_peak, usage) SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
         value ->> 6, value ->> 7, value ->> 8, value ->> 9 FROM json_each(?)",
    )
    .bind(Value::from(rows).to_string())
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_quotas(connection: &mut SqliteConnection, quotas: &[QuotaUse], now_ms: i64) -> Result<(), sqlx::Error> {
    let rows: Vec<Value> =
        quotas.iter().map(|q| json!([q.quota.as_str(), q.period, q.tenant, signed(q.used)])).collect();
    sqlx::query(
        "INSERT INTO quota_uses (quota, period, tenant, used, at_ms) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, ?2 FROM json_each(?1) WHERE true \
         ON CONFLICT (tenant, quota, period) DO UPDATE SET used = used + excluded.used, at_ms = excluded.at_ms",
    )
    .bind(Value::from(rows).to_string())
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// What was used of these quotas in all; `used` of the question does not matter.
pub(super) async fn quotas_used(
    connection: &mut SqliteConnection,
    quotas: &[QuotaUse],
) -> Result<Vec<QuotaUse>, sqlx::Error> {
    let keys: Vec<Value> = quotas.iter().map(|q| json!([q.quota.as_str(), q.period, q.tenant])).collect();
    let rows = sqlx::query(
        "SELECT q.quota, q.period, q.tenant, q.used FROM json_each(?) AS k CROSS JOIN quota_uses AS q \
         ON q.tenant = k.value ->> 2 AND q.quota = k.value ->> 0 AND q.period = k.value ->> 1",
    )
    .bind(Value::from(keys).to_string())
    .fetch_all(connection)
    .await?;
    rows.iter().map(read_quota).collect()
}

/// What was used of quotas in periods that may last at `now_ms`, of those after `after`; at most `limit`.
pub(super) async fn recent_quotas(
    connection: &mut SqliteConnection,
    now_ms: i64,
    after: Option<&QuotaUse>,
    limit: u32,
) -> Result<Vec<QuotaUse>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT quota, period, tenant, used FROM quota_uses \
         WHERE at_ms > CASE quota WHEN ?1 THEN ?2 ELSE ?3 END AND (tenant, quota, period) > (?4, ?5, ?6) \
         ORDER BY tenant, quota, period LIMIT ?7",
    )
    .bind(QuotaKind::RequestsPerDay.as_str())
    .bind(now_ms - DAY_MS)
    .bind(now_ms - MONTH_MS)
    .bind(after.map(|after| after.tenant.to_string()).unwrap_or_default())
    .bind(after.map(|after| after.quota.as_str()).unwrap_or_default())
    .bind(after.map_or(-1, |after| i64::from(after.period)))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read_quota).collect()
}

fn read_quota(row: &SqliteRow) -> Result<QuotaUse, sqlx::Error> {
    let name: &str = row.try_get("quota")?;
    let quota = QuotaKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    Ok(QuotaUse {
        tenant: read_tenant(row, "tenant")?,
        quota: quota.ok_or_else(|| undecodable("a quota", name))?,
        period: row.try_get("period")?,
        used: row.try_get::<i64, _>("used")?.cast_unsigned(),
    })
}

pub(super) async fn usage(
    connection: &mut SqliteConnection,
    query: &UsageQuery,
) -> Result<Vec<UsagePart>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT at_s, usage FROM usage_sums WHERE step_s = ? AND tenant = ? AND at_s >= ? AND at_s < ? ORDER BY at_s",
    )
    .bind(query.step.seconds())
    .bind(query.tenant.to_string())
    .bind(query.from_s)
    .bind(query.to_s)
    .fetch_all(connection)
    .await?;
    let part = |row: &SqliteRow| {
        let usage = read_usage(row, 1)?;
        Ok(UsagePart { tenant: query.tenant, at_s: row.try_get(0)?, step: query.step, usage })
    };
    rows.iter().map(part).collect()
}

pub(super) async fn usage_totals(
    connection: &mut SqliteConnection,
    query: &TotalsQuery,
) -> Result<Vec<UsageTotal>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant, sum(requests), sum(errors), sum(limited), sum(bytes_in), sum(bytes_out), max(in_flight_peak) \
         FROM usage_sums WHERE step_s = ? AND tenant > ? AND at_s >= ? AND at_s < ? GROUP BY tenant ORDER BY tenant \
         LIMIT ?",
    )
    .bind(Step::Day.seconds())
    .bind(query.after.map(|tenant| tenant.to_string()).unwrap_or_default())
    .bind(query.from_s)
    .bind(query.to_s)
    .bind(query.limit)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let number = |at: usize| row.try_get::<i64, _>(at).map(i64::cast_unsigned);
            Ok(UsageTotal {
                tenant: read_tenant(row, 0)?,
                requests: number(1)?,
                errors: number(2)?,
                limited: number(3)?,
                bytes_in: number(4)?,
                bytes_out: number(5)?,
                in_flight_peak: number(6)?,
            })
        })
        .collect()
}

/// The busiest hour and minute of tenants. Minutes are looked at only in hours that had more requests than asked about.
pub(super) async fn usage_peaks(
    connection: &mut SqliteConnection,
    above: &[(TenantId, u64)],
    since_s: i64,
) -> Result<Vec<UsagePeak>, sqlx::Error> {
    let keys: Vec<Value> = above.iter().map(|(tenant, above)| json!([tenant, signed(*above)])).collect();
    let rows = sqlx::query(
        "SELECT h.tenant, max(coalesce((SELECT max(m.requests) FROM usage_sums AS m WHERE h.requests > k.value ->> 1 \
         AND m.requests > k.value ->> 1 AND m.step_s = ?3 AND m.tenant = h.tenant AND m.at_s >= h.at_s \
         AND m.at_s < h.at_s + ?2), 0)), max(h.in_flight_peak) \
         FROM json_each(?1) AS k CROSS JOIN usage_sums AS h \
         ON h.step_s = ?2 AND h.tenant = k.value ->> 0 AND h.at_s > ?4 - ?2 GROUP BY h.tenant",
    )
    .bind(Value::from(keys).to_string())
    .bind(Step::Hour.seconds())
    .bind(Step::Minute.seconds())
    .bind(since_s)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let number = |at: usize| row.try_get::<i64, _>(at).map(i64::cast_unsigned);
            Ok(UsagePeak { tenant: read_tenant(row, 0)?, requests: number(1)?, in_flight: number(2)? })
        })
        .collect()
}

/// Forgets the oldest of what is kept for too long. Says whether there may be more.
pub(super) async fn forget_usage(connection: &mut SqliteConnection, now_ms: i64) -> Result<bool, sqlx::Error> {
    let now_s = now_ms.div_euclid(1_000);
    let mut more = false;
    for step in Step::ALL {
        let end = step.floor(now_s - step.kept_s());
        let oldest: Option<i64> = sqlx::query_scalar("SELECT min(at_s) FROM usage_sums WHERE step_s = ?")
            .bind(step.seconds())
            .fetch_one(&mut *connection)
            .await?;
        let Some(oldest) = oldest.filter(|oldest| *oldest < end) else { continue };
        let until = end.min(oldest + FORGOTTEN_STEPS * step.seconds());
        sqlx::query("DELETE FROM usage_sums WHERE step_s = ? AND at_s < ?")
            .bind(step.seconds())
            .bind(until)
            .execute(&mut *connection)
            .await?;
        more |= until < end;
    }
    sqlx::query("DELETE FROM usage_flushes WHERE at_ms < ?")
        .bind(now_ms - FLUSHES_KEPT_MS)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM quota_uses WHERE at_ms < ?").bind(now_ms - QUOTAS_KEPT_MS).execute(connection).await?;
    Ok(more)
}

fn read_tenant<I: sqlx::ColumnIndex<SqliteRow>>(row: &SqliteRow, at: I) -> Result<TenantId, sqlx::Error> {
    let text: &str = row.try_get(at)?;
    text.parse().map_err(|e| undecodable("the tenant of usage", e))
}

fn read_usage(row: &SqliteRow, at: usize) -> Result<Usage, sqlx::Error> {
    let text: &str = row.try_get(at)?;
    serde_json::from_str(text).map_err(|e| undecodable("usage", e))
}
