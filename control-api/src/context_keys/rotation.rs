//! The reconciler of the context keys: reads what is, takes one step, looks again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use schoolgate_config::model::{ContextKey, ContextKeyState, KeyId};
use schoolgate_config::time::{Clock, SystemClock, rfc3339};
use schoolgate_store::{Actor, Store, StoreError};

use super::ContextKeys;
use super::schedule::{Known, Step, next_step};
use crate::bootstrap::{JWKS, write_whole};
use crate::jwks::jwks;
use crate::publish::FeedServer;

/// It looks at least this often, should the clock be set; what proxies say while a key retires is seen as often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Wait after the store or the file could not be used.
const RETRY: Duration = Duration::from_secs(1);

/// Age up to which the last word of a proxy counts: 7 days, in milliseconds. One that is silent for longer was taken
/// away; until then it may be serving without a control plane, and sign.
const HEARD_WITHIN_MS: i64 = 7 * 86_400_000;

/// Makes keys, lets them sign, and takes them out, each in its time.
pub struct Rotation {
    store: Store,
    feed: FeedServer,
    keys: ContextKeys,
    /// The file of the JWKS, for backends on this machine.
    file: PathBuf,
    /// What it holds.
    written: Option<String>,
    since_ms: i64,
    last_signed: HashMap<KeyId, i64>,
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path} cannot be written: {source}")]
    File { path: PathBuf, source: std::io::Error },
}

impl Rotation {
    /// For the keys in a store. `feed` knows what proxies sign with; the JWKS is kept in `data_dir` too.
    pub fn new(store: Store, feed: FeedServer, keys: ContextKeys, data_dir: &std::path::Path) -> Self {
        let file = data_dir.join(JWKS);
        Self { store, feed, keys, file, written: None, since_ms: SystemClock.unix_ms(), last_signed: HashMap::new() }
    }

    /// Works until `stop` is ready.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = self.keep_turning() => {}
            () = stop => {}
        }
    }

    async fn keep_turning(&mut self) {
        let mut committed = self.store.committed();
        loop {
            // Seen before the look: a commit during it causes another one.
            committed.mark_unchanged();
            let wait = match self.step().await {
                Ok(Some(wait)) => wait,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "the context keys cannot take their turns: {error}");
                    RETRY
                }
            };
            tokio::select! {
                changed = committed.changed() => if changed.is_err() {
                    // The store is closed: there is nothing to work on.
                    return;
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes one step. Gives how long there is nothing to do, if there is nothing.
    async fn step(&mut self) -> Result<Option<Duration>, StepError> {
        let head = self.store.refresh().await?;
        self.keep_file(jwks(&head.table).to_string())?;
        let keys: Vec<_> = head.table.context_keys().cloned().collect();
        let now_ms = SystemClock.unix_ms();
        self.listen(&keys, now_ms);
        let known = Known { times: self.keys.times, since_ms: self.since_ms, last_signed_ms: &self.last_signed };
        let step = next_step(&keys, &known, now_ms);
        if let Step::Wait(until) = step {
            let until = until.map(|ms| Duration::from_millis(u64::try_from(ms - now_ms).unwrap_or(0)));
            return Ok(Some(until.map_or(LOOK_EVERY, |until| until.clamp(Duration::from_millis(1), LOOK_EVERY))));
        }
        let mut transaction = self.store.begin(Actor::system("context-keys")).await?;
        // Another process may have been first, so the step is found again among what is there now.
        let keys: Vec<_> = transaction.table().context_keys().cloned().collect();
        if next_step(&keys, &known, now_ms) != step {
            transaction.rollback().await;
            return Ok(None);
        }
        let (action, about, summary) = match step {
            Step::Wait(_) => return Ok(None),
            Step::Make => {
                let key = self.keys.next(transaction.now_ms());
                let (id, signs_from) = (key.id.clone(), rfc3339(key.times.signs_ms));
                transaction.insert(key).await?;
                tracing::info!("made the context key {id}; it signs from {signs_from}");
                ("context_key.create", id, json!({ "signs_from": signs_from }))
            }
            Step::Sign(id) => {
                let now_ms = transaction.now_ms();
                let mut retired = Vec::new();
                for key in &keys {
                    let mut key = ContextKey::clone(key);
                    if key.id == id {
                        key.state = ContextKeyState::Active;
                        key.times.signs_ms = now_ms;
                    } else if key.state == ContextKeyState::Active {
                        key.state = ContextKeyState::Retired;
                        key.times.retired_ms = Some(now_ms);
                        retired.push(key.id.clone());
                    } else {
                        continue;
                    }
                    transaction.update(key, None).await?;
                }
                tracing::info!("the context key {id} signs from now on");
                ("context_key.sign", id, json!({ "retired": retired }))
            }
            Step::Remove(id) => {
                transaction.delete::<ContextKey>(&id, None).await?;
                self.last_signed.remove(&id);
                tracing::info!("the context key {id} is gone: nothing that it signed is alive");
                ("context_key.delete", id, json!({}))
            }
        };
        transaction.commit(action, &format!("context key {about}"), summary).await?;
        Ok(None)
    }

    /// Notes which retired keys proxies still sign with.
    fn listen(&mut self, keys: &[Arc<ContextKey>], now_ms: i64) {
        if !keys.iter().any(|key| key.state == ContextKeyState::Retired) {
            return;
        }
        for node in self.feed.nodes() {
            let heard = now_ms.saturating_sub(node.seen_at_ms) < HEARD_WITHIN_MS;
            if let Some(id) = node.report.and_then(|report| report.context_key).filter(|_| heard) {
                self.last_signed.insert(id, now_ms);
            }
        }
        self.last_signed.retain(|id, _| keys.iter().any(|key| key.id == *id));
    }

    /// Brings the file in step with the JWKS that is served.
    fn keep_file(&mut self, keys: String) -> Result<(), StepError> {
        if self.written.as_ref() == Some(&keys) {
            return Ok(());
        }
        write_whole(&self.file, keys.as_bytes(), 0o644)
            .map_err(|source| StepError::File { path: self.file.clone(), source })?;
        self.written = Some(keys);
        Ok(())
    }
}
