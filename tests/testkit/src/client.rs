//! HTTP as visitors of a school speak it.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, RequestBuilder, Response};

use crate::tls::client_config;

/// Which versions of HTTP a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1 only.
    One,
    /// HTTP/2 only; over TLS the handshake fails when the server does not speak it.
    Two,
    /// What the server prefers.
    Either,
}

/// A client for which every name is the same address: the site's.
///
/// Redirects are not followed, proxies of the environment not used.
#[derive(Debug, Clone)]
pub struct Client {
    inner: reqwest::Client,
    base: String,
}

/// Settings of a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    addr: SocketAddr,
    base: String,
    ca: Option<String>,
    http: Http,
}

impl Client {
    /// Plain HTTP/1.1 to an address, which is also the authority.
    pub fn plain(addr: SocketAddr) -> Self {
        Self::builder(addr).base(format!("http://{addr}")).build()
    }

    /// A client of what listens on `addr`.
    pub fn builder(addr: SocketAddr) -> ClientBuilder {
        ClientBuilder { addr, base: String::new(), ca: None, http: Http::Either }
    }

    /// `GET`; the path is one of the base's, or a whole URL.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Response {
        self.try_get(path).await.unwrap_or_else(|e| panic!("GET {}: {e:?}", self.url(path)))
    }

    /// `GET` that may fail.
    ///
    /// # Errors
    /// What the connection said.
    pub async fn try_get(&self, path: &str) -> reqwest::Result<Response> {
        self.request(Method::GET, path).send().await
    }

    /// `GET`, as JSON.
    ///
    /// # Panics
    /// When there is no answer, or it is not JSON.
    pub async fn get_json(&self, path: &str) -> serde_json::Value {
        let text = self.get(path).await.text().await.expect("a whole body");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("not JSON ({e}): {text}"))
    }

    /// Any request; send it with `.send()`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.inner.request(method, self.url(path))
    }

    /// The client underneath.
    pub fn inner(&self) -> &reqwest::Client {
        &self.inner
    }

    fn url(&self, path: &str) -> String {
        if path.starts_with("http://") || path.starts_with("https://") {
            return path.to_owned();
        }
        format!("{}{path}", self.base)
    }
}

impl ClientBuilder {
    /// What paths are relative to, such as `https://greenhill.localhost`. Without a port: the port of the site is used.
    /// With one, that port is dialled.
    #[must_use]
    pub fn base(mut self, base: impl Into<String>) -> Self {
        self.base = base.into();
        self
    }

    /// Trusts these certificates only.
    #[must_use]
    pub fn ca(mut self, pem: impl Into<String>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Which versions are offered. Default: either.
    #[must_use]
    pub fn http(mut self, http: Http) -> Self {
        self.http = http;
        self
    }

    /// The client.
    pub fn build(self) -> Client {
        let alpn: &[&str] = match self.http {
            Http::One => &["http/1.1"],
            Http::Two => &["h2"],
            Http::Either => &["h2", "http/1.1"],
        };
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(self.ca.as_deref().unwrap_or_default(), alpn))
            .dns_resolver(std::sync::Arc::new(Everywhere(self.addr)))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(60));
        let builder = match self.http {
            Http::One => builder.http1_only(),
            Http::Two => builder.http2_prior_knowledge(),
            Http::Either => builder,
        };
        Client { inner: builder.build().expect("settings that fit together"), base: self.base }
    }
}

/// Resolves every name to one address.
struct Everywhere(SocketAddr);

impl Resolve for Everywhere {
    fn resolve(&self, _: Name) -> Resolving {
        let addrs: Addrs = Box::new(std::iter::once(self.0));
        Box::pin(std::future::ready(Ok(addrs)))
    }
}
