//! The feed over HTTP: a long poll to one of several control processes, with a node token.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use schoolgate_config::feed::{FeedAnswer, NodeReport, ReportTaken, RequestAnswer, RequestAnswers, RequestQuestions};
use schoolgate_config::model::{NodeId, Revision};
use schoolgate_config::usage::{QuotaUse, UsageFlush, UsageTaken};
use serde::Deserialize;
use tokio::time::timeout;

use super::{FeedError, SnapshotFeed};

/// Time a control process has to accept a connection: 3 s, then the next one is asked.
const CONNECT: Duration = Duration::from_secs(3);
/// Time beyond the wait for the head of an answer: 10 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for the body of an answer: 120 s, a snapshot of 100,000 domains over 20 Mbit/s.
const BODY: Duration = Duration::from_secs(120);
/// The longest answer that is read: 1 GiB, four times a snapshot of 100,000 domains with certificates.
const MOST: usize = 1 << 30;
/// The longest error that is read: 64 KiB.
const MOST_OF_ERROR: usize = 64 << 10;

/// Why a remote feed cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RemoteFeedError {
    /// No address of a control process.
    #[error("proxy.control names no control process")]
    NoControl,
    /// Not an address.
    #[error("proxy.control: `{0}` is not http://HOST:PORT")]
    Address(String),
    /// Not a token.
    #[error("the node token has characters that no token has")]
    Token,
}

/// Follows a control process over HTTP.
#[derive(Debug)]
pub struct RemoteFeed {
    node: NodeId,
    control: Vec<String>,
    /// Which one answered last.
    current: AtomicUsize,
    authorization: HeaderValue,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// The part of a problem document that we read.
#[derive(Deserialize)]
struct Problem {
    error: String,
}

impl RemoteFeed {
    /// A feed for `node` from the control processes at `control` (`http://host:port`), tried in order.
    ///
    /// # Errors
    /// [`RemoteFeedError`] names what cannot be used.
    pub fn new(node: NodeId, control: &[String], token: &str) -> Result<Self, RemoteFeedError> {
        if control.is_empty() {
            return Err(RemoteFeedError::NoControl);
        }
        let control = control
            .iter()
            .map(|address| {
                let uri = address.parse::<Uri>().ok();
                let usable = uri.is_some_and(|uri| {
                    uri.scheme_str() == Some("http") && uri.host().is_some() && matches!(uri.path(), "" | "/")
                });
                if usable {
                    Ok(address.trim_end_matches('/').to_owned())
                } else {
                    Err(RemoteFeedError::Address(address.clone()))
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| RemoteFeedError::Token)?;
        authorization.set_sensitive(true);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(Duration::from_secs(15)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Ok(Self { node, control, current: AtomicUsize::new(0), authorization, client })
    }

    /// Asks the one that answered last, then the others.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        head: Duration,
    ) -> Result<(String, Bytes), FeedError> {
        let begin = self.current.load(Ordering::Relaxed);
        let mut first_error = None;
        for turn in 0..self.control.len() {
            let at = (begin + turn) % self.control.len();
            let control = &self.control[at];
            match self.ask_one(control, &method, path, body.clone(), head).await {
                Ok(body) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok((control.clone(), body));
                }
                // The first one's, since that is where it should have worked.
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(FeedError::Closed))
    }

    async fn ask_one(
        &self,
        control: &str,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        head: Duration,
    ) -> Result<Bytes, FeedError> {
        let from = || control.to_owned();
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| FeedError::Unreachable { from: from(), source };
        let late = |limit: Duration| FeedError::Timeout { from: from(), seconds: limit.as_secs() };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{control}{path}"))
            .header(AUTHORIZATION, self.authorization.clone());
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default())).map_err(|e| unreachable(e.into()))?;
        let answer = timeout(head, self.client.request(request)).await.map_err(|_| late(head))?;
        let answer = answer.map_err(|e| unreachable(e.into()))?;
        let status = answer.status();
        let most = if status.is_success() { MOST } else { MOST_OF_ERROR };
        let body = timeout(BODY, Limited::new(answer.into_body(), most).collect()).await.map_err(|_| late(BODY))?;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                FeedError::TooLong { from: from(), most }
            } else {
                unreachable(error)
            }
        })?;
        let body = body.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let problem = serde_json::from_slice::<Problem>(&body).ok();
        let reason = match (problem, status) {
            (Some(problem), _) => problem.error.chars().filter(|c| !c.is_control()).take(100).collect(),
            (None, StatusCode::UNAUTHORIZED) => "the node token is not accepted".to_owned(),
            (None, _) => "no reason given".to_owned(),
        };
        Err(FeedError::Refused { from: from(), status: status.as_u16(), reason })
    }
}

#[async_trait]
impl SnapshotFeed for RemoteFeed {
    async fn next(&self, after: Revision, wait: Duration) -> Result<FeedAnswer, FeedError> {
        let path = format!("/internal/v1/feed?node={}&after={after}&wait_ms={}", self.node, wait.as_millis());
        let (from, body) = self.ask(Method::GET, &path, None, wait + PATIENCE).await?;
        // Decoding a snapshot of 100,000 domains takes a second; not on a thread that others wait for.
        let decoded = tokio::task::spawn_blocking(move || FeedAnswer::decode(&body)).await;
        decoded.map_err(|_| FeedError::Closed)?.map_err(|source| FeedError::Malformed { from, source })
    }

    async fn report(&self, report: NodeReport) -> Result<ReportTaken, FeedError> {
        let path = format!("/internal/v1/nodes/{}/report", self.node);
        let body = serde_json::to_vec(&report)
            .map_err(|error| FeedError::Unreachable { from: self.node.to_string(), source: error.into() })?;
        let (_, body) = self.ask(Method::POST, &path, Some(body.into()), PATIENCE).await?;
        // A control process of the release before answers nothing.
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn quotas(&self, after: Option<&QuotaUse>) -> Result<Vec<QuotaUse>, FeedError> {
        let mut path = "/internal/v1/quotas".to_owned();
        if let Some(QuotaUse { tenant, quota, period, .. }) = after {
            path.push_str(&format!("?tenant={tenant}&quota={}&period={period}", quota.as_str()));
        }
        let (from, body) = self.ask(Method::GET, &path, None, PATIENCE).await?;
        serde_json::from_slice(&body).map_err(|error| FeedError::Unreachable { from, source: error.into() })
    }

    async fn usage(&self, flush: &UsageFlush) -> Result<UsageTaken, FeedError> {
        let path = format!("/internal/v1/nodes/{}/usage", self.node);
        let body = serde_json::to_vec(flush)
            .map_err(|error| FeedError::Unreachable { from: self.node.to_string(), source: error.into() })?;
        let (from, body) = self.ask(Method::POST, &path, Some(body.into()), PATIENCE).await?;
        serde_json::from_slice(&body).map_err(|error| FeedError::Unreachable { from, source: error.into() })
    }

    async fn questions(&self, wait: Duration) -> Result<Vec<String>, FeedError> {
        let path = format!("/internal/v1/nodes/{}/questions?wait_ms={}", self.node, wait.as_millis());
        let (from, body) = self.ask(Method::GET, &path, None, wait + PATIENCE).await?;
        let questions: RequestQuestions =
            serde_json::from_slice(&body).map_err(|error| FeedError::Unreachable { from, source: error.into() })?;
        Ok(questions.requests)
    }

    async fn answer(&self, answers: Vec<RequestAnswer>) -> Result<(), FeedError> {
        let path = format!("/internal/v1/nodes/{}/answers", self.node);
        let body = serde_json::to_vec(&RequestAnswers { answers })
            .map_err(|error| FeedError::Unreachable { from: self.node.to_string(), source: error.into() })?;
        self.ask(Method::POST, &path, Some(body.into()), PATIENCE).await.map(drop)
    }
}
