//! A control server of a test's own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::feed::{FeedAnswer, NodeReport};
use schoolgate_config::model::{Certificate, CertificateRef, Der, Fingerprint, Revision, Zone};
use schoolgate_config::seal::Keeper;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_control_api::publish::{FeedServer, Publisher};
use schoolgate_control_api::{
    ContextKeys, ControlHandle, ControlOptions, ControlServer, DomainChecks, KeyRefresher, PlatformFacts, bootstrap,
};
use schoolgate_dns::{CaIdentity, Checker, CheckerOptions, ProbeOptions};
use schoolgate_store::{Actor, OpenMode, Store};
use schoolgate_testkit::{Api, ApiAnswer, Dns};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Time after which a test gives up waiting for a state.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// A control server with the zone `schools.test`, a publisher, and the super-admin's token.
pub(crate) struct Site {
    pub(crate) api: Api,
    pub(crate) store: Store,
    pub(crate) publisher: Publisher,
    pub(crate) keys: KeyRefresher,
    pub(crate) handle: Option<ControlHandle>,
    pub(crate) data: PathBuf,
    pub(crate) keeper: Keeper,
    pub(crate) dns: Dns,
    pub(crate) domain_checks: DomainChecks,
    _dir: TempDir,
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::with_issuer(false).await
    }

    pub(crate) async fn with_issuer(issues_at_once: bool) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let data = dir.path().to_owned();
        let url = format!("sqlite://{}", data.join("control.db").display());
        let store = Store::open(&url, OpenMode::Create).await.expect("a store");
        let zone = |name: &str| Zone {
            name: name.parse().expect("a name"),
            shared_host: None,
            trusted_callers: Vec::new(),
            reserved: Vec::new(),
            path_prefix: false,
            require_token: false,
        };
        store.seed(vec![zone("schools.test")]).await.expect("seeded");
        let keeper = Keeper::new(&[7; 32]);
        bootstrap(&store, &keeper, &data).await.expect("bootstrapped");
        let publisher = Publisher::load(store.clone()).await.expect("loaded");
        tokio::spawn(publisher.clone().run(std::future::pending()));
        let keys = KeyRefresher::new(store.clone(), publisher.feed(), Arc::new(SystemClock));
        tokio::spawn(keys.clone().run(std::future::pending()));
        let facts = PlatformFacts {
            assume_owned: vec!["test".parse().expect("a name")],
            addresses: vec!["192.0.2.7".parse().expect("an address")],
            issuers: vec![CaIdentity::named("first", "letsencrypt.org")],
            ..PlatformFacts::default()
        };
        let dns = Dns::start().await;
        let checker = Checker::new(CheckerOptions {
            resolvers: dns.resolvers().to_vec(),
            authoritative_port: dns.authoritative_port(),
            probe: ProbeOptions::default(),
        });
        let domain_checks = DomainChecks::new(store.clone(), checker, facts, Arc::new(SystemClock));
        let options = ControlOptions {
            keys: keys.clone(),
            listen: ([127, 0, 0, 1], 0).into(),
            socket: None,
            store: store.clone(),
            publisher: publisher.clone(),
            domain_checks: domain_checks.clone(),
            issues_at_once,
            keeper: Arc::new(Keeper::new(&[7; 32])),
            context_keys: ContextKeys::new(Arc::new(Keeper::new(&[7; 32])), &Default::default()),
        };
        let handle = ControlServer::start(options).await.expect("a server");
        let token = std::fs::read_to_string(data.join("admin.token")).expect("the admin's token");
        let api = Api::new(handle.address(), Some(&token));
        Self { api, store, publisher, keys, handle: Some(handle), data, keeper, dns, domain_checks, _dir: dir }
    }

    /// A pool `shared` and a tenant on it.
    pub(crate) async fn with_tenant(slug: &str) -> (Self, Value) {
        let site = Self::start().await;
        site.pool("shared").await;
        let tenant = site.tenant(slug).await;
        (site, tenant)
    }

    pub(crate) async fn pool(&self, id: &str) -> Value {
        let body = json!({"id": id, "backends": [{"address": "http://127.0.0.1:9001"}]});
        self.api.post("pools", body).await.expect(201)
    }

    pub(crate) async fn tenant(&self, slug: &str) -> Value {
        self.api.post("tenants", json!({"slug": slug, "name": "A school"})).await.expect(201)
    }

    /// The same API for the holder of a new token.
    pub(crate) async fn api_of(&self, token: Value) -> Api {
        let token = self.api.post("tokens", token).await.expect(201);
        self.api.with_token(token["token"].as_str().expect("a secret"))
    }

    /// A proxy that takes every revision.
    pub(crate) fn node(&self, name: &str) -> JoinHandle<()> {
        tokio::spawn(follow(self.publisher.feed(), name.to_owned()))
    }

    /// Issues what is asked for, once asked.
    pub(crate) fn issuer(&self) -> JoinHandle<()> {
        tokio::spawn(issue(self.store.clone()))
    }
}

async fn follow(feed: FeedServer, name: String) {
    let node: schoolgate_config::model::NodeId = name.parse().expect("a name");
    let mut at = Revision::NONE;
    loop {
        feed.report(report(&name, at));
        match feed.next(&node, at, Duration::from_secs(5)).await {
            FeedAnswer::Nothing => {}
            FeedAnswer::Deltas(deltas) => at = deltas.last().map_or(at, |delta| delta.to),
            FeedAnswer::Snapshot(snapshot) => at = snapshot.revision,
        }
    }
}

pub(crate) fn report(node: &str, serving: Revision) -> NodeReport {
    NodeReport {
        node: node.parse().expect("a name"),
        serving,
        refused: None,
        version: "0.1.0".into(),
        started_at_ms: 0,
        certificates: 0,
        connections: 0,
        requests_in_flight: 0,
        context_key: None,
        sealing_keys: Vec::new(),
        backends: Vec::new(),
        canaries: Vec::new(),
        notices: Vec::new(),
        unknown_hosts: Vec::new(),
        missing_keys: Vec::new(),
        cross_tenant_attempts: Vec::new(),
        quota_events: Vec::new(),
        limits: None,
        backend_changes: Vec::new(),
    }
}

async fn issue(store: Store) {
    let keeper = Keeper::new(&[7; 32]);
    let mut committed = store.committed();
    loop {
        committed.mark_unchanged();
        for want in store.certificates_due(SystemClock.unix_ms(), 10).await.expect("the store answers") {
            let leaf = want.name.as_bytes().to_vec();
            let fingerprint = Fingerprint::of(&leaf);
            let about = CertificateRef {
                fingerprint,
                names: vec![want.name.clone()],
                not_before: 0,
                not_after: i64::from(u32::MAX),
                issuer: "internal".into(),
            };
            let key = keeper.seal(Certificate::KEY_PURPOSE, &fingerprint.to_string(), b"key");
            let certificate = Certificate { about, chain: vec![Der::from(leaf)], key };
            let mut transaction = store.begin(Actor::system("acme")).await.expect("a transaction");
            transaction.certificate_issued(&want, certificate, i64::MAX >> 1).await.expect("noted");
            transaction.commit("certificate.issue", &want.name, Value::Null).await.expect("committed");
        }
        if committed.changed().await.is_err() {
            return;
        }
    }
}

/// The pointers of a refused document, sorted.
pub(crate) fn pointers(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().expect("errors");
    let mut pointers: Vec<String> = errors.iter().map(|e| e["pointer"].as_str().expect("text").to_owned()).collect();
    pointers.sort();
    pointers
}

/// Asserts that an answer is a problem document with this status and code, and gives it.
#[track_caller]
pub(crate) fn problem(answer: ApiAnswer, status: u16, code: &str) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text);
    let request_id = answer.header("x-request-id").expect("a request id").to_owned();
    let document = answer.expect(status);
    assert_eq!(document["error"], code, "{document}");
    assert_eq!(document["status"], status);
    assert_eq!(document["request_id"], request_id.as_str());
    document
}
