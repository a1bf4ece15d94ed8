//! The key-encryption key: which one seals, and how far a rotation is. Nothing here shows or takes a key.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::NodeId;
use schoolgate_config::seal::Keeper;
use schoolgate_store::Store;

use super::permission::{Operator, Subject};
use super::{Done, Refusal, What, Work};
use crate::publish::FeedServer;
use crate::sealing::{NOTE, REQUESTED, without_key};

/// The key-encryption keys as the API shows them: by the first eight digits of their SHA-256.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SealingView {
    /// `steady`; `requested`; `introducing`: proxies learn the next key; `rewrapping`: what is under the key before is
    /// wrapped anew, and proxies follow.
    state: &'static str,
    /// The key that seals.
    current: String,
    /// The key that will.
    next: Option<String>,
    /// The key that did, and still opens.
    previous: Option<String>,
    /// Records under each key.
    records: BTreeMap<String, u64>,
    /// Live proxies that do not have the next key, or the current one.
    waiting_for: Vec<NodeId>,
}

/// How it is.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub(crate) async fn get(
    store: &Store,
    feed: &FeedServer,
    keeper: &Keeper,
    operator: &Operator,
) -> Result<SealingView, Refusal> {
    operator.may_everywhere(Subject::SealingKeys.read())?;
    let requested = store.note(NOTE).await?.as_deref() == Some(REQUESTED);
    Ok(view(store, feed, keeper, requested))
}

fn view(store: &Store, feed: &FeedServer, keeper: &Keeper, requested: bool) -> SealingView {
    let (current, next, previous) = (keeper.id(), keeper.next_id(), keeper.previous_id());
    let head = store.head();
    let certificates = head.table.certificates().map(|certificate| certificate.key.kek_id());
    let context_keys = head.table.context_keys().map(|key| key.private.kek_id());
    let mut records: BTreeMap<String, u64> = BTreeMap::from([(current.clone(), 0)]);
    for kek in certificates.chain(context_keys) {
        match records.get_mut(kek) {
            Some(count) => *count += 1,
            None => drop(records.insert(kek.to_owned(), 1)),
        }
    }
    let state = match (&next, &previous) {
        (Some(_), _) => "introducing",
        (None, Some(_)) => "rewrapping",
        (None, None) if requested => "requested",
        (None, None) => "steady",
    };
    let waiting_for = without_key(feed, next.as_ref().unwrap_or(&current));
    SealingView { state, current, next, previous, records, waiting_for }
}

/// Asks for a rotation. It goes on by itself, step by step, while everything serves.
///
/// # Errors
/// [`Refusal::Conflict`] while one is under way, or when the key file cannot be changed; [`Refusal::Forbidden`];
/// [`Refusal::Invalid`] for a body.
pub(crate) async fn rotate(work: &mut Work, feed: &FeedServer, keeper: &Keeper, body: &Value) -> Result<Done, Refusal> {
    work.operator.may_everywhere(Subject::SealingKeys.write())?;
    let is_empty = body.is_null() || body.as_object().is_some_and(serde_json::Map::is_empty);
    if !is_empty {
        return Err(Refusal::invalid("", "unknown", "a rotation takes no body"));
    }
    let conflict = |code, message| Refusal::Conflict { code, message, pointer: None };
    let requested = work.store.note(NOTE).await?.as_deref() == Some(REQUESTED);
    if let Some(other) = keeper.next_id().or_else(|| keeper.previous_id()).or(requested.then(String::new)) {
        let message = format!("a rotation is under way (key {other}): `schoolgate keys show` says how far it is");
        return Err(conflict("ROTATION_UNDER_WAY", message));
    }
    if let Err(error) = keeper.can_rotate() {
        let message = format!(
            "{error}: add a second line to the file by hand, 64 new hexadecimal digits and ` next`, and restart proxies, \
             then control; when `schoolgate keys show` waits for nobody, make it the first line without ` next` and the \
             other ` previous`, and restart again; when no record is under the other, remove its line"
        );
        return Err(conflict("KEY_FILE_READ_ONLY", message));
    }
    work.transaction.set_note(NOTE, REQUESTED).await?;
    let object = super::json(&view(&work.store, feed, keeper, true));
    let current = keeper.id();
    Ok(Done {
        what: What::Changed,
        object,
        version: None,
        path: "sealing-keys".to_owned(),
        action: "sealing_key.rotate".to_owned(),
        about: format!("sealing key {current}"),
        summary: serde_json::json!({}),
        names: Vec::new(),
        again: None,
    })
}
