//! Reading the keys of an issuer of tokens from where they are: a file, or a document of the issuer.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, StatusCode, Url};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::AsyncReadExt;

use schoolgate_config::model::{JWKS_BYTES, Jwks, JwksError, KeySource, KeyUrl};

/// Time to connect: 3 s. An issuer is near, or one of the large ones.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Time for the whole document: 10 s.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Redirects followed, all on the same host: 3. More is a loop.
const REDIRECTS: usize = 3;

/// Why no keys were read. The old ones stay.
///
/// None of these repeats what was read: the file or the address could have been something else than keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeySourceError {
    /// The file is not there, or not ours to read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// Which path.
        path: PathBuf,
    },
    /// Nobody answered, or not in time, or with a certificate that nobody trusts.
    #[error("{url} cannot be reached: {why}")]
    Unreachable {
        /// Which address.
        url: KeyUrl,
        /// What was in the way.
        why: String,
    },
    /// Somebody answered something else than 200.
    #[error("{url} answered {status}")]
    Status {
        /// Which address.
        url: KeyUrl,
        /// What it answered.
        status: StatusCode,
    },
    /// More than is read of one.
    #[error("the document has more than {JWKS_BYTES} bytes")]
    TooLarge,
    /// Not JSON, or not a key set.
    #[error("not a JSON Web Key Set ({{\"keys\": […]}}): line {line}, column {column}")]
    NotKeys {
        /// Where it ceases to be one.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// A key set of which nothing can be used, or that must not be.
    #[error("{0}")]
    Unusable(JwksError),
    /// Keys, but none for an algorithm of the issuer.
    #[error("{0}")]
    Unfit(String),
    /// The machine has no certificates of authorities to trust, or they cannot be read.
    #[error("no TLS client can be made: {0}")]
    NoClient(String),
}

impl KeySourceError {
    /// What a script decides by.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::NotAFile { .. } => "KEYS_UNREADABLE",
            Self::Unreachable { .. } | Self::Status { .. } | Self::NoClient(_) => "KEYS_UNREACHABLE",
            Self::TooLarge => "KEYS_TOO_LARGE",
            Self::NotKeys { .. } => "KEYS_NOT_JSON",
            Self::Unusable(_) | Self::Unfit(_) => "NO_USABLE_KEY",
        }
    }
}

/// Reads the keys; those that were given with the issuer need not be read, so they give none.
///
/// # Errors
/// [`KeySourceError`] says what was wrong.
pub(super) async fn read(source: &KeySource) -> Result<Option<Jwks>, KeySourceError> {
    let document = match source {
        KeySource::Inline => return Ok(None),
        KeySource::File(path) => read_file(path).await?,
        KeySource::Url(url) => fetch(url).await?,
    };
    match Jwks::parse(&document) {
        Ok(keys) => Ok(Some(keys)),
        Err(JwksError::TooLarge(_)) => Err(KeySourceError::TooLarge),
        Err(JwksError::NotJwks(e)) => Err(KeySourceError::NotKeys { line: e.line(), column: e.column() }),
        Err(other) => Err(KeySourceError::Unusable(other)),
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>, KeySourceError> {
    let unreadable = |source| KeySourceError::Unreadable { path: path.to_owned(), source };
    // Asked before it is opened: opening a pipe waits for whoever writes to it.
    if !tokio::fs::metadata(path).await.map_err(unreadable)?.is_file() {
        return Err(KeySourceError::NotAFile { path: path.to_owned() });
    }
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut document = Vec::new();
    file.take(JWKS_BYTES as u64 + 1).read_to_end(&mut document).await.map_err(unreadable)?;
    if document.len() > JWKS_BYTES { Err(KeySourceError::TooLarge) } else { Ok(document) }
}

async fn fetch(url: &KeyUrl) -> Result<Vec<u8>, KeySourceError> {
    let unreachable = |error: reqwest::Error| KeySourceError::Unreachable { url: url.clone(), why: why(error) };
    let request = client(url)?.get(url.as_str()).header(ACCEPT, "application/jwk-set+json, application/json");
    let mut answer = request.send().await.map_err(unreachable)?;
    if answer.status() != StatusCode::OK {
        return Err(KeySourceError::Status { url: url.clone(), status: answer.status() });
    }
    let mut document = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if document.len() + chunk.len() > JWKS_BYTES {
            return Err(KeySourceError::TooLarge);
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

/// A client for one fetch: they are minutes apart, and the next should trust the authorities that the machine trusts then.
fn client(url: &KeyUrl) -> Result<Client, KeySourceError> {
    let failed = |error: &dyn std::error::Error| KeySourceError::NoClient(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|e| failed(&e))?
        .with_no_client_auth();
    let mut client = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("schoolgate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_WITHIN)
        .timeout(READ_WITHIN)
        .redirect(Policy::custom(on_the_same_host));
    // Plain HTTP goes to this machine only, so not through the proxy that the environment may name.
    if url.as_str().starts_with("http://") {
        client = client.no_proxy();
    }
    client.build().map_err(|e| failed(&e))
}

/// Whoever vouches for the keys is the host that the operator named; that it sends us elsewhere is not its word.
fn on_the_same_host(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let origin = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    let from = attempt.previous().first().map(origin);
    if from != Some(origin(attempt.url())) {
        return attempt.error("it redirects to another host");
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("it redirects too often");
    }
    attempt.follow()
}

/// An error with its causes, without the address, which stands before it.
fn why(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
