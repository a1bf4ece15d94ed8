//! Wildcards by DNS, which Pebble asks of our own responder, and renewal windows of the newest Pebble. The rest of Pebble
//! is in the end-to-end tests.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not there")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schoolgate_acme::directory::Directory;
use schoolgate_acme::fleet::{Adopted, Fleet};
use schoolgate_acme::orders::{Authority, Orders, World};
use schoolgate_acme::readiness::StorePreflight;
use schoolgate_acme::transport::HttpsTransport;
use schoolgate_config::model::{Certificate, DomainName, Zone};
use schoolgate_config::seal::Keeper;
use schoolgate_config::settings::{AcmeChallenge, AcmeLimits};
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_dns::{Responder, ResponderOptions, TxtSource, Unavailable};
use schoolgate_store::acme::QueueEntry;
use schoolgate_store::{Actor, Lease, OpenMode, Store, StoreError};
use schoolgate_testkit::{Pebble, PebbleBuilder};
use serde_json::json;

/// Where a Pebble with renewal information and profiles (2.10, Debian sid) is to be found.
const NEWEST: &str = "SCHOOLGATE_NEWEST_PEBBLE";

/// Time for an order on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// DNS alone proves what is ordered here: no proxy is asked.
struct NoProxies;

#[async_trait]
impl Fleet for NoProxies {
    async fn serves(&self, _change: u64) -> Result<Adopted, StoreError> {
        Ok(Adopted::Everywhere)
    }
}

/// What the store says is to be proven, for our own DNS responder, which Pebble asks.
struct Proofs(Store);

#[async_trait]
impl TxtSource for Proofs {
    fn zones(&self) -> Vec<DomainName> {
        self.0.head().table.zones().map(|zone| zone.name.clone()).collect()
    }

    async fn values_of(&self, name: &str) -> Result<Vec<String>, Unavailable> {
        self.0.txt_values(name).await.map_err(|error| Unavailable(error.to_string()))
    }
}

struct Site {
    store: Store,
    orders: Orders,
    lease: Lease,
    pebble: Pebble,
    _responder: Responder,
    _dir: tempfile::TempDir,
}

impl Site {
    /// A platform with the zone `schools.test`.
    async fn start(pebble: PebbleBuilder, profile: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open(&url, OpenMode::Create).await.unwrap();
        let zone: Zone = serde_json::from_value(json!({ "name": "schools.test" })).unwrap();
        store.seed(vec![zone]).await.unwrap();
        let mut transaction = store.begin(Actor::system("test")).await.unwrap();
        transaction.set_certificate_issuer("*.schools.test", "acme").await.unwrap();
        transaction.finish().await.unwrap();
        let options = ResponderOptions { listen: "127.0.0.1:0".parse().unwrap(), name: None };
        let responder = Responder::start(options, Arc::new(Proofs(store.clone()))).await.unwrap();
        let mut pebble = pebble.asking(responder.address()).build();
        let nowhere = "127.0.0.1:9".parse().unwrap();
        pebble.start(nowhere, nowhere).await;
        let transport = HttpsTransport::new(Some(&pebble.root_ca())).unwrap();
        let world = World {
            store: store.clone(),
            keeper: Arc::new(Keeper::new(&[3; 32])),
            clock: Arc::new(SystemClock),
            fleet: Arc::new(NoProxies),
            preflight: Arc::new(StorePreflight::new(store.clone(), AcmeChallenge::Http01)),
        };
        let authority = Authority {
            id: "pebble".parse().unwrap(),
            directory: Directory::new(&pebble.directory(), Arc::new(transport)),
            contact: Vec::new(),
            binding: None,
            profile: profile.map(str::to_owned),
            limits: AcmeLimits::default(),
        };
        let lease = store.take_lease("certificates", "test", WITHIN * 10).await.unwrap().unwrap();
        Self { orders: Orders::new(world, vec![authority]), store, lease, pebble, _responder: responder, _dir: dir }
    }

    async fn entry(&self) -> QueueEntry {
        self.store.acme_entry(SystemClock.unix_ms(), "*.schools.test").await.unwrap().unwrap()
    }

    /// Works until this many certificates were issued.
    async fn issue(&self, certificates: u64) {
        let work = async {
            loop {
                self.orders.step(&self.lease).await.unwrap();
                let totals = self.store.acme_totals().await.unwrap();
                if totals.iter().any(|(_, result, count)| result == "issued" && *count == certificates) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let done = tokio::time::timeout(WITHIN, work).await;
        let entry = self.entry().await;
        assert!(done.is_ok(), "{entry:?}");
    }
}

#[tokio::test]
async fn a_wildcard_is_proven_by_dns() {
    let site = Site::start(Pebble::builder(), None).await;
    site.issue(1).await;
    let fingerprint = site.entry().await.want.fingerprint.unwrap();
    let certificate = site.store.get::<Certificate>(&fingerprint).await.unwrap().unwrap().value;
    assert_eq!(certificate.about.names, ["*.schools.test"]);
    assert!(site.store.txt_values("_acme-challenge.schools.test").await.unwrap().is_empty(), "it was taken away");
}

#[tokio::test]
async fn the_newest_pebble_says_when_to_renew_and_takes_the_replacement() {
    let Some(program) = std::env::var_os(NEWEST).map(PathBuf::from) else {
        #[expect(clippy::print_stderr, reason = "a test that does not test has to say so")]
        {
            eprintln!(
                "SKIPPED: {NEWEST} does not name a Pebble of 2.10 or newer; renewal windows were not tried against it"
            );
        }
        return;
    };
    let site = Site::start(Pebble::builder().newest(&program), Some("classic")).await;
    site.issue(1).await;
    let asked = tokio::time::timeout(WITHIN, async {
        while site.entry().await.renewal.is_none() {
            site.orders.step(&site.lease).await.unwrap();
        }
    });
    asked.await.expect("it says when to renew");
    let mut transaction = site.store.begin(Actor::system("test")).await.unwrap();
    assert!(transaction.retry_certificate("*.schools.test").await.unwrap());
    transaction.commit("certificate.retry", "test", json!(null)).await.unwrap();
    site.issue(2).await;
    assert!(site.pebble.log().contains("replaces"), "the order named what it replaces");
}
