//! The CA itself: requests in, answers out.

#![expect(clippy::result_large_err, reason = "a refusal is an answer like any other, and travels as far")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response};
use ring::rand::{SecureRandom, SystemRandom};
use schoolgate_config::time::{Clock, rfc3339};
use serde_json::{Value, json};

use crate::Sight;
use crate::faults::{Endpoint, Fault, Faults, problem};
use crate::jws::{AccountKey, Signed};
use crate::limits::{Limit, Limits};
use crate::record::{Issued, Record};
use crate::signer::Signer;

const DAY_MS: i64 = 86_400_000;

/// The CA. A clone is another handle to the same one.
#[derive(Clone)]
pub struct MockCa {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    sight: Arc<dyn Sight>,
    signer: Signer,
    options: MockCaBuilder,
    state: Mutex<State>,
}

impl std::fmt::Debug for MockCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MockCa")
    }
}

/// How a [`MockCa`] is.
#[derive(Debug, Clone, Copy)]
pub struct MockCaBuilder {
    life_ms: i64,
    with_renewal: bool,
    pause_after: usize,
    nonce_status: u16,
    bad_nonce_every: Option<u64>,
    polls_before_valid: u32,
}

impl Default for MockCaBuilder {
    fn default() -> Self {
        Self {
            life_ms: 90 * DAY_MS,
            with_renewal: true,
            pause_after: usize::MAX,
            nonce_status: 200,
            bad_nonce_every: None,
            polls_before_valid: 0,
        }
    }
}

impl MockCaBuilder {
    /// Certificates of this many days where no profile is asked for.
    #[must_use]
    pub const fn days(mut self, days: i64) -> Self {
        self.life_ms = days * DAY_MS;
        self
    }

    /// Without renewal information.
    #[must_use]
    pub const fn without_renewal(mut self) -> Self {
        self.with_renewal = false;
        self
    }

    /// Pauses a name for the account after so many failures without a success between.
    #[must_use]
    pub const fn pausing_after(mut self, failures: usize) -> Self {
        self.pause_after = failures;
        self
    }

    /// Answers 204 with a nonce.
    #[must_use]
    pub const fn nonce_without_content(mut self) -> Self {
        self.nonce_status = 204;
        self
    }

    /// Rejects every n-th good nonce.
    #[must_use]
    pub const fn rejecting_a_nonce_every(mut self, n: u64) -> Self {
        self.bad_nonce_every = Some(n);
        self
    }

    /// An order is `processing` for so many looks.
    #[must_use]
    pub const fn slow_by(mut self, looks: u32) -> Self {
        self.polls_before_valid = looks;
        self
    }

    /// Opens the CA.
    pub fn open(self, clock: Arc<dyn Clock>, sight: Arc<dyn Sight>) -> MockCa {
        let (signer, state) = (Signer::new(), Mutex::default());
        MockCa { inner: Arc::new(Inner { clock, sight, signer, options: self, state }) }
    }
}

#[derive(Default)]
struct State {
    nonces: std::collections::HashSet<String>,
    posts: u64,
    accounts: Vec<AccountKey>,
    orders: Vec<Order>,
    /// Pending and ready orders by account and name: asked for again, they are given again.
    open: HashMap<(usize, String), usize>,
    certificates: Vec<Certificate>,
    by_id: HashMap<String, usize>,
    windows: HashMap<String, Value>,
    limits: Limits,
    failing: HashMap<(usize, String), usize>,
    issued_before: std::collections::HashSet<String>,
    faults: Faults,
    record: Record,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
}

struct Order {
    account: usize,
    name: String,
    status: Status,
    token: String,
    error: Option<Value>,
    replaces: Option<String>,
    profile: Option<String>,
    polls_left: u32,
    certificate: Option<usize>,
    expires_ms: i64,
}

struct Certificate {
    chain_pem: String,
    name: String,
    from_ms: i64,
    to_ms: i64,
    replaced: bool,
    revoked: bool,
    leaf: Vec<u8>,
}

type Answer = Result<Response<Bytes>, Response<Bytes>>;

const BASE: &str = "https://mock-ca.test";

/// Retry-After of renewal information: 6 h.
const ASK_AGAIN_S: u64 = 6 * 3_600;

impl MockCa {
    /// An ordinary one: certificates of 90 days, renewal information, no pauses.
    pub fn builder() -> MockCaBuilder {
        MockCaBuilder::default()
    }

    /// Its directory.
    pub fn directory(&self) -> String {
        format!("{BASE}/dir")
    }

    /// The root of its certificates, PEM.
    pub fn root(&self) -> &str {
        &self.inner.signer.root_pem
    }

    /// Everything that happened so far.
    pub fn record(&self) -> Record {
        self.state().record.clone()
    }

    /// The next `times` requests to a resource go wrong.
    pub fn fail(&self, endpoint: Endpoint, fault: &Fault, times: usize) {
        self.state().faults.add(endpoint, fault.clone(), times);
    }

    /// Nothing goes wrong any more.
    pub fn recover(&self) {
        self.state().faults.clear();
    }

    /// Forgets all accounts, as a CA restored from an old backup does. Orders stay.
    pub fn forget_accounts(&self) {
        for account in &mut self.state().accounts {
            account.thumbprint = format!("forgotten {}", account.thumbprint);
        }
    }

    /// Suggests to renew every certificate of a name within this window, milliseconds since 1970.
    pub fn suggest(&self, name: &str, start_ms: i64, end_ms: i64) {
        let window = json!({
            "suggestedWindow": { "start": rfc3339(start_ms), "end": rfc3339(end_ms) },
            "explanationURL": format!("{BASE}/incident"),
        });
        self.answer_renewal(name, window);
    }

    /// Answers this about renewing any certificate of a name.
    pub fn answer_renewal(&self, name: &str, answer: Value) {
        self.state().windows.insert(name.to_owned(), answer);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        self.inner.clock.unix_ms()
    }

    /// Answers a request; `None` when there is to be no answer.
    pub fn handle(&self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let mut state = self.state();
        state.record.requests += 1;
        let endpoint = Endpoint::of(request.method(), request.uri().path());
        let fault = endpoint.and_then(|endpoint| state.faults.next(endpoint));
        match fault {
            Some(Fault::LostAnswer) => {
                let _ = self.answer(&mut state, endpoint, request);
                None
            }
            Some(fault) => fault.response(),
            None => {
                let mut response = match self.answer(&mut state, endpoint, request) {
                    Ok(response) | Err(response) => response,
                };
                if request.method() != Method::GET {
                    let nonce = random();
                    state.nonces.insert(nonce.clone());
                    response.headers_mut().insert("replay-nonce", nonce.parse().expect("base64url"));
                }
                Some(response)
            }
        }
    }

    fn answer(&self, state: &mut State, endpoint: Option<Endpoint>, request: &Request<Bytes>) -> Answer {
        let path = request.uri().path();
        let id = || {
            path.rsplit('/').next().and_then(|id| id.parse::<usize>().ok()).ok_or_else(|| not_found("no such thing"))
        };
        match endpoint.ok_or_else(|| not_found("no such resource"))? {
            Endpoint::Directory => Ok(self.directory_document()),
            Endpoint::Nonce => Ok(empty(self.inner.options.nonce_status)),
            Endpoint::Renewal => self.renewal(state, path.rsplit('/').next().unwrap_or_default()),
            Endpoint::Account => self.account(state, request),
            Endpoint::NewOrder => {
                let (account, payload) = self.signed(state, request)?;
                self.new_order(state, account, &payload)
            }
            Endpoint::Order => {
                let (account, _) = self.signed(state, request)?;
                self.own(state, account, id()?)?;
                self.advance(state, id()?);
                Ok(order_document(state, id()?))
            }
            Endpoint::Authorization => {
                let (account, _) = self.signed(state, request)?;
                self.own(state, account, id()?)?;
                Ok(authorization_document(state, id()?))
            }
            Endpoint::Challenge => {
                let (account, payload) = self.signed(state, request)?;
                let kind = path.split('/').nth(2).unwrap_or_default().to_owned();
                self.own(state, account, id()?)?;
                self.challenge(state, id()?, &kind, &payload)
            }
            Endpoint::Finalize => {
                let (account, payload) = self.signed(state, request)?;
                self.own(state, account, id()?)?;
                self.finalize(state, id()?, &payload)
            }
            Endpoint::Certificate => {
                self.signed(state, request)?;
                let certificate = state.certificates.get(id()?).ok_or_else(|| not_found("no such certificate"))?;
                let builder = Response::builder().header("content-type", "application/pem-certificate-chain");
                Ok(builder.body(Bytes::from(certificate.chain_pem.clone())).expect("the parts are valid"))
            }
            Endpoint::Revoke => {
                let (_, payload) = self.signed(state, request)?;
                let leaf = payload["certificate"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
                let found = state.certificates.iter_mut().find(|c| Some(&c.leaf) == leaf.as_ref());
                let found = found.ok_or_else(|| not_found("no such certificate"))?;
                if found.revoked {
                    return Err(problem(400, "alreadyRevoked", "it is revoked already", None));
                }
                found.revoked = true;
                let name = found.name.clone();
                state.record.revoked.push(name);
                Ok(empty(200))
            }
        }
    }

    fn directory_document(&self) -> Response<Bytes> {
        let url = |path: &str| format!("{BASE}/{path}");
        let mut directory = json!({
            "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("new-order"),
            "revokeCert": url("revoke"), "keyChange": url("key-change"),
            "meta": { "profiles": {
                "classic": "90 days", "tlsserver": "45 days", "shortlived": "160 hours",
            } },
        });
        if self.inner.options.with_renewal {
            directory["renewalInfo"] = json!(url("renewal"));
        }
        answer(200, &directory)
    }

    /// Who signed, and what.
    fn signed(&self, state: &mut State, request: &Request<Bytes>) -> Result<(usize, Value), Response<Bytes>> {
        let malformed = |why: &str| problem(400, "malformed", why, None);
        let signed = Signed::read(request.body()).ok_or_else(|| malformed("not a signed request"))?;
        self.check_envelope(state, request, &signed)?;
        let account = signed.header["kid"].as_str().and_then(|kid| kid.rsplit('/').next()?.parse::<usize>().ok());
        let account = account.ok_or_else(|| malformed("no account is named"))?;
        let known = state.accounts.get(account).filter(|key| !key.thumbprint.starts_with("forgotten"));
        let key = known.ok_or_else(|| problem(400, "accountDoesNotExist", "no such account", None))?;
        if !signed.is_signed_by(key) {
            return Err(malformed("the signature is wrong"));
        }
        Ok((account, signed.payload))
    }

    fn check_envelope(
        &self,
        state: &mut State,
        request: &Request<Bytes>,
        signed: &Signed,
    ) -> Result<(), Response<Bytes>> {
        if signed.header["url"] != request.uri().to_string() {
            return Err(problem(401, "unauthorized", "another address was signed", None));
        }
        state.posts += 1;
        let nonce = signed.header["nonce"].as_str().unwrap_or_default();
        let unlucky = self.inner.options.bad_nonce_every.is_some_and(|n| state.posts.is_multiple_of(n));
        if !state.nonces.remove(nonce) || unlucky {
            return Err(problem(400, "badNonce", "the nonce is not good", None));
        }
        Ok(())
    }

    fn account(&self, state: &mut State, request: &Request<Bytes>) -> Answer {
        let malformed = |why: &str| problem(400, "malformed", why, None);
        let signed = Signed::read(request.body()).ok_or_else(|| malformed("not a signed request"))?;
        self.check_envelope(state, request, &signed)?;
        let key = AccountKey::read(&signed.header["jwk"]).ok_or_else(|| malformed("no key"))?;
        if !signed.is_signed_by(&key) {
            return Err(malformed("the signature is wrong"));
        }
        let (id, status) = match state.accounts.iter().position(|known| *known == key) {
            Some(id) => (id, 200),
            None if signed.payload["onlyReturnExisting"] == true => {
                return Err(problem(400, "accountDoesNotExist", "no such account", None));
            }
            None if signed.payload["termsOfServiceAgreed"] != true => {
                return Err(problem(403, "userActionRequired", "agree to the terms", None));
            }
            None => {
                state.accounts.push(key);
                state.record.accounts += 1;
                (state.accounts.len() - 1, 201)
            }
        };
        let mut response = answer(status, &json!({ "status": "valid" }));
        response.headers_mut().insert("location", format!("{BASE}/account/{id}").parse().expect("an address"));
        Ok(response)
    }

    fn new_order(&self, state: &mut State, account: usize, payload: &Value) -> Answer {
        let now = self.now();
        let malformed = |why: &str| problem(400, "malformed", why, None);
        let [identifier] = payload["identifiers"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            return Err(malformed("one identifier is taken"));
        };
        let name = identifier["value"].as_str().unwrap_or_default().to_owned();
        if identifier["type"] != "dns" || name.is_empty() || name != name.to_ascii_lowercase() {
            return Err(malformed("no DNS name"));
        }
        if name.ends_with(".blocked.test") {
            return Err(problem(400, "rejectedIdentifier", "policy forbids issuing for the name", None));
        }
        let profile = payload["profile"].as_str().map(str::to_owned);
        if profile.as_deref().is_some_and(|p| !["classic", "tlsserver", "shortlived"].contains(&p)) {
            return Err(problem(400, "invalidProfile", "no such profile", None));
        }
        if let Some(known) = state.open.get(&(account, name.clone())).copied()
            && matches!(state.orders[known].status, Status::Pending | Status::Ready)
            && state.orders[known].expires_ms > now
        {
            return Ok(with_location(201, state, known));
        }
        let replaces = payload["replaces"].as_str().map(str::to_owned);
        if let Some(id) = &replaces {
            let replaced = state.by_id.get(id).map(|at| &state.certificates[*at]);
            match replaced {
                None => return Err(problem(404, "malformed", "the certificate to be replaced is not known", None)),
                Some(c) if c.replaced => {
                    return Err(problem(409, "alreadyReplaced", "it has been replaced already", None));
                }
                Some(c) if c.name != name => return Err(problem(400, "malformed", "no name in common", None)),
                Some(_) => {}
            }
        }
        if state.failing.get(&(account, name.clone())).is_some_and(|n| *n >= self.inner.options.pause_after) {
            let words = format!(
                "Your account is temporarily prevented from requesting certificates for {name} and possibly others. \
                 Please visit: {BASE}/unpause?jwt=abc"
            );
            return Err(problem(429, "rateLimited", &words, Some(86_400)));
        }
        if replaces.is_none() {
            charge(state, &name, now)?;
        }
        state.orders.push(Order {
            account,
            name: name.clone(),
            status: Status::Pending,
            token: random(),
            error: None,
            replaces,
            profile,
            polls_left: self.inner.options.polls_before_valid,
            certificate: None,
            expires_ms: now + 7 * DAY_MS,
        });
        let id = state.orders.len() - 1;
        *state.record.orders.entry(name.clone()).or_default() += 1;
        state.open.insert((account, name), id);
        Ok(with_location(201, state, id))
    }

    fn own(&self, state: &State, account: usize, order: usize) -> Result<(), Response<Bytes>> {
        match state.orders.get(order) {
            None => Err(not_found("no such order")),
            Some(order) if order.account != account && !is_forgotten(state, order.account) => {
                Err(problem(403, "unauthorized", "another account's", None))
            }
            Some(_) => Ok(()),
        }
    }

    /// What time does to an order.
    fn advance(&self, state: &mut State, id: usize) {
        let now = self.now();
        let order = &mut state.orders[id];
        match order.status {
            Status::Processing if order.polls_left > 0 => order.polls_left -= 1,
            Status::Processing => order.status = Status::Valid,
            Status::Pending | Status::Ready if order.expires_ms <= now => order.status = Status::Invalid,
            _ => {}
        }
    }

    fn challenge(&self, state: &mut State, id: usize, kind: &str, payload: &Value) -> Answer {
        let now = self.now();
        let order = &state.orders[id];
        if *payload != json!({}) || order.status != Status::Pending {
            return Ok(challenge_document(order, id, kind));
        }
        let name = order.name.clone();
        let plain = name.strip_prefix("*.").unwrap_or(&name).to_owned();
        let key_authorization = format!("{}.{}", order.token, state.accounts[order.account].thumbprint);
        let account = order.account;
        let seen = if self.inner.sight.caa_allows(&plain) {
            self.inner.sight.look(&plain, kind, &key_authorization)
        } else {
            Err(("caa", format!("CAA record for {plain} prevents issuance")))
        };
        match seen {
            Ok(()) => {
                state.orders[id].status = Status::Ready;
                state.failing.remove(&(account, name));
            }
            Err((kind, detail)) => {
                let error =
                    json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": 403 });
                let order = &mut state.orders[id];
                (order.status, order.error) = (Status::Invalid, Some(error));
                state.record.failures.entry(name.clone()).or_default().push(now);
                state.limits.count(Limit::FailedAuthorizations, &name, now);
                *state.failing.entry((account, name)).or_default() += 1;
            }
        }
        // A CA answers before it looks: the outcome shows at the next look.
        let mut document: Value = json!({ "type": kind, "status": "processing" });
        document["url"] = json!(format!("{BASE}/challenge/{kind}/{id}"));
        document["token"] = json!(state.orders[id].token);
        Ok(answer(200, &document))
    }

    fn finalize(&self, state: &mut State, id: usize, payload: &Value) -> Answer {
        if state.orders[id].status != Status::Ready {
            return Err(problem(403, "orderNotReady", "the order is not ready", None));
        }
        let bad = |why: &str| problem(400, "badCSR", why, None);
        let csr =
            payload["csr"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or_else(|| bad("none"))?;
        let order = &state.orders[id];
        if Signer::names(&csr) != Some(vec![order.name.clone()]) {
            return Err(bad("other names than were ordered"));
        }
        let life = match order.profile.as_deref() {
            Some("tlsserver") => 45 * DAY_MS,
            Some("shortlived") => 160 * 3_600_000,
            Some("classic") => 90 * DAY_MS,
            _ => self.inner.options.life_ms,
        };
        let now = self.now();
        let (from_ms, to_ms) = (now - 3_600_000, now - 3_600_000 + life);
        let serial = 0x0100_0000 + state.certificates.len() as u64;
        let made =
            self.inner.signer.sign(&csr, serial, (from_ms / 1_000, to_ms / 1_000)).ok_or_else(|| bad("unreadable"))?;
        let replaced = order.replaces.clone().and_then(|id| state.by_id.get(&id).copied());
        if let Some(old) = replaced {
            state.certificates[old].replaced = true;
        }
        let (name, profile) = (state.orders[id].name.clone(), state.orders[id].profile.clone());
        let at = state.certificates.len();
        state.by_id.insert(renewal_id(&made.leaf), at);
        // Certificates are counted when they are issued, orders when they are placed.
        if state.orders[id].replaces.is_none() {
            state.limits.count(Limit::ExactSet, &name, now);
            let plain = name.strip_prefix("*.").unwrap_or(&name);
            if !state.issued_before.contains(&name) {
                state.limits.count(Limit::RegisteredDomain, psl::domain_str(plain).unwrap_or(plain), now);
            }
        }
        state.issued_before.insert(name.clone());
        state.record.issued.push(Issued {
            name: name.clone(),
            at_ms: now,
            not_after_ms: to_ms,
            replaced: replaced.is_some(),
            profile,
        });
        let (chain_pem, leaf) = (made.chain_pem, made.leaf);
        state.certificates.push(Certificate { chain_pem, name, from_ms, to_ms, replaced: false, revoked: false, leaf });
        let order = &mut state.orders[id];
        order.certificate = Some(at);
        order.status = if order.polls_left > 0 { Status::Processing } else { Status::Valid };
        Ok(order_document(state, id))
    }

    fn renewal(&self, state: &State, id: &str) -> Answer {
        let certificate = state.by_id.get(id).map(|at| &state.certificates[*at]);
        let certificate = certificate.ok_or_else(|| not_found("no such certificate"))?;
        let life = certificate.to_ms - certificate.from_ms;
        let (start, end) = match certificate.revoked {
            true => (certificate.from_ms, certificate.from_ms + 1_000),
            false => {
                let middle = certificate.to_ms - life / 3;
                (middle - life / 60, middle + life / 60)
            }
        };
        let usual = json!({ "suggestedWindow": { "start": rfc3339(start), "end": rfc3339(end) } });
        let mut response = answer(200, state.windows.get(&certificate.name).unwrap_or(&usual));
        response.headers_mut().insert("retry-after", ASK_AGAIN_S.into());
        Ok(response)
    }
}

/// Counts a new order against the limits, of which renewals are partly free.
fn charge(state: &mut State, name: &str, now: i64) -> Result<(), Response<Bytes>> {
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let registered = psl::domain_str(plain).unwrap_or(plain).to_owned();
    let mut of = vec![(Limit::ExactSet, name.to_owned())];
    if !state.issued_before.contains(name) {
        of.extend([(Limit::NewOrders, String::new()), (Limit::RegisteredDomain, registered)]);
    }
    let failed = state.limits.check(Limit::FailedAuthorizations, name, now);
    let exceeded = of
        .iter()
        .map(|(limit, subject)| state.limits.check(*limit, subject, now))
        .chain([failed])
        .find_map(Result::err);
    if let Some((words, wait)) = exceeded {
        state.record.limited.push(words.clone());
        let seconds = u64::try_from(wait / 1_000 + 1).unwrap_or(1);
        let words = format!("{words}, retry after {} UTC", rfc3339(now + wait).replace('T', " ").replace('Z', ""));
        return Err(problem(429, "rateLimited", &words, Some(seconds)));
    }
    if !state.issued_before.contains(name) {
        state.limits.count(Limit::NewOrders, "", now);
    }
    Ok(())
}

fn is_forgotten(state: &State, account: usize) -> bool {
    state.accounts.get(account).is_some_and(|key| key.thumbprint.starts_with("forgotten"))
}

/// What RFC 9773 calls a certificate of ours: the authority's key and the serial number, both from the certificate.
fn renewal_id(leaf: &[u8]) -> String {
    // AuthorityKeyIdentifier (2.5.29.35) of rcgen: SEQUENCE { [0] 20 bytes }; found by its OID.
    const OID: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x23];
    let at = leaf.windows(OID.len()).position(|window| window == OID).expect("every certificate of ours has one");
    let tail = &leaf[at..];
    let key = tail.iter().position(|byte| *byte == 0x80).expect("a key identifier");
    let length = usize::from(tail[key + 1]);
    let authority = &tail[key + 2..key + 2 + length];
    // tbsCertificate: SEQUENCE, SEQUENCE, [0] version, INTEGER serial.
    let version = leaf.windows(5).position(|window| window == [0xa0, 0x03, 0x02, 0x01, 0x02]).expect("a version");
    let length = usize::from(leaf[version + 6]);
    let serial = &leaf[version + 7..version + 7 + length];
    format!("{}.{}", URL_SAFE_NO_PAD.encode(authority), URL_SAFE_NO_PAD.encode(serial))
}

fn with_location(status: u16, state: &State, id: usize) -> Response<Bytes> {
    let mut response = order_document(state, id);
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert("location", format!("{BASE}/order/{id}").parse().expect("an address"));
    response
}

fn order_document(state: &State, id: usize) -> Response<Bytes> {
    let order = &state.orders[id];
    let status = match order.status {
        Status::Pending => "pending",
        Status::Ready => "ready",
        Status::Processing => "processing",
        Status::Valid => "valid",
        Status::Invalid => "invalid",
    };
    let mut document = json!({
        "status": status,
        "identifiers": [{ "type": "dns", "value": order.name }],
        "authorizations": [format!("{BASE}/authorization/{id}")],
        "finalize": format!("{BASE}/finalize/{id}"),
    });
    for (key, value) in [("replaces", &order.replaces), ("profile", &order.profile)] {
        if let Some(value) = value {
            document[key] = json!(value);
        }
    }
    if let (Status::Valid, Some(certificate)) = (order.status, order.certificate) {
        document["certificate"] = json!(format!("{BASE}/certificate/{certificate}"));
    }
    answer(200, &document)
}

fn authorization_document(state: &State, id: usize) -> Response<Bytes> {
    let order = &state.orders[id];
    let plain = order.name.strip_prefix("*.");
    let status = match order.status {
        Status::Pending => "pending",
        Status::Invalid => "invalid",
        _ => "valid",
    };
    let kinds: &[&str] = if plain.is_some() { &["dns-01"] } else { &["http-01", "tls-alpn-01", "dns-01"] };
    let challenges: Vec<Value> = kinds.iter().map(|kind| challenge_value(order, id, kind)).collect();
    let mut document = json!({
        "status": status,
        "identifier": { "type": "dns", "value": plain.unwrap_or(&order.name) },
        "challenges": challenges,
    });
    if plain.is_some() {
        document["wildcard"] = json!(true);
    }
    answer(200, &document)
}

fn challenge_value(order: &Order, id: usize, kind: &str) -> Value {
    let status = match order.status {
        Status::Pending => "pending",
        Status::Invalid => "invalid",
        _ => "valid",
    };
    let mut document = json!({
        "type": kind, "url": format!("{BASE}/challenge/{kind}/{id}"), "token": order.token, "status": status,
    });
    if let Some(error) = &order.error {
        document["error"] = error.clone();
    }
    document
}

fn challenge_document(order: &Order, id: usize, kind: &str) -> Response<Bytes> {
    answer(200, &challenge_value(order, id, kind))
}

fn answer(status: u16, document: &Value) -> Response<Bytes> {
    let builder = Response::builder().status(status).header("content-type", "application/json");
    builder.body(Bytes::from(document.to_string())).expect("the parts are valid")
}

fn empty(status: u16) -> Response<Bytes> {
    Response::builder().status(status).body(Bytes::new()).expect("the parts are valid")
}

fn not_found(why: &str) -> Response<Bytes> {
    problem(404, "malformed", why, None)
}

fn random() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).expect("the system's random numbers are there");
    URL_SAFE_NO_PAD.encode(bytes)
}
