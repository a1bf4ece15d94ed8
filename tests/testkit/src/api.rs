//! The control API as scripts use it.

use std::net::SocketAddr;

use http::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::Client;

/// A client of the control API with a bearer token.
///
/// A path without a leading slash is below `/api/v1/`; one with it is a path of the server: `tenants`, `/healthz`.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    token: Option<String>,
}

/// What the control API answered.
#[derive(Debug, Clone)]
pub struct ApiAnswer {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; `Null` when it is not JSON.
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl ApiAnswer {
    /// The body, when the status is this one.
    ///
    /// # Panics
    /// Shows the body when it is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "answered: {}", self.text);
        self.json
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The entity tag, as `If-Match` wants it.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn etag(&self) -> &str {
        self.header("etag").unwrap_or_else(|| panic!("no ETag beside {}", self.text))
    }
}

impl Api {
    /// The API at an address.
    pub fn new(addr: SocketAddr, token: Option<&str>) -> Self {
        Self { client: Client::plain(addr), token: token.map(|token| token.trim().to_owned()) }
    }

    /// The same API for another caller.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { client: self.client.clone(), token: Some(token.to_owned()) }
    }

    /// The same API for a caller who shows no token.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self { client: self.client.clone(), token: None }
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> ApiAnswer {
        Self::send(self.request(Method::GET, path)).await
    }

    /// Creates, or acts.
    pub async fn post(&self, path: &str, body: Value) -> ApiAnswer {
        Self::send(self.request(Method::POST, path).json(&body)).await
    }

    /// Replaces.
    pub async fn put(&self, path: &str, body: Value) -> ApiAnswer {
        Self::send(self.request(Method::PUT, path).json(&body)).await
    }

    /// Changes some fields (RFC 7396).
    pub async fn patch(&self, path: &str, body: Value) -> ApiAnswer {
        Self::send(self.request(Method::PATCH, path).json(&body)).await
    }

    /// Deletes.
    pub async fn delete(&self, path: &str) -> ApiAnswer {
        Self::send(self.request(Method::DELETE, path)).await
    }

    /// Any request with the token, to be finished and given to [`Self::send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/api/v1/{path}") };
        let request = self.client.request(method, &path);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(request: RequestBuilder) -> ApiAnswer {
        Self::try_send(request).await.unwrap_or_else(|e| panic!("the control API does not answer: {e:?}"))
    }

    /// Sends a request that may find nobody there.
    ///
    /// # Errors
    /// What the connection said.
    pub async fn try_send(request: RequestBuilder) -> reqwest::Result<ApiAnswer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(ApiAnswer { status, headers, json, text })
    }
}
