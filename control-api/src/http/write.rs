//! What every write has in common: its options, its transaction, its answer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use ring::digest::{Context, SHA256};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;
use utoipa::ToSchema;

use schoolgate_config::model::{DomainName, Revision};
use schoolgate_config::snapshot::Change;
use schoolgate_store::{Actor, StoreError, StoredAnswer, WantState};

use super::params::Params;
use super::precondition::expected_versions;
use super::problem::Problem;
use super::{Answer, Api, Stop, etag};
use crate::operation::above_limits::{AboveLimits, Concerned};
use crate::operation::permission::Operator;
use crate::operation::{Done, Refusal, What, Work, json};
use crate::publish::LaggingNode;

/// Bytes of a request body: 1 MiB holds a pool of a thousand backends many times over.
const BODY_MAX: usize = 1 << 20;

/// Time a request body may take to arrive: 20 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// Levels of nesting of a JSON body; ours have six.
const DEPTH_MAX: usize = 32;

/// Time `?wait=applied` waits when `?timeout=` is not given: 10 s.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);

/// The longest `?timeout=`: 60 s, below the deadline of a request.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Characters of an Idempotency-Key.
const KEY_MAX: usize = 200;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const APPLIED: HeaderName = HeaderName::from_static("schoolgate-applied");
const CHANGE: HeaderName = HeaderName::from_static("schoolgate-change");
const REVISION: HeaderName = HeaderName::from_static("schoolgate-revision");

/// A request to write something: who asks, what, and under which conditions.
pub(crate) struct WriteRequest {
    /// Who asks.
    pub(crate) operator: Operator,
    /// What they sent; `null` when they sent nothing.
    pub(crate) body: Value,
    /// Versions that the object may be at; `None`: any.
    expected: Option<Vec<u64>>,
    dry_run: bool,
    wait: Option<Duration>,
    key: Option<String>,
    hash: [u8; 32],
}

impl FromRequest<Api> for WriteRequest {
    type Rejection = Stop;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Stop> {
        let (mut parts, body) = request.into_parts();
        let operator = Operator::from_request_parts(&mut parts, api).await?;
        let mut params = Params::of(parts.uri.query());
        let dry_run = params.parse::<bool>("dry_run")?.unwrap_or(false);
        let wait = match params.take("wait")?.as_deref() {
            None => None,
            Some("applied") => Some(WAIT_DEFAULT),
            Some(_) => return Err(Problem::bad_request("the parameter wait: expected `applied`").into()),
        };
        let timeout = params.take("timeout")?.map(|text| read_timeout(&text)).transpose()?;
        params.finish()?;
        let expected = expected_versions(&parts.headers)?;
        let key = if parts.method == Method::POST { read_key(&parts.headers)? } else { None };
        let bytes = read_body(body).await?;
        let body = parse_json(&parts.headers, &bytes)?;
        let mut context = Context::new(&SHA256);
        for part in [parts.method.as_str(), parts.uri.path(), parts.uri.query().unwrap_or_default()] {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        context.update(&bytes);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Ok(Self { operator, body, expected, dry_run, wait: wait.map(|wait| timeout.unwrap_or(wait)), key, hash })
    }
}

/// Seconds, with a fraction or a unit if need be: `10`, `2.5`, `10s`, `500ms`.
fn read_timeout(text: &str) -> Result<Duration, Problem> {
    let seconds = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(ms), _) => ms.parse::<f64>().map(|ms| ms / 1_000.0),
        (None, Some(seconds)) => seconds.parse(),
        (None, None) => text.parse(),
    };
    let timeout = seconds.ok().and_then(|s| Duration::try_from_secs_f64(s).ok()).filter(|t| *t <= WAIT_MAX);
    timeout.ok_or_else(|| Problem::bad_request("the parameter timeout: expected seconds, at most 60"))
}

fn read_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY_MAX);
    match key {
        Some(key) => Ok(Some(key.to_owned())),
        None => Err(Problem::bad_request(format!("Idempotency-Key: expected 1-{KEY_MAX} printable characters"))),
    }
}

/// The bytes of a body, within limits of size and time.
///
/// # Errors
/// 413, 408, 400.
async fn read_body(body: Body) -> Result<bytes::Bytes, Problem> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_MAX).collect()).await;
    match collected {
        Err(_) => Err(Problem::of_status(StatusCode::REQUEST_TIMEOUT)),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body has more than {BODY_MAX} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", message))
        }
        Ok(Err(_)) => Err(Problem::bad_request("the body ended too early")),
    }
}

/// A body as JSON; `null` when there is none.
///
/// # Errors
/// 415, 400.
fn parse_json(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let essence = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(|value| {
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    });
    let is_json = essence.is_some_and(|essence| essence == "application/json" || essence.ends_with("+json"));
    if !is_json {
        return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| Problem::bad_request(format!("the body is not JSON: {e}")))?;
    if depth(&value) > DEPTH_MAX {
        return Err(Problem::bad_request(format!("the body is nested deeper than {DEPTH_MAX} levels")));
    }
    Ok(value)
}

/// The whole body, parsed; `Null` where it is empty.
///
/// # Errors
/// 413, 408, 415, 400.
pub(crate) async fn read_json(headers: &HeaderMap, body: Body) -> Result<Value, Problem> {
    parse_json(headers, &read_body(body).await?)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A write whose transaction is open.
pub(crate) struct Writing {
    /// The transaction and who asks; for the operation.
    pub(crate) work: Work,
    api: Api,
    dry_run: bool,
    wait: Option<Duration>,
    key: Option<String>,
    turn: Option<OwnedMutexGuard<()>>,
    hash: [u8; 32],
}

/// Requests with the same Idempotency-Key, one after the other: the second waits for the answer of the first. A fixed
/// number of places, so that keys that clients choose cannot fill a map; two keys in one place cost a moment's wait.
#[derive(Debug, Default)]
pub(crate) struct Turns([Arc<Mutex<()>>; 32]);

impl Turns {
    async fn take(&self, actor: &str, key: &str) -> OwnedMutexGuard<()> {
        let mut hasher = DefaultHasher::new();
        (actor, key).hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % 32).expect("a number below 32");
        self.0[place].clone().lock_owned().await
    }
}

impl WriteRequest {
    /// Opens a transaction.
    ///
    /// # Errors
    /// Ends the request with the answer given before, when this one comes again under its Idempotency-Key.
    pub(crate) async fn begin(self, api: &Api) -> Result<(Writing, Value), Stop> {
        let key = self.key.filter(|_| !self.dry_run);
        let mut turn = None;
        if let Some(key) = &key {
            turn = Some(api.turns.take(&self.operator.token, key).await);
            if let Some(answer) = api.store.answer(&self.operator.token, key).await? {
                return Err(again(&answer, &self.hash));
            }
        }
        let actor = Actor {
            name: self.operator.name.clone(),
            via: self.operator.via.as_str().to_owned(),
            request_id: Some(self.operator.request_id.clone()),
            client_ip: self.operator.client_ip,
        };
        let work = Work {
            transaction: api.store.begin(actor).await?,
            store: api.store.clone(),
            operator: self.operator,
            platform: api.platform.clone(),
            expected: self.expected,
        };
        let (dry_run, wait, hash) = (self.dry_run, self.wait, self.hash);
        let writing = Writing { work, api: api.clone(), dry_run, wait, key, turn, hash };
        Ok((writing, self.body))
    }

    /// Refuses an Idempotency-Key, for what must not be kept to be answered again.
    ///
    /// # Errors
    /// 400.
    pub(crate) fn without_key(self) -> Result<Self, Stop> {
        match self.key {
            Some(_) => Err(Problem::bad_request("a secret is shown once: Idempotency-Key is not for this").into()),
            None => Ok(self),
        }
    }
}

/// The answer given before to what should be the same request.
fn again(answer: &StoredAnswer, hash: &[u8; 32]) -> Stop {
    if answer.request_hash != *hash {
        let message = "this Idempotency-Key was used with another request";
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", message).into();
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body.clone()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    for (name, value) in [(ETAG, &answer.etag), (LOCATION, &answer.location)] {
        if let Some(value) = value.as_ref().and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    Stop(Box::new(response))
}

/// What a dry run answers: what would be, and what would be in the way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Plan {
    /// Always `true`.
    dry_run: bool,
    /// Whether the write would be taken.
    accepted: bool,
    /// The object as it would be; `null` when it would be gone.
    object: Value,
    /// What would be written.
    changes: Vec<PlannedChange>,
    /// Why it would not be taken.
    violations: Vec<String>,
    /// Tenants that would have more than a changed plan or limit allows. Nothing is taken from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    above_limits: Option<AboveLimits>,
}

/// One object that a write touches.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlannedChange {
    /// `put` or `remove`.
    op: &'static str,
    /// Its kind, such as `tenant`.
    kind: &'static str,
    /// Which one.
    id: String,
}

impl PlannedChange {
    /// What a change does, without its content.
    pub(crate) fn of(change: &Change) -> Self {
        let key = change.key();
        let op = if matches!(change, Change::Put(_)) { "put" } else { "remove" };
        Self { op, kind: key.kind().as_str(), id: key.id() }
    }
}

/// What became of a write until the caller was done waiting.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Applied {
    /// The revision that holds it; `null` when it is not published yet.
    revision: Option<Revision>,
    /// Whether every live proxy serves it.
    pub(super) applied: bool,
    /// Proxies that do not, and why.
    waiting_for: Vec<LaggingNode>,
    /// Names whose certificates are not there yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting_for_certificates: Vec<String>,
}

impl Writing {
    /// Commits what the operation did, and answers.
    pub(crate) async fn finish(self, done: Done) -> Answer {
        if self.dry_run {
            return self.plan(done).await;
        }
        let Self { mut work, api, wait, key, turn, hash, .. } = self;
        let status = match done.what {
            What::Created => StatusCode::CREATED,
            What::Accepted => StatusCode::ACCEPTED,
            What::Changed | What::Removed => StatusCode::OK,
        };
        let is_new = matches!(done.what, What::Created | What::Accepted);
        let location = format!("/api/v1/{}", done.path);
        if let Some(key) = key {
            let answer = StoredAnswer {
                actor: work.operator.token.clone(),
                key,
                request_hash: hash,
                status: status.as_u16(),
                etag: done.version.map(|version| etag(version, &done.object)),
                location: is_new.then(|| location.clone()),
                body: serde_json::to_vec(&done.object).expect("our types serialise"),
                created_at_ms: work.transaction.now_ms(),
            };
            match work.transaction.remember_answer(&answer).await {
                Ok(()) => {}
                // The same request came to another process at the same time, which was first.
                Err(StoreError::Exists { .. }) => {
                    work.transaction.rollback().await;
                    let first = api.store.answer(&answer.actor, &answer.key).await?;
                    return Err(first.map_or_else(|| Problem::internal().into(), |first| again(&first, &hash)));
                }
                Err(other) => return Err(other.into()),
            }
        }
        let committed =
            work.transaction.commit(&done.action, &done.about, done.summary).await.map_err(Refusal::from)?;
        drop(turn);
        let applied = match wait {
            Some(timeout) => Some(wait_applied(&api, committed.change, &done.names, timeout).await?),
            None => None,
        };
        let mut object = done.object;
        if let (Some(_), Some(name)) = (&applied, &done.again) {
            object = look_again(&api, name).await?.unwrap_or(object);
        }
        let etag = done.version.and_then(|version| HeaderValue::try_from(etag(version, &object)).ok());
        let mut response = answer(status, done.what, object, applied.as_ref());
        let headers = response.headers_mut();
        headers.insert(CHANGE, committed.change.into());
        headers.extend(etag.map(|etag| (ETAG, etag)));
        if is_new && let Ok(location) = HeaderValue::try_from(location) {
            headers.insert(LOCATION, location);
        }
        if let Some(applied) = &applied {
            headers.insert(APPLIED, HeaderValue::from_static(if applied.applied { "true" } else { "false" }));
            if let Some(revision) = applied.revision {
                headers.insert(REVISION, revision.0.into());
            }
        }
        Ok(response)
    }

    async fn plan(self, done: Done) -> Result<Response, Stop> {
        let transaction = self.work.transaction;
        let violations = match transaction.check() {
            Ok(()) => Vec::new(),
            Err(StoreError::Violations(violations)) => violations.0.iter().map(ToString::to_string).collect(),
            Err(other) => return Err(other.into()),
        };
        let concerned = Concerned::by(transaction.changes(), transaction.table());
        let changes = transaction.changes().iter().map(PlannedChange::of).collect();
        let now_ms = transaction.now_ms();
        transaction.rollback().await;
        let above = concerned.above(&self.api.store, &self.api.platform.caps, now_ms).await?;
        let above_limits = (above.total > 0).then_some(above);
        let accepted = violations.is_empty();
        Ok(Json(Plan { dry_run: true, accepted, object: done.object, changes, violations, above_limits })
            .into_response())
    }
}

fn answer(status: StatusCode, what: What, object: Value, applied: Option<&Applied>) -> Response {
    let applied = applied.map(json);
    match (what, object, applied) {
        (What::Removed, _, None) => StatusCode::NO_CONTENT.into_response(),
        (What::Removed, _, Some(applied)) if applied["applied"] == true => StatusCode::NO_CONTENT.into_response(),
        (_, Value::Object(mut members), Some(applied)) => {
            members.insert("applied".to_owned(), applied);
            (status, Json(Value::Object(members))).into_response()
        }
        (_, _, Some(applied)) => (StatusCode::OK, Json(json!({ "applied": applied }))).into_response(),
        (_, object, None) => (status, Json(object)).into_response(),
    }
}

/// Waits until every live proxy serves a change, and the certificates that it asked for.
pub(super) async fn wait_applied(api: &Api, change: u64, names: &[String], timeout: Duration) -> Result<Applied, Stop> {
    let deadline = Instant::now() + timeout;
    let left = || deadline.saturating_duration_since(Instant::now());
    let (change, missing) = if api.issues_at_once && !names.is_empty() {
        wait_issued(api, change, names, deadline).await?
    } else {
        (change, Vec::new())
    };
    let wait = async {
        // A change that is committed but not published is a matter of milliseconds; at the deadline, look once.
        let revision = api.publisher.wait_published(change, left()).await?;
        Some((revision, api.feed.wait_applied(revision, left()).await))
    };
    let waited = tokio::select! {
        waited = wait => waited,
        () = api.stop.cancelled() => None,
    };
    let (revision, waiting_for) = match waited {
        Some((revision, lagging)) => (Some(revision), lagging),
        None => (None, Vec::new()),
    };
    let applied = revision.is_some() && waiting_for.is_empty() && missing.is_empty();
    Ok(Applied { revision, applied, waiting_for, waiting_for_certificates: missing })
}

/// Waits until none of the names is queued for its first certificate. Gives the change that holds the last of them, and
/// the names that have none.
async fn wait_issued(
    api: &Api,
    change: u64,
    names: &[String],
    deadline: Instant,
) -> Result<(u64, Vec<String>), StoreError> {
    let mut committed = api.store.committed();
    let mut change = change;
    loop {
        committed.mark_unchanged();
        let (mut queued, mut missing) = (false, Vec::new());
        for name in names {
            let Some(want) = api.store.certificate_want(name).await? else { continue };
            if want.fingerprint.is_none() {
                queued |= want.state == WantState::Queued;
                missing.push(want.error.map_or_else(|| name.clone(), |error| format!("{name}: {error}")));
            }
        }
        if !queued {
            if missing.is_empty() {
                change = change.max(api.store.refresh().await?.change);
            }
            return Ok((change, missing));
        }
        // The worker may be in another process, whose commits wake nobody here.
        let look_again = deadline.min(Instant::now() + Duration::from_millis(250));
        tokio::select! {
            _ = tokio::time::timeout_at(look_again, committed.changed()) => {}
            () = api.stop.cancelled() => return Ok((change, missing)),
        }
        if Instant::now() >= deadline {
            return Ok((change, missing));
        }
    }
}

/// A domain after its certificate came.
async fn look_again(api: &Api, name: &DomainName) -> Result<Option<Value>, Stop> {
    let Some(stored) = api.store.get(name).await? else { return Ok(None) };
    Ok(Some(json(&api.reading().shown(&stored).await?)))
}
