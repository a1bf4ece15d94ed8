//! How an instance speaks to the control plane: one request, one answer, with a token from a file.

use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use tokio::time::timeout;

/// Time for one request: 5 s. What waits for proxies takes up to that.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes read of an answer: 16 KiB.
const MOST_OF_ANSWER: usize = 16 << 10;

/// Why the control plane did not take what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("the token file {path} cannot be read")]
    Token { path: PathBuf, source: std::io::Error },
    #[error("the token file {path} holds no token")]
    NoToken { path: PathBuf },
    #[error("{url} cannot be reached")]
    Unreachable { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{url} did not answer within {} s", TIMEOUT.as_secs())]
    Timeout { url: String },
    #[error("{url} answered {status}: {text}")]
    Refused { url: String, status: StatusCode, text: String },
}

/// The control plane.
pub(crate) struct Control {
    token_file: PathBuf,
    client: Client<HttpConnector, Body>,
}

impl Control {
    /// Spoken to with the token in this file.
    pub(crate) fn new(token_file: PathBuf) -> Self {
        Self { token_file, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Sends a request; gives the answer's body when it is a success.
    pub(crate) async fn ask(&self, method: Method, url: &str, body: &impl Serialize) -> Result<Vec<u8>, ControlError> {
        let path = &self.token_file;
        // Read each time: a token that was replaced counts at once.
        let token = tokio::fs::read_to_string(path)
            .await
            .map_err(|source| ControlError::Token { path: path.clone(), source })?;
        let no_token = |_| ControlError::NoToken { path: path.clone() };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(no_token)?;
        bearer.set_sensitive(true);
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| ControlError::Unreachable {
            url: url.to_owned(),
            source,
        };
        let body = serde_json::to_vec(body).map_err(|e| unreachable(e.into()))?;
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(|e| unreachable(e.into()))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|e| unreachable(e.into()))?;
            let status = answer.status();
            // What cannot be read of an answer is not worth another error.
            let body = Limited::new(answer.into_body(), MOST_OF_ANSWER).collect().await;
            Ok((status, body.map(|body| body.to_bytes().to_vec()).unwrap_or_default()))
        };
        let (status, bytes) =
            timeout(TIMEOUT, exchange).await.map_err(|_| ControlError::Timeout { url: url.to_owned() })??;
        if status.is_success() {
            return Ok(bytes);
        }
        let text = String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).take(300).collect();
        Err(ControlError::Refused { url: url.to_owned(), status, text })
    }
}
