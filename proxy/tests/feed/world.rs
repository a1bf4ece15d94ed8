//! A small platform, and a feed that says what a test tells it to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use schoolgate_config::feed::{FeedAnswer, NodeReport, ReportTaken};
use schoolgate_config::model::{
    Certificate, CertificateRef, ContextKey, ContextKeyState, Domain, Fingerprint, Ownership, Plan, Pool, Revision,
    Routing, Tenant, TenantId,
};
use schoolgate_config::seal::Keeper;
use schoolgate_config::snapshot::{Change, Delta, Object, Snapshot};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_proxy::feed::adopt::{Adoption, AdoptionParts};
use schoolgate_proxy::feed::last_good::LastGoodError;
use schoolgate_proxy::feed::{FeedError, Signing, SnapshotFeed};
use schoolgate_proxy::live::NodeLive;
use schoolgate_proxy::observe::Observe;
use schoolgate_proxy::tls::Keyring;
use serde_json::json;
use tokio::sync::Notify;

/// The key-encryption key of every test.
pub(crate) fn keeper() -> Arc<Keeper> {
    Arc::new(Keeper::new(&[7; 32]))
}

pub(crate) fn tenant_id(n: u32) -> TenantId {
    TenantId::from_parts(1, u128::from(n))
}

/// Tenant number `n`, `school-<n>`, on the pool `shared` with the plan `basic`.
pub(crate) fn tenant(n: u32) -> Object {
    let tenant: Tenant = serde_json::from_value(json!({
        "id": tenant_id(n), "slug": format!("school-{n}"), "name": format!("School {n}"),
        "state": "active", "plan": "basic", "pool": "shared",
    }))
    .unwrap();
    tenant.into()
}

/// The domain `name` of tenant number `n`.
pub(crate) fn domain(name: &str, n: u32) -> Object {
    Domain {
        name: name.parse().unwrap(),
        tenant: tenant_id(n),
        primary: true,
        ownership: Ownership::Proven,
        routing: Routing::Here,
        token: String::new(),
    }
    .into()
}

pub(crate) fn plan() -> Object {
    let plan: Plan = serde_json::from_value(json!({"id": "basic", "name": "Basic"})).unwrap();
    plan.into()
}

pub(crate) fn pool(backends: &[SocketAddr]) -> Object {
    let backends: Vec<_> = backends
        .iter()
        .zip(1_u128..)
        .map(|(address, n)| {
            json!({
                "id": schoolgate_config::model::BackendId::from_parts(1, n).to_string(),
                "address": format!("http://{address}"),
            })
        })
        .collect();
    let pool: Pool = serde_json::from_value(json!({"id": "shared", "backends": backends})).unwrap();
    pool.into()
}

/// An active context key.
pub(crate) fn context_key(id: &str) -> Object {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    ContextKey {
        id: id.parse().unwrap(),
        public: pair.public_key().as_ref().to_vec().into(),
        private: keeper().seal(ContextKey::KEY_PURPOSE, id, pkcs8.as_ref()),
        state: ContextKeyState::Active,
        times: Default::default(),
    }
    .into()
}

/// Issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    /// A certificate with its sealed key.
    pub(crate) fn issue(&self, names: &[&str]) -> Arc<Certificate> {
        self.issue_sealed_by(&keeper(), names)
    }

    /// A certificate whose key only `keeper` opens.
    pub(crate) fn issue_sealed_by(&self, keeper: &Keeper, names: &[&str]) -> Arc<Certificate> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = CertificateParams::new(names.clone()).unwrap().signed_by(&key, &self.issuer).unwrap();
        let fingerprint = Fingerprint::of(leaf.der());
        let now = SystemClock.unix_s();
        Arc::new(Certificate {
            about: CertificateRef {
                fingerprint,
                names,
                not_before: now - 3_600,
                not_after: now + 90 * 86_400,
                issuer: "internal".to_owned(),
            },
            chain: vec![leaf.der().to_vec().into(), self.der.clone().into()],
            key: keeper.seal(Certificate::KEY_PURPOSE, &fingerprint.to_string(), &key.serialize_der()),
        })
    }
}

/// A platform without domains at revision 1: tenants 1 to `tenants`, a plan, a pool, a context key.
pub(crate) fn snapshot(tenants: u32) -> Snapshot {
    let mut objects = vec![plan(), pool(&[]), context_key("ctx-1")];
    objects.extend((1..=tenants).map(tenant));
    Snapshot { revision: Revision(1), objects }
}

/// The delta that leads to `to` from the revision before it.
pub(crate) fn delta(to: u64, changes: Vec<Change>) -> Delta {
    Delta { from: Revision(to - 1), to: Revision(to), changes }
}

/// A delta that adds one domain of tenant 1.
pub(crate) fn adds(to: u64, name: &str) -> Delta {
    delta(to, vec![Change::Put(domain(name, 1))])
}

/// A delta that no table takes: its domain belongs to nobody.
pub(crate) fn broken(to: u64) -> Delta {
    delta(to, vec![Change::Put(domain("nobodys.example", 4_000_000))])
}

/// What adoption works on, kept so that a test can look at it.
pub(crate) struct Node {
    pub(crate) table: Arc<ArcSwap<RoutingTable<NodeLive>>>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) signing: Signing,
    pub(crate) observe: Arc<Observe>,
    pub(crate) adoption: Arc<Adoption<NodeLive>>,
}

impl Node {
    /// Starts from what is in `dir`.
    pub(crate) fn load(dir: &Path) -> Result<Self, LastGoodError> {
        Self::load_with(dir, keeper())
    }

    pub(crate) fn load_with(dir: &Path, keeper: Arc<Keeper>) -> Result<Self, LastGoodError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let table = Arc::new(ArcSwap::from_pointee(RoutingTable::default()));
        let keyring = Arc::new(Keyring::new(Arc::clone(&clock)));
        let signing = Signing::default();
        let observe = Arc::new(Observe::off());
        let adoption = Adoption::load(AdoptionParts {
            live: NodeLive::default(),
            table: Arc::clone(&table),
            keyring: Arc::clone(&keyring),
            signing: Arc::clone(&signing),
            keeper,
            last_good: dir.to_owned(),
            observe: Arc::clone(&observe),
            clock,
        })?;
        Ok(Self { table, keyring, signing, observe, adoption: Arc::new(adoption) })
    }

    pub(crate) fn revision(&self) -> u64 {
        self.table.load().revision().0
    }

    pub(crate) fn serves(&self, name: &str) -> bool {
        self.table.load().tenant_of_domain(name).is_some()
    }

    pub(crate) fn has_certificate(&self, name: &str) -> bool {
        schoolgate_proxy::tls::Certificates::resolve(&*self.keyring, name).is_some()
    }
}

/// A feed that answers what it was told, in order, and then nothing.
#[derive(Default)]
pub(crate) struct ScriptedFeed {
    answers: Mutex<VecDeque<Result<FeedAnswer, FeedError>>>,
    told: Notify,
    asked: Mutex<Vec<Revision>>,
    reports: Mutex<Vec<NodeReport>>,
    /// Answer "nothing" at once instead of waiting.
    hasty: bool,
}

impl ScriptedFeed {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// One that never waits.
    pub(crate) fn hasty() -> Arc<Self> {
        Arc::new(Self { hasty: true, ..Self::default() })
    }

    pub(crate) fn say(&self, answer: FeedAnswer) {
        self.answers.lock().unwrap().push_back(Ok(answer));
        self.told.notify_one();
    }

    pub(crate) fn fail(&self, error: FeedError) {
        self.answers.lock().unwrap().push_back(Err(error));
        self.told.notify_one();
    }

    /// The revisions it was asked about, in order.
    pub(crate) fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().iter().map(|revision| revision.0).collect()
    }

    /// The latest report.
    pub(crate) fn report(&self) -> Option<NodeReport> {
        self.reports.lock().unwrap().last().cloned()
    }
}

#[async_trait]
impl SnapshotFeed for ScriptedFeed {
    async fn next(&self, after: Revision, wait: Duration) -> Result<FeedAnswer, FeedError> {
        self.asked.lock().unwrap().push(after);
        let heard = async {
            loop {
                if let Some(answer) = self.answers.lock().unwrap().pop_front() {
                    return answer;
                }
                self.told.notified().await;
            }
        };
        let wait = if self.hasty { Duration::ZERO } else { wait };
        tokio::time::timeout(wait, heard).await.unwrap_or(Ok(FeedAnswer::Nothing))
    }

    async fn report(&self, report: NodeReport) -> Result<ReportTaken, FeedError> {
        self.reports.lock().unwrap().push(report);
        Ok(ReportTaken::default())
    }
}

/// A feed behind which nobody is.
pub(crate) struct DeadFeed;

#[async_trait]
impl SnapshotFeed for DeadFeed {
    async fn next(&self, _: Revision, _: Duration) -> Result<FeedAnswer, FeedError> {
        Err(FeedError::Closed)
    }

    async fn report(&self, _: NodeReport) -> Result<ReportTaken, FeedError> {
        Err(FeedError::Closed)
    }
}
