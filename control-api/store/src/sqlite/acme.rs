//! Orders, accounts and budgets of ACME CAs, and the queue.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use schoolgate_config::model::CaId;

use super::certificates::read as read_want;
use super::undecodable;
use crate::acme::{
    AcmeCredentials, AcmeOrder, AuthorityHealth, Bucket, NOT_READY, QueueClass, QueueEntry, QueuePart, RenewalWindow,
    Setback,
};

/// A certificate that ends within this goes before everything: 24 h.
const EXPIRING_MS: i64 = 86_400_000;

/// What waited this long for each class goes one class up, never above a renewal: 24 h.
const AGING_MS: i64 = 86_400_000;

/// The class of a name, as [`QueueClass::from_rank`] reads it. `?1` is now.
const CLASS: &str = "CASE WHEN w.not_after_ms < ?1 + ?2 OR json_extract(w.renewal, '$.end_ms') < ?1 THEN 0 \
         WHEN w.attempts > 0 THEN max(2, 3 - max(0, ?1 - w.since_ms) / ?3) \
         WHEN w.fingerprint IS NOT NULL THEN 2 \
         WHEN w.bulk THEN max(2, 4 - max(0, ?1 - w.since_ms) / ?3) \
         ELSE 1 END AS class";

/// Names of the ACME CAs, whose they are, and their open orders; a condition follows.
const NAMES: &str = "FROM certificate_wants w LEFT JOIN domains d ON d.name = w.name \
     LEFT JOIN acme_orders o ON o.name = w.name WHERE w.issuer = 'acme' AND ";

/// What has no certificate that it should have.
const WAITING: &str = "(w.state <> 'issued' OR w.next_attempt_ms <= ?1 OR o.name IS NOT NULL)";

/// The first `?4` names of the queue that fulfil a condition, with all that is known of them.
///
/// Within a class tenants take turns: the first name of each before the second of any, and of those the tenant that was
/// served longest ago first. Turns are told on a few columns and the rest is read for those that are given: after an
/// import of ten thousand names every look at the queue ranks them all.
fn queue(condition: &str) -> String {
    format!(
        "SELECT w.name, w.state, w.fingerprint, w.attempts, w.next_attempt_ms, w.error, w.turn, w.since_ms, \
             w.not_after_ms, w.ca, w.reason, w.who_acts, w.link, w.renewal, f.tenant, o.body AS order_body, f.class \
         FROM (SELECT q.*, coalesce(s.served_ms, 0) AS served_ms \
             FROM (SELECT *, row_number() OVER (PARTITION BY class, tenant ORDER BY due_ms, id) AS turn_of_tenant \
                 FROM (SELECT w.rowid AS id, w.next_attempt_ms AS due_ms, d.tenant AS tenant, {CLASS} \
                     {NAMES}{condition})) q \
             LEFT JOIN acme_shares s ON s.tenant = coalesce(q.tenant, '') {IN_TURN} LIMIT ?4) f \
         JOIN certificate_wants w ON w.rowid = f.id LEFT JOIN acme_orders o ON o.name = w.name {IN_TURN}"
    )
}

/// What is due before what waits for a moment, then by class and turn.
const IN_TURN: &str = "ORDER BY due_ms > ?1, class, turn_of_tenant, served_ms, due_ms, id";

fn pack<T: Serialize>(value: &T) -> Result<Vec<u8>, sqlx::Error> {
    rmp_serde::to_vec_named(value).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}

fn unpack<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, sqlx::Error> {
    rmp_serde::from_slice(bytes).map_err(|e| undecodable(what, e))
}

fn read_ca(text: &str) -> Result<CaId, sqlx::Error> {
    text.parse().map_err(|e| undecodable("the name of a CA", e))
}

fn read_entry(row: &SqliteRow) -> Result<QueueEntry, sqlx::Error> {
    let order: Option<Vec<u8>> = row.try_get("order_body")?;
    let order: Option<AcmeOrder> = order.map(|body| unpack("an order", &body)).transpose()?;
    let renewal: Option<String> = row.try_get("renewal")?;
    let ca: Option<String> = row.try_get("ca")?;
    Ok(QueueEntry {
        want: read_want(row)?,
        class: QueueClass::from_rank(row.try_get("class")?),
        tenant: row.try_get("tenant")?,
        since_ms: row.try_get("since_ms")?,
        not_after_ms: row.try_get("not_after_ms")?,
        ca: ca.map(|text| read_ca(&text)).transpose()?,
        reason: row.try_get("reason")?,
        who_acts: row.try_get("who_acts")?,
        link: row.try_get("link")?,
        renewal: renewal.map(|text| read_renewal(&text)).transpose()?,
        order: order.map(|order| (order.step, order.ca)),
    })
}

fn read_renewal(text: &str) -> Result<RenewalWindow, sqlx::Error> {
    serde_json::from_str(text).map_err(|e| undecodable("a renewal window", e))
}

/// A part of the queue; `condition` is one of the texts below.
async fn entries(
    connection: &mut SqliteConnection,
    condition: &str,
    now_ms: i64,
    limit: u32,
    name: Option<&str>,
) -> Result<Vec<QueueEntry>, sqlx::Error> {
    // Only texts of this file are put together here.
    let rows = sqlx::query(sqlx::AssertSqlSafe(queue(condition)))
        .bind(now_ms)
        .bind(EXPIRING_MS)
        .bind(AGING_MS)
        .bind(i64::from(limit))
        .bind(name.map(str::to_owned))
        .fetch_all(connection)
        .await?;
    rows.iter().map(read_entry).collect()
}

pub(super) async fn acme_queue(
    connection: &mut SqliteConnection,
    now_ms: i64,
    part: QueuePart,
    limit: u32,
) -> Result<Vec<QueueEntry>, sqlx::Error> {
    let condition = match part {
        QueuePart::Due => "w.next_attempt_ms <= ?1 AND o.name IS NULL",
        QueuePart::Renewals => "w.next_attempt_ms <= ?1 AND o.name IS NULL AND w.ca IS NOT NULL",
        QueuePart::NewNames => "w.next_attempt_ms <= ?1 AND o.name IS NULL AND w.ca IS NULL",
        QueuePart::All => WAITING,
    };
    entries(connection, &format!("{condition} AND ?5 IS NULL"), now_ms, limit, None).await
}

pub(super) async fn acme_entry(
    connection: &mut SqliteConnection,
    now_ms: i64,
    name: &str,
) -> Result<Option<QueueEntry>, sqlx::Error> {
    Ok(entries(connection, "w.name = ?5", now_ms, 1, Some(name)).await?.pop())
}

pub(super) async fn acme_renewals_to_ask(
    connection: &mut SqliteConnection,
    now_ms: i64,
    limit: u32,
) -> Result<Vec<QueueEntry>, sqlx::Error> {
    let condition = "w.renewal_ask_ms <= ?1 AND w.fingerprint IS NOT NULL AND o.name IS NULL AND ?5 IS NULL";
    entries(connection, condition, now_ms, limit, None).await
}

pub(super) async fn acme_queue_depth(
    connection: &mut SqliteConnection,
    now_ms: i64,
) -> Result<Vec<(QueueClass, u64, i64)>, sqlx::Error> {
    let sql = format!(
        "SELECT class, count(*), min(since_ms) FROM (SELECT w.since_ms, {CLASS} {NAMES}{WAITING}) \
         GROUP BY class ORDER BY class"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(now_ms)
        .bind(EXPIRING_MS)
        .bind(AGING_MS)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let count: i64 = row.try_get(1)?;
            Ok((QueueClass::from_rank(row.try_get(0)?), count.cast_unsigned(), row.try_get(2)?))
        })
        .collect()
}

pub(super) async fn next_acme_due(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT min(at) FROM (SELECT min(next_ms) AS at FROM acme_orders \
         UNION ALL SELECT min(next_attempt_ms) FROM certificate_wants w WHERE issuer = 'acme' \
             AND NOT EXISTS (SELECT 1 FROM acme_orders o WHERE o.name = w.name) \
         UNION ALL SELECT min(renewal_ask_ms) FROM certificate_wants WHERE renewal_ask_ms IS NOT NULL)",
    )
    .fetch_one(connection)
    .await
}

pub(super) async fn acme_orders_due(
    connection: &mut SqliteConnection,
    now_ms: i64,
    limit: u32,
) -> Result<Vec<AcmeOrder>, sqlx::Error> {
    let rows: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT body FROM acme_orders WHERE next_ms <= ? ORDER BY next_ms LIMIT ?")
            .bind(now_ms)
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await?;
    rows.iter().map(|body| unpack("an order", body)).collect()
}

pub(super) async fn acme_order(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<AcmeOrder>, sqlx::Error> {
    let body: Option<Vec<u8>> = sqlx::query_scalar("SELECT body FROM acme_orders WHERE name = ?")
        .bind(name.to_owned())
        .fetch_optional(connection)
        .await?;
    body.map(|body| unpack("an order", &body)).transpose()
}

pub(super) async fn acme_orders_open(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM acme_orders").fetch_one(connection).await?;
    Ok(count.cast_unsigned())
}

pub(super) async fn open_acme_order(connection: &mut SqliteConnection, order: &AcmeOrder) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("INSERT INTO acme_orders (name, next_ms, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(order.name.clone())
        .bind(order.next_ms)
        .bind(pack(order)?)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn save_acme_order(connection: &mut SqliteConnection, order: &AcmeOrder) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE acme_orders SET next_ms = ?, body = ? WHERE name = ?")
        .bind(order.next_ms)
        .bind(pack(order)?)
        .bind(order.name.clone())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn close_acme_order(
    connection: &mut SqliteConnection,
    name: &str,
    ca: &CaId,
    result: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM acme_orders WHERE name = ?").bind(name.to_owned()).execute(&mut *connection).await?;
    sqlx::query(
        "INSERT INTO acme_totals (ca, result, orders) VALUES (?, ?, 1) \
         ON CONFLICT (ca, result) DO UPDATE SET orders = orders + 1",
    )
    .bind(ca.to_string())
    .bind(result.to_owned())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn serve_tenant(
    connection: &mut SqliteConnection,
    tenant: &str,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO acme_shares (tenant, served_ms) VALUES (?, ?) \
         ON CONFLICT (tenant) DO UPDATE SET served_ms = excluded.served_ms",
    )
    .bind(tenant.to_owned())
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn acme_credentials(connection: &mut SqliteConnection) -> Result<Vec<AcmeCredentials>, sqlx::Error> {
    let rows: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT body FROM acme_credentials ORDER BY ca").fetch_all(connection).await?;
    rows.iter().map(|body| unpack("an ACME account", body)).collect()
}

pub(super) async fn save_acme_credentials(
    connection: &mut SqliteConnection,
    credentials: &AcmeCredentials,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO acme_credentials (ca, body) VALUES (?, ?) ON CONFLICT (ca) DO UPDATE SET body = excluded.body",
    )
    .bind(credentials.ca.to_string())
    .bind(pack(credentials)?)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn acme_authorities(
    connection: &mut SqliteConnection,
) -> Result<Vec<(CaId, AuthorityHealth)>, sqlx::Error> {
    let rows = sqlx::query("SELECT ca, body FROM acme_authorities ORDER BY ca").fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let body: &str = row.try_get(1)?;
            Ok((read_ca(row.try_get(0)?)?, serde_json::from_str(body).map_err(|e| undecodable("a CA", e))?))
        })
        .collect()
}

pub(super) async fn save_acme_authority(
    connection: &mut SqliteConnection,
    ca: &CaId,
    health: &AuthorityHealth,
) -> Result<(), sqlx::Error> {
    let body = serde_json::to_string(health).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    sqlx::query(
        "INSERT INTO acme_authorities (ca, body) VALUES (?, ?) ON CONFLICT (ca) DO UPDATE SET body = excluded.body",
    )
    .bind(ca.to_string())
    .bind(body)
    .execute(connection)
    .await?;
    Ok(())
}

fn read_bucket(row: &SqliteRow) -> Result<Bucket, sqlx::Error> {
    Ok(Bucket {
        ca: read_ca(row.try_get("ca")?)?,
        name: row.try_get("name")?,
        subject: row.try_get("subject")?,
        tokens: row.try_get("tokens")?,
        capacity: row.try_get("capacity")?,
        per_ms: row.try_get("per_ms")?,
        at_ms: row.try_get("at_ms")?,
    })
}

pub(super) async fn acme_buckets(connection: &mut SqliteConnection, limit: u32) -> Result<Vec<Bucket>, sqlx::Error> {
    // The whole CA's first, then the emptiest.
    let rows =
        sqlx::query("SELECT * FROM acme_buckets ORDER BY subject <> '', tokens / capacity, ca, name, subject LIMIT ?")
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await?;
    rows.iter().map(read_bucket).collect()
}

pub(super) async fn acme_bucket(
    connection: &mut SqliteConnection,
    ca: &CaId,
    name: &str,
    subject: &str,
) -> Result<Option<Bucket>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM acme_buckets WHERE ca = ? AND name = ? AND subject = ?")
        .bind(ca.to_string())
        .bind(name.to_owned())
        .bind(subject.to_owned())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read_bucket).transpose()
}

pub(super) async fn save_acme_bucket(connection: &mut SqliteConnection, bucket: &Bucket) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO acme_buckets (ca, name, subject, tokens, capacity, per_ms, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (ca, name, subject) DO UPDATE SET tokens = excluded.tokens, capacity = excluded.capacity, \
         per_ms = excluded.per_ms, at_ms = excluded.at_ms",
    )
    .bind(bucket.ca.to_string())
    .bind(bucket.name.clone())
    .bind(bucket.subject.clone())
    .bind(bucket.tokens)
    .bind(bucket.capacity)
    .bind(bucket.per_ms)
    .bind(bucket.at_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn acme_failures(
    connection: &mut SqliteConnection,
    ca: &CaId,
    name: &str,
    since_ms: i64,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT at_ms FROM acme_failures WHERE ca = ? AND name = ? AND at_ms > ? ORDER BY at_ms")
        .bind(ca.to_string())
        .bind(name.to_owned())
        .bind(since_ms)
        .fetch_all(connection)
        .await
}

pub(super) async fn count_acme_failure(
    connection: &mut SqliteConnection,
    ca: &CaId,
    name: &str,
    now_ms: i64,
    since_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM acme_failures WHERE name = ? AND at_ms <= ?")
        .bind(name.to_owned())
        .bind(since_ms)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO acme_failures (ca, name, at_ms) VALUES (?, ?, ?)")
        .bind(ca.to_string())
        .bind(name.to_owned())
        .bind(now_ms)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn acme_totals(connection: &mut SqliteConnection) -> Result<Vec<(CaId, String, u64)>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT ca, result, orders FROM acme_totals ORDER BY ca, result").fetch_all(connection).await?;
    rows.iter()
        .map(|row| Ok((read_ca(row.try_get(0)?)?, row.try_get(1)?, row.try_get::<i64, _>(2)?.cast_unsigned())))
        .collect()
}

pub(super) async fn certificates_ending(
    connection: &mut SqliteConnection,
    limit: u32,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT name, not_after_ms FROM certificate_wants WHERE not_after_ms IS NOT NULL ORDER BY not_after_ms LIMIT ?",
    )
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await
}

pub(super) async fn certificate_issuers(
    connection: &mut SqliteConnection,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<(String, Option<String>)>, sqlx::Error> {
    sqlx::query_as("SELECT name, issuer FROM certificate_wants WHERE name > ? ORDER BY name LIMIT ?")
        .bind(after.unwrap_or_default().to_owned())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
}

pub(super) async fn set_certificate_issuer(
    connection: &mut SqliteConnection,
    name: &str,
    issuer: &str,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE certificate_wants SET issuer = ?, next_attempt_ms = ?, since_ms = ?, attempts = 0, reason = NULL, \
         who_acts = NULL, link = NULL, renewal = NULL, renewal_ask_ms = NULL, turn = turn + 1 WHERE name = ?",
    )
    .bind(issuer.to_owned())
    .bind(now_ms)
    .bind(now_ms)
    .bind(name.to_owned())
    .execute(connection)
    .await?;
    Ok(())
}

/// After [`super::certificates::want_issued`].
pub(super) async fn set_certificate_ca(
    connection: &mut SqliteConnection,
    name: &str,
    ca: &CaId,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE certificate_wants SET ca = ?, renewal_ask_ms = ? WHERE name = ?")
        .bind(ca.to_string())
        .bind(now_ms)
        .bind(name.to_owned())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn acme_failed(
    connection: &mut SqliteConnection,
    name: &str,
    why: &Setback,
    next_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE certificate_wants SET state = 'failing', attempts = attempts + 1, next_attempt_ms = ?, error = ?, \
         reason = ?, who_acts = ?, link = ?, turn = turn + 1 WHERE name = ?",
    )
    .bind(next_ms)
    .bind(why.message.clone())
    .bind(why.reason.to_owned())
    .bind(why.who_acts.to_owned())
    .bind(why.link.clone())
    .bind(name.to_owned())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn acme_waits(
    connection: &mut SqliteConnection,
    name: &str,
    why: &Setback,
    next_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE certificate_wants SET next_attempt_ms = ?, error = ?, reason = ?, who_acts = ?, link = ?, \
         turn = turn + 1 WHERE name = ?",
    )
    .bind(next_ms)
    .bind(why.message.clone())
    .bind(why.reason.to_owned())
    .bind(why.who_acts.to_owned())
    .bind(why.link.clone())
    .bind(name.to_owned())
    .execute(connection)
    .await?;
    Ok(())
}

/// A name that waited for its domain is looked at at once when the domain changes.
pub(super) async fn wake_waiting(
    connection: &mut SqliteConnection,
    name: &str,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE certificate_wants SET next_attempt_ms = ?, turn = turn + 1 \
         WHERE name = ? AND reason = ? AND next_attempt_ms > ?",
    )
    .bind(now_ms)
    .bind(name.to_owned())
    .bind(NOT_READY)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn save_renewal(
    connection: &mut SqliteConnection,
    name: &str,
    window: Option<&RenewalWindow>,
    ask_ms: i64,
    renew_ms: i64,
) -> Result<(), sqlx::Error> {
    let window = window.map(serde_json::to_string).transpose().map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    sqlx::query(
        "UPDATE certificate_wants SET renewal = ?, renewal_ask_ms = ?, \
             next_attempt_ms = CASE state WHEN 'issued' THEN ? ELSE next_attempt_ms END, \
             since_ms = CASE state WHEN 'issued' THEN ? ELSE since_ms END, turn = turn + 1 WHERE name = ?",
    )
    .bind(window)
    .bind(ask_ms)
    .bind(renew_ms)
    .bind(renew_ms)
    .bind(name.to_owned())
    .execute(connection)
    .await?;
    Ok(())
}
