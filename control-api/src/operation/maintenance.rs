//! Maintenance of a pool and of the platform, and what an operator says of one of any scope.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{Maintenance, Platform, PlatformId, Pool, PoolId, Timestamp};
use schoolgate_config::table::RoutingTable;

use super::document::{Errors, Networks, Text, read, readable};
use super::edit;
use super::permission::{Operator, Subject};
use super::{Done, Refusal, What, Work, json};

/// What an operator says of maintenance; an empty document is maintenance until further notice.
#[derive(Debug, Default, ToSchema)]
#[schema(as = MaintenanceInput)]
pub(crate) struct MaintenanceInput {
    /// Why, for operators; visitors never see it.
    reason: Option<Text<1, 500>>,
    /// What visitors read, as plain text.
    message: Option<Text<1, 500>>,
    /// When it begins by itself; at once if not given.
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    /// When it ends by itself, and what `Retry-After` says; until it is ended if not given.
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Timestamp>,
    /// Networks or addresses of testers, who are served all the same.
    #[serde(default)]
    allow: Networks,
}
readable!(MaintenanceInput { reason, message, starts_at, ends_at, allow = Networks::default() });

/// Reads what an operator says of maintenance at `now_ms` (milliseconds since 1970).
///
/// # Errors
/// [`Refusal::Invalid`], also when it would never be.
pub(crate) fn read_maintenance(body: &Value, now_ms: i64) -> Result<Maintenance, Refusal> {
    let mut errors = Errors::default();
    let input =
        if body.is_null() { Some(MaintenanceInput::default()) } else { read::<MaintenanceInput>(body, &mut errors) };
    if let Some(ends) = input.as_ref().and_then(|input| input.ends_at) {
        if ends.unix_ms() <= now_ms {
            errors.add_at("/ends_at", "invalid", "this has passed: maintenance would be over");
        } else if input.as_ref().and_then(|input| input.starts_at).is_some_and(|starts| ends <= starts) {
            errors.add_at("/ends_at", "invalid", "the end is not after the start");
        }
    }
    let MaintenanceInput { reason, message, starts_at, ends_at, allow } = errors.ok(input).map_err(Refusal::Invalid)?;
    let text = |text: Option<Text<1, 500>>| text.map(|text| text.0);
    Ok(Maintenance { reason: text(reason), message: text(message), starts_at, ends_at, allow: allow.0 })
}

/// Turns the visitors of a pool's tenants away.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Stale`], [`Refusal::Forbidden`], [`Refusal::Invalid`].
pub(crate) async fn begin(work: &mut Work, pool: &PoolId, body: &Value) -> Result<Done, Refusal> {
    let maintenance = read_maintenance(body, work.transaction.now_ms())?;
    let before = edit::changeable::<Pool>(work, pool).await?;
    let after = Pool { maintenance: Some(Box::new(maintenance)), ..before.value.clone() };
    edit::save(work, before, after, "maintenance").await
}

/// Serves the visitors of a pool's tenants again.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Stale`], [`Refusal::Forbidden`].
pub(crate) async fn end(work: &mut Work, pool: &PoolId) -> Result<Done, Refusal> {
    let before = edit::changeable::<Pool>(work, pool).await?;
    let after = Pool { maintenance: None, ..before.value.clone() };
    edit::save(work, before, after, "resume").await
}

/// Maintenance of the platform as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlatformMaintenance {
    /// What was said; `null` when there is none.
    maintenance: Option<Box<Maintenance>>,
    /// Whether visitors are turned away now.
    on: bool,
}

impl PlatformMaintenance {
    fn of(platform: Option<&Platform>, now_ms: i64) -> Self {
        let maintenance = platform.and_then(|platform| platform.maintenance.clone());
        Self { on: maintenance.as_ref().is_some_and(|maintenance| maintenance.is_on(now_ms)), maintenance }
    }
}

/// Maintenance of the platform.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub(crate) fn of_platform(
    operator: &Operator,
    table: &RoutingTable,
    now_ms: i64,
) -> Result<PlatformMaintenance, Refusal> {
    operator.may_everywhere(Subject::Tenants.read())?;
    Ok(PlatformMaintenance::of(table.platform().map(|platform| &**platform), now_ms))
}

/// Turns the visitors of all tenants away.
///
/// # Errors
/// [`Refusal::Stale`], [`Refusal::Forbidden`], [`Refusal::Invalid`].
pub(crate) async fn begin_everywhere(work: &mut Work, body: &Value) -> Result<Done, Refusal> {
    let maintenance = read_maintenance(body, work.transaction.now_ms())?;
    change_platform(work, Some(Box::new(maintenance)), "platform.maintenance").await
}

/// Serves the visitors of all tenants again.
///
/// # Errors
/// [`Refusal::Stale`], [`Refusal::Forbidden`].
pub(crate) async fn end_everywhere(work: &mut Work) -> Result<Done, Refusal> {
    let done = change_platform(work, None, "platform.resume").await?;
    Ok(Done { what: What::Removed, object: Value::Null, version: None, ..done })
}

async fn change_platform(
    work: &mut Work,
    maintenance: Option<Box<Maintenance>>,
    action: &str,
) -> Result<Done, Refusal> {
    work.operator.may_everywhere(Subject::Tenants.write())?;
    let before = work.transaction.get::<Platform>(&PlatformId).await?;
    if let Some(before) = &before {
        work.check_version(before)?;
    }
    let summary = json(&maintenance);
    let platform = Platform { maintenance };
    let stored = match before {
        Some(_) => work.transaction.update(platform, None).await?,
        None => work.transaction.insert(platform).await?,
    };
    Ok(Done {
        what: What::Changed,
        object: json(&PlatformMaintenance::of(Some(&stored.value), work.transaction.now_ms())),
        version: Some(stored.version),
        path: "maintenance".to_owned(),
        action: action.to_owned(),
        about: "platform platform".to_owned(),
        summary,
        names: Vec::new(),
        again: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maintenance_that_would_never_be_is_refused() {
        let now_ms = "2026-11-20T20:00:00Z".parse::<Timestamp>().expect("a moment").unix_ms();
        let pointer = |body: Value| match read_maintenance(&body, now_ms) {
            Err(Refusal::Invalid(errors)) => errors[0].pointer.clone(),
            other => format!("{other:?}"),
        };
        assert_eq!(pointer(json!({ "ends_at": "2026-11-20T20:00:00Z" })), "/ends_at");
        assert_eq!(
            pointer(json!({ "starts_at": "2026-11-20T22:00:00Z", "ends_at": "2026-11-20T21:00:00Z" })),
            "/ends_at"
        );
        assert_eq!(pointer(json!({ "starts_at": "tonight" })), "/starts_at");
        assert_eq!(pointer(json!({ "allow": ["all"] })), "/allow/0");
        assert_eq!(pointer(json!({ "until": "x" })), "/until");
        let good = json!({ "starts_at": "2026-11-20T21:00:00+00:00", "ends_at": "2026-11-20T22:00:00Z", "allow": ["10.1.2.3"] });
        let read = read_maintenance(&good, now_ms).expect("good");
        assert_eq!(read.allow, ["10.1.2.3/32".parse().expect("a network")]);
        assert_eq!(read_maintenance(&Value::Null, now_ms).expect("good"), Maintenance::default());
    }
}
