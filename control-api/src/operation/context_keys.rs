//! The keys that sign `X-Tenant-Context`. Nothing here shows or takes a private key.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{ContextKey, ContextKeyState, KeyId};
use schoolgate_config::time::rfc3339;
use schoolgate_store::Store;

use super::permission::{Operator, Subject};
use super::{Done, Refusal, What, Work};
use crate::context_keys::schedule::leaves_ms;
use crate::context_keys::{ContextKeys, Times};

/// A context key as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContextKeyView {
    /// The `kid` of what it signs.
    kid: KeyId,
    /// `next`: published, not signing yet; `active`: signing; `retired`: published so that what it signed verifies.
    state: ContextKeyState,
    /// Since when backends can fetch it; `null` for a key of an older release.
    #[schema(format = DateTime)]
    published_at: Option<String>,
    /// Since when it signs; while it is next, not before this.
    #[schema(format = DateTime)]
    signs_from: Option<String>,
    /// Since when another signs in its place.
    #[schema(format = DateTime)]
    retired_at: Option<String>,
    /// When it leaves the JWKS at the earliest: later if a proxy is slow to hear of its successor.
    #[schema(format = DateTime)]
    leaves_from: Option<String>,
}

impl ContextKeyView {
    fn of(key: &ContextKey, times: Times) -> Self {
        let known = |ms: i64| (ms > 0).then(|| rfc3339(ms));
        Self {
            kid: key.id.clone(),
            state: key.state,
            published_at: known(key.times.published_ms),
            signs_from: known(key.times.signs_ms),
            retired_at: key.times.retired_ms.map(rfc3339),
            leaves_from: key.times.retired_ms.map(|_| rfc3339(leaves_ms(key, times))),
        }
    }
}

/// All keys, in the order they were made.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub(crate) fn list(store: &Store, operator: &Operator, keys: &ContextKeys) -> Result<Vec<ContextKeyView>, Refusal> {
    operator.may_everywhere(Subject::ContextKeys.read())?;
    let head = store.head();
    let mut all: Vec<_> = head.table.context_keys().collect();
    // A `kid` begins with the time it was made.
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(all.into_iter().map(|key| ContextKeyView::of(key, keys.times)).collect())
}

/// One key.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) fn get(
    store: &Store,
    operator: &Operator,
    keys: &ContextKeys,
    kid: &str,
) -> Result<ContextKeyView, Refusal> {
    operator.may_everywhere(Subject::ContextKeys.read())?;
    let head = store.head();
    let found = head.table.context_keys().find(|key| key.id.as_str() == kid);
    found.map(|key| ContextKeyView::of(key, keys.times)).ok_or_else(|| Refusal::not_found("context key"))
}

/// Makes the key that will sign next, and publishes it. It signs by itself when every backend can know it.
///
/// # Errors
/// [`Refusal::Conflict`] while a key waits to sign; [`Refusal::Forbidden`]; [`Refusal::Invalid`] for a body.
pub(crate) async fn rotate(work: &mut Work, keys: &ContextKeys, body: &Value) -> Result<Done, Refusal> {
    work.operator.may_everywhere(Subject::ContextKeys.write())?;
    let is_empty = body.is_null() || body.as_object().is_some_and(serde_json::Map::is_empty);
    if !is_empty {
        return Err(Refusal::invalid("", "unknown", "a rotation takes no body"));
    }
    let waiting = work.transaction.table().context_keys().find(|key| key.state == ContextKeyState::Next);
    if let Some(key) = waiting {
        return Err(Refusal::Conflict {
            code: "ROTATION_UNDER_WAY",
            message: format!("{} is published already and signs from {}", key.id, rfc3339(key.times.signs_ms)),
            pointer: None,
        });
    }
    let key = keys.next(work.transaction.now_ms());
    let object = super::json(&ContextKeyView::of(&key, keys.times));
    let kid = key.id.clone();
    work.transaction.insert(key).await?;
    Ok(Done {
        what: What::Created,
        summary: object.clone(),
        object,
        version: None,
        path: format!("context-keys/{kid}"),
        action: "context_key.rotate".to_owned(),
        about: format!("context key {kid}"),
        names: Vec::new(),
        again: None,
    })
}
