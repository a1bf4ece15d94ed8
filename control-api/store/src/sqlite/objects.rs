//! Objects of the gateway as rows: one table for each kind, the object whole in `body`.

use serde::de::DeserializeOwned;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite as Db, SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, QueryBuilder, Row};

use schoolgate_config::model::{
    AcmeAccount, Certificate, Challenge, ContextKey, Domain, Plan, Platform, Pool, Route, Tenant, TokenIssuer, Zone,
};
use schoolgate_config::snapshot::{Object, ObjectKey, ObjectKind};

use super::{signed, undecodable};
use crate::aggregate::{Aggregate, ListQuery, Page, Stored};
use crate::error::StoreError;

/// The most objects in one page: 1000, a few hundred kilobytes.
const PAGE_LIMIT: u32 = 1_000;

/// The statements of one kind.
struct Table {
    name: &'static str,
    key: &'static str,
    /// The column that a search looks in.
    search: &'static str,
    /// Columns that a list can be filtered by.
    filters: &'static [&'static str],
    get: &'static str,
    version: &'static str,
    all: &'static str,
    insert: &'static str,
    update: &'static str,
    delete: &'static str,
}

macro_rules! table {
    ($name:literal, $key:literal, search $search:literal, filters [$($filter:literal),*], columns [$($column:literal),*], marks $marks:literal) => {
        Table {
            name: $name,
            key: $key,
            search: $search,
            filters: &[$($filter),*],
            get: concat!("SELECT body, version, created_at_ms, updated_at_ms FROM ", $name, " WHERE ", $key, " = ?"),
            version: concat!("SELECT version FROM ", $name, " WHERE ", $key, " = ?"),
            all: concat!("SELECT body FROM ", $name),
            insert: concat!(
                "INSERT INTO ", $name, " (", $key, ", version, created_at_ms, updated_at_ms, body", $(", ", $column,)*
                ") VALUES (?, ?, ?, ?, ?", $marks, ")"
            ),
            update: concat!(
                "UPDATE ", $name, " SET version = ?, updated_at_ms = ?, body = ?", $(", ", $column, " = ?",)*
                " WHERE ", $key, " = ? AND version = coalesce(?, version) RETURNING created_at_ms"
            ),
            delete: concat!("DELETE FROM ", $name, " WHERE ", $key, " = ? AND version = coalesce(?, version)"),
        }
    };
}

const PLANS: Table = table!("plans", "id", search "id", filters [], columns [], marks "");
const POOLS: Table = table!("pools", "id", search "id", filters [], columns [], marks "");
const ZONES: Table = table!("zones", "name", search "name", filters [], columns [], marks "");
const TENANTS: Table = table!(
    "tenants", "id", search "search", filters ["state", "plan", "pool"],
    columns ["slug", "external_id", "state", "plan", "pool", "search"], marks ", ?, ?, ?, ?, ?, ?"
);
const DOMAINS: Table = table!("domains", "name", search "name", filters ["tenant"], columns ["tenant"], marks ", ?");
const ROUTES: Table =
    table!("routes", "id", search "id", filters ["tenant", "pool"], columns ["tenant", "pool"], marks ", ?, ?");
const CERTIFICATES: Table =
    table!("certificates", "fingerprint", search "fingerprint", filters [], columns [], marks "");
const CONTEXT_KEYS: Table = table!("context_keys", "id", search "id", filters [], columns [], marks "");
const TOKEN_ISSUERS: Table =
    table!("token_issuers", "id", search "id", filters ["tenant"], columns ["tenant"], marks ", ?");
const ACME_ACCOUNTS: Table = table!("acme_accounts", "ca", search "ca", filters [], columns [], marks "");
const CHALLENGES: Table = table!("challenges", "name", search "name", filters [], columns [], marks "");

const PLATFORM: Table = table!("platform", "id", search "id", filters [], columns [], marks "");

const fn table_of(kind: ObjectKind) -> &'static Table {
    match kind {
        ObjectKind::Plan => &PLANS,
        ObjectKind::Pool => &POOLS,
        ObjectKind::Zone => &ZONES,
        ObjectKind::Tenant => &TENANTS,
        ObjectKind::Domain => &DOMAINS,
        ObjectKind::Route => &ROUTES,
        ObjectKind::Certificate => &CERTIFICATES,
        ObjectKind::ContextKey => &CONTEXT_KEYS,
        ObjectKind::TokenIssuer => &TOKEN_ISSUERS,
        ObjectKind::AcmeAccount => &ACME_ACCOUNTS,
        ObjectKind::Challenge => &CHALLENGES,
        ObjectKind::Platform => &PLATFORM,
    }
}

/// The columns beside the common ones, in the order of the table.
fn columns_of(object: &Object) -> Vec<Option<String>> {
    match object {
        Object::Tenant(t) => vec![
            Some(t.slug.to_string()),
            t.external_id.clone(),
            Some(t.state.as_str().to_owned()),
            Some(t.plan.to_string()),
            Some(t.pool.to_string()),
            Some(format!("{} {} {}", t.slug, t.name, t.external_id.as_deref().unwrap_or_default()).to_lowercase()),
        ],
        Object::Domain(d) => vec![Some(d.tenant.to_string())],
        Object::Route(r) => vec![r.tenant.map(|t| t.to_string()), r.pool.as_ref().map(ToString::to_string)],
        Object::TokenIssuer(i) => vec![i.tenant.map(|t| t.to_string())],
        Object::Plan(_)
        | Object::Pool(_)
        | Object::Zone(_)
        | Object::Certificate(_)
        | Object::ContextKey(_)
        | Object::AcmeAccount(_)
        | Object::Challenge(_)
        | Object::Platform(_) => Vec::new(),
    }
}

/// An object as it is kept: JSON, which an operator can read with any tool; MessagePack where there are keys, whose
/// bytes JSON would write as lists of numbers.
enum Body {
    Text(String),
    Bytes(Vec<u8>),
}

fn body_of(object: &Object) -> Result<Body, sqlx::Error> {
    let text =
        |json: Result<String, serde_json::Error>| json.map(Body::Text).map_err(|e| sqlx::Error::Encode(Box::new(e)));
    let bytes = |packed: Result<Vec<u8>, rmp_serde::encode::Error>| {
        packed.map(Body::Bytes).map_err(|e| sqlx::Error::Encode(Box::new(e)))
    };
    match object {
        Object::Plan(v) => text(serde_json::to_string(v)),
        Object::Pool(v) => text(serde_json::to_string(v)),
        Object::Zone(v) => text(serde_json::to_string(v)),
        Object::Tenant(v) => text(serde_json::to_string(v)),
        Object::Domain(v) => text(serde_json::to_string(v)),
        Object::Route(v) => text(serde_json::to_string(v)),
        Object::Certificate(v) => bytes(rmp_serde::to_vec_named(v)),
        Object::ContextKey(v) => bytes(rmp_serde::to_vec_named(v)),
        Object::TokenIssuer(v) => text(serde_json::to_string(v)),
        Object::AcmeAccount(v) => text(serde_json::to_string(v)),
        Object::Challenge(v) => text(serde_json::to_string(v)),
        Object::Platform(v) => text(serde_json::to_string(v)),
    }
}

fn read_body<A: DeserializeOwned>(kind: ObjectKind, row: &SqliteRow) -> Result<A, sqlx::Error> {
    let body: &[u8] = row.try_get_unchecked(0)?;
    let name = table_of(kind).name;
    match kind {
        ObjectKind::Certificate | ObjectKind::ContextKey => {
            rmp_serde::from_slice(body).map_err(|e| undecodable(&format!("a row of {name}"), e))
        }
        _ => serde_json::from_slice(body).map_err(|e| undecodable(&format!("a row of {name}"), e)),
    }
}

fn read<A: Aggregate>(row: &SqliteRow) -> Result<Stored<A>, sqlx::Error> {
    Ok(Stored {
        value: read_body(A::KIND, row)?,
        version: row.try_get::<i64, _>(1)?.cast_unsigned(),
        created_at_ms: row.try_get(2)?,
        updated_at_ms: row.try_get(3)?,
    })
}

pub(super) async fn get<A: Aggregate>(
    connection: &mut SqliteConnection,
    key: &A::Key,
) -> Result<Option<Stored<A>>, sqlx::Error> {
    let row = sqlx::query(table_of(A::KIND).get).bind(key.to_string()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// What else than its identity names a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TenantField {
    /// The slug.
    Slug,
    /// The operator's own reference.
    ExternalId,
}

pub(super) async fn tenant_by(
    connection: &mut SqliteConnection,
    field: TenantField,
    value: &str,
) -> Result<Option<Stored<Tenant>>, sqlx::Error> {
    let statement = match field {
        TenantField::Slug => "SELECT body, version, created_at_ms, updated_at_ms FROM tenants WHERE slug = ?",
        TenantField::ExternalId => {
            "SELECT body, version, created_at_ms, updated_at_ms FROM tenants WHERE external_id = ?"
        }
    };
    let row = sqlx::query(statement).bind(value.to_owned()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn version(connection: &mut SqliteConnection, key: &ObjectKey) -> Result<Option<u64>, sqlx::Error> {
    let found: Option<i64> =
        sqlx::query_scalar(table_of(key.kind()).version).bind(key.id()).fetch_optional(connection).await?;
    Ok(found.map(i64::cast_unsigned))
}

type Statement = Query<'static, Db, SqliteArguments>;

fn bind_body(statement: Statement, object: &Object) -> Result<Statement, sqlx::Error> {
    let statement = match body_of(object)? {
        Body::Text(text) => statement.bind(text),
        Body::Bytes(bytes) => statement.bind(bytes),
    };
    Ok(columns_of(object).into_iter().fold(statement, Query::bind))
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    object: &Object,
    version: u64,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    let key = object.key();
    let statement =
        sqlx::query(table_of(key.kind()).insert).bind(key.id()).bind(signed(version)).bind(now_ms).bind(now_ms);
    bind_body(statement, object)?.execute(connection).await?;
    Ok(())
}

/// Gives the time the object was made; `None` when it is not there at the version expected.
pub(super) async fn update(
    connection: &mut SqliteConnection,
    object: &Object,
    expected: Option<u64>,
    version: u64,
    now_ms: i64,
) -> Result<Option<i64>, sqlx::Error> {
    let key = object.key();
    let statement = sqlx::query(table_of(key.kind()).update).bind(signed(version)).bind(now_ms);
    let statement = bind_body(statement, object)?.bind(key.id()).bind(expected.map(signed));
    statement.fetch_optional(connection).await?.map(|row| row.try_get(0)).transpose()
}

pub(super) async fn delete(
    connection: &mut SqliteConnection,
    key: &ObjectKey,
    expected: Option<u64>,
) -> Result<bool, sqlx::Error> {
    let statement = sqlx::query(table_of(key.kind()).delete).bind(key.id()).bind(expected.map(signed));
    Ok(statement.execute(connection).await?.rows_affected() > 0)
}

/// Which field of an object another one has already, if that is what the database says.
pub(super) fn taken(object: &Object, error: &sqlx::Error) -> Option<StoreError> {
    let sqlx::Error::Database(database) = error else { return None };
    if !database.is_unique_violation() {
        return None;
    }
    // "UNIQUE constraint failed: tenants.slug"
    let column = database.message().rsplit('.').next()?;
    let key = object.key();
    let kind = key.kind();
    let (field, value) = match (column, object) {
        ("slug", Object::Tenant(t)) => ("slug", t.slug.to_string()),
        ("external_id", Object::Tenant(t)) => ("external_id", t.external_id.clone().unwrap_or_default()),
        _ => (table_of(kind).key, key.id()),
    };
    Some(StoreError::Taken { kind, field, value })
}

/// Whether a kind has every column that a query filters by.
pub(super) fn check_filters(kind: ObjectKind, query: &ListQuery) -> Result<(), StoreError> {
    let table = table_of(kind);
    match filters_of(query).into_iter().find(|(column, _)| !table.filters.contains(column)) {
        Some((filter, _)) => Err(StoreError::Filter { kind, filter }),
        None => Ok(()),
    }
}

fn filters_of(query: &ListQuery) -> Vec<(&'static str, String)> {
    [
        ("tenant", query.tenant.map(|t| t.to_string())),
        ("state", query.state.map(|s| s.as_str().to_owned())),
        ("plan", query.plan.as_ref().map(ToString::to_string)),
        ("pool", query.pool.as_ref().map(ToString::to_string)),
    ]
    .into_iter()
    .filter_map(|(column, value)| Some((column, value?)))
    .collect()
}

/// `SELECT … FROM … WHERE …` of a query; names of columns are ours, values are bound.
fn select(table: &Table, what: &'static str, query: &ListQuery) -> QueryBuilder<Db> {
    let mut builder = QueryBuilder::new("SELECT ");
    builder.push(what).push(" FROM ").push(table.name).push(" WHERE true");
    for (column, value) in filters_of(query) {
        builder.push(" AND ").push(column).push(" = ").push_bind(value);
    }
    if let Some(text) = query.search.as_deref().filter(|text| !text.is_empty()) {
        builder.push(" AND instr(").push(table.search).push(", ").push_bind(text.to_lowercase()).push(") > 0");
    }
    builder
}

pub(super) async fn list<A: Aggregate>(
    connection: &mut SqliteConnection,
    query: &ListQuery,
) -> Result<Page<Stored<A>>, sqlx::Error> {
    let table = table_of(A::KIND);
    let limit = query.limit.clamp(1, PAGE_LIMIT);
    let mut builder = select(table, "body, version, created_at_ms, updated_at_ms", query);
    if let Some(after) = &query.after {
        builder.push(" AND ").push(table.key).push(" > ").push_bind(after.clone());
    }
    builder.push(" ORDER BY ").push(table.key).push(" LIMIT ").push_bind(i64::from(limit) + 1);
    let rows = builder.build().fetch_all(connection).await?;
    let mut items = rows.iter().map(read::<A>).collect::<Result<Vec<_>, _>>()?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|last| last.value.key().to_string());
    Ok(Page { items, next })
}

pub(super) async fn count<A: Aggregate>(
    connection: &mut SqliteConnection,
    query: &ListQuery,
) -> Result<u64, sqlx::Error> {
    let row = select(table_of(A::KIND), "count(*)", query).build().fetch_one(connection).await?;
    Ok(row.try_get::<i64, _>(0)?.cast_unsigned())
}

/// All objects, those first that others refer to.
pub(super) async fn everything(connection: &mut SqliteConnection) -> Result<Vec<Object>, sqlx::Error> {
    let mut objects = Vec::new();
    all::<Plan>(connection, &mut objects).await?;
    all::<Pool>(connection, &mut objects).await?;
    all::<Zone>(connection, &mut objects).await?;
    all::<Tenant>(connection, &mut objects).await?;
    all::<Domain>(connection, &mut objects).await?;
    all::<Route>(connection, &mut objects).await?;
    all::<Certificate>(connection, &mut objects).await?;
    all::<ContextKey>(connection, &mut objects).await?;
    all::<TokenIssuer>(connection, &mut objects).await?;
    all::<AcmeAccount>(connection, &mut objects).await?;
    all::<Challenge>(connection, &mut objects).await?;
    all::<Platform>(connection, &mut objects).await?;
    Ok(objects)
}

async fn all<A: Aggregate>(connection: &mut SqliteConnection, objects: &mut Vec<Object>) -> Result<(), sqlx::Error> {
    for row in sqlx::query(AssertSqlSafe(table_of(A::KIND).all)).fetch_all(connection).await? {
        objects.push(read_body::<A>(A::KIND, &row)?.into());
    }
    Ok(())
}
