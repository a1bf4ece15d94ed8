//! A store, a CA, DNS, and the worker between them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use ring::digest::{SHA256, digest};
use schoolgate_acme::directory::Directory;
use schoolgate_acme::fleet::{Adopted, Fleet};
use schoolgate_acme::orders::{Authority, Issuers, Orders, World as Needs};
use schoolgate_acme::readiness::StorePreflight;
use schoolgate_acme::transport::{Transport, Unreachable};
use schoolgate_config::model::{
    Certificate, Challenge, ChallengeAnswer, Domain, DomainName, Ownership, Pool, Routing, Tenant, TenantId, Zone,
};
use schoolgate_config::seal::Keeper;
use schoolgate_config::settings::{AcmeChallenge, AcmeLimits};
use schoolgate_config::time::{Clock, ManualClock};
use schoolgate_mock_ca::{MockCa, MockCaBuilder, Sight};
use schoolgate_store::acme::QueueEntry;
use schoolgate_store::{Actor, Lease, OpenMode, Store, StoreError};
use serde_json::json;

pub(crate) const DAY_MS: i64 = 86_400_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const MINUTE_MS: i64 = 60_000;

/// Where the clock begins.
pub(crate) const START_MS: i64 = 1_800_000_000_000;

/// Longer than any test: leases are not what these are about.
const LEASE_FOR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What the CA sees of the world: names whose DNS is right are answered for as proxies would.
pub(crate) struct Outside {
    store: Store,
    /// Names that do not point here, and what the CA says of them.
    pub(crate) wrong: Mutex<HashMap<String, &'static str>>,
    pub(crate) caa_forbids: Mutex<HashSet<String>>,
    txt: Mutex<HashMap<String, Vec<String>>>,
    /// The ways of proving that were looked at.
    pub(crate) looked: Mutex<Vec<String>>,
}

impl Sight for Outside {
    fn look(&self, name: &str, kind: &str, key_authorization: &str) -> Result<(), (&'static str, String)> {
        self.looked.lock().unwrap().push(kind.to_owned());
        if let Some(problem) = self.wrong.lock().unwrap().get(name) {
            return Err((problem, format!("what was found for {name} is not what was expected")));
        }
        let head = self.store.head();
        let table = &head.table;
        let hash = digest(&SHA256, key_authorization.as_bytes());
        let shown = match kind {
            "http-01" => {
                let challenge = table.challenge(name);
                let account = match challenge.map(|challenge| &challenge.answer) {
                    Some(ChallengeAnswer::Http01 { ca }) => table.acme_account(ca),
                    _ => table.primary_acme_account(),
                };
                account.is_some_and(|a| key_authorization.ends_with(&format!(".{}", a.thumbprint)))
            }
            "tls-alpn-01" => table.challenge(name).is_some_and(|challenge| {
                matches!(&challenge.answer, ChallengeAnswer::TlsAlpn01 { digest } if digest == hash.as_ref())
            }),
            _ => {
                let txt = self.txt.lock().unwrap();
                let value = URL_SAFE_NO_PAD.encode(hash);
                txt.get(name).is_some_and(|values| values.contains(&value))
            }
        };
        if shown { Ok(()) } else { Err(("unauthorized", format!("nothing is shown for {name}"))) }
    }

    fn caa_allows(&self, name: &str) -> bool {
        !self.caa_forbids.lock().unwrap().contains(name)
    }
}

/// The way to the CA, which can be cut at one request.
pub(crate) struct Wire {
    ca: MockCa,
    outside: Arc<Outside>,
    sent: AtomicUsize,
    /// At which request it is cut, and whether the CA hears that one.
    cut: Mutex<Option<(usize, bool)>>,
    pub(crate) was_cut: tokio::sync::Notify,
    /// Which request waits on its way.
    hold: Mutex<Option<usize>>,
    pub(crate) is_held: tokio::sync::Notify,
    pub(crate) go_on: tokio::sync::Notify,
}

impl Wire {
    pub(crate) fn cut_at(&self, request: usize, heard: bool) {
        self.sent.store(0, Ordering::SeqCst);
        *self.cut.lock().unwrap() = Some((request, heard));
    }

    /// Lets the n-th request from now wait until it is told to go on.
    pub(crate) fn hold_at(&self, request: usize) {
        self.sent.store(0, Ordering::SeqCst);
        *self.hold.lock().unwrap() = Some(request);
    }

    pub(crate) fn mend(&self) {
        *self.cut.lock().unwrap() = None;
    }
}

#[async_trait]
impl Transport for Wire {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unreachable> {
        if request.uri().path().starts_with("/challenge/dns-01/") {
            // A CA asks our DNS; here what it would be told is fetched before.
            let store = &self.outside.store;
            let zone = store.head().table.zones().map(|zone| zone.name.to_string()).collect::<Vec<_>>();
            for name in zone {
                let values = store.txt_values(&format!("_acme-challenge.{name}")).await.unwrap();
                self.outside.txt.lock().unwrap().insert(name, values);
            }
        }
        let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        let (cut, hold) = (*self.cut.lock().unwrap(), *self.hold.lock().unwrap());
        if hold == Some(number) {
            self.is_held.notify_one();
            self.go_on.notified().await;
        }
        match cut {
            Some((at, heard)) if at == number => {
                if heard {
                    let _ = self.ca.handle(&request);
                }
                self.was_cut.notify_one();
                std::future::pending().await
            }
            _ => match self.ca.handle(&request) {
                Some(response) => Ok(response),
                None => std::future::pending().await,
            },
        }
    }
}

/// Proxies that serve everything at once, or nothing.
pub(crate) struct Proxies(pub(crate) AtomicBool);

#[async_trait]
impl Fleet for Proxies {
    async fn serves(&self, _change: u64) -> Result<Adopted, StoreError> {
        Ok(match self.0.load(Ordering::SeqCst) {
            true => Adopted::Everywhere,
            false => Adopted::NotYet("the proxy p1 is slow".to_owned()),
        })
    }
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) ca: MockCa,
    pub(crate) second: Option<MockCa>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) lease: Lease,
    pub(crate) orders: Orders,
    pub(crate) method: AcmeChallenge,
    pub(crate) profile: Option<String>,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(MockCa::builder()).await
    }

    pub(crate) async fn with(ca: MockCaBuilder) -> Self {
        let dir = directory();
        let clock = Arc::new(ManualClock::at(START_MS));
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open_at(&url, OpenMode::Create, clock.clone()).await.unwrap();
        store.seed(Vec::new()).await.unwrap();
        let pool: Pool = serde_json::from_value(json!({ "id": "shared" })).unwrap();
        let mut transaction = store.begin(Actor::system("test")).await.unwrap();
        transaction.insert(pool).await.unwrap();
        transaction.commit("test", "test", json!(null)).await.unwrap();

        let outside = Arc::new(Outside {
            store: store.clone(),
            wrong: Mutex::default(),
            caa_forbids: Mutex::default(),
            txt: Mutex::default(),
            looked: Mutex::default(),
        });
        let ca = ca.open(clock.clone(), outside.clone());
        let wire = Arc::new(Wire {
            ca: ca.clone(),
            outside: outside.clone(),
            sent: AtomicUsize::new(0),
            cut: Mutex::default(),
            was_cut: tokio::sync::Notify::new(),
            hold: Mutex::default(),
            is_held: tokio::sync::Notify::new(),
            go_on: tokio::sync::Notify::new(),
        });
        let lease = store.take_lease("certificates", "test", LEASE_FOR).await.unwrap().unwrap();
        let mut world = Self {
            orders: Orders::new(needs(&store, &clock, AcmeChallenge::Http01), Vec::new()),
            store,
            clock,
            keeper: Arc::new(Keeper::new(&[3; 32])),
            ca,
            second: None,
            outside,
            wire,
            proxies: Arc::new(Proxies(AtomicBool::new(true))),
            lease,
            method: AcmeChallenge::Http01,
            profile: None,
            dir,
        };
        world.restart();
        world
    }

    /// A worker as a new process would have it: it knows what is in the store and nothing else.
    pub(crate) fn restart(&mut self) {
        let authority = |id: &str, ca: &MockCa, transport: Arc<dyn Transport>| Authority {
            id: id.parse().unwrap(),
            directory: Directory::new(&ca.directory(), transport).answering_within(Duration::from_millis(200)),
            contact: vec!["mailto:it@platform.test".to_owned()],
            binding: None,
            profile: self.profile.clone(),
            limits: AcmeLimits::default(),
        };
        let mut authorities = vec![authority("first", &self.ca, self.wire.clone())];
        if let Some(second) = &self.second {
            let wire = Arc::new(Wire {
                ca: second.clone(),
                outside: self.outside.clone(),
                sent: AtomicUsize::new(0),
                cut: Mutex::default(),
                was_cut: tokio::sync::Notify::new(),
                hold: Mutex::default(),
                is_held: tokio::sync::Notify::new(),
                go_on: tokio::sync::Notify::new(),
            });
            authorities.push(authority("second", second, wire));
        }
        let needs = Needs {
            keeper: self.keeper.clone(),
            fleet: self.proxies.clone(),
            ..needs(&self.store, &self.clock, self.method)
        };
        self.orders = Orders::new(needs, authorities);
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.unix_ms()
    }

    /// Another school, with these domains, all proven and pointing here.
    pub(crate) async fn school(&self, slug: &str, names: &[String]) -> TenantId {
        let tenant: Tenant = serde_json::from_value(json!({
            "id": TenantId::generate(), "slug": slug, "name": slug, "state": "active", "plan": "basic", "pool": "shared",
        }))
        .unwrap();
        let id = tenant.id;
        let mut transaction = self.store.begin(Actor::system("test")).await.unwrap();
        transaction.insert(tenant).await.unwrap();
        for name in names {
            transaction.insert(domain(name, id, Routing::Here)).await.unwrap();
        }
        transaction.commit("test", "test", json!(null)).await.unwrap();
        self.assign().await;
        id
    }

    pub(crate) async fn route(&self, name: &str, routing: Routing) {
        let mut transaction = self.store.begin(Actor::system("test")).await.unwrap();
        let key = DomainName::parse(name).unwrap();
        let before = transaction.get::<Domain>(&key).await.unwrap().unwrap().value;
        transaction.update(Domain { routing, ..before }, None).await.unwrap();
        transaction.commit("test", "test", json!(null)).await.unwrap();
    }

    pub(crate) async fn zone(&self, name: &str) {
        let zone: Zone = serde_json::from_value(json!({ "name": name })).unwrap();
        let mut transaction = self.store.begin(Actor::system("test")).await.unwrap();
        transaction.insert(zone).await.unwrap();
        transaction.commit("test", "test", json!(null)).await.unwrap();
        self.assign().await;
    }

    /// What the internal worker does with names that are not its own.
    async fn assign(&self) {
        let issuers = Issuers::acme_but(Vec::new());
        let due = self.store.certificates_due(self.now(), 100_000).await.unwrap();
        let mut transaction = self.store.begin(Actor::system("test")).await.unwrap();
        for want in due {
            transaction.set_certificate_issuer(&want.name, issuers.of(&want.name)).await.unwrap();
        }
        transaction.finish().await.unwrap();
    }

    /// Works until there is nothing to do at this moment; gives what it rests for.
    pub(crate) async fn work(&self) -> Option<i64> {
        for _ in 0..20_000 {
            let outcome = self.orders.step(&self.lease).await.unwrap();
            if outcome.is_idle() {
                return outcome.rest_until_ms;
            }
        }
        panic!("it never rests");
    }

    /// Works for so long, looking whenever something is due.
    pub(crate) async fn live(&self, for_ms: i64) {
        let end = self.now() + for_ms;
        loop {
            let rest = self.work().await;
            let due = self.store.next_acme_due().await.unwrap();
            let next = match (due, rest) {
                (Some(due), Some(rest)) if due <= self.now() => rest,
                (Some(due), _) => due,
                (None, rest) => rest.unwrap_or(end),
            };
            if next >= end || self.now() >= end {
                self.clock.advance_ms(end - self.now());
                self.work().await;
                return;
            }
            self.clock.advance_ms((next - self.now()).max(1_000));
        }
    }

    pub(crate) async fn entry(&self, name: &str) -> QueueEntry {
        self.store.acme_entry(self.now(), name).await.unwrap().unwrap()
    }

    pub(crate) async fn certificate(&self, name: &str) -> Option<Certificate> {
        let fingerprint = self.entry(name).await.want.fingerprint?;
        Some(self.store.get::<Certificate>(&fingerprint).await.unwrap()?.value)
    }

    pub(crate) async fn has_challenges(&self) -> bool {
        self.store.count::<Challenge>(&Default::default()).await.unwrap() > 0
    }

    pub(crate) fn orders_of(&self, name: &str) -> usize {
        self.ca.record().orders.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn break_dns(&self, name: &str, problem: &'static str) {
        self.outside.wrong.lock().unwrap().insert(name.to_owned(), problem);
    }

    pub(crate) fn mend_dns(&self, name: &str) {
        self.outside.wrong.lock().unwrap().remove(name);
    }
}

/// Where the store is: in memory where the system has such a place. Whether a flush reaches the disk is not what these
/// are about, and four months of ten thousand names are some hundred thousand of them.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn needs(store: &Store, clock: &Arc<ManualClock>, method: AcmeChallenge) -> Needs {
    Needs {
        store: store.clone(),
        keeper: Arc::new(Keeper::new(&[3; 32])),
        clock: clock.clone(),
        fleet: Arc::new(Proxies(AtomicBool::new(true))),
        preflight: Arc::new(StorePreflight::new(store.clone(), method)),
    }
}

fn domain(name: &str, tenant: TenantId, routing: Routing) -> Domain {
    Domain {
        name: DomainName::parse(name).unwrap(),
        tenant,
        primary: false,
        ownership: Ownership::Proven,
        routing,
        token: "t".into(),
    }
}

pub(crate) fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}
