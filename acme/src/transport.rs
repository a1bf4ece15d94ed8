//! How requests reach a CA: HTTPS, or in tests a CA in the same process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Time a CA has to accept a connection: 10 s.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Largest answer that is read: 1 MiB. A chain has some kilobytes.
const ANSWER_BYTES: usize = 1 << 20;

/// Pause between two requests for a nonce: 125 ms, eight a second. Let's Encrypt refuses more than twenty.
const NONCE_PAUSE: Duration = Duration::from_millis(125);

/// Sends one request and reads the whole answer, whatever its status. Redirects are not followed: what is signed is
/// meant for one address.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends it.
    ///
    /// # Errors
    /// [`Unreachable`] when there is no whole answer.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unreachable>;
}

/// There was no whole answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unreachable {
    /// For an operator.
    pub why: String,
}

/// Why there is no way to a CA at all.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The file of the root.
    #[error("the root certificate {path} (setting acme.root_ca) cannot be read: {why}")]
    Root {
        /// Which file.
        path: String,
        /// Why.
        why: String,
    },
    /// The TLS library refused.
    #[error("no HTTPS client can be made: {0}")]
    Client(String),
}

/// HTTPS, trusting the system's roots and perhaps one more.
pub struct HttpsTransport {
    client: reqwest::Client,
    /// When the next nonce may be asked for.
    nonce: Mutex<Instant>,
}

impl std::fmt::Debug for HttpsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpsTransport")
    }
}

impl HttpsTransport {
    /// A way to CAs whose HTTPS is vouched for by the system's roots, or by those in a PEM file.
    ///
    /// # Errors
    /// [`TransportError::Root`] names the file.
    pub fn new(root_ca: Option<&Path>) -> Result<Self, TransportError> {
        let failed = |error: &dyn std::fmt::Display| TransportError::Client(error.to_string());
        let roots = root_ca.map(read_roots).transpose()?.unwrap_or_default();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(roots, Arc::clone(&provider))
            .map_err(|e| failed(&e))?;
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("schoolgate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .https_only(true)
            .build()
            .map_err(|e| failed(&e))?;
        Ok(Self { client, nonce: Mutex::new(Instant::now()) })
    }
}

fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let bad = |why: String| TransportError::Root { path: path.display().to_string(), why };
    let roots: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|e| bad(e.to_string()))?
        .collect::<Result<_, _>>()
        .map_err(|e| bad(e.to_string()))?;
    if roots.is_empty() { Err(bad("it holds no certificate in PEM".to_owned())) } else { Ok(roots) }
}

#[async_trait]
impl Transport for HttpsTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unreachable> {
        // A HEAD is always a request for a nonce (RFC 8555 section 7.2).
        if request.method() == Method::HEAD {
            let mut next = self.nonce.lock().await;
            tokio::time::sleep_until(*next).await;
            *next = Instant::now() + NONCE_PAUSE;
        }
        let request = reqwest::Request::try_from(request).map_err(|e| why(&e))?;
        let mut answer = self.client.execute(request).await.map_err(|e| why(&e))?;
        let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| why(&e))? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(Unreachable { why: format!("its answer is larger than {ANSWER_BYTES} bytes") });
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(Bytes::from(body));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

/// An error with its causes.
fn why(error: &reqwest::Error) -> Unreachable {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    Unreachable { why: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_is_missing_or_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.pem");
        for content in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = HttpsTransport::new(Some(&path)).unwrap_err().to_string();
            assert!(error.contains("root.pem") && error.contains("acme.root_ca"), "{error}");
        }
    }

    #[tokio::test]
    async fn plain_http_is_refused() {
        let transport = HttpsTransport::new(None).unwrap();
        let request = Request::get("http://127.0.0.1:1/dir").body(Bytes::new()).unwrap();
        assert!(transport.send(request).await.is_err());
    }
}
