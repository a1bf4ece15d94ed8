//! Keys of issuers of tokens: read on a period, when a proxy lacks one, and when an operator asks.
//!
//! Proxies have the keys in their table and ask nobody. When an issuer has others than before, one change through the
//! store takes them there like any other change. What cannot be read changes nothing: the old keys go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::Instant;

use schoolgate_config::model::{IssuerId, Jwks, KeySource, TokenIssuer};
use schoolgate_config::time::Clock;
use schoolgate_store::{Actor, Aggregate, KeyFetch, Store, StoreError};

use super::key_schedule::Schedule;
use super::key_source::{self, KeySourceError};
use crate::operation::token_issuers::{key_change, with_keys};
use crate::publish::FeedServer;

/// Time between two looks at which issuers there are, for those that another process made: 60 s.
const LOOK: Duration = Duration::from_secs(60);

/// Issuers read at once: 4, so that one that hangs keeps nobody waiting.
const AT_ONCE: usize = 4;

/// The least time between two reads of an issuer's keys because somebody asks: 10 s.
const ASKED_EVERY: Duration = Duration::from_secs(10);

/// Reads the keys of issuers of tokens. A clone is another handle to the same one.
#[derive(Clone)]
pub struct KeyRefresher {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    feed: FeedServer,
    clock: Arc<dyn Clock>,
    /// When somebody last asked; of issuers that exist, so there are not many.
    asked: Mutex<HashMap<IssuerId, Instant>>,
}

impl std::fmt::Debug for KeyRefresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyRefresher")
    }
}

/// Why keys were not read for somebody who asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshRefusal {
    /// They were given with the issuer.
    #[error("the keys of {0} were given with it: put others in their place with PATCH and `jwks`")]
    Inline(IssuerId),
    /// They were read for somebody a moment ago.
    #[error("the keys of {issuer} were read a moment ago: try again in {after_s} s")]
    TooSoon {
        /// Whose.
        issuer: IssuerId,
        /// Seconds to wait.
        after_s: u32,
    },
    /// They could not be read.
    #[error("the keys of {issuer} could not be read, and those it had stay: {source}")]
    Source {
        /// Whose.
        issuer: IssuerId,
        /// Why.
        source: KeySourceError,
    },
    /// How it went could not be noted.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Source(#[from] KeySourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeyRefresher {
    /// Reads nothing yet: [`Self::run`] is the caller's to start.
    pub fn new(store: Store, feed: FeedServer, clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { store, feed, clock, asked: Mutex::default() }) }
    }

    /// Keeps the keys fresh until `stop` is ready.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            () = self.keep_fresh() => {}
        }
    }

    async fn keep_fresh(&self) {
        let Shared { store, feed, .. } = &*self.shared;
        let mut committed = store.committed();
        let mut schedule = Schedule::default();
        loop {
            committed.mark_unchanged();
            let head = store.head();
            let now = Instant::now();
            schedule.follow(head.table.issuers(), now);
            schedule.hurry(&feed.issuers_lacking_keys(), now);
            let due = schedule.due(now);
            let due: Vec<_> = due.iter().filter_map(|id| head.table.issuer(id).cloned()).collect();
            let read = stream::iter(due).map(|issuer| async move { (self.refresh(&issuer).await, issuer) });
            let read: Vec<_> = read.buffer_unordered(AT_ONCE).collect().await;
            for (result, issuer) in read {
                schedule.done(&issuer.id, result, Instant::now(), fastrand::u64(..));
            }
            let look = Instant::now() + LOOK;
            tokio::select! {
                told = committed.changed() => if told.is_err() { return },
                () = feed.key_missing() => {}
                () = tokio::time::sleep_until(schedule.next().map_or(look, |next| next.min(look))) => {}
            }
        }
    }

    /// One step: reads an issuer's keys, and puts them in the place of others.
    async fn refresh(&self, issuer: &TokenIssuer) -> Result<(), ()> {
        let step = async {
            match self.read(issuer).await? {
                Ok(Some(keys)) => self.take(issuer, keys).await?,
                Ok(None) => {}
                Err(error) => return Err(StepError::Source(error)),
            }
            Ok(())
        };
        step.await.map_err(|error| match error {
            // Said when it was noted.
            StepError::Source(_) => {}
            StepError::Store(error) => tracing::warn!(issuer.id = %issuer.id, "keys of {}: {error}", issuer.id),
        })
    }

    async fn take(&self, issuer: &TokenIssuer, keys: Jwks) -> Result<(), StoreError> {
        if keys == issuer.keys {
            return Ok(());
        }
        let mut transaction = self.shared.store.begin(Actor::system("token-keys")).await?;
        let Some(before) = transaction.get::<TokenIssuer>(&issuer.id).await? else { return Ok(()) };
        // Changed meanwhile: these keys may be of a source that nobody trusts any more. It is due again by itself.
        let Some(value) = with_keys(&before.value, &issuer.source, keys) else { return Ok(()) };
        let summary = key_change(&before.value, &value);
        let about = TokenIssuer::object_key(&issuer.id).to_string();
        transaction.update(value, None).await?;
        transaction.commit("token_issuer.keys", &about, summary.clone()).await?;
        tracing::info!(issuer.id = %issuer.id, "the issuer {} has other keys: {summary}", issuer.id);
        Ok(())
    }

    /// Reads an issuer's keys for somebody who asks.
    ///
    /// # Errors
    /// [`RefreshRefusal`].
    pub(crate) async fn read_now(&self, issuer: &TokenIssuer) -> Result<Jwks, RefreshRefusal> {
        if issuer.source == KeySource::Inline {
            return Err(RefreshRefusal::Inline(issuer.id.clone()));
        }
        self.may_ask(&issuer.id)?;
        match self.read(issuer).await? {
            Ok(Some(keys)) => Ok(keys),
            Ok(None) => Err(RefreshRefusal::Inline(issuer.id.clone())),
            Err(source) => Err(RefreshRefusal::Source { issuer: issuer.id.clone(), source }),
        }
    }

    fn may_ask(&self, issuer: &IssuerId) -> Result<(), RefreshRefusal> {
        let now = Instant::now();
        let mut asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| now.duration_since(*at) < ASKED_EVERY);
        match asked.get(issuer) {
            Some(at) => {
                let left = ASKED_EVERY.saturating_sub(now.duration_since(*at)).as_secs_f64().ceil();
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 10")]
                let after_s = left as u32;
                Err(RefreshRefusal::TooSoon { issuer: issuer.clone(), after_s: after_s.max(1) })
            }
            None => {
                asked.insert(issuer.clone(), now);
                Ok(())
            }
        }
    }

    /// Reads an issuer's keys, and notes how it went.
    async fn read(&self, issuer: &TokenIssuer) -> Result<Result<Option<Jwks>, KeySourceError>, StoreError> {
        let read = key_source::read(&issuer.source).await.and_then(|keys| fit(issuer, keys));
        self.note(&issuer.id, read.as_ref().err()).await?;
        Ok(read)
    }

    async fn note(&self, issuer: &IssuerId, error: Option<&KeySourceError>) -> Result<(), StoreError> {
        let now_ms = self.shared.clock.unix_ms();
        let before = self.shared.store.key_fetches().await?.into_iter().find(|fetch| fetch.issuer == *issuer);
        let (fetched_at_ms, failures) = before.map_or((None, 0), |before| (before.fetched_at_ms, before.failures));
        let fetch = match error {
            None => KeyFetch {
                issuer: issuer.clone(),
                tried_at_ms: now_ms,
                fetched_at_ms: Some(now_ms),
                failures: 0,
                error: None,
            },
            Some(error) => KeyFetch {
                issuer: issuer.clone(),
                tried_at_ms: now_ms,
                fetched_at_ms,
                failures: failures.saturating_add(1),
                error: Some(error.to_string()),
            },
        };
        match (&fetch.error, failures) {
            (Some(error), 0) => {
                tracing::warn!(issuer.id = %issuer, "keys of {issuer} cannot be read, those it has stay: {error}");
            }
            (None, 1..) => tracing::info!(issuer.id = %issuer, "keys of {issuer} can be read again"),
            _ => {}
        }
        self.shared.store.save_key_fetch(&fetch).await
    }
}

/// Keys that the issuer can use.
fn fit(issuer: &TokenIssuer, keys: Option<Jwks>) -> Result<Option<Jwks>, KeySourceError> {
    let Some(keys) = keys else { return Ok(None) };
    let with_them = TokenIssuer { keys: keys.clone(), ..issuer.clone() };
    match with_them.problems().first() {
        Some(problem) => Err(KeySourceError::Unfit(problem.to_string())),
        None => Ok(Some(keys)),
    }
}
