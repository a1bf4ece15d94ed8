//! A CA that speaks ACME (RFC 8555), through instant-acme: the only file that names it.
//!
//! What the library does not do is done here: every request has a deadline; `Retry-After` is kept for errors too; an
//! answer that is no problem document is an error with its status, not one of JSON; a nonce may come with 204; nothing is
//! polled in a loop, for the worker looks again when the store says so.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{
    AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, CertificateIdentifier, ChallengeStatus,
    ChallengeType, Error, ExternalAccountKey, HttpClient, Identifier, Key, NewAccount, NewOrder, OrderStatus, Problem,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_store::RevocationReason;
use zeroize::Zeroizing;

use crate::transport::Transport;

/// Time for one request: 25 s. A CA may be slow, but a worker that waits for ever orders nothing.
const REQUEST_WITHIN: Duration = Duration::from_secs(25);

/// Characters of an answer that was not understood, in an error.
const EXCERPT: usize = 160;

/// What went wrong between us and a CA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// The CA said what (RFC 8555 section 6.7).
    #[error("{detail} ({kind})")]
    Problem {
        /// The type without its prefix: `rateLimited`, `caa`, …
        kind: String,
        /// The CA's own words.
        detail: String,
        /// How long to wait.
        retry_after: Option<Duration>,
    },
    /// An answer that says nothing but its status.
    #[error("it answered {status} and no problem document: {excerpt}")]
    Status {
        /// The status.
        status: u16,
        /// The begin of what it said.
        excerpt: String,
        /// How long to wait.
        retry_after: Option<Duration>,
    },
    /// There was no answer.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("it did not answer in time")]
    Timeout,
    /// It answered something that makes no sense.
    #[error("its answer makes no sense: {0}")]
    Protocol(String),
}

/// External account binding (RFC 8555 section 7.3.4).
#[derive(Clone)]
pub struct Binding {
    /// Key identifier the CA gave.
    pub kid: String,
    /// The HMAC key the CA gave.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// A CA's directory.
#[derive(Clone)]
pub struct Directory {
    url: String,
    transport: Arc<dyn Transport>,
    within: Duration,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("url", &self.url).finish_non_exhaustive()
    }
}

/// An account that was just made: what to keep of it.
pub struct Registered {
    /// The account, ready for use.
    pub account: Account,
    /// Its URL.
    pub url: String,
    /// What [`Directory::restore`] needs. A secret.
    pub secret: Zeroizing<String>,
}

impl Directory {
    /// The directory at `url`.
    pub fn new(url: &str, transport: Arc<dyn Transport>) -> Self {
        Self { url: url.to_owned(), transport, within: REQUEST_WITHIN }
    }

    /// With another deadline for each request.
    #[must_use]
    pub fn answering_within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn builder(&self) -> instant_acme::AccountBuilder {
        let bridge = Bridge { transport: Arc::clone(&self.transport), within: self.within };
        instant_acme::Account::builder_with_http(Box::new(bridge))
    }

    /// Makes an account with a fresh key. The terms are agreed to: ask the operator before.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn register(&self, contact: &[String], binding: Option<&Binding>) -> Result<Registered, CaError> {
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let binding = binding.map(|b| ExternalAccountKey::new(b.kid.clone(), &b.key));
        let made = call(self.builder().create(&wanted, self.url.clone(), binding.as_ref())).await?;
        Registered::of(made)
    }

    /// Makes the account anew with the key it had, for a CA that has forgotten it.
    ///
    /// # Errors
    /// [`CaError`]; a CA that wants an external binding refuses.
    pub async fn register_again(&self, secret: &str) -> Result<Registered, CaError> {
        let credentials = read_secret(secret)?;
        let pkcs8 = credentials.private_key().secret_pkcs8_der().to_vec();
        let key = Key::from_pkcs8_der(PrivatePkcs8KeyDer::from(pkcs8.as_slice()))
            .map_err(|e| CaError::Protocol(e.to_string()))?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
        Registered::of(call(self.builder().create_from_key((key, der), self.url.clone())).await?)
    }

    /// The account that [`Registered::secret`] is of. Asks the directory only, so the account may be gone.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn restore(&self, secret: &str) -> Result<Account, CaError> {
        let credentials = read_secret(secret)?;
        Ok(Account { inner: call(self.builder().from_credentials(credentials)).await? })
    }
}

fn read_secret(secret: &str) -> Result<AccountCredentials, CaError> {
    serde_json::from_str(secret).map_err(|_| CaError::Protocol("our own account's credentials are damaged".to_owned()))
}

impl Registered {
    fn of((account, credentials): (instant_acme::Account, AccountCredentials)) -> Result<Self, CaError> {
        let secret = serde_json::to_string(&credentials).map_err(|e| CaError::Protocol(e.to_string()))?;
        let url = account.id().to_owned();
        Ok(Self { account: Account { inner: account }, url, secret: Zeroizing::new(secret) })
    }
}

/// Our account at a CA. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Account {
    inner: instant_acme::Account,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("url", &self.inner.id()).finish_non_exhaustive()
    }
}

/// What a CA suggests about renewing a certificate (RFC 9773).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// Begin of the window, milliseconds since 1970.
    pub start_ms: i64,
    /// End of the window, milliseconds since 1970.
    pub end_ms: i64,
    /// A page that says why.
    pub explanation: Option<String>,
    /// When to ask again.
    pub ask_again: Option<Duration>,
}

/// What a CA says about renewing a certificate (RFC 9773).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// When to.
    Suggested(Suggestion),
    /// Nothing of this certificate.
    Nothing,
    /// It has no such service at all; nobody was asked.
    NotOffered,
}

impl Renewal {
    /// The suggestion, if there is one.
    pub const fn suggestion(&self) -> Option<&Suggestion> {
        match self {
            Self::Suggested(suggestion) => Some(suggestion),
            Self::Nothing | Self::NotOffered => None,
        }
    }
}

impl Account {
    /// Thumbprint of its key (RFC 7638).
    pub fn thumbprint(&self) -> &str {
        self.inner.key_thumbprint()
    }

    /// Orders a certificate for a name (`*.zone` for a wildcard).
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn place(
        &self,
        name: &str,
        profile: Option<&str>,
        replaces: Option<&str>,
    ) -> Result<PlacedOrder, CaError> {
        let names = [Identifier::Dns(name.to_owned())];
        let mut wanted = NewOrder::new(&names);
        if let Some(profile) = profile {
            wanted = wanted.profile(profile);
        }
        if let Some((authority, serial)) = replaces.and_then(|id| id.split_once('.')) {
            wanted = wanted
                .replaces(CertificateIdentifier { authority_key_identifier: authority.into(), serial: serial.into() });
        }
        Ok(PlacedOrder { inner: call(self.inner.new_order(&wanted)).await? })
    }

    /// An order that was placed before.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn order(&self, url: &str) -> Result<PlacedOrder, CaError> {
        Ok(PlacedOrder { inner: call(self.inner.order(url.to_owned())).await? })
    }

    /// What the CA suggests about renewing the certificate that it calls `id`.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn renewal(&self, id: &str) -> Result<Renewal, CaError> {
        let Some((authority, serial)) = id.split_once('.') else { return Ok(Renewal::Nothing) };
        let id = CertificateIdentifier { authority_key_identifier: authority.into(), serial: serial.into() };
        let heard = RefCell::new(Heard::default());
        let (result, heard) = HEARD
            .scope(heard, async {
                let result = self.inner.renewal_info(&id).await;
                (result, HEARD.with(|heard| heard.borrow().clone()))
            })
            .await;
        let info = match result {
            Ok((info, _)) => info,
            Err(Error::Unsupported(_)) => return Ok(Renewal::NotOffered),
            Err(_) if matches!(heard.status, Some(404 | 405)) => return Ok(Renewal::Nothing),
            Err(error) => return Err(meaning(error, heard)),
        };
        let ms = |at: time::OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
        let window = info.suggested_window;
        if window.start >= window.end {
            return Err(CaError::Protocol("its renewal window ends before it begins".to_owned()));
        }
        Ok(Renewal::Suggested(Suggestion {
            start_ms: ms(window.start),
            end_ms: ms(window.end),
            explanation: info.explanation_url,
            ask_again: heard.retry_after,
        }))
    }

    /// Revokes a certificate that this account ordered. One that was revoked before is well revoked.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn revoke(&self, leaf: &[u8], reason: RevocationReason) -> Result<(), CaError> {
        let certificate = CertificateDer::from(leaf);
        let request = instant_acme::RevocationRequest { certificate: &certificate, reason: Some(code_of(reason)) };
        match call(self.inner.revoke(&request)).await {
            Err(CaError::Problem { kind, .. }) if kind == "alreadyRevoked" => Ok(()),
            other => other,
        }
    }
}

const fn code_of(reason: RevocationReason) -> instant_acme::RevocationReason {
    match reason {
        RevocationReason::Unspecified => instant_acme::RevocationReason::Unspecified,
        RevocationReason::KeyCompromise => instant_acme::RevocationReason::KeyCompromise,
        RevocationReason::AffiliationChanged => instant_acme::RevocationReason::AffiliationChanged,
        RevocationReason::Superseded => instant_acme::RevocationReason::Superseded,
        RevocationReason::CessationOfOperation => instant_acme::RevocationReason::CessationOfOperation,
    }
}

/// What a CA calls a certificate (RFC 9773 section 4.1); `None` for one that names no authority key.
pub fn certificate_id(leaf: &[u8]) -> Option<String> {
    CertificateIdentifier::try_from(&CertificateDer::from(leaf)).ok().map(|id| id.to_string())
}

/// An order as the CA has it.
pub struct PlacedOrder {
    inner: instant_acme::Order,
}

/// Where an order is (RFC 8555 section 7.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderState {
    /// Something is to be proven.
    Pending,
    /// All is proven.
    Ready,
    /// The certificate is being made.
    Processing,
    /// The certificate is made.
    Valid,
    /// It failed.
    Invalid,
}

/// Where an authorization or a challenge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofState {
    /// Nothing was tried.
    Pending,
    /// The CA is looking.
    Processing,
    /// It saw what it wanted.
    Valid,
    /// It did not.
    Invalid,
}

/// The ways of proving that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method01 {
    /// HTTP-01.
    Http,
    /// TLS-ALPN-01.
    TlsAlpn,
    /// DNS-01.
    Dns,
}

impl Method01 {
    const fn kind(self) -> ChallengeType {
        match self {
            Self::Http => ChallengeType::Http01,
            Self::TlsAlpn => ChallengeType::TlsAlpn01,
            Self::Dns => ChallengeType::Dns01,
        }
    }
}

/// One way the CA offers to prove a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which way.
    pub method: Method01,
    /// Where it is.
    pub state: ProofState,
    /// SHA-256 of the key authorization: what TLS-ALPN-01 shows.
    pub digest: [u8; 32],
    /// The same in base64url: what DNS-01 shows.
    pub dns_value: String,
    /// Why the CA was not satisfied.
    pub error: Option<CaError>,
}

/// What has to be proven for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The name, as the CA has it; `*.zone` for a wildcard.
    pub name: String,
    /// Where it is.
    pub state: ProofState,
    /// The ways that are offered.
    pub offers: Vec<Offer>,
}

impl std::fmt::Debug for PlacedOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlacedOrder").field("url", &self.inner.url()).finish_non_exhaustive()
    }
}

impl PlacedOrder {
    /// Where the CA has it.
    pub fn url(&self) -> &str {
        self.inner.url()
    }

    /// Where it is, and why it failed if the CA said so with the order.
    pub fn state(&mut self) -> (OrderState, Option<CaError>) {
        let state = self.inner.state();
        let error = state.error.as_ref().map(|problem| of_problem(problem, None));
        let state = match state.status {
            OrderStatus::Pending => OrderState::Pending,
            OrderStatus::Ready => OrderState::Ready,
            OrderStatus::Processing => OrderState::Processing,
            OrderStatus::Valid => OrderState::Valid,
            OrderStatus::Invalid => OrderState::Invalid,
        };
        (state, error)
    }

    /// Asks again; gives how long the CA wants to be left alone.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn refresh(&mut self) -> Result<Option<Duration>, CaError> {
        call_hearing(async { self.inner.refresh().await.map(|_| ()) }).await.map(|((), heard)| heard.retry_after)
    }

    /// What has to be proven. We order one name at a time, so it is one.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn authorization(&mut self) -> Result<Authorization, CaError> {
        call(async {
            let none = || Error::Str("an order without authorization");
            let (name, state) = {
                let mut all = self.inner.authorizations();
                let handle = all.next().await.ok_or_else(none)??;
                let state = match handle.status {
                    AuthorizationStatus::Pending => ProofState::Pending,
                    AuthorizationStatus::Valid => ProofState::Valid,
                    _ => ProofState::Invalid,
                };
                (handle.identifier().to_string(), state)
            };
            let mut offers = Vec::new();
            for method in [Method01::Http, Method01::TlsAlpn, Method01::Dns] {
                // The library remembers what it has read: this asks nobody.
                let mut all = self.inner.authorizations();
                let mut handle = all.next().await.ok_or_else(none)??;
                let Some(challenge) = handle.challenge(method.kind()) else { continue };
                let authorization = challenge.key_authorization();
                let digest = authorization.digest();
                let digest = digest.as_ref().try_into().map_err(|_| Error::Crypto)?;
                offers.push(Offer {
                    method,
                    state: match challenge.status {
                        ChallengeStatus::Pending => ProofState::Pending,
                        ChallengeStatus::Processing => ProofState::Processing,
                        ChallengeStatus::Valid => ProofState::Valid,
                        ChallengeStatus::Invalid => ProofState::Invalid,
                    },
                    digest,
                    dns_value: authorization.dns_value(),
                    error: challenge.error.as_ref().map(|problem| of_problem(problem, None)),
                });
            }
            Ok(Authorization { name, state, offers })
        })
        .await
    }

    /// Tells the CA to look.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn tell(&mut self, method: Method01) -> Result<(), CaError> {
        call(async {
            let mut all = self.inner.authorizations();
            let Some(first) = all.next().await else { return Err(Error::Str("an order without authorization")) };
            let mut handle = first?;
            let Some(mut challenge) = handle.challenge(method.kind()) else {
                return Err(Error::Str("the way of proving is no longer offered"));
            };
            challenge.set_ready().await
        })
        .await
    }

    /// Sends the signing request.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn finalize(&mut self, csr: &[u8]) -> Result<Option<Duration>, CaError> {
        call_hearing(self.inner.finalize_csr(csr)).await.map(|((), heard)| heard.retry_after)
    }

    /// The chain, PEM, once the order is valid.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn certificate(&mut self) -> Result<String, CaError> {
        call(self.inner.certificate()).await?.ok_or_else(|| CaError::Protocol("there is no certificate".to_owned()))
    }
}

/// What was seen of the last answer, beside what the library makes of it.
#[derive(Debug, Clone, Default)]
struct Heard {
    status: Option<u16>,
    retry_after: Option<Duration>,
    excerpt: String,
    failed: Option<CaError>,
}

tokio::task_local! {
    /// Of the call at work in this task: the library's client is shared by orders that run side by side.
    static HEARD: RefCell<Heard>;
}

async fn call<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, CaError> {
    call_hearing(work).await.map(|(value, _)| value)
}

async fn call_hearing<T>(work: impl Future<Output = Result<T, Error>>) -> Result<(T, Heard), CaError> {
    HEARD
        .scope(RefCell::default(), async {
            let result = work.await;
            let heard = HEARD.with(|heard| heard.borrow().clone());
            match result {
                Ok(value) => Ok((value, heard)),
                Err(error) => Err(meaning(error, heard)),
            }
        })
        .await
}

/// What an error of the library means, given what was last heard.
fn meaning(error: Error, heard: Heard) -> CaError {
    if let Some(failed) = heard.failed {
        return failed;
    }
    match (&error, heard.status) {
        (Error::Api(problem), _) if problem.r#type.is_some() || problem.detail.is_some() => {
            of_problem(problem, heard.retry_after)
        }
        (_, Some(status)) if status >= 400 => {
            CaError::Status { status, excerpt: heard.excerpt, retry_after: heard.retry_after }
        }
        _ => CaError::Protocol(error.to_string()),
    }
}

fn of_problem(problem: &Problem, retry_after: Option<Duration>) -> CaError {
    let kind = problem.r#type.as_deref().unwrap_or("about:blank");
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind).to_owned();
    let mut detail = problem.detail.clone().unwrap_or_else(|| kind.clone());
    for sub in &problem.subproblems {
        if let Some(more) = &sub.detail {
            detail.push_str("; ");
            detail.push_str(more);
        }
    }
    CaError::Problem { kind, detail, retry_after }
}

/// The library's way to a CA, over ours.
struct Bridge {
    transport: Arc<dyn Transport>,
    within: Duration,
}

impl HttpClient for Bridge {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (transport, within) = (Arc::clone(&self.transport), self.within);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            parts.headers.insert(
                USER_AGENT,
                HeaderValue::from_static(concat!("schoolgate/", env!("CARGO_PKG_VERSION"), " (instant-acme)")),
            );
            let method = parts.method.clone();
            let sent = tokio::time::timeout(within, transport.send(Request::from_parts(parts, body))).await;
            let failed = match sent {
                Ok(Ok(response)) => return Ok(heard(&method, response)),
                Ok(Err(unreachable)) => CaError::Unreachable(unreachable.why),
                Err(_) => CaError::Timeout,
            };
            note(|heard| heard.failed = Some(failed.clone()));
            Err(Error::Other(Box::new(failed)))
        })
    }
}

fn note(change: impl FnOnce(&mut Heard)) {
    // Outside a call of ours nobody asks for it.
    let _ = HEARD.try_with(|heard| change(&mut heard.borrow_mut()));
}

/// Keeps what the library will not, and mends what it is too strict about.
fn heard(method: &Method, mut response: Response<Bytes>) -> BytesResponse {
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(read_retry_after);
    note(|heard| {
        *heard = Heard {
            status: Some(status.as_u16()),
            retry_after,
            excerpt: if status.is_success() { String::new() } else { excerpt(response.body()) },
            failed: None,
        };
    });
    if method == Method::HEAD && status == StatusCode::NO_CONTENT {
        *response.status_mut() = StatusCode::OK;
    }
    if method == Method::GET && retry_after.is_none() {
        // The library takes a renewal window without it for an error, and hides the 404 of an unknown certificate.
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("21600"));
    }
    // A refusal of a POST that is no JSON would be taken for a JSON error of ours.
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"json"));
    if status.is_client_error() && !is_json && serde_json::from_slice::<Problem>(response.body()).is_err() {
        *response.body_mut() = Bytes::from_static(b"{}");
    }
    BytesResponse::from(response.map(Full::new))
}

fn excerpt(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().filter(|c| !c.is_control()).take(EXCERPT).collect()
}

/// Seconds, or a date (RFC 9110 section 10.2.3).
fn read_retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let now = Duration::from_millis(u64::try_from(SystemClock.unix_ms()).ok()?);
    Some(at.saturating_sub(now))
}

/// The HMAC key of an external binding from its file: base64url, with or without padding.
pub fn read_binding_key(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let key = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).ok()?;
    (!key.is_empty()).then(|| Zeroizing::new(key))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::transport::Unreachable;

    /// Answers the directory and nonces well, and everything else with one answer.
    struct Says(Box<dyn Fn() -> Option<Response<Bytes>> + Send + Sync>);

    #[async_trait]
    impl Transport for Says {
        async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unreachable> {
            let url = |path: &str| format!("https://ca.test/{path}");
            let directory = serde_json::json!({
                "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("order"),
                "renewalInfo": url("renewal"),
            });
            Ok(match (request.method().clone(), request.uri().path()) {
                (Method::GET, "/dir") => Response::new(Bytes::from(directory.to_string())),
                (Method::HEAD, _) => {
                    Response::builder().status(204).header("replay-nonce", "n").body(Bytes::new()).unwrap()
                }
                _ => match (self.0)() {
                    Some(response) => response,
                    None => std::future::pending().await,
                },
            })
        }
    }

    async fn refused(answer: impl Fn() -> Option<Response<Bytes>> + Send + Sync + 'static) -> CaError {
        let directory = Directory::new("https://ca.test/dir", Arc::new(Says(Box::new(answer))));
        let directory = directory.answering_within(Duration::from_millis(50));
        directory.register(&[], None).await.err().expect("a refusal")
    }

    fn answer(status: u16, headers: &[(&str, &str)], body: &'static str) -> Option<Response<Bytes>> {
        let mut builder = Response::builder().status(status);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        Some(builder.body(Bytes::from_static(body.as_bytes())).unwrap())
    }

    #[tokio::test]
    async fn a_problem_keeps_its_kind_its_words_and_how_long_to_wait() {
        let body = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many","status":429}"#;
        let headers = [("content-type", "application/problem+json"), ("retry-after", "77")];
        let error = refused(move || answer(429, &headers, body)).await;
        let kind = "rateLimited".to_owned();
        let wait = Some(Duration::from_secs(77));
        assert_eq!(error, CaError::Problem { kind, detail: "too many".into(), retry_after: wait });
    }

    #[tokio::test]
    async fn html_is_an_error_with_its_status() {
        for status in [400, 502, 503] {
            let error = refused(move || answer(status, &[("retry-after", "9")], "<html>\n<b>Service busy</b>")).await;
            let wait = Some(Duration::from_secs(9));
            let excerpt = "<html> <b>Service busy</b>".to_owned();
            assert_eq!(error, CaError::Status { status, excerpt, retry_after: wait });
        }
    }

    #[tokio::test]
    async fn a_ca_that_never_answers_is_given_up() {
        assert_eq!(refused(|| None).await, CaError::Timeout);
    }

    #[tokio::test]
    async fn an_answer_that_is_no_json_where_json_was_due_makes_no_sense() {
        assert!(matches!(refused(|| answer(201, &[], "hello")).await, CaError::Protocol(_)));
    }

    #[test]
    fn how_long_to_wait_is_read_from_seconds_and_dates() {
        let read = |text: &str| read_retry_after(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO), "a date that is past");
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn a_binding_key_is_base64url() {
        assert_eq!(read_binding_key("aGVsbG8=\n").unwrap().as_slice(), b"hello");
        assert_eq!(read_binding_key("aGVsbG8").unwrap().as_slice(), b"hello");
        assert!(read_binding_key("not base64!").is_none() && read_binding_key("").is_none());
    }
}
