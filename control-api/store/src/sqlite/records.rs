//! Tokens, proxies, fetched keys, ignored hosts, answers and notes.

use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use schoolgate_config::model::DomainName;

use super::undecodable;
use crate::records::{IgnoredHost, KeyFetch, NodeRecord, StoredAnswer, Token, TokenKind};

fn json<T: serde::Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}

fn read_json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|e| undecodable(column, e))
}

fn read_digest(row: &SqliteRow, column: &str) -> Result<[u8; 32], sqlx::Error> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|e| undecodable(column, e))
}

fn read_token(row: &SqliteRow) -> Result<Token, sqlx::Error> {
    Ok(Token {
        id: row.try_get("id")?,
        kind: match row.try_get::<&str, _>("kind")? {
            "node" => TokenKind::Node,
            "instance" => TokenKind::Instance,
            _ => TokenKind::Operator,
        },
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        scopes: read_json(row, "scopes")?,
        tenants: read_json(row, "tenants")?,
        networks: read_json(row, "networks")?,
        secret_hash: read_digest(row, "secret_hash")?,
        created_at_ms: row.try_get("created_at_ms")?,
        created_by: row.try_get("created_by")?,
        expires_at_ms: row.try_get("expires_at_ms")?,
    })
}

pub(super) async fn token(connection: &mut SqliteConnection, id: &str) -> Result<Option<Token>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM tokens WHERE id = ?").bind(id.to_owned()).fetch_optional(connection).await?;
    row.as_ref().map(read_token).transpose()
}

pub(super) async fn tokens(connection: &mut SqliteConnection) -> Result<Vec<Token>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM tokens ORDER BY created_at_ms, id").fetch_all(connection).await?;
    rows.iter().map(read_token).collect()
}

pub(super) async fn insert_token(connection: &mut SqliteConnection, token: &Token) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO tokens (id, kind, name, role, scopes, tenants, networks, secret_hash, created_at_ms, created_by, \
         expires_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(token.id.clone())
    .bind(token.kind.as_str())
    .bind(token.name.clone())
    .bind(token.role.clone())
    .bind(json(&token.scopes)?)
    .bind(json(&token.tenants)?)
    .bind(json(&token.networks)?)
    .bind(token.secret_hash.to_vec())
    .bind(token.created_at_ms)
    .bind(token.created_by.clone())
    .bind(token.expires_at_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn delete_token(connection: &mut SqliteConnection, id: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("DELETE FROM tokens WHERE id = ?").bind(id.to_owned()).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn nodes(connection: &mut SqliteConnection) -> Result<Vec<NodeRecord>, sqlx::Error> {
    let rows = sqlx::query("SELECT node, seen_at_ms, report FROM nodes ORDER BY node").fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let report: Option<&str> = row.try_get(2)?;
            Ok(NodeRecord {
                node: row.try_get::<&str, _>(0)?.parse().map_err(|e| undecodable("the name of a node", e))?,
                seen_at_ms: row.try_get(1)?,
                // A report of another release may read differently; the node will send a new one.
                report: report.and_then(|text| serde_json::from_str(text).ok()),
            })
        })
        .collect()
}

pub(super) async fn save_node(connection: &mut SqliteConnection, node: &NodeRecord) -> Result<(), sqlx::Error> {
    let report = node.report.as_ref().map(json).transpose()?;
    sqlx::query(
        "INSERT INTO nodes (node, seen_at_ms, report) VALUES (?, ?, ?) \
         ON CONFLICT (node) DO UPDATE SET seen_at_ms = excluded.seen_at_ms, report = excluded.report",
    )
    .bind(node.node.to_string())
    .bind(node.seen_at_ms)
    .bind(report)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn key_fetches(connection: &mut SqliteConnection) -> Result<Vec<KeyFetch>, sqlx::Error> {
    let rows = sqlx::query("SELECT issuer, tried_at_ms, fetched_at_ms, failures, error FROM key_fetches")
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(KeyFetch {
                issuer: row.try_get::<&str, _>(0)?.parse().map_err(|e| undecodable("the name of an issuer", e))?,
                tried_at_ms: row.try_get(1)?,
                fetched_at_ms: row.try_get(2)?,
                failures: row.try_get(3)?,
                error: row.try_get(4)?,
            })
        })
        .collect()
}

pub(super) async fn save_key_fetch(connection: &mut SqliteConnection, fetch: &KeyFetch) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO key_fetches (issuer, tried_at_ms, fetched_at_ms, failures, error) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (issuer) DO UPDATE SET tried_at_ms = excluded.tried_at_ms, \
         fetched_at_ms = excluded.fetched_at_ms, failures = excluded.failures, error = excluded.error",
    )
    .bind(fetch.issuer.to_string())
    .bind(fetch.tried_at_ms)
    .bind(fetch.fetched_at_ms)
    .bind(fetch.failures)
    .bind(fetch.error.clone())
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM key_fetches WHERE issuer NOT IN (SELECT id FROM token_issuers)")
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn ignored_hosts(connection: &mut SqliteConnection) -> Result<Vec<IgnoredHost>, sqlx::Error> {
    let rows = sqlx::query("SELECT name, at_ms, actor FROM ignored_hosts ORDER BY name").fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            Ok(IgnoredHost {
                name: row.try_get::<&str, _>(0)?.parse().map_err(|e| undecodable("the name of a host", e))?,
                at_ms: row.try_get(1)?,
                actor: row.try_get(2)?,
            })
        })
        .collect()
}

pub(super) async fn ignore_host(connection: &mut SqliteConnection, host: &IgnoredHost) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO ignored_hosts (name, at_ms, actor) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING")
        .bind(host.name.to_string())
        .bind(host.at_ms)
        .bind(host.actor.clone())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn heed_host(connection: &mut SqliteConnection, name: &DomainName) -> Result<bool, sqlx::Error> {
    let done =
        sqlx::query("DELETE FROM ignored_hosts WHERE name = ?").bind(name.to_string()).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn answer(
    connection: &mut SqliteConnection,
    actor: &str,
    key: &str,
) -> Result<Option<StoredAnswer>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM answers WHERE actor = ? AND key = ?")
        .bind(actor.to_owned())
        .bind(key.to_owned())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(StoredAnswer {
        actor: row.try_get("actor")?,
        key: row.try_get("key")?,
        request_hash: read_digest(&row, "request_hash")?,
        status: row.try_get("status")?,
        etag: row.try_get("etag")?,
        location: row.try_get("location")?,
        body: row.try_get("body")?,
        created_at_ms: row.try_get("created_at_ms")?,
    }))
}

pub(super) async fn insert_answer(connection: &mut SqliteConnection, answer: &StoredAnswer) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO answers (actor, key, request_hash, status, etag, location, body, created_at_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(answer.actor.clone())
    .bind(answer.key.clone())
    .bind(answer.request_hash.to_vec())
    .bind(answer.status)
    .bind(answer.etag.clone())
    .bind(answer.location.clone())
    .bind(answer.body.clone())
    .bind(answer.created_at_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn forget_answers(connection: &mut SqliteConnection, before_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM answers WHERE created_at_ms < ?").bind(before_ms).execute(connection).await?;
    Ok(())
}

pub(super) async fn note(connection: &mut SqliteConnection, key: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM notes WHERE key = ?").bind(key.to_owned()).fetch_optional(connection).await
}

pub(super) async fn set_note(connection: &mut SqliteConnection, key: &str, value: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO notes (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        .bind(key.to_owned())
        .bind(value.to_owned())
        .execute(connection)
        .await?;
    Ok(())
}
